/* For plugins in C that were written for upstream's hosts: its names for what all plugins do, on top of ferroflux/plugin.h.
 *
 * Compile the plugin as it is, with this directory's parent in front (-I .../include/compat -I .../include), and link
 * jansson. What needs more of libflux-core than is here (reactors, futures, RPCs) does not compile: load such a plugin as
 * upstream's build made it. Each plugin is one shared object; its entry point is made here and calls flux_plugin_init().
 */
#ifndef FERROFLUX_COMPAT_FLUX_CORE_H
#define FERROFLUX_COMPAT_FLUX_CORE_H

#include <errno.h>
#include <ferroflux/plugin.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <syslog.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FF_COMPAT static inline __attribute__ ((unused))

typedef ff_plugin flux_plugin_t;
typedef ff_plugin flux_t; /* logging is all it is good for */
typedef uint64_t flux_jobid_t;
typedef ff_free flux_free_f;

enum {
    FLUX_PLUGIN_ARG_IN = FF_IN,
    FLUX_PLUGIN_ARG_OUT = FF_OUT,
    FLUX_PLUGIN_ARG_REPLACE = FF_REPLACE
};

typedef struct flux_plugin_arg {
    ff_args *raw;
    bool is_ours;   /* made by flux_plugin_arg_create() */
    bool is_changed; /* out has to be handed back */
    json_t *side[2]; /* in and out, once they are looked at */
    char error[JSON_ERROR_TEXT_LENGTH];
} flux_plugin_arg_t;

typedef int (*flux_plugin_f) (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data);

struct flux_plugin_handler {
    const char *topic;
    flux_plugin_f cb;
    void *data;
};

int flux_plugin_init (flux_plugin_t *p);

/* The host's functions, and those of its kind: one variable for all files of a plugin. */
extern const ff_host *ff_compat_host;
extern const void *ff_compat_table;
__attribute__ ((weak)) const ff_host *ff_compat_host;
__attribute__ ((weak)) const void *ff_compat_table;

__attribute__ ((weak)) int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p)
{
    ff_compat_host = host;
    ff_compat_table = host->extension (p, host->kind);
    return flux_plugin_init (p);
}

/* Arguments */

FF_COMPAT json_t *ff_compat_side (flux_plugin_arg_t *args, int flags)
{
    int out = flags & FF_OUT;
    if (!args->side[out])
        args->side[out] = json_loads (ff_compat_host->args_get (args->raw, out), 0, NULL);
    if (!args->side[out])
        args->side[out] = json_object ();
    return args->side[out];
}

FF_COMPAT int ff_compat_update (flux_plugin_arg_t *args, int flags, json_t *values)
{
    json_t *side = ff_compat_side (args, flags);
    if (!json_is_object (values) || ((flags & FF_REPLACE) && json_object_clear (side) < 0)
        || json_object_update (side, values) < 0) {
        snprintf (args->error, sizeof (args->error), "arguments must be an object");
        errno = EINVAL;
        return -1;
    }
    if (flags & FF_OUT)
        args->is_changed = true;
    return 0;
}

FF_COMPAT flux_plugin_arg_t *flux_plugin_arg_create (void)
{
    flux_plugin_arg_t *args = (flux_plugin_arg_t *)calloc (1, sizeof (*args));
    if (args) {
        args->raw = ff_compat_host->args_new ();
        args->is_ours = true;
    }
    return args;
}

/* Hand back what has been changed, and let go. */
FF_COMPAT void ff_compat_finish (flux_plugin_arg_t *args)
{
    char *text = args->is_changed ? json_dumps (args->side[FF_OUT], JSON_COMPACT) : NULL;
    if (text)
        ff_compat_host->args_set (args->raw, FF_OUT | FF_REPLACE, text);
    free (text);
    json_decref (args->side[FF_IN]);
    json_decref (args->side[FF_OUT]);
}

FF_COMPAT void flux_plugin_arg_destroy (flux_plugin_arg_t *args)
{
    if (args) {
        args->is_changed = false;
        ff_compat_finish (args);
        if (args->is_ours)
            ff_compat_host->args_free (args->raw);
        free (args);
    }
}

FF_COMPAT const char *flux_plugin_arg_strerror (flux_plugin_arg_t *args)
{
    return args ? args->error : strerror (errno);
}

FF_COMPAT int flux_plugin_arg_set (flux_plugin_arg_t *args, int flags, const char *json)
{
    json_error_t error;
    json_t *values = json_loads (json ? json : "{}", 0, &error);
    int rc = values ? ff_compat_update (args, flags, values) : -1;
    json_decref (values);
    if (!values)
        errno = EINVAL;
    return rc;
}

FF_COMPAT int flux_plugin_arg_get (flux_plugin_arg_t *args, int flags, char **json)
{
    *json = json_dumps (ff_compat_side (args, flags), JSON_COMPACT);
    return *json ? 0 : -1;
}

FF_COMPAT int flux_plugin_arg_vpack (flux_plugin_arg_t *args, int flags, const char *fmt, va_list ap)
{
    json_error_t error;
    if (!args) {
        errno = EINVAL;
        return -1;
    }
    json_t *values = json_vpack_ex (&error, 0, fmt, ap);
    if (!values) {
        snprintf (args->error, sizeof (args->error), "%s", error.text);
        errno = EINVAL;
        return -1;
    }
    int rc = ff_compat_update (args, flags, values);
    json_decref (values);
    return rc;
}

FF_COMPAT int flux_plugin_arg_pack (flux_plugin_arg_t *args, int flags, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    int rc = flux_plugin_arg_vpack (args, flags, fmt, ap);
    va_end (ap);
    return rc;
}

