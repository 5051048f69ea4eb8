/* What a jobtap plugin that was built for upstream finds in the process it is loaded into.
 *
 * The plugin brings upstream's libflux-core along: it is linked with it. All that concerns arguments, reactors and
 * messages is done there; here are the functions that upstream's job manager itself would have, each of which asks ours
 * (ff_ask, in main.rs), and a few of the library's that have to know of it: what a plugin handles, and how it answers
 * requests that came through the job manager. The program has one plugin, so `p` is always that.
 */
#define _GNU_SOURCE
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

/* The answer as JSON, to be freed; NULL, with errno set, if it was refused. */
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
static struct {
    LIBRARY (MEMBER)
} lib;

static flux_t *handle;
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

/* Values kept with jobs. */
struct aux {
    uint64_t id;
    char *key;
    void *value;
    flux_free_f release;
    struct aux *next;
};
static struct aux *auxes;

/* The text that a format of jansson makes, to be freed. */
static char *vpack (const char *fmt, va_list ap)
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

static char *ask (const char *method, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    char *answer = vask (method, fmt, ap);
    va_end (ap);
    return answer;
}

/* Only whether it was done. */
static int tell (const char *method, const char *fmt, ...)
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
static int tell_with (const char *method, char *head, const char *key, char *json)
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

static char *pack (const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    char *text = vpack (fmt, ap);
    va_end (ap);
    return text;
}

/* What upstream's job manager has. */

flux_t *flux_jobtap_get_flux (flux_plugin_t *p)
{
    if (!p)
        errno = EINVAL;
    return p ? handle : NULL;
}

int flux_jobtap_service_register_ex (flux_plugin_t *p, const char *method, uint32_t rolemask,
                                     flux_msg_handler_f cb, void *arg)
{
    struct service *service = calloc (1, sizeof (*service));
    if (!p || !method || !service || !(service->method = strdup (method))) {
        free (service);
        errno = EINVAL;
        return -1;
    }
    service->cb = cb;
    service->arg = arg;
    service->next = services;
    services = service;
    char *topic = NULL;
    int rc = asprintf (&topic, "service.%s", method) < 0 ? -1 : tell ("handle", "{s:s}", "topic", topic);
    free (topic);
    if (rc < 0)
        return -1;
    return tell ("service_register", "{s:s s:I}", "method", method, "rolemask", (int64_t)rolemask);
}

int flux_jobtap_service_register (flux_plugin_t *p, const char *method, flux_msg_handler_f cb, void *arg)
{
    return flux_jobtap_service_register_ex (p, method, 0, cb, arg);
}

int flux_jobtap_set_load_sort_order (flux_plugin_t *p, const char *mode)
{
    if (!p || !mode) {
        errno = EINVAL;
        return -1;
    }
    return tell ("set_load_order", "{s:s}", "mode", mode);
}

int flux_jobtap_reprioritize_all (flux_plugin_t *p)
{
    if (!p) {
        errno = EINVAL;
        return -1;
    }
    return tell ("reprioritize_all", NULL);
}

int flux_jobtap_reprioritize_job (flux_plugin_t *p, flux_jobid_t id, unsigned int priority)
{
    if (!p) {
        errno = EINVAL;
        return -1;
    }
    return tell ("reprioritize", "{s:I s:I}", "id", id, "priority", (int64_t)priority);
}

static int set_out (flux_plugin_arg_t *args, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    int rc = lib.flux_plugin_arg_vpack (args, ARG_OUT, fmt, ap);
    va_end (ap);
    return rc;
}

int flux_jobtap_priority_unavail (flux_plugin_t *p, flux_plugin_arg_t *args)
{
    if (!p) {
        errno = EINVAL;
        return -1;
    }
    return set_out (args, "{s:I}", "priority", (int64_t)-1);
}

static int verror (flux_plugin_arg_t *args, const char *fmt, va_list ap)
{
    char text[1024];
    vsnprintf (text, sizeof (text), fmt, ap);
    if (text[0])
        set_out (args, "{s:s}", "errmsg", text);
    return -1;
}

int flux_jobtap_error (flux_plugin_t *p, flux_plugin_arg_t *args, const char *fmt, ...)
{
    va_list ap;
    (void)p;
    va_start (ap, fmt);
    verror (args, fmt, ap);
    va_end (ap);
    return -1;
}

/* The name of the file, set when it is loaded. */
static const char *base = "";

int flux_jobtap_reject_job (flux_plugin_t *p, flux_plugin_arg_t *args, const char *fmt, ...)
{
    if (!fmt)
        return flux_jobtap_error (p, args, "rejected by job-manager plugin '%s'", base);
    va_list ap;
    va_start (ap, fmt);
    verror (args, fmt, ap);
    va_end (ap);
    return -1;
}

