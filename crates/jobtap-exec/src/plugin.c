/* The plugin itself: loading and calling it for main.rs, asking the job manager for it, and those functions of upstream's
 * library that have to know of the job manager: what a plugin handles, and how it answers requests that came this way.
 */
#define _GNU_SOURCE
#include "offer.h"

struct library lib;
flux_t *handle;
const char *base = "";
static flux_plugin_t *plugin;

/* Services the plugin has registered, and requests to them that are not answered yet. */
struct service {
    char *method;
    flux_msg_handler_f cb;
    void *arg;
    struct service *next;
};
static struct service *services;

struct request {
    uint64_t ticket;
    flux_msg_t *msg;
    struct request *next;
};
static struct request *requests;

/* The text that a format of jansson makes, to be freed. */
char *vpack (const char *fmt, va_list ap)
{
    char *text = NULL;
    flux_plugin_arg_t *args = lib.flux_plugin_arg_create ();
    if (!args || lib.flux_plugin_arg_vpack (args, ARG_OUT, fmt, ap) < 0
        || lib.flux_plugin_arg_get (args, ARG_OUT, &text) < 0)
        errno = EINVAL;
    if (args)
        lib.flux_plugin_arg_destroy (args);
    return text;
}

static char *vask (const char *method, const char *fmt, va_list ap)
{
    char *answer = NULL;
    char *params = fmt ? vpack (fmt, ap) : strdup ("{}");
    if (params)
        answer = ff_ask (method, params);
    int saved = errno;
    free (params);
    errno = saved;
    return answer;
}

char *ask (const char *method, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    char *answer = vask (method, fmt, ap);
    va_end (ap);
    return answer;
}

/* Only whether it was done. */
int tell (const char *method, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    char *answer = vask (method, fmt, ap);
    va_end (ap);
    if (!answer)
        return -1;
    free (answer);
    return 0;
}

/* Ask with a member that is JSON already. */
int tell_with (const char *method, char *head, const char *key, char *json)
{
    int rc = -1;
    char *params = NULL;
    /* head ends with a brace, which makes room for the member */
    if (head && json) {
        head[strlen (head) - 1] = '\0';
        if (asprintf (&params, "%s%s\"%s\":%s}", head, strlen (head) > 1 ? "," : "", key, json) < 0)
            params = NULL;
    }
    if (params) {
        char *answer = ff_ask (method, params);
        rc = answer ? 0 : -1;
        free (answer);
    }
    int saved = errno;
    free (params);
    free (head);
    free (json);
    errno = saved;
    return rc;
}

char *pack (const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    char *text = vpack (fmt, ap);
    va_end (ap);
    return text;
}

int service_add (const char *method, flux_msg_handler_f cb, void *arg)
{
    struct service *service = calloc (1, sizeof (*service));
    if (!service || !(service->method = strdup (method))) {
        free (service);
        return -1;
    }
    service->cb = cb;
    service->arg = arg;
    service->next = services;
    services = service;
    return 0;
}

/* Functions of the library that have to know of the job manager. */

int flux_plugin_add_handler (flux_plugin_t *p, const char *topic, flux_plugin_f cb, void *data)
{
    if (lib.flux_plugin_add_handler (p, topic, cb, data) < 0)
        return -1;
    return tell (cb ? "handle" : "unhandle", "{s:s}", "topic", topic);
}

int flux_plugin_remove_handler (flux_plugin_t *p, const char *topic)
{
    if (lib.flux_plugin_remove_handler (p, topic) < 0)
        return -1;
    return tell ("unhandle", "{s:s}", "topic", topic);
}

int flux_plugin_register (flux_plugin_t *p, const char *name, const struct flux_plugin_handler table[])
{
    if (!p || !table || (name && lib.flux_plugin_set_name (p, name) < 0)) {
        errno = EINVAL;
        return -1;
    }
    for (; table->topic; table++)
        if (flux_plugin_add_handler (p, table->topic, table->cb, table->data) < 0)
            return -1;
    return 0;
}

/* The ticket of a request that came through the job manager, which is done with; 0 for others. */
static uint64_t take_ticket (const flux_msg_t *msg)
{
    for (struct request **at = &requests; *at; at = &(*at)->next) {
        struct request *request = *at;
        if (request->msg != msg)
            continue;
        uint64_t ticket = request->ticket;
        *at = request->next;
        free (request);
        return ticket;
    }
    return 0;
}

int flux_respond (flux_t *h, const flux_msg_t *msg, const char *payload)
{
    uint64_t ticket = take_ticket (msg);
    if (!ticket)
        return lib.flux_respond (h, msg, payload);
    int rc = payload ? tell_with ("respond", pack ("{s:I}", "ticket", ticket), "payload", strdup (payload))
                     : tell ("respond", "{s:I}", "ticket", ticket);
    lib.flux_msg_decref (msg);
    return rc;
}