FF_COMPAT int flux_plugin_arg_vunpack (flux_plugin_arg_t *args, int flags, const char *fmt, va_list ap)
{
    json_error_t error;
    if (!args) {
        errno = EINVAL;
        return -1;
    }
    if (json_vunpack_ex (ff_compat_side (args, flags), &error, 0, fmt, ap) < 0) {
        snprintf (args->error, sizeof (args->error), "%s", error.text);
        errno = EINVAL;
        return -1;
    }
    return 0;
}

FF_COMPAT int flux_plugin_arg_unpack (flux_plugin_arg_t *args, int flags, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    int rc = flux_plugin_arg_vunpack (args, flags, fmt, ap);
    va_end (ap);
    return rc;
}

/* The plugin */

FF_COMPAT int ff_compat_call (ff_plugin *p, const char *topic, ff_args *raw, void *data)
{
    struct flux_plugin_handler *handler = (struct flux_plugin_handler *)data;
    flux_plugin_arg_t args = {0};
    args.raw = raw;
    int rc = handler->cb (p, topic, &args, handler->data);
    ff_compat_finish (&args);
    return rc;
}

FF_COMPAT int flux_plugin_remove_handler (flux_plugin_t *p, const char *topic)
{
    return ff_compat_host->remove_handler (p, topic);
}

FF_COMPAT int flux_plugin_add_handler (flux_plugin_t *p, const char *topic, flux_plugin_f cb, void *data)
{
    if (!cb)
        return flux_plugin_remove_handler (p, topic);
    struct flux_plugin_handler *handler = (struct flux_plugin_handler *)malloc (sizeof (*handler));
    char key[160];
    if (!handler || !topic)
        return -1;
    handler->topic = NULL;
    handler->cb = cb;
    handler->data = data;
    snprintf (key, sizeof (key), "ferroflux.handler.%s", topic);
    /* First the new handler, then the old one's data go. */
    if (ff_compat_host->add_handler (p, topic, ff_compat_call, handler) < 0)
        return -1;
    return ff_compat_host->aux_set (p, key, handler, free);
}

FF_COMPAT int flux_plugin_set_name (flux_plugin_t *p, const char *name)
{
    return ff_compat_host->set_name (p, name);
}

FF_COMPAT const char *flux_plugin_get_name (flux_plugin_t *p)
{
    return ff_compat_host->name (p);
}

FF_COMPAT const char *flux_plugin_get_path (flux_plugin_t *p)
{
    return ff_compat_host->path (p);
}

FF_COMPAT const char *flux_plugin_strerror (flux_plugin_t *p)
{
    return ff_compat_host->error (p);
}

FF_COMPAT int flux_plugin_register (flux_plugin_t *p, const char *name, const struct flux_plugin_handler table[])
{
    if (name && flux_plugin_set_name (p, name) < 0)
        return -1;
    for (; table->topic; table++)
        if (flux_plugin_add_handler (p, table->topic, table->cb, table->data) < 0)
            return -1;
    return 0;
}

FF_COMPAT int flux_plugin_aux_set (flux_plugin_t *p, const char *key, void *value, flux_free_f release)
{
    char own[48];
    if (!key)
        snprintf (own, sizeof (own), "ferroflux.nameless.%p", value);
    return ff_compat_host->aux_set (p, key ? key : own, value, release);
}

FF_COMPAT void *flux_plugin_aux_get (flux_plugin_t *p, const char *key)
{
    return ff_compat_host->aux_get (p, key);
}

FF_COMPAT const char *flux_plugin_get_conf (flux_plugin_t *p)
{
    const char *conf = ff_compat_host->conf (p);
    return conf && strcmp (conf, "{}") != 0 ? conf : NULL;
}

/* Kept until the plugin goes, since what is unpacked refers to it. */
FF_COMPAT void ff_compat_json_free (void *json)
{
    json_decref ((json_t *)json);
}

FF_COMPAT int flux_plugin_conf_unpack (flux_plugin_t *p, const char *fmt, ...)
{
    json_t *conf = (json_t *)ff_compat_host->aux_get (p, "ferroflux.conf");
    if (!conf) {
        conf = json_loads (ff_compat_host->conf (p), 0, NULL);
        if (!conf || ff_compat_host->aux_set (p, "ferroflux.conf", conf, ff_compat_json_free) < 0)
            return -1;
    }
    va_list ap;
    va_start (ap, fmt);
    int rc = json_vunpack_ex (conf, NULL, 0, fmt, ap);
    va_end (ap);
    if (rc < 0)
        errno = EINVAL;
    return rc;
}

/* Logging */

__attribute__ ((format (printf, 3, 4))) FF_COMPAT void flux_log (flux_t *h, int level, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start (ap, fmt);
    vsnprintf (text, sizeof (text), fmt, ap);
    va_end (ap);
    ff_compat_host->log (h, level, text);
}

__attribute__ ((format (printf, 2, 3))) FF_COMPAT void flux_log_error (flux_t *h, const char *fmt, ...)
{
    char text[1024];
    int saved = errno;
    va_list ap;
    va_start (ap, fmt);
    int n = vsnprintf (text, sizeof (text), fmt, ap);
    va_end (ap);
    if (n >= 0 && (size_t)n < sizeof (text))
        snprintf (text + n, sizeof (text) - n, ": %s", strerror (saved));
    ff_compat_host->log (h, LOG_ERR, text);
    errno = saved;
}

#ifdef __cplusplus
}
#endif

#endif