static int of_text (flux_plugin_t *p, const char *method, flux_jobid_t id, const char *key, const char *text)
{
    if (!p || !text) {
        errno = EINVAL;
        return -1;
    }
    return tell (method, "{s:I s:s}", "id", id, key, text);
}

int flux_jobtap_dependency_add (flux_plugin_t *p, flux_jobid_t id, const char *description)
{
    return of_text (p, "dependency_add", id, "description", description);
}

int flux_jobtap_dependency_remove (flux_plugin_t *p, flux_jobid_t id, const char *description)
{
    return of_text (p, "dependency_remove", id, "description", description);
}

int flux_jobtap_job_set_flag (flux_plugin_t *p, flux_jobid_t id, const char *flag)
{
    return of_text (p, "set_flag", id, "flag", flag);
}

int flux_jobtap_raise_exception (flux_plugin_t *p, flux_jobid_t id, const char *type, int severity,
                                 const char *fmt, ...)
{
    char note[1024];
    va_list ap;
    if (!p || !type || !fmt) {
        errno = EINVAL;
        return -1;
    }
    va_start (ap, fmt);
    vsnprintf (note, sizeof (note), fmt, ap);
    va_end (ap);
    return tell ("raise", "{s:I s:s s:i s:s}", "id", id, "kind", type, "severity", severity, "note", note);
}

int flux_jobtap_event_post_pack (flux_plugin_t *p, flux_jobid_t id, const char *name, const char *fmt, ...)
{
    if (!p || !name) {
        errno = EINVAL;
        return -1;
    }
    if (!fmt)
        return of_text (p, "event_post", id, "name", name);
    va_list ap;
    va_start (ap, fmt);
    char *context = vpack (fmt, ap);
    va_end (ap);
    return tell_with ("event_post", pack ("{s:I s:s}", "id", id, "name", name), "context", context);
}

int flux_jobtap_jobspec_update_pack (flux_plugin_t *p, const char *fmt, ...)
{
    if (!p || !fmt) {
        errno = EINVAL;
        return -1;
    }
    va_list ap;
    va_start (ap, fmt);
    char *updates = vpack (fmt, ap);
    va_end (ap);
    return tell_with ("jobspec_update", pack ("{}"), "updates", updates);
}

int flux_jobtap_jobspec_update_id_pack (flux_plugin_t *p, flux_jobid_t id, const char *fmt, ...)
{
    if (!p || !fmt) {
        errno = EINVAL;
        return -1;
    }
    va_list ap;
    va_start (ap, fmt);
    char *updates = vpack (fmt, ap);
    va_end (ap);
    return tell_with ("jobspec_update", pack ("{s:I}", "id", id), "updates", updates);
}

flux_plugin_arg_t *flux_jobtap_job_lookup (flux_plugin_t *p, flux_jobid_t id)
{
    flux_plugin_arg_t *args = NULL;
    if (!p) {
        errno = EINVAL;
        return NULL;
    }
    char *job = ask ("job_lookup", "{s:I}", "id", id);
    if (job && (args = lib.flux_plugin_arg_create ())) {
        lib.flux_plugin_arg_set (args, ARG_IN, job);
        lib.flux_plugin_arg_set (args, ARG_OUT, "{}");
    }
    int saved = errno;
    free (job);
    errno = saved;
    return args;
}

int flux_jobtap_get_job_result (flux_plugin_t *p, flux_jobid_t id, int *result)
{
    if (!p || !result) {
        errno = EINVAL;
        return -1;
    }
    char *answer = ask ("job_result", "{s:I}", "id", id);
    if (!answer)
        return -1;
    *result = atoi (answer);
    free (answer);
    return 0;
}

int flux_jobtap_job_event_posted (flux_plugin_t *p, flux_jobid_t id, const char *name)
{
    if (!p || !name) {
        errno = EINVAL;
        return -1;
    }
    char *answer = ask ("event_posted", "{s:I s:s}", "id", id, "name", name);
    if (!answer)
        return -1;
    int posted = strcmp (answer, "true") == 0;
    free (answer);
    return posted;
}

int flux_jobtap_job_subscribe (flux_plugin_t *p, flux_jobid_t id)
{
    if (!p) {
        errno = EINVAL;
        return -1;
    }
    return tell ("subscribe", "{s:I}", "id", id);
}

void flux_jobtap_job_unsubscribe (flux_plugin_t *p, flux_jobid_t id)
{
    (void)p;
    tell ("unsubscribe", "{s:I}", "id", id);
}

static int start (flux_plugin_t *p, const char *method, const char *description)
{
    if (!p || !description) {
        errno = EINVAL;
        return -1;
    }
    return tell (method, "{s:s}", "description", description);
}

static int finish (flux_plugin_t *p, const char *method, flux_jobid_t id, const char *description, int status)
{
    if (!p || !description) {
        errno = EINVAL;
        return -1;
    }
    return tell (method, "{s:I s:s s:i}", "id", id, "description", description, "status", status);
}

