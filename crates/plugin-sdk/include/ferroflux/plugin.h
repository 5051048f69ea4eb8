/* What every plugin of Ferroflux is made of, whatever it is loaded into.
 *
 * A plugin is a shared object that exports ferroflux_plugin_v1(). The host hands it a table of
 * functions and a handle. Both tables and versions only grow: a member is there if the table's
 * `size` reaches beyond it (FF_HAS).
 *
 * Texts that are JSON are UTF-8 and end with a zero byte. A text that a function returns belongs to
 * the host and is good until the next call with the same handle. Functions return 0, or -1 with
 * errno set and ff->error() saying why. They work only on the thread, and during the time, of a call
 * into the plugin.
 */
#ifndef FERROFLUX_PLUGIN_H
#define FERROFLUX_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FF_PLUGIN_ABI 1

typedef struct ff_plugin ff_plugin;
typedef struct ff_args ff_args;

/* Called for a topic. What it returns is told to the host: below 0 is failure. */
typedef int (*ff_handler) (ff_plugin *p, const char *topic, ff_args *args, void *data);
typedef void (*ff_free) (void *value);

enum {
    FF_IN = 0,
    FF_OUT = 1,
    FF_REPLACE = 2 /* instead of merging into what is there */
};

typedef struct ff_host {
    size_t size;
    uint32_t abi;
    const char *kind; /* "jobtap" or "shell" */

    /* Handlers: `topic` may be a glob; of one plugin the first that matches is called. */
    int (*add_handler) (ff_plugin *p, const char *topic, ff_handler handler, void *data);
    int (*remove_handler) (ff_plugin *p, const char *topic);

    /* The plugin itself. */
    int (*set_name) (ff_plugin *p, const char *name);
    const char *(*name) (ff_plugin *p);
    const char *(*path) (ff_plugin *p);
    const char *(*conf) (ff_plugin *p); /* a JSON object */
    const char *(*error) (ff_plugin *p);

    /* Arguments: one JSON object goes in, one comes out. */
    const char *(*args_get) (ff_args *args, int flags);
    int (*args_set) (ff_args *args, int flags, const char *json);
    ff_args *(*args_new) (void);
    void (*args_free) (ff_args *args);
    /* Say why: puts `errmsg` into what comes out (`args` may be NULL). Always returns -1, for `return`. */
    int (*fail) (ff_plugin *p, ff_args *args, const char *message);

    /* Values the plugin keeps with its handle. `release` is called when one is replaced, or the plugin goes. */
    int (*aux_set) (ff_plugin *p, const char *key, void *value, ff_free release);
    void *(*aux_get) (ff_plugin *p, const char *key);

    /* severity is that of syslog(3). */
    void (*log) (ff_plugin *p, int severity, const char *text);

    /* The table of what only this kind of host has, or NULL. */
    const void *(*extension) (ff_plugin *p, const char *kind);

    /* Ask the host by name: `params` and what is put into *answer are JSON. For what has no function. */
    int (*ask) (ff_plugin *p, const char *method, const char *params, const char **answer);

    /* The value at a dotted path of the arguments: a string as it is, anything else as JSON; NULL if there is none. */
    const char *(*args_find) (ff_args *args, int flags, const char *path);
} ff_host;

#define FF_HAS(table, member) \
    ((table)->size >= offsetof (__typeof__ (*(table)), member) + sizeof ((table)->member))

/* The entry point. Keep `host`; a plugin that returns anything but 0 is not loaded. */
int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p);

#ifdef __cplusplus
}
#endif

#endif
