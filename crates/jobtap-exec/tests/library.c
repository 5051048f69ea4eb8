/* Stands in for upstream's libflux-core where that is not there: as much of it as flux-jobtap-exec calls, and only the
 * formats that the test uses. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fnmatch.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct plugin plugin;
typedef struct args args;
typedef int (*handler) (plugin *p, const char *topic, args *a, void *data);

struct args {
    char *side[2];
};

struct plugin {
    char *name, *conf;
    int count;
    struct {
        const char *topic;
        handler cb;
        void *data;
    } handlers[16];
};

struct msg {
    char *payload;
    uint32_t userid;
};

args *flux_plugin_arg_create (void)
{
    return calloc (1, sizeof (args));
}

void flux_plugin_arg_destroy (args *a)
{
    free (a->side[0]);
    free (a->side[1]);
    free (a);
}

int flux_plugin_arg_set (args *a, int flags, const char *json)
{
    free (a->side[flags & 1]);
    a->side[flags & 1] = strdup (json);
    return 0;
}

int flux_plugin_arg_get (args *a, int flags, char **json)
{
    const char *side = a->side[flags & 1];
    *json = strdup (side ? side : "{}");
    return 0;
}

/* Objects of texts and numbers, put behind what is there. */
int flux_plugin_arg_vpack (args *a, int flags, const char *fmt, va_list ap)
{
    char *old = a->side[flags & 1], *text = NULL;
    size_t size, members = 0;
    FILE *out = open_memstream (&text, &size);
    fputc ('{', out);
    if (old && strlen (old) > 2) {
        fprintf (out, "%.*s", (int)strlen (old) - 2, old + 1);
        members = 1;
    }
    for (const char *c = fmt + 1; *c; c++) {
        if (*c != ':')
            continue;
        fprintf (out, "%s\"%s\":", members++ ? "," : "", va_arg (ap, char *));
        switch (*++c) {
            case 's':
                fprintf (out, "\"%s\"", va_arg (ap, char *));
                break;
            case 'i':
                fprintf (out, "%d", va_arg (ap, int));
                break;
            default:
                fprintf (out, "%lld", va_arg (ap, long long));
        }
    }
    fputc ('}', out);
    fclose (out);
    free (old);
    a->side[flags & 1] = text;
    return 0;
}

plugin *flux_plugin_create (void)
{
    return calloc (1, sizeof (plugin));
}

void flux_plugin_destroy (plugin *p)
{
    free (p);
}

int flux_plugin_set_flags (plugin *p, int flags)
{
    return p && flags ? 0 : -1;
}

int flux_plugin_set_conf (plugin *p, const char *conf)
{
    p->conf = strdup (conf);
    return 0;
}

const char *flux_plugin_get_conf (plugin *p)
{
    return p->conf;
}

int flux_plugin_set_name (plugin *p, const char *name)
{
    p->name = strdup (name);
    return 0;
}

const char *flux_plugin_get_name (plugin *p)
{
    return p->name;
}

const char *flux_plugin_strerror (plugin *p)
{
    return p ? "init said no" : "";
}

int flux_plugin_load_dso (plugin *p, const char *path)
{
    void *object = dlopen (path, RTLD_NOW);
    int (*init) (plugin *p) = object ? (int (*) (plugin *))dlsym (object, "flux_plugin_init") : NULL;
    return init ? init (p) : -1;
}

int flux_plugin_add_handler (plugin *p, const char *topic, handler cb, void *data)
{
    p->handlers[p->count].topic = topic;
    p->handlers[p->count].cb = cb;
    p->handlers[p->count++].data = data;
    return 0;
}

int flux_plugin_remove_handler (plugin *p, const char *topic)
{
    return p && topic ? 0 : -1;
}

int flux_plugin_call (plugin *p, const char *topic, args *a)
{
    for (int i = 0; i < p->count; i++)
        if (fnmatch (p->handlers[i].topic, topic, 0) == 0)
            return p->handlers[i].cb (p, topic, a, p->handlers[i].data) < 0 ? -1 : 1;
    return 0;
}

static struct {
    int fd;
    void (*cb) (void *, void *, int, void *);
} watched;

void *flux_open (const char *uri, int flags)
{
    return uri || flags ? NULL : &watched;
}

void flux_log_set_appname (void *h, const char *name)
{
    (void)h, (void)name;
}

void *flux_get_reactor (void *h)
{
    return h;
}

void *flux_fd_watcher_create (void *r, int fd, int events, void (*cb) (void *, void *, int, void *), void *arg)
{
    (void)arg;
    watched.fd = fd;
    watched.cb = cb;
    return r && events ? &watched : NULL;
}

void flux_watcher_start (void *w)
{
    (void)w;
}

int flux_reactor_run (void *r, int flags)
{
    struct pollfd poll_fd = {.fd = watched.fd, .events = POLLIN};
    while (poll (&poll_fd, 1, -1) > 0)
        watched.cb (r, &watched, flags, NULL);
    return 0;
}

struct msg *flux_request_encode (const char *topic, const char *payload)
{
    struct msg *msg = calloc (1, sizeof (*msg));
    msg->payload = strdup (topic && payload ? payload : "");
    return msg;
}

const char *stand_in_payload (const struct msg *msg)
{
    return msg->payload;
}

int flux_msg_set_userid (struct msg *msg, uint32_t userid)
{
    msg->userid = userid;
    return 0;
}

int flux_msg_set_rolemask (struct msg *msg, uint32_t rolemask)
{
    return msg && rolemask ? 0 : -1;
}

void flux_msg_decref (const struct msg *msg)
{
    free (msg->payload);
    free ((void *)msg);
}

int flux_respond (void *h, const struct msg *msg, const char *payload)
{
    (void)h, (void)msg, (void)payload;
    return -1;
}

int flux_respond_error (void *h, const struct msg *msg, int errnum, const char *why)
{
    (void)h, (void)msg, (void)errnum, (void)why;
    return -1;
}
