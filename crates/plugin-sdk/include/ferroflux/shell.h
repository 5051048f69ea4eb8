/* Plugins of the job shell. Their topics are those of flux-shell-plugins(7); docs/shell.md has what comes with them.
 *
 * As for the functions of plugin.h: 0, or -1 with errno and an error text; functions that tell something give a text, or NULL
 * likewise. A text is good until the next call with the same handle.
 */
#ifndef FERROFLUX_SHELL_H
#define FERROFLUX_SHELL_H

#include <ferroflux/plugin.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The task a topic about tasks is about; others are 0, 1, ... on this shell. */
#define FF_CURRENT_TASK (-1)
#define FF_THIS_SHELL (-1)

typedef struct ff_shell {
    size_t size;
    uint32_t abi;

    /* Shell options by dotted path, as JSON; to set one to NULL removes it. The shell reads most of its own when all plugins
     * have been loaded: set those in the entry point. */
    const char *(*getopt) (ff_plugin *p, const char *path);
    int (*setopt) (ff_plugin *p, const char *path, const char *json);

    /* The environment of all tasks. */
    const char *(*getenv) (ff_plugin *p, const char *name);
    const char *(*environment) (ff_plugin *p); /* a JSON object */
    int (*setenv) (ff_plugin *p, const char *name, const char *value, int overwrite);
    int (*unsetenv) (ff_plugin *p, const char *name);

    /* JSON objects: what flux_shell_get_info(3) and its like tell. */
    const char *(*info) (ff_plugin *p);
    const char *(*rank_info) (ff_plugin *p, int shell_rank);
    const char *(*jobspec_info) (ff_plugin *p);
    const char *(*task_info) (ff_plugin *p, int index);
    /* RFC 34 and RFC 29. */
    const char *(*taskmap) (ff_plugin *p);
    const char *(*hostlist) (ff_plugin *p);

    /* The current task, which can be changed until it is started. */
    const char *(*task_getenv) (ff_plugin *p, const char *name);
    int (*task_setenv) (ff_plugin *p, const char *name, const char *value, int overwrite);
    int (*task_unsetenv) (ff_plugin *p, const char *name);
    const char *(*task_command) (ff_plugin *p); /* a JSON array */
    int (*set_task_command) (ff_plugin *p, const char *json);

    /* Merged into the context of the event "shell.init" or "shell.start". */
    int (*add_event_context) (ff_plugin *p, const char *event, const char *json);

    /* The shell does not end while there are references. */
    int (*add_completion_ref) (ff_plugin *p, const char *name);
    int (*remove_completion_ref) (ff_plugin *p, const char *name);

    int (*killall) (ff_plugin *p, int signum);
    int (*raise) (ff_plugin *p, const char *type, int severity, const char *note);
    /* End the job with this exit code when the callback has returned. */
    int (*die) (ff_plugin *p, int code, const char *note);
    int (*set_verbose) (ff_plugin *p, int level);

    /* Requests for `method` of the shell's service come as topic service.METHOD with `payload`; what comes out as
     * `payload` is the answer, or `errnum` and `errmsg` if the handler fails. Events shell-JOBID.SUBTOPIC come as topic
     * event.SUBTOPIC with `payload`. */
    int (*service_register) (ff_plugin *p, const char *method);
    int (*event_subscribe) (ff_plugin *p, const char *subtopic);
    /* Ask the service of a shell. The answer comes as `topic`, with `payload`, or with `errnum` and `errmsg`. */
    int (*rpc) (ff_plugin *p, const char *method, int shell_rank, const char *payload, const char *topic);

    /* A mustache template, filled in for the current task if there is one. */
    const char *(*render) (ff_plugin *p, const char *text);
    /* Call all plugins that handle `topic`. */
    int (*call) (ff_plugin *p, const char *topic, ff_args *args);
} ff_shell;

/* NULL if the host is no job shell. */
static inline const ff_shell *ff_shell_of (const ff_host *host, ff_plugin *p)
{
    return (const ff_shell *)host->extension (p, "shell");
}

#ifdef __cplusplus
}
#endif

#endif
