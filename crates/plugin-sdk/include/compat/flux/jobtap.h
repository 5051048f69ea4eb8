/* For jobtap plugins in C that were written for upstream: its names on top of ferroflux/jobtap.h. See core.h. */
#ifndef FERROFLUX_COMPAT_FLUX_JOBTAP_H
#define FERROFLUX_COMPAT_FLUX_JOBTAP_H

#include <ferroflux/jobtap.h>
#include <flux/core.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FLUX_JOBID_ANY FF_CURRENT_JOB
#define FLUX_JOBTAP_CURRENT_JOB FF_CURRENT_JOB

typedef enum {
    FLUX_JOB_STATE_NEW = FF_JOB_NEW,
    FLUX_JOB_STATE_DEPEND = FF_JOB_DEPEND,
    FLUX_JOB_STATE_PRIORITY = FF_JOB_PRIORITY,
    FLUX_JOB_STATE_SCHED = FF_JOB_SCHED,
    FLUX_JOB_STATE_RUN = FF_JOB_RUN,
    FLUX_JOB_STATE_CLEANUP = FF_JOB_CLEANUP,
    FLUX_JOB_STATE_INACTIVE = FF_JOB_INACTIVE
} flux_job_state_t;

typedef enum {
    FLUX_JOB_RESULT_COMPLETED = FF_RESULT_COMPLETED,
    FLUX_JOB_RESULT_FAILED = FF_RESULT_FAILED,
    FLUX_JOB_RESULT_CANCELED = FF_RESULT_CANCELED,
    FLUX_JOB_RESULT_TIMEOUT = FF_RESULT_TIMEOUT
} flux_job_result_t;

enum {
    FLUX_JOB_URGENCY_HOLD = 0,
    FLUX_JOB_URGENCY_MIN = 0,
    FLUX_JOB_URGENCY_DEFAULT = 16,
    FLUX_JOB_URGENCY_MAX = 31,
    FLUX_JOB_URGENCY_EXPEDITE = 31
};
#define FLUX_JOB_PRIORITY_MIN 0
#define FLUX_JOB_PRIORITY_MAX 4294967295

/* fmt: "S" for the letter, "L" for the name, "s" and "l" in lower case. */
FF_COMPAT const char *flux_job_statetostr (flux_job_state_t state, const char *fmt)
{
    static const char *const texts[][4] = {
        {"N", "NEW", "n", "new"},         {"D", "DEPEND", "d", "depend"},
        {"P", "PRIORITY", "p", "priority"}, {"S", "SCHED", "s", "sched"},
        {"R", "RUN", "r", "run"},         {"C", "CLEANUP", "c", "cleanup"},
        {"I", "INACTIVE", "i", "inactive"},
    };
    int form = *fmt == 'S' ? 0 : *fmt == 'L' ? 1 : *fmt == 's' ? 2 : 3;
    for (int i = 0; i < 7; i++)
        if ((int)state == 1 << i)
            return texts[i][form];
    return "(unknown)";
}

/* The name of a result in capitals or not, or its letters. */
FF_COMPAT int flux_job_strtoresult (const char *text, flux_job_result_t *result)
{
    static const char *const names[] = {"completed", "failed", "canceled", "timeout"};
    static const char *const letters[] = {"cd", "f", "ca", "to"};
    for (int i = 0; i < 4; i++)
        if (strcasecmp (text, names[i]) == 0 || strcasecmp (text, letters[i]) == 0) {
            *result = (flux_job_result_t)(1 << i);
            return 0;
        }
    errno = EINVAL;
    return -1;
}

FF_COMPAT const ff_jobtap *ff_compat_jobtap (ff_plugin *p)
{
    /* One table for all: a function fails by itself without a plugin. */
    (void)p;
    return (const ff_jobtap *)ff_compat_table;
}

FF_COMPAT flux_t *flux_jobtap_get_flux (flux_plugin_t *p)
{
    if (!p)
        errno = EINVAL;
    return p;
}

FF_COMPAT int flux_jobtap_set_load_sort_order (flux_plugin_t *p, const char *mode)
{
    return ff_compat_jobtap (p)->set_load_order (p, mode);
}

FF_COMPAT int flux_jobtap_reprioritize_all (flux_plugin_t *p)
{
    return ff_compat_jobtap (p)->reprioritize_all (p);
}

