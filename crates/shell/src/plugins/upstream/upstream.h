/* What is needed to offer upstream's functions: its types, the library a plugin brings, and asking the shell. */
#ifndef FFS_UPSTREAM_H
#define FFS_UPSTREAM_H

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct flux_plugin flux_plugin_t;
typedef struct flux_plugin_arg flux_plugin_arg_t;
typedef struct flux_handle flux_t;
typedef struct flux_shell flux_shell_t;
typedef struct shell_task flux_shell_task_t;
typedef struct flux_command flux_cmd_t;
typedef struct json json_t;
typedef void (*flux_free_f) (void *arg);

struct flux_shell {
    int unused;
};
struct shell_task {
    int index; /* -1: the one that callbacks are about */
};

/* Functions of the libraries that the plugin brings. */
#define LIBRARY(X)                                                                          \
    X (flux_plugin_t *, flux_plugin_create, (void))                                         \
    X (void, flux_plugin_destroy, (flux_plugin_t *))                                        \
    X (int, flux_plugin_set_flags, (flux_plugin_t *, int))                                  \
    X (int, flux_plugin_set_conf, (flux_plugin_t *, const char *))                          \
    X (int, flux_plugin_set_name, (flux_plugin_t *, const char *))                          \
    X (const char *, flux_plugin_get_name, (flux_plugin_t *))                               \
    X (int, flux_plugin_load_dso, (flux_plugin_t *, const char *))                          \
    X (const char *, flux_plugin_strerror, (flux_plugin_t *))                               \
    X (const void *, flux_plugin_match_handler, (flux_plugin_t *, const char *))            \
    X (int, flux_plugin_call, (flux_plugin_t *, const char *, flux_plugin_arg_t *))         \
    X (int, flux_plugin_aux_set, (flux_plugin_t *, const char *, void *, flux_free_f))      \
    X (void *, flux_plugin_aux_get, (flux_plugin_t *, const char *))                        \
    X (flux_plugin_arg_t *, flux_plugin_arg_create, (void))                                 \
    X (void, flux_plugin_arg_destroy, (flux_plugin_arg_t *))                                \
    X (int, flux_plugin_arg_set, (flux_plugin_arg_t *, int, const char *))                  \
    X (int, flux_plugin_arg_get, (flux_plugin_arg_t *, int, char **))                       \
    X (flux_t *, flux_open, (const char *, int))                                            \
    X (json_t *, json_loads, (const char *, size_t, void *))                                \
    X (char *, json_dumps, (const json_t *, size_t))                                        \
    X (json_t *, json_vpack_ex, (void *, size_t, const char *, va_list))                    \
    X (int, json_vunpack_ex, (json_t *, void *, size_t, const char *, va_list))             \
    X (json_t *, json_string, (const char *))

#define MEMBER(result, name, params) result (*name) params;
extern struct ffs_functions {
    LIBRARY (MEMBER)
} ffs_lib;
extern void *ffs_library;
#define lib ffs_lib
#define library ffs_library

enum { ARG_IN = 0, ARG_OUT = 1, DECODE_ANY = 4, ENCODE_ANY = 512, RTLD_LAZY_FLAG = 1 };

/* The answer as JSON, to be freed; NULL, with errno set, if it was refused. */
char *ffs_ask (const char *method, const char *params);
void ffs_log (const char *component, int level, const char *file, int line, const char *text);


/* Where flux_shell_fatal(), which does not return, goes on, if a plugin is being called. */
extern jmp_buf ffs_fatal;
extern int ffs_depth;
/* Keeps values for flux_shell_aux_set(). */
extern flux_plugin_t *ffs_auxes;

/* Asking. */

static inline int invalid (void)
{
    errno = EINVAL;
    return -1;
}

/* A format of jansson as text, to be freed. */
static inline char *vpack (const char *fmt, va_list ap)
{
    json_t *o = lib.json_vpack_ex (NULL, 0, fmt, ap);
    char *text = o ? lib.json_dumps (o, ENCODE_ANY) : NULL;
    if (!text)
        errno = EINVAL;
    return text;
}

static inline char *ask (const char *method, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    char *params = vpack (fmt, ap);
    va_end (ap);
    char *answer = params ? ffs_ask (method, params) : NULL;
    int saved = errno;
    free (params);
    errno = saved;
    return answer;
}

static inline int done (char *answer)
{
    free (answer);
    return answer ? 0 : -1;
}

/* Unpacks an answer, which is freed; its texts stay. */
static inline int unpack (char *answer, const char *fmt, va_list ap)
{
    json_t *o = answer ? lib.json_loads (answer, DECODE_ANY, NULL) : NULL;
    free (answer);
    if (!o)
        return -1;
    if (lib.json_vunpack_ex (o, NULL, 0, fmt, ap) < 0)
        return invalid ();
    return 0;
}

static inline int give (char *answer, char **to)
{
    *to = answer;
    return answer ? 0 : -1;
}

/* A text of an answer; it stays. NULL for null. */
static inline const char *text (char *answer)
{
    const char *found = NULL;
    json_t *o = answer ? lib.json_loads (answer, DECODE_ANY, NULL) : NULL;
    free (answer);
    const char *(*value) (const json_t *) = dlsym (library, "json_string_value");
    if (o && value)
        found = value (o);
    return found;
}

static inline bool is_null (const char *answer)
{
    return answer && strcmp (answer, "null") == 0;
}

#define FORMAT(buffer, size, fmt)              \
    char buffer[size];                         \
    do {                                       \
        va_list ap;                            \
        va_start (ap, fmt);                    \
        vsnprintf (buffer, size, fmt, ap);     \
        va_end (ap);                           \
    } while (0)

#define UNPACK(answer)                         \
    do {                                       \
        va_list ap;                            \
        va_start (ap, fmt);                    \
        int code = unpack (answer, fmt, ap);   \
        va_end (ap);                           \
        return code;                           \
    } while (0)

#endif
