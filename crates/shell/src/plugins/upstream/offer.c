/* The functions that upstream's shell offers to its plugins. */
#include "upstream.h"

static flux_shell_t the_shell;
static flux_shell_task_t the_task = { -1 };
static flux_cmd_t *const the_command = (flux_cmd_t *)&the_task;
static flux_t *handle;

flux_shell_t *flux_plugin_get_shell (flux_plugin_t *p)
{
    if (!p) {
        invalid ();
        return NULL;
    }
    return &the_shell;
}

flux_t *flux_shell_get_flux (flux_shell_t *shell)
{
    if (!shell) {
        invalid ();
        return NULL;
    }
    if (!handle)
        handle = lib.flux_open (NULL, 0);
    return handle;
}

int flux_shell_aux_set (flux_shell_t *shell, const char *name, void *aux, flux_free_f release)
{
    return shell ? lib.flux_plugin_aux_set (ffs_auxes, name, aux, release) : invalid ();
}

void *flux_shell_aux_get (flux_shell_t *shell, const char *name)
{
    if (!shell || !name) {
        invalid ();
        return NULL;
    }
    return lib.flux_plugin_aux_get (ffs_auxes, name);
}

int flux_shell_getopt (flux_shell_t *shell, const char *name, char **json)
{
    if (!shell || !name)
        return invalid ();
    char *answer = ask ("getopt", "{s:s}", "path", name);
    int found = answer ? !is_null (answer) : -1;
    if (json && found == 1)
        *json = answer;
    else
        free (answer);
    return found;
}

int flux_shell_getopt_unpack (flux_shell_t *shell, const char *name, const char *fmt, ...)
{
    char *answer = NULL;
    if (!fmt)
        return invalid ();
    int found = flux_shell_getopt (shell, name, &answer);
    if (found != 1)
        return found;
    va_list ap;
    va_start (ap, fmt);
    int code = unpack (answer, fmt, ap);
    va_end (ap);
    return code < 0 ? -1 : 1;
}

int flux_shell_setopt (flux_shell_t *shell, const char *name, const char *json)
{
    if (!shell || !name)
        return invalid ();
    json_t *value = lib.json_loads (json ? json : "null", DECODE_ANY, NULL);
    return value ? done (ask ("setopt", "{s:s s:o}", "path", name, "json", value)) : invalid ();
}

int flux_shell_setopt_pack (flux_shell_t *shell, const char *name, const char *fmt, ...)
{
    if (!shell || !name || !fmt)
        return invalid ();
    va_list ap;
    va_start (ap, fmt);
    char *json = vpack (fmt, ap);
    va_end (ap);
    int code = json ? flux_shell_setopt (shell, name, json) : -1;
    free (json);
    return code;
}

const char *flux_shell_getenv (flux_shell_t *shell, const char *name)
{
    if (!shell || !name) {
        invalid ();
        return NULL;
    }
    return text (ask ("getenv", "{s:s}", "name", name));
}

int flux_shell_get_environ (flux_shell_t *shell, char **json)
{
    return shell && json ? give (ask ("environment", "{}"), json) : invalid ();
}

int flux_shell_setenvf (flux_shell_t *shell, int overwrite, const char *name, const char *fmt, ...)
{
    if (!shell || !name || !fmt)
        return invalid ();
    if (!overwrite && flux_shell_getenv (shell, name)) {
        errno = EEXIST;
        return -1;
    }
    FORMAT (value, 65536, fmt);
    return done (ask ("setenv", "{s:s s:s s:b}", "name", name, "value", value, "overwrite", 1));
}

int flux_shell_unsetenv (flux_shell_t *shell, const char *name)
{
    if (!shell || !name)
        return invalid ();
    if (!flux_shell_getenv (shell, name)) {
        errno = ENOENT;
        return -1;
    }
    return done (ask ("unsetenv", "{s:s}", "name", name));
}

/* A library's structure made from a text, which stays. */
static const void *made (flux_shell_t *shell, const char *what, const char *function, void **kept)
{
    void *(*decode) (const char *, void *) = library ? dlsym (library, function) : NULL;
    const char *encoded = shell && decode ? text (ask (what, "{}")) : NULL;
    if (!*kept && encoded)
        *kept = decode (encoded, NULL);
    if (!*kept)
        invalid ();
    return *kept;
}

const void *flux_shell_get_taskmap (flux_shell_t *shell)
{
    static void *taskmap;
    return made (shell, "taskmap", "taskmap_decode", &taskmap);
}

const void *flux_shell_get_hostlist (flux_shell_t *shell)
{
    static void *hostlist;
    return made (shell, "hostlist", "hostlist_decode", &hostlist);
}

int flux_shell_get_hwloc_xml (flux_shell_t *shell, const char **xml)
{
    if (!shell || !xml)
        return invalid ();
    errno = ENOTSUP;
    return -1;
}

