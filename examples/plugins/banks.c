/* A validator in C: jobs need a bank, and one there is.
 *
 *     cc -shared -fPIC -I crates/plugin-sdk/include -o banks.so examples/plugins/banks.c
 *     flux jobtap load ./banks.so banks=physics,chemistry
 *     flux submit --setattr=bank=physics ...
 */
#include <ferroflux/jobtap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const ff_host *ff;

/* Whether `bank` is one of `banks`, which commas separate. */
static int is_one_of (const char *banks, const char *bank)
{
    size_t length = strlen (bank);
    while (*banks) {
        size_t n = strcspn (banks, ",");
        if (n == length && strncmp (banks, bank, n) == 0)
            return 1;
        banks += n + (banks[n] == ',');
    }
    return 0;
}

static int validate (ff_plugin *p, const char *topic, ff_args *args, void *banks)
{
    char why[256];
    const char *bank = ff->args_find (args, FF_IN, "jobspec.attributes.system.bank");
    (void)topic;
    if (bank == NULL)
        return ff->fail (p, args, "a job needs a bank: give it with --setattr=bank=NAME");
    if (is_one_of (banks, bank))
        return 0;
    snprintf (why, sizeof (why), "there is no bank %s", bank);
    return ff->fail (p, args, why);
}

int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p)
{
    ff = host;
    ff_args *conf = ff->args_new ();
    ff->args_set (conf, FF_IN, ff->conf (p));
    const char *banks = ff->args_find (conf, FF_IN, "banks");
    char *copy = banks ? strdup (banks) : NULL;
    ff->args_free (conf);
    if (copy == NULL)
        return ff->fail (p, NULL, "needs the names of the banks: banks=NAME,NAME");
    if (ff->aux_set (p, "banks", copy, free) < 0)
        return -1;
    return ff->add_handler (p, "job.validate", validate, copy);
}