FF_COMPAT int flux_jobtap_reprioritize_job (flux_plugin_t *p, flux_jobid_t id, unsigned int priority)
{
    return ff_compat_jobtap (p)->reprioritize (p, id, priority);
}

FF_COMPAT int flux_jobtap_priority_unavail (flux_plugin_t *p, flux_plugin_arg_t *args)
{
    (void)p;
    return flux_plugin_arg_pack (args, FLUX_PLUGIN_ARG_OUT, "{s:i}", "priority", -1);
}

FF_COMPAT int ff_compat_verror (flux_plugin_arg_t *args, const char *fmt, va_list ap)
{
    char text[1024];
    vsnprintf (text, sizeof (text), fmt, ap);
    flux_plugin_arg_pack (args, FLUX_PLUGIN_ARG_OUT, "{s:s}", "errmsg", text);
    return -1;
}

__attribute__ ((format (printf, 3, 4)))
FF_COMPAT int flux_jobtap_error (flux_plugin_t *p, flux_plugin_arg_t *args, const char *fmt, ...)
{
    va_list ap;
    (void)p;
    va_start (ap, fmt);
    ff_compat_verror (args, fmt, ap);
    va_end (ap);
    return -1;
}

__attribute__ ((format (printf, 3, 4)))
FF_COMPAT int flux_jobtap_reject_job (flux_plugin_t *p, flux_plugin_arg_t *args, const char *fmt, ...)
{
    if (!fmt)
        return flux_jobtap_error (p, args, "rejected by job-manager plugin '%s'", flux_plugin_get_name (p));
    va_list ap;
    va_start (ap, fmt);
    ff_compat_verror (args, fmt, ap);
    va_end (ap);
    return -1;
}

FF_COMPAT int flux_jobtap_dependency_add (flux_plugin_t *p, flux_jobid_t id, const char *description)
{
    return ff_compat_jobtap (p)->dependency_add (p, id, description);
}

FF_COMPAT int flux_jobtap_dependency_remove (flux_plugin_t *p, flux_jobid_t id, const char *description)
{
    return ff_compat_jobtap (p)->dependency_remove (p, id, description);
}

FF_COMPAT int flux_jobtap_job_aux_set (flux_plugin_t *p, flux_jobid_t id, const char *key, void *value,
                                       flux_free_f release)
{
    return ff_compat_jobtap (p)->job_aux_set (p, id, key, value, release);
}

FF_COMPAT void *flux_jobtap_job_aux_get (flux_plugin_t *p, flux_jobid_t id, const char *key)
{
    return ff_compat_jobtap (p)->job_aux_get (p, id, key);
}

FF_COMPAT int flux_jobtap_job_aux_delete_value (flux_plugin_t *p, flux_jobid_t id, void *value)
{
    return ff_compat_jobtap (p)->job_aux_delete (p, id, value);
}

FF_COMPAT int flux_jobtap_job_set_flag (flux_plugin_t *p, flux_jobid_t id, const char *flag)
{
    return ff_compat_jobtap (p)->set_flag (p, id, flag);
}

__attribute__ ((format (printf, 5, 6)))
FF_COMPAT int flux_jobtap_raise_exception (flux_plugin_t *p, flux_jobid_t id, const char *type, int severity,
                                           const char *fmt, ...)
{
    char note[1024];
    va_list ap;
    va_start (ap, fmt);
    vsnprintf (note, sizeof (note), fmt, ap);
    va_end (ap);
    return ff_compat_jobtap (p)->raise (p, id, type, severity, note);
}

/* The text a format of jansson makes, to be freed. */
FF_COMPAT char *ff_compat_text (const char *fmt, va_list ap)
{
    json_t *value = json_vpack_ex (NULL, 0, fmt, ap);
    char *text = value ? json_dumps (value, JSON_COMPACT) : NULL;
    json_decref (value);
    if (!text)
        errno = EINVAL;
    return text;
}

FF_COMPAT int flux_jobtap_event_post_pack (flux_plugin_t *p, flux_jobid_t id, const char *name, const char *fmt, ...)
{
    char *context = NULL;
    if (fmt) {
        va_list ap;
        va_start (ap, fmt);
        context = ff_compat_text (fmt, ap);
        va_end (ap);
        if (!context)
            return -1;
    }
    int rc = ff_compat_jobtap (p)->event_post (p, id, name, context);
    free (context);
    return rc;
}

