/* A plugin of the job shell: the shells of a job tell their leader how their tasks have ended, and the leader logs it.
 *
 *   cc -shared -fPIC -I crates/plugin-sdk/include -o tally.so examples/plugins/tally.c
 *   echo 'plugin.load { file = "./tally.so", conf = { label = "ended" } }' >tally.lua
 *   flux run -N2 -n4 -o userrc=tally.lua true
 */
#include <ferroflux/shell.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const ff_host *ff;
static const ff_shell *shell;
static int rank, size, heard, good, bad;

/* The number after `"key":` in an object of JSON. */
static int number (const char *json, const char *key)
{
    char quoted[32];
    snprintf (quoted, sizeof (quoted), "\"%s\":", key);
    const char *found = json ? strstr (json, quoted) : NULL;
    return found ? atoi (found + strlen (quoted)) : -1;
}

static void add (ff_plugin *p, int more_good, int more_bad)
{
    char line[64];
    good += more_good;
    bad += more_bad;
    if (++heard < size)
        return;
    snprintf (line, sizeof (line), "%d well, %d badly", good, bad);
    ff->log (p, 5, line);
    shell->remove_completion_ref (p, "tally");
}

static int init (ff_plugin *p, const char *topic, ff_args *args, void *data)
{
    (void)topic, (void)args, (void)data;
    size = number (shell->info (p), "size");
    if (shell->setenv (p, "TALLY", ff->conf (p), 1) < 0)
        return -1;
    if (rank > 0)
        return 0;
    /* The leader is there until all have told. */
    if (shell->add_event_context (p, "shell.init", "{\"tally\":true}") < 0
        || shell->service_register (p, "tally") < 0)
        return -1;
    return shell->add_completion_ref (p, "tally");
}

static int task_exit (ff_plugin *p, const char *topic, ff_args *args, void *data)
{
    (void)topic, (void)args, (void)data;
    if (number (shell->task_info (p, FF_CURRENT_TASK), "exitcode") == 0)
        good++;
    else
        bad++;
    return 0;
}

static int finish (ff_plugin *p, const char *topic, ff_args *args, void *data)
{
    char payload[64];
    (void)topic, (void)args, (void)data;
    if (rank == 0) {
        add (p, 0, 0);
        return 0;
    }
    snprintf (payload, sizeof (payload), "{\"good\":%d,\"bad\":%d}", good, bad);
    return shell->rpc (p, "tally", 0, payload, "told");
}

static int asked (ff_plugin *p, const char *topic, ff_args *args, void *data)
{
    const char *in = ff->args_get (args, FF_IN);
    (void)topic, (void)data;
    add (p, number (in, "good"), number (in, "bad"));
    return ff->args_set (args, FF_OUT, "{\"payload\":{\"heard\":true}}");
}

static int told (ff_plugin *p, const char *topic, ff_args *args, void *data)
{
    const char *in = ff->args_get (args, FF_IN);
    (void)topic, (void)data;
    if (strstr (in, "errnum"))
        ff->log (p, 4, in);
    return 0;
}

int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p)
{
    ff = host;
    if (!(shell = ff_shell_of (host, p)))
        return ff->fail (p, NULL, "this is a plugin of the job shell");
    rank = number (shell->info (p), "rank");
    return ff->add_handler (p, "shell.init", init, NULL)
           || ff->add_handler (p, "task.exit", task_exit, NULL)
           || ff->add_handler (p, "shell.finish", finish, NULL)
           || ff->add_handler (p, "service.tally", asked, NULL)
           || ff->add_handler (p, "told", told, NULL);
}