int flux_respond_pack (flux_t *h, const flux_msg_t *msg, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    char *payload = vpack (fmt, ap);
    va_end (ap);
    int rc = payload ? flux_respond (h, msg, payload) : -1;
    free (payload);
    return rc;
}

int flux_respond_error (flux_t *h, const flux_msg_t *msg, int errnum, const char *why)
{
    uint64_t ticket = take_ticket (msg);
    if (!ticket)
        return lib.flux_respond_error (h, msg, errnum, why);
    if (errnum == 0)
        errnum = EINVAL;
    int rc = why ? tell ("respond", "{s:I s:i s:s}", "ticket", ticket, "errnum", errnum, "errmsg", why)
                 : tell ("respond", "{s:I s:i}", "ticket", ticket, "errnum", errnum);
    lib.flux_msg_decref (msg);
    return rc;
}

/* The other way: main.rs calls these. */

/* Load the plugin at `path`; NULL, or why not. */
const char *ff_load (const char *path, const char *conf)
{
    void *object = dlopen (path, RTLD_NOW | RTLD_GLOBAL);
    if (!object)
        return dlerror ();
#define RESOLVE(result, name, params)               \
    if (!(lib.name = (result (*) params)dlsym (object, #name))) \
        return "libflux-core has no " #name "()";
    LIBRARY (RESOLVE)
    if (!(handle = lib.flux_open (NULL, 0)))
        return "the broker does not let it connect";
    lib.flux_log_set_appname (handle, "job-manager");
    base = strrchr (path, '/') ? strrchr (path, '/') + 1 : path;
    /* Upstream's plugins tell an empty configuration from none. */
    int has_conf = strcmp (conf, "{}") != 0;
    if (!(plugin = lib.flux_plugin_create ()) || (has_conf && lib.flux_plugin_set_conf (plugin, conf) < 0)
        || lib.flux_plugin_set_flags (plugin, 2) < 0)
        return "no memory";
    if (lib.flux_plugin_load_dso (plugin, path) < 0)
        return lib.flux_plugin_strerror (plugin);
    const char *name = lib.flux_plugin_get_name (plugin);
    if (name && !strpbrk (name, "/."))
        tell ("name", "{s:s}", "name", name);
    return NULL;
}

void ff_unload (void)
{
    aux_clear ();
    if (plugin)
        lib.flux_plugin_destroy (plugin);
}

/* Call the plugin; *said is what comes out, to be freed. */
int ff_call (const char *topic, const char *in, const char *out, char **said)
{
    flux_plugin_arg_t *args = lib.flux_plugin_arg_create ();
    if (!args || lib.flux_plugin_arg_set (args, ARG_IN, in) < 0 || lib.flux_plugin_arg_set (args, ARG_OUT, out) < 0)
        return -1;
    int rc = lib.flux_plugin_call (plugin, topic, args);
    if (lib.flux_plugin_arg_get (args, ARG_OUT, said) < 0)
        *said = NULL;
    lib.flux_plugin_arg_destroy (args);
    return rc < 0 ? -1 : 0;
}

/* Hand a request to the service `method`. */
int ff_serve (const char *method, uint64_t ticket, const char *payload, uint32_t userid, uint32_t rolemask)
{
    struct service *service = services;
    while (service && strcmp (service->method, method) != 0)
        service = service->next;
    struct request *request = calloc (1, sizeof (*request));
    flux_msg_t *msg = service ? lib.flux_request_encode (method, payload) : NULL;
    if (!msg || !request) {
        free (request);
        return -1;
    }
    lib.flux_msg_set_userid (msg, userid);
    lib.flux_msg_set_rolemask (msg, rolemask);
    *request = (struct request){.ticket = ticket, .msg = msg, .next = requests};
    requests = request;
    service->cb (handle, NULL, msg, service->arg);
    return 0;
}

static void readable (flux_reactor_t *r, flux_watcher_t *w, int revents, void *arg)
{
    (void)r, (void)w, (void)revents, (void)arg;
    ff_readable ();
}

/* Run the plugin's reactor, and serve the descriptor in it. */
int ff_run (int fd)
{
    flux_reactor_t *reactor = lib.flux_get_reactor (handle);
    flux_watcher_t *watcher = lib.flux_fd_watcher_create (reactor, fd, 1, readable, NULL);
    if (!watcher)
        return -1;
    lib.flux_watcher_start (watcher);
    return lib.flux_reactor_run (reactor, 0);
}