FF_COMPAT int ff_compat_jobspec_update (flux_plugin_t *p, flux_jobid_t id, const char *fmt, va_list ap)
{
    char *updates = ff_compat_text (fmt, ap);
    int rc = updates ? ff_compat_jobtap (p)->jobspec_update (p, id, updates) : -1;
    free (updates);
    return rc;
}

FF_COMPAT int flux_jobtap_jobspec_update_pack (flux_plugin_t *p, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    int rc = ff_compat_jobspec_update (p, FF_CURRENT_JOB, fmt, ap);
    va_end (ap);
    return rc;
}

FF_COMPAT int flux_jobtap_jobspec_update_id_pack (flux_plugin_t *p, flux_jobid_t id, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    int rc = ff_compat_jobspec_update (p, id, fmt, ap);
    va_end (ap);
    return rc;
}

FF_COMPAT flux_plugin_arg_t *flux_jobtap_job_lookup (flux_plugin_t *p, flux_jobid_t id)
{
    ff_args *raw = ff_compat_jobtap (p)->job_lookup (p, id);
    flux_plugin_arg_t *args = raw ? (flux_plugin_arg_t *)calloc (1, sizeof (*args)) : NULL;
    if (args) {
        args->raw = raw;
        args->is_ours = true;
    }
    return args;
}

FF_COMPAT int flux_jobtap_get_job_result (flux_plugin_t *p, flux_jobid_t id, flux_job_result_t *result)
{
    int found = 0;
    if (ff_compat_jobtap (p)->job_result (p, id, &found) < 0)
        return -1;
    *result = (flux_job_result_t)found;
    return 0;
}

FF_COMPAT int flux_jobtap_job_event_posted (flux_plugin_t *p, flux_jobid_t id, const char *name)
{
    return ff_compat_jobtap (p)->event_posted (p, id, name);
}

FF_COMPAT int flux_jobtap_job_subscribe (flux_plugin_t *p, flux_jobid_t id)
{
    return ff_compat_jobtap (p)->subscribe (p, id);
}

FF_COMPAT void flux_jobtap_job_unsubscribe (flux_plugin_t *p, flux_jobid_t id)
{
    ff_compat_jobtap (p)->unsubscribe (p, id);
}

FF_COMPAT int flux_jobtap_prolog_start (flux_plugin_t *p, const char *description)
{
    return ff_compat_jobtap (p)->prolog_start (p, description);
}

FF_COMPAT int flux_jobtap_prolog_finish (flux_plugin_t *p, flux_jobid_t id, const char *description, int status)
{
    return ff_compat_jobtap (p)->prolog_finish (p, id, description, status);
}

FF_COMPAT int flux_jobtap_epilog_start (flux_plugin_t *p, const char *description)
{
    return ff_compat_jobtap (p)->epilog_start (p, description);
}

FF_COMPAT int flux_jobtap_epilog_finish (flux_plugin_t *p, flux_jobid_t id, const char *description, int status)
{
    return ff_compat_jobtap (p)->epilog_finish (p, id, description, status);
}

FF_COMPAT int flux_jobtap_call (flux_plugin_t *p, flux_jobid_t id, const char *topic, flux_plugin_arg_t *args)
{
    if (!p || !args) {
        errno = EINVAL;
        return -1;
    }
    /* What has been set so far goes along, and what comes out is looked at anew. */
    for (int side = FF_IN; side <= FF_OUT; side++) {
        char *text = args->side[side] ? json_dumps (args->side[side], JSON_COMPACT) : NULL;
        if (text)
            ff_compat_host->args_set (args->raw, side | FF_REPLACE, text);
        free (text);
    }
    int rc = ff_compat_jobtap (p)->call (p, id, topic, args->raw);
    json_decref (args->side[FF_OUT]);
    args->side[FF_OUT] = NULL;
    return rc;
}

/* Services: requests are the arguments of the topic service.METHOD. */

typedef struct flux_msg {
    flux_plugin_arg_t *args;
} flux_msg_t;
typedef struct flux_msg_handler flux_msg_handler_t;
typedef void (*flux_msg_handler_f) (flux_t *h, flux_msg_handler_t *mh, const flux_msg_t *msg, void *arg);

