/* A module that says its arguments, and does what the first of them is. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern void *flux_aux_get (void *h, const char *key);

#ifdef OLD_NAME
const char *mod_name = OLD_NAME;
#endif

int mod_main (void *h, int argc, char **argv)
{
    printf ("main of %s:", (const char *)flux_aux_get (h, "flux::name"));
    for (int i = 0; i < argc; i++)
        printf (" %s", argv[i]);
    printf ("\n");
    fflush (stdout);
    if (argv[argc])
        return -1;
    if (argc && strcmp (argv[0], "fail") == 0) {
        errno = EIO;
        return -1;
    }
    if (argc && strcmp (argv[0], "crash") == 0)
        kill (getpid (), SIGSEGV);
    return 0;
}
