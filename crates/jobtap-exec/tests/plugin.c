/* A plugin as it would be built for upstream, by the names it would use. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct flux_plugin flux_plugin_t;
typedef struct flux_plugin_arg flux_plugin_arg_t;
typedef struct flux_handle flux_t;
typedef struct flux_msg flux_msg_t;
typedef int (*flux_plugin_f) (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data);
struct flux_plugin_handler {
    const char *topic;
    flux_plugin_f cb;
    void *data;
};
int flux_plugin_register (flux_plugin_t *p, const char *name, const struct flux_plugin_handler table[]);
const char *flux_plugin_get_conf (flux_plugin_t *p);
int flux_jobtap_dependency_add (flux_plugin_t *p, uint64_t id, const char *description);
int flux_jobtap_reject_job (flux_plugin_t *p, flux_plugin_arg_t *args, const char *fmt, ...);
int flux_jobtap_priority_unavail (flux_plugin_t *p, flux_plugin_arg_t *args);
int flux_jobtap_event_post_pack (flux_plugin_t *p, uint64_t id, const char *name, const char *fmt, ...);
int flux_jobtap_raise_exception (flux_plugin_t *p, uint64_t id, const char *type, int severity, const char *fmt, ...);
int flux_jobtap_job_event_posted (flux_plugin_t *p, uint64_t id, const char *name);
int flux_jobtap_job_aux_set (flux_plugin_t *p, uint64_t id, const char *key, void *value, void (*release) (void *));
void *flux_jobtap_job_aux_get (flux_plugin_t *p, uint64_t id, const char *key);
int flux_jobtap_call (flux_plugin_t *p, uint64_t id, const char *topic, flux_plugin_arg_t *args);
int flux_jobtap_service_register (flux_plugin_t *p, const char *method,
                                  void (*cb) (flux_t *h, void *mh, const flux_msg_t *msg, void *arg), void *arg);
int flux_respond (flux_t *h, const flux_msg_t *msg, const char *payload);
int flux_respond_error (flux_t *h, const flux_msg_t *msg, int errnum, const char *why);
const char *stand_in_payload (const flux_msg_t *msg);
int flux_plugin_init (flux_plugin_t *p);

#define CURRENT UINT64_MAX

static int kept = 5;

static void release (void *value)
{
    *(int *)value = 0;
}

static int new_cb (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data)
{
    (void)topic, (void)data;
    if (flux_jobtap_dependency_add (p, CURRENT, "turn") < 0 && errno == EEXIST)
        return flux_jobtap_reject_job (p, args, "%s for the %dnd time", "turn", 2);
    printf ("what is printed does not disturb\n");
    return 0;
}

static int run_cb (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data)
{
    (void)topic, (void)data;
    if (flux_jobtap_event_post_pack (p, 7, "noted", "{s:i}", "n", 1) < 0
        || flux_jobtap_event_post_pack (p, 7, "plain", NULL) < 0
        || flux_jobtap_raise_exception (p, 7, "note", 3, "%d of %d", 1, 2) < 0
        || flux_jobtap_job_event_posted (p, 7, "start") != 1
        || flux_jobtap_job_aux_set (p, 7, "kept", &kept, release) < 0
        || flux_jobtap_job_aux_get (p, 7, "kept") != &kept
        || flux_jobtap_job_aux_get (p, 7, "other") != NULL
        || flux_jobtap_call (p, 7, "job.new", args) != -1
        || flux_jobtap_call (p, 7, "others", args) != 1)
        return -1;
    return flux_jobtap_priority_unavail (p, args);
}

static int kept_cb (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data)
{
    (void)p, (void)topic, (void)args, (void)data;
    return kept == 0 ? 0 : -1;
}

static void say_cb (flux_t *h, void *mh, const flux_msg_t *msg, void *arg)
{
    (void)mh, (void)arg;
    if (strcmp (stand_in_payload (msg), "{\"a\":1}") == 0)
        flux_respond (h, msg, "{\"b\":2}");
    else
        flux_respond_error (h, msg, EPROTO, "not that");
}

static const struct flux_plugin_handler table[] = {
    {"job.new", new_cb, NULL},
    {"job.state.*", run_cb, NULL},
    {"is.released", kept_cb, NULL},
    {NULL, NULL, NULL},
};

int flux_plugin_init (flux_plugin_t *p)
{
    const char *conf = flux_plugin_get_conf (p);
    if (conf && strstr (conf, "fail"))
        return -1;
    return flux_jobtap_service_register (p, "say", say_cb, NULL) < 0 ? -1
                                                                      : flux_plugin_register (p, "standing", table);
}
