/* What a jobtap plugin that was built for upstream finds in the process it is loaded into.
 *
 * The plugin brings upstream's libflux-core along: it is linked with it. All that concerns arguments, reactors and
 * messages is done there; here are the functions that upstream's job manager itself would have, each of which asks ours. The
 * program has one plugin, so `p` is always that.
 */
#define _GNU_SOURCE
#include "offer.h"

/* Values kept with jobs. */
struct aux {
    uint64_t id;
    char *key;
    void *value;
    flux_free_f release;
    struct aux *next;
};
static struct aux *auxes;

/* The number that is the answer, which is freed; -1 if there was none. */
static int take_number (char *answer, uint64_t *number)
{
    if (!answer)
        return -1;
    *number = strtoull (answer, NULL, 10);
    free (answer);
    return 0;
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
    if (!p || !method || service_add (method, cb, arg) < 0) {
        errno = EINVAL;
        return -1;
    }
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
    uint64_t number;
    if (take_number (ask ("job_result", "{s:I}", "id", id), &number) < 0)
        return -1;
    *result = number;
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
    return take_number (ask ("job_id", "{s:I}", "id", id), found);
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

void aux_clear (void)
{
    while (auxes)
        aux_drop (&auxes);
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