struct flux_msg_cred {
    uint32_t userid;
    uint32_t rolemask;
};

#define FLUX_ROLE_NONE 0
#define FLUX_ROLE_OWNER 1
#define FLUX_ROLE_USER 2
#define FLUX_ROLE_ALL 0xffffffff

struct ff_compat_service {
    flux_msg_handler_f cb;
    void *arg;
};

FF_COMPAT int ff_compat_serve (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data)
{
    struct ff_compat_service *service = (struct ff_compat_service *)data;
    flux_msg_t msg = {args};
    (void)topic;
    service->cb (p, NULL, &msg, service->arg);
    return 0;
}

FF_COMPAT int flux_jobtap_service_register_ex (flux_plugin_t *p, const char *method, uint32_t rolemask,
                                               flux_msg_handler_f cb, void *arg)
{
    struct ff_compat_service *service = (struct ff_compat_service *)malloc (sizeof (*service));
    char topic[160], key[192];
    if (!service)
        return -1;
    service->cb = cb;
    service->arg = arg;
    snprintf (topic, sizeof (topic), "service.%s", method);
    snprintf (key, sizeof (key), "ferroflux.%s", topic);
    if (ff_compat_host->aux_set (p, key, service, free) < 0
        || flux_plugin_add_handler (p, topic, ff_compat_serve, service) < 0)
        return -1;
    return ff_compat_jobtap (p)->service_register (p, method, rolemask);
}

FF_COMPAT int flux_jobtap_service_register (flux_plugin_t *p, const char *method, flux_msg_handler_f cb, void *arg)
{
    return flux_jobtap_service_register_ex (p, method, 0, cb, arg);
}

FF_COMPAT int ff_compat_payload (const flux_msg_t *msg, const char *fmt, va_list ap)
{
    json_t *payload = json_object_get (ff_compat_side (msg->args, FF_IN), "payload");
    int rc = payload ? json_vunpack_ex (payload, NULL, 0, fmt, ap) : -1;
    if (rc < 0)
        errno = EPROTO;
    return rc;
}

FF_COMPAT int flux_request_unpack (const flux_msg_t *msg, const char **topic, const char *fmt, ...)
{
    va_list ap;
    if (topic)
        *topic = NULL;
    va_start (ap, fmt);
    int rc = ff_compat_payload (msg, fmt, ap);
    va_end (ap);
    return rc;
}

FF_COMPAT int flux_msg_unpack (const flux_msg_t *msg, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    int rc = ff_compat_payload (msg, fmt, ap);
    va_end (ap);
    return rc;
}

FF_COMPAT const char *flux_msg_last_error (const flux_msg_t *msg)
{
    (void)msg;
    return "the request's payload is not what was expected";
}

FF_COMPAT int flux_msg_get_userid (const flux_msg_t *msg, uint32_t *userid)
{
    json_int_t found;
    if (json_unpack (ff_compat_side (msg->args, FF_IN), "{s:I}", "userid", &found) < 0)
        return -1;
    *userid = (uint32_t)found;
    return 0;
}

FF_COMPAT int flux_respond (flux_t *h, const flux_msg_t *msg, const char *payload)
{
    (void)h;
    json_t *value = payload ? json_loads (payload, 0, NULL) : json_null ();
    return value ? flux_plugin_arg_pack (msg->args, FLUX_PLUGIN_ARG_OUT, "{s:o}", "payload", value) : -1;
}

FF_COMPAT int flux_respond_pack (flux_t *h, const flux_msg_t *msg, const char *fmt, ...)
{
    va_list ap;
    va_start (ap, fmt);
    char *payload = ff_compat_text (fmt, ap);
    va_end (ap);
    int rc = payload ? flux_respond (h, msg, payload) : -1;
    free (payload);
    return rc;
}

FF_COMPAT int flux_respond_error (flux_t *h, const flux_msg_t *msg, int errnum, const char *why)
{
    (void)h;
    errnum = errnum ? errnum : EINVAL;
    return flux_plugin_arg_pack (msg->args, FLUX_PLUGIN_ARG_OUT, "{s:i s:s}", "errnum", errnum, "errmsg",
                                 why ? why : strerror (errnum));
}

#ifdef __cplusplus
}
#endif

#endif