int flux_jobtap_prolog_start (flux_plugin_t *p, const char *description)
{
    return start (p, "prolog_start", description);
}

int flux_jobtap_prolog_finish (flux_plugin_t *p, flux_jobid_t id, const char *description, int status)
{
    return finish (p, "prolog_finish", id, description, status);
}

int flux_jobtap_epilog_start (flux_plugin_t *p, const char *description)
{
    return start (p, "epilog_start", description);
}

int flux_jobtap_epilog_finish (flux_plugin_t *p, flux_jobid_t id, const char *description, int status)
{
    return finish (p, "epilog_finish", id, description, status);
}

/* ff_ask() answers `call` with what comes out, and gives what the plugins returned. */
char *ff_ask_call (const char *params, int *code);

int flux_jobtap_call (flux_plugin_t *p, flux_jobid_t id, const char *topic, flux_plugin_arg_t *args)
{
    char *in = NULL, *out = NULL, *params = NULL, *said = NULL;
    int code = -1;
    if (!p || !topic || !args || strncmp (topic, "job.", 4) == 0) {
        errno = EINVAL;
        return -1;
    }
    char *head = pack ("{s:I s:s}", "id", id, "topic", topic);
    lib.flux_plugin_arg_get (args, ARG_IN, &in);
    lib.flux_plugin_arg_get (args, ARG_OUT, &out);
    if (head) {
        head[strlen (head) - 1] = '\0';
        if (asprintf (&params, "%s,\"in\":%s,\"out\":%s}", head, in ? in : "{}", out ? out : "{}") >= 0
            && (said = ff_ask_call (params, &code)))
            lib.flux_plugin_arg_set (args, ARG_OUT, said);
    }
    int saved = errno;
    free (head);
    free (in);
    free (out);
    free (params);
    free (said);
    errno = saved;
    return code;
}

/* The job an id stands for, which has to be there. */
static int there (flux_plugin_t *p, flux_jobid_t id, uint64_t *found)
{
    if (!p) {
        errno = EINVAL;
        return -1;
    }
    char *answer = ask ("job_id", "{s:I}", "id", id);
    if (!answer)
        return -1;
    *found = strtoull (answer, NULL, 10);
    free (answer);
    return 0;
}

static void aux_drop (struct aux **at)
{
    struct aux *aux = *at;
    *at = aux->next;
    if (aux->release && aux->value)
        aux->release (aux->value);
    free (aux->key);
    free (aux);
}

int flux_jobtap_job_aux_set (flux_plugin_t *p, flux_jobid_t id, const char *key, void *value, flux_free_f release)
{
    uint64_t job;
    if (there (p, id, &job) < 0)
        return -1;
    if (!key && !value) {
        errno = EINVAL;
        return -1;
    }
    for (struct aux **at = &auxes; key && *at;) {
        if ((*at)->id == job && (*at)->key && strcmp ((*at)->key, key) == 0)
            aux_drop (at);
        else
            at = &(*at)->next;
    }
    if (!value)
        return 0;
    /* To be told when jobs are gone. */
    static int is_told;
    if (!is_told++)
        tell ("handle", "{s:s}", "topic", "job.destroy");
    struct aux *aux = calloc (1, sizeof (*aux));
    if (!aux)
        return -1;
    *aux = (struct aux){.id = job, .key = key ? strdup (key) : NULL, .value = value, .release = release, .next = auxes};
    auxes = aux;
    return 0;
}

void *flux_jobtap_job_aux_get (flux_plugin_t *p, flux_jobid_t id, const char *key)
{
    uint64_t job;
    if (there (p, id, &job) < 0)
        return NULL;
    for (struct aux *aux = auxes; key && aux; aux = aux->next)
        if (aux->id == job && aux->key && strcmp (aux->key, key) == 0)
            return aux->value;
    errno = key ? ENOENT : EINVAL;
    return NULL;
}

int flux_jobtap_job_aux_delete_value (flux_plugin_t *p, flux_jobid_t id, void *value)
{
    uint64_t job;
    if (there (p, id, &job) < 0)
        return -1;
    for (struct aux **at = &auxes; *at;) {
        if ((*at)->id == job && (*at)->value == value)
            aux_drop (at);
        else
            at = &(*at)->next;
    }
    return 0;
}

int flux_jobtap_job_aux_delete (flux_plugin_t *p, flux_jobid_t id, void *value)
{
    return flux_jobtap_job_aux_delete_value (p, id, value);
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
    while (auxes)
        aux_drop (&auxes);
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

/* A job is gone. */
void ff_forget (uint64_t id)
{
    for (struct aux **at = &auxes; *at;) {
        if ((*at)->id == id)
            aux_drop (at);
        else
            at = &(*at)->next;
    }
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