int flux_shell_get_info (flux_shell_t *shell, char **json)
{
    return shell && json ? give (ask ("info", "{}"), json) : invalid ();
}

int flux_shell_info_unpack (flux_shell_t *shell, const char *fmt, ...)
{
    if (!shell || !fmt)
        return invalid ();
    UNPACK (ask ("info", "{}"));
}

int flux_shell_get_rank_info (flux_shell_t *shell, int rank, char **json)
{
    return shell && json ? give (ask ("rank_info", "{s:i}", "shell_rank", rank), json) : invalid ();
}

int flux_shell_rank_info_unpack (flux_shell_t *shell, int rank, const char *fmt, ...)
{
    if (!shell || !fmt)
        return invalid ();
    UNPACK (ask ("rank_info", "{s:i}", "shell_rank", rank));
}

int flux_shell_get_jobspec_info (flux_shell_t *shell, char **json)
{
    return shell && json ? give (ask ("jobspec_info", "{}"), json) : invalid ();
}

int flux_shell_jobspec_info_unpack (flux_shell_t *shell, const char *fmt, ...)
{
    if (!shell || !fmt)
        return invalid ();
    UNPACK (ask ("jobspec_info", "{}"));
}

int flux_shell_add_completion_ref (flux_shell_t *shell, const char *fmt, ...)
{
    if (!shell || !fmt)
        return invalid ();
    FORMAT (name, 512, fmt);
    return done (ask ("add_completion_ref", "{s:s}", "name", name));
}

int flux_shell_remove_completion_ref (flux_shell_t *shell, const char *fmt, ...)
{
    if (!shell || !fmt)
        return invalid ();
    FORMAT (name, 512, fmt);
    return done (ask ("remove_completion_ref", "{s:s}", "name", name));
}

void flux_shell_killall (flux_shell_t *shell, int signum)
{
    if (shell)
        done (ask ("killall", "{s:i}", "signum", signum));
}

/* Messages go to the shell's own loop, which upstream's handlers know nothing of. */
static int unsupported (const void *a, const void *b, const void *c)
{
    if (!a || !b || !c)
        return invalid ();
    errno = ENOTSUP;
    return -1;
}

int flux_shell_add_event_handler (flux_shell_t *shell, const char *topic, void *cb, void *arg)
{
    (void)arg;
    return unsupported (shell, topic, cb);
}

int flux_shell_service_register (flux_shell_t *shell, const char *method, void *cb, void *arg)
{
    (void)arg;
    return unsupported (shell, method, cb);
}

void *flux_shell_rpc_pack (flux_shell_t *shell, const char *method, int rank, int flags, const char *fmt, ...)
{
    (void)rank, (void)flags;
    unsupported (shell, method, fmt);
    return NULL;
}

int flux_shell_task_channel_subscribe (flux_shell_task_t *task, const char *name, void *cb, void *arg)
{
    (void)arg;
    return unsupported (task, name, cb);
}

int flux_shell_plugstack_call (flux_shell_t *shell, const char *topic, flux_plugin_arg_t *args)
{
    if (!shell || !topic)
        return invalid ();
    char *in = NULL, *out = NULL;
    if (args && lib.flux_plugin_arg_get (args, ARG_IN, &in) < 0)
        in = NULL;
    if (args && lib.flux_plugin_arg_get (args, ARG_OUT, &out) < 0)
        out = NULL;
    json_t *given = lib.json_loads (in ? in : "{}", 0, NULL), *made = lib.json_loads (out ? out : "{}", 0, NULL);
    free (in);
    free (out);
    if (!given || !made)
        return invalid ();
    char *answer = ask ("call", "{s:s s:o s:o}", "topic", topic, "in", given, "out", made);
    int code = answer && args ? lib.flux_plugin_arg_set (args, ARG_OUT, answer) : 0;
    return done (answer) < 0 || code < 0 ? -1 : 0;
}

int flux_shell_add_event_context (flux_shell_t *shell, const char *name, int flags, const char *fmt, ...)
{
    (void)flags;
    if (!shell || !name || !fmt)
        return invalid ();
    va_list ap;
    va_start (ap, fmt);
    json_t *context = lib.json_vpack_ex (NULL, 0, fmt, ap);
    va_end (ap);
    if (!context)
        return invalid ();
    return done (ask ("add_event_context", "{s:s s:o}", "event", name, "context", context));
}

/* Tasks. */

flux_shell_task_t *flux_shell_current_task (flux_shell_t *shell)
{
    char *info = shell ? ask ("task_info", "{s:i}", "index", -1) : NULL;
    if (!info) {
        invalid ();
        return NULL;
    }
    free (info);
    return &the_task;
}

static flux_shell_task_t *nth;
static int next_index;

