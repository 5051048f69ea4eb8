/* Plugins of the job manager. docs/plugins.md tells of the topics and what comes with them.
 *
 * As for the functions of plugin.h: 0, or -1 with errno and an error text. `id` may be FF_CURRENT_JOB, the job that the
 * innermost call is about. Events for a job that is in a call are posted when that call has returned.
 */
#ifndef FERROFLUX_JOBTAP_H
#define FERROFLUX_JOBTAP_H

#include <ferroflux/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FF_CURRENT_JOB UINT64_MAX

enum {
    FF_JOB_NEW = 1,
    FF_JOB_DEPEND = 2,
    FF_JOB_PRIORITY = 4,
    FF_JOB_SCHED = 8,
    FF_JOB_RUN = 16,
    FF_JOB_CLEANUP = 32,
    FF_JOB_INACTIVE = 64
};

enum {
    FF_RESULT_COMPLETED = 1,
    FF_RESULT_FAILED = 2,
    FF_RESULT_CANCELED = 4,
    FF_RESULT_TIMEOUT = 8
};

typedef struct ff_jobtap {
    size_t size;
    uint32_t abi;

    /* What a job waits for before it may get a priority. */
    int (*dependency_add) (ff_plugin *p, uint64_t id, const char *description);
    int (*dependency_remove) (ff_plugin *p, uint64_t id, const char *description);

    /* What is known of a job: the arguments its topics come with; args_free() them. NULL if there is none. */
    ff_args *(*job_lookup) (ff_plugin *p, uint64_t id);
    /* One of FF_RESULT_*, from CLEANUP on. */
    int (*job_result) (ff_plugin *p, uint64_t id, int *result);
    /* 1 if such an event was posted, 0 if not. */
    int (*event_posted) (ff_plugin *p, uint64_t id, const char *name);
    /* context: a JSON object, or NULL */
    int (*event_post) (ff_plugin *p, uint64_t id, const char *name, const char *context);
    int (*raise) (ff_plugin *p, uint64_t id, const char *type, int severity, const char *note);
    int (*set_flag) (ff_plugin *p, uint64_t id, const char *flag);
    /* updates: a JSON object of dotted paths and values. Of the job in the call: when the call has returned. */
    int (*jobspec_update) (ff_plugin *p, uint64_t id, const char *updates);

    /* job.event.* topics of a job */
    int (*subscribe) (ff_plugin *p, uint64_t id);
    int (*unsubscribe) (ff_plugin *p, uint64_t id);

    /* Keep the job in the call from starting, or its resources from being freed. */
    int (*prolog_start) (ff_plugin *p, const char *description);
    int (*prolog_finish) (ff_plugin *p, uint64_t id, const char *description, int status);
    int (*epilog_start) (ff_plugin *p, const char *description);
    int (*epilog_finish) (ff_plugin *p, uint64_t id, const char *description, int status);

    /* Ask job.priority.get for all jobs; give one job its priority; have none yet (for `return`). */
    int (*reprioritize_all) (ff_plugin *p);
    int (*reprioritize) (ff_plugin *p, uint64_t id, int64_t priority);
    int (*priority_unavail) (ff_plugin *p, ff_args *args);

    /* Call all plugins that handle `topic`, which may not begin with "job.". How many did, or -1. */
    int (*call) (ff_plugin *p, uint64_t id, const char *topic, ff_args *args);

    /* Values the plugin keeps with a job, until the job is destroyed. */
    int (*job_aux_set) (ff_plugin *p, uint64_t id, const char *key, void *value, ff_free release);
    void *(*job_aux_get) (ff_plugin *p, uint64_t id, const char *key);
    int (*job_aux_delete) (ff_plugin *p, uint64_t id, const void *value);

    /* Requests to job-manager.NAME.METHOD come as topic service.METHOD, with `payload`, `userid` and `rolemask`; what comes
     * out as `payload` is the answer, or `errnum` and `errmsg` if the handler fails. rolemask: who may besides the
     * instance's owner (2: users). */
    int (*service_register) (ff_plugin *p, const char *method, uint32_t rolemask);
    /* Call `topic` of this plugin after a time. */
    int (*timer) (ff_plugin *p, double seconds, const char *topic);
    /* In which order it is told of the jobs there are: "none", "state" or "-state". For the entry point. */
    int (*set_load_order) (ff_plugin *p, const char *mode);
} ff_jobtap;

/* NULL if the host is no job manager. */
static inline const ff_jobtap *ff_jobtap_of (const ff_host *host, ff_plugin *p)
{
    return (const ff_jobtap *)host->extension (p, "jobtap");
}

#ifdef __cplusplus
}
#endif

#endif
