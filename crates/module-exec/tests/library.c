/* Stands in for upstream's libflux-core where that is not there: as much of it as flux-module-exec calls. It says what it is
 * asked on standard output.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct flux {
    const char *name;
};
static struct flux the_handle;
static const char *answer;
static const char *object = "the configuration";

struct flux *flux_open_ex (const char *uri, int flags, char *error)
{
    if (uri && strcmp (uri, "fd://bad") == 0) {
        strcpy (error, "nobody is there");
        return NULL;
    }
    printf ("open %s %d\n", uri ? uri : "-", flags);
    return &the_handle;
}

void flux_close (struct flux *h)
{
    printf ("close\n");
    if (h != &the_handle)
        abort ();
}

void *flux_aux_get (struct flux *h, const char *key)
{
    return strcmp (key, "flux::name") == 0 ? (void *)h->name : NULL;
}

int flux_aux_set (struct flux *h, const char *key, void *value, void (*destroy) (void *))
{
    if (strcmp (key, "flux::name") == 0) {
        h->name = value;
        printf ("name %s\n", h->name);
    }
    else {
        printf ("%s of %zu\n", key, strlen (value));
        destroy (value);
    }
    return 0;
}

int flux_log (struct flux *h, int level, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    printf ("log %s %d: ", h->name, level);
    vprintf (fmt, ap);
    printf ("\n");
    va_end (ap);
    return 0;
}

int flux_module_initialize (struct flux *h, char **args, char *error)
{
    error[0] = '\0';
    h->name = "welcomed";
    *args = getenv ("MODULE_ARGS") ? strdup (getenv ("MODULE_ARGS")) : NULL;
    printf ("initialize\n");
    return 0;
}

int flux_module_register_handlers (struct flux *h, char *error)
{
    error[0] = '\0';
    printf ("handlers of %s\n", h->name);
    return 0;
}

int flux_module_finalize (struct flux *h, int errnum, char *error)
{
    error[0] = '\0';
    printf ("finalize %s %d\n", h->name, errnum);
    return 0;
}

const void *flux_rpc (struct flux *h, const char *topic, const char *payload, uint32_t nodeid, int flags)
{
    printf ("ask %s %d\n", topic, h == &the_handle && !payload && nodeid == UINT32_MAX && flags == 0);
    answer = "{\"names\":[\"rank\",\"size\"]}";
    return answer;
}

int flux_rpc_get (const void *f, const char **text)
{
    if (text)
        *text = f;
    return 0;
}

int flux_rpc_get_unpack (const void *f, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    if (f == answer && strcmp (fmt, "o") == 0)
        *va_arg (ap, const char **) = object;
    va_end (ap);
    return 0;
}

void flux_future_destroy (const void *f)
{
    (void)f;
}

const void *flux_service_register (struct flux *h, const char *name)
{
    (void)h;
    printf ("service %s\n", name);
    return object;
}

const char *flux_attr_get (struct flux *h, const char *name)
{
    (void)h;
    printf ("attr %s\n", name);
    return NULL;
}

const void *flux_conf_pack (const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    const char *conf = strcmp (fmt, "O") == 0 ? va_arg (ap, const char *) : NULL;
    va_end (ap);
    return conf;
}

int flux_set_conf_new (struct flux *h, const char *conf)
{
    (void)h;
    printf ("config: %s\n", conf);
    return 0;
}