flux_shell_task_t *flux_shell_task_next (flux_shell_t *shell)
{
    char *info = shell ? ask ("task_info", "{s:i}", "index", next_index) : NULL;
    if (!info) {
        if (!shell)
            invalid ();
        return NULL;
    }
    free (info);
    if ((nth = calloc (1, sizeof (*nth))))
        nth->index = next_index++;
    return nth;
}

flux_shell_task_t *flux_shell_task_first (flux_shell_t *shell)
{
    next_index = 0;
    return flux_shell_task_next (shell);
}

int flux_shell_task_get_info (flux_shell_task_t *task, char **json)
{
    return task && json ? give (ask ("task_info", "{s:i}", "index", task->index), json) : invalid ();
}

int flux_shell_task_info_unpack (flux_shell_task_t *task, const char *fmt, ...)
{
    if (!task || !fmt)
        return invalid ();
    UNPACK (ask ("task_info", "{s:i}", "index", task->index));
}

flux_cmd_t *flux_shell_task_cmd (flux_shell_task_t *task)
{
    if (!task || task->index >= 0) {
        invalid ();
        return NULL;
    }
    return the_command;
}

void *flux_shell_task_subprocess (flux_shell_task_t *task)
{
    errno = task ? ENOTSUP : EINVAL;
    return NULL;
}

/* The library's own functions for commands come here first: one command is not its own. */
#define NEXT(name) dlsym (library, #name)

int flux_cmd_setenvf (flux_cmd_t *cmd, int overwrite, const char *name, const char *fmt, ...)
{
    FORMAT (value, 65536, fmt);
    if (cmd != the_command) {
        int (*next) (flux_cmd_t *, int, const char *, const char *, ...) = NEXT (flux_cmd_setenvf);
        return next (cmd, overwrite, name, "%s", value);
    }
    return done (ask ("task_setenv", "{s:s s:s s:b}", "name", name, "value", value, "overwrite", overwrite));
}

void flux_cmd_unsetenv (flux_cmd_t *cmd, const char *name)
{
    if (cmd != the_command) {
        void (*next) (flux_cmd_t *, const char *) = NEXT (flux_cmd_unsetenv);
        next (cmd, name);
    } else
        done (ask ("task_unsetenv", "{s:s}", "name", name));
}

const char *flux_cmd_getenv (const flux_cmd_t *cmd, const char *name)
{
    if (cmd != the_command) {
        const char *(*next) (const flux_cmd_t *, const char *) = NEXT (flux_cmd_getenv);
        return next (cmd, name);
    }
    return text (ask ("task_getenv", "{s:s}", "name", name));
}

/* Words. */

void flux_shell_log (const char *component, int level, const char *file, int line, const char *fmt, ...)
{
    FORMAT (message, 16384, fmt);
    int saved = errno;
    ffs_log (component, level, file, line, message);
    errno = saved;
}

int flux_shell_err (const char *component, const char *file, int line, int errnum, const char *fmt, ...)
{
    FORMAT (message, 16384, fmt);
    char whole[16640];
    snprintf (whole, sizeof (whole), "%s: %s", message, strerror (errnum));
    ffs_log (component, 3, file, line, whole);
    errno = errnum;
    return -1;
}

void flux_shell_fatal (const char *component, const char *file, int line, int errnum, int code, const char *fmt, ...)
{
    FORMAT (message, 16384, fmt);
    char whole[16640];
    (void)component, (void)file, (void)line;
    snprintf (whole, sizeof (whole), "%s%s%s", message, errnum ? ": " : "", errnum ? strerror (errnum) : "");
    done (ask ("die", "{s:i s:s}", "code", code, "note", whole));
    if (ffs_depth > 0)
        longjmp (ffs_fatal, 1);
    exit (code);
}

void flux_shell_raise (const char *type, int severity, const char *fmt, ...)
{
    FORMAT (note, 4096, fmt);
    done (ask ("raise", "{s:s s:i s:s}", "kind", type, "severity", severity, "note", note));
}

void flux_shell_raise_exit_status (int status, const char *fmt, ...)
{
    (void)status;
    FORMAT (note, 4096, fmt);
    done (ask ("raise", "{s:s s:i s:s}", "kind", "exec", "severity", 0, "note", note));
}

int flux_shell_log_setlevel (int level, const char *dest)
{
    (void)dest;
    if (level < -1 || level > 7)
        return invalid ();
    return done (ask ("set_verbose", "{s:i}", "level", level - 5));
}

static char *render (const char *fmt)
{
    const char *rendered = fmt ? text (ask ("render", "{s:s}", "template", fmt)) : NULL;
    if (!fmt)
        invalid ();
    return rendered ? strdup (rendered) : NULL;
}

char *flux_shell_mustache_render (flux_shell_t *shell, const char *fmt)
{
    return render (shell ? fmt : NULL);
}

char *flux_shell_task_mustache_render (flux_shell_t *shell, flux_shell_task_t *task, const char *fmt)
{
    return render (shell && task ? fmt : NULL);
}
