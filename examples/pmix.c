/* A program that uses PMIx: each process puts a word, and reads that of the next one, before and after a fence.
 *
 *   cc -o pmix examples/pmix.c $(pkg-config --cflags --libs pmix)
 *   flux run -N2 -n4 -o pmi=pmix ./pmix
 *
 * With an argument it does what the argument says: abort, spawn, or connect.
 */
#include <pmix.h>
#include <stdio.h>
#include <string.h>

static pmix_proc_t self;

static int check (const char *what, pmix_status_t status)
{
    if (status != PMIX_SUCCESS)
        fprintf (stderr, "%d: %s: %s\n", (int)self.rank, what, PMIx_Error_string (status));
    return status != PMIX_SUCCESS;
}

/* What the job says under a key that has a number. */
static int number (const char *key, uint32_t rank)
{
    pmix_value_t *value = NULL;
    pmix_proc_t of = self;
    int found = -1;
    of.rank = rank;
    if (check (key, PMIx_Get (&of, key, NULL, 0, &value)))
        return -1;
    found = value->type == PMIX_UINT16 ? value->data.uint16 : (int)value->data.uint32;
    PMIX_VALUE_RELEASE (value);
    return found;
}

static int put (const char *key, const char *text)
{
    pmix_value_t value;
    value.type = PMIX_STRING;
    value.data.string = (char *)text;
    return check ("put", PMIx_Put (PMIX_GLOBAL, key, &value));
}

static int tell (const char *key, uint32_t rank)
{
    pmix_value_t *value = NULL;
    pmix_proc_t of = self;
    of.rank = rank;
    if (check (key, PMIx_Get (&of, key, NULL, 0, &value)))
        return 1;
    printf ("%d: %s\n", (int)self.rank, value->data.string);
    PMIX_VALUE_RELEASE (value);
    return 0;
}

static int special (const char *what)
{
    pmix_proc_t all = self;
    pmix_status_t status;
    all.rank = PMIX_RANK_WILDCARD;
    if (strcmp (what, "abort") == 0)
        return self.rank == 1 ? PMIx_Abort (7, "enough", NULL, 0) : PMIx_Fence (&all, 1, NULL, 0);
    if (strcmp (what, "spawn") == 0) {
        pmix_app_t app;
        char name[PMIX_MAX_NSLEN + 1];
        PMIX_APP_CONSTRUCT (&app);
        app.cmd = strdup ("true");
        app.maxprocs = 1;
        status = PMIx_Spawn (NULL, 0, &app, 1, name);
    } else
        status = PMIx_Connect (&all, 1, NULL, 0);
    printf ("%s: %s\n", what, PMIx_Error_string (status));
    return 0;
}

int main (int argc, char **argv)
{
    pmix_proc_t all;
    pmix_info_t collect;
    bool yes = true;
    char word[64];

    if (check ("init", PMIx_Init (&self, NULL, 0)))
        return 1;
    if (argc > 1) {
        int code = special (argv[1]);
        return check ("finalize", PMIx_Finalize (NULL, 0)) || code;
    }
    all = self;
    all.rank = PMIX_RANK_WILDCARD;
    int size = number (PMIX_JOB_SIZE, PMIX_RANK_WILDCARD);
    snprintf (word, sizeof (word), "%d of %d, %d of %d on node %d", (int)self.rank, size,
              number (PMIX_LOCAL_RANK, self.rank), number (PMIX_LOCAL_SIZE, PMIX_RANK_WILDCARD),
              number (PMIX_NODEID, self.rank));
    uint32_t next = (self.rank + 1) % (uint32_t)size;
    /* Nothing is collected here: what the next one has put is asked for directly. */
    if (put ("early", word) || check ("commit", PMIx_Commit ())
        || check ("fence", PMIx_Fence (&all, 1, NULL, 0)) || tell ("early", next))
        return 1;
    PMIX_INFO_LOAD (&collect, PMIX_COLLECT_DATA, &yes, PMIX_BOOL);
    snprintf (word, sizeof (word), "%d was here", (int)self.rank);
    if (put ("late", word) || check ("commit", PMIx_Commit ())
        || check ("fence", PMIx_Fence (&all, 1, &collect, 1)) || tell ("late", next))
        return 1;
    return check ("finalize", PMIx_Finalize (NULL, 0));
}
