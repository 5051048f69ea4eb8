/* What the files of C here share: upstream's types as far as they matter, its library's functions, and how to ask ours. */
#ifndef JOBTAP_EXEC_OFFER_H
#define JOBTAP_EXEC_OFFER_H

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct flux_plugin flux_plugin_t;
typedef struct flux_plugin_arg flux_plugin_arg_t;
typedef struct flux_handle flux_t;
typedef struct flux_msg flux_msg_t;
typedef struct flux_msg_handler flux_msg_handler_t;
typedef struct flux_reactor flux_reactor_t;
typedef struct flux_watcher flux_watcher_t;
typedef uint64_t flux_jobid_t;
typedef void (*flux_free_f) (void *arg);
typedef int (*flux_plugin_f) (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data);
typedef void (*flux_msg_handler_f) (flux_t *h, flux_msg_handler_t *mh, const flux_msg_t *msg, void *arg);
typedef void (*flux_watcher_f) (flux_reactor_t *r, flux_watcher_t *w, int revents, void *arg);

struct flux_plugin_handler {
    const char *topic;
    flux_plugin_f cb;
    void *data;
};

enum { ARG_IN = 0, ARG_OUT = 1 };

/* In main.rs. The answer as JSON, to be freed; NULL, with errno set, if it was refused. */
char *ff_ask (const char *method, const char *params);
/* Called when the descriptor of ff_run() can be read. */
void ff_readable (void);

/* Functions of the library that the plugin brings. */
#define LIBRARY(X)                                                                                   \
    X (flux_plugin_t *, flux_plugin_create, (void))                                                  \
    X (void, flux_plugin_destroy, (flux_plugin_t *))                                                 \
    X (int, flux_plugin_set_flags, (flux_plugin_t *, int))                                           \
    X (int, flux_plugin_set_conf, (flux_plugin_t *, const char *))                                   \
    X (int, flux_plugin_set_name, (flux_plugin_t *, const char *))                                   \
    X (const char *, flux_plugin_get_name, (flux_plugin_t *))                                        \
    X (int, flux_plugin_load_dso, (flux_plugin_t *, const char *))                                   \
    X (const char *, flux_plugin_strerror, (flux_plugin_t *))                                        \
    X (int, flux_plugin_add_handler, (flux_plugin_t *, const char *, flux_plugin_f, void *))         \
    X (int, flux_plugin_remove_handler, (flux_plugin_t *, const char *))                             \
    X (int, flux_plugin_call, (flux_plugin_t *, const char *, flux_plugin_arg_t *))                  \
    X (flux_plugin_arg_t *, flux_plugin_arg_create, (void))                                          \
    X (void, flux_plugin_arg_destroy, (flux_plugin_arg_t *))                                         \
    X (int, flux_plugin_arg_set, (flux_plugin_arg_t *, int, const char *))                           \
    X (int, flux_plugin_arg_get, (flux_plugin_arg_t *, int, char **))                                \
    X (int, flux_plugin_arg_vpack, (flux_plugin_arg_t *, int, const char *, va_list))                \
    X (flux_t *, flux_open, (const char *, int))                                                     \
    X (void, flux_log_set_appname, (flux_t *, const char *))                                         \
    X (flux_reactor_t *, flux_get_reactor, (flux_t *))                                               \
    X (int, flux_reactor_run, (flux_reactor_t *, int))                                               \
    X (flux_watcher_t *, flux_fd_watcher_create, (flux_reactor_t *, int, int, flux_watcher_f, void *)) \
    X (void, flux_watcher_start, (flux_watcher_t *))                                                 \
    X (flux_msg_t *, flux_request_encode, (const char *, const char *))                              \
    X (int, flux_msg_set_userid, (flux_msg_t *, uint32_t))                                           \
    X (int, flux_msg_set_rolemask, (flux_msg_t *, uint32_t))                                         \
    X (void, flux_msg_decref, (const flux_msg_t *))                                                  \
    X (int, flux_respond, (flux_t *, const flux_msg_t *, const char *))                              \
    X (int, flux_respond_error, (flux_t *, const flux_msg_t *, int, const char *))

#define MEMBER(result, name, params) result (*name) params;
struct library {
    LIBRARY (MEMBER)
};
extern struct library lib;

extern flux_t *handle;
/* The name of the plugin's file. */
extern const char *base;

/* The text that a format of jansson makes, to be freed. */
char *vpack (const char *fmt, va_list ap);
char *pack (const char *fmt, ...);
/* Ask with parameters by a format, or none; the answer is to be freed. */
char *ask (const char *method, const char *fmt, ...);
/* Only whether it was done. */
int tell (const char *method, const char *fmt, ...);
/* Ask with a member that is JSON already; frees both texts. */
int tell_with (const char *method, char *head, const char *key, char *json);

/* Remember a service of the plugin. */
int service_add (const char *method, flux_msg_handler_f cb, void *arg);
/* Let go of all values kept with jobs. */
void aux_clear (void);

#endif
