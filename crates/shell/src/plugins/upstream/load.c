/* What a shell plugin that was built for upstream finds in the shell.
 *
 * The plugin brings upstream's libflux-core along: it is linked with it. All that concerns handlers, arguments and JSON is
 * done there; in offer.c are the functions that upstream's shell itself would have, each of which asks ours (ffs_ask, in
 * mod.rs). JSON that a plugin has been given parts of is kept until the shell ends.
 */
#include "upstream.h"

void *ffs_library;
struct ffs_functions ffs_lib;
jmp_buf ffs_fatal;
int ffs_depth;
flux_plugin_t *ffs_auxes;

/* A plugin is loaded and called by these. */

static const char *find (const char *path)
{
    if (lib.flux_plugin_create)
        return NULL;
    if (!(library = dlopen (path, RTLD_LAZY | RTLD_LOCAL)))
        return dlerror ();
    /* One that relies on its host having the library. */
    if (!dlsym (library, "flux_plugin_create")
        && !(library = dlopen ("libflux-core.so.2", RTLD_LAZY | RTLD_GLOBAL)))
        return dlerror ();
#define FIND(result, name, params)                                                     \
    if (!(*(void **)&lib.name = dlsym (library, #name))) {                             \
        lib.flux_plugin_create = NULL;                                                 \
        return "it is not linked with a libflux-core that has " #name "()";            \
    }
    LIBRARY (FIND)
    ffs_auxes = lib.flux_plugin_create ();
    return NULL;
}

flux_plugin_t *ffs_load (const char *path, const char *conf, const char **error)
{
    static char why[512];
    flux_plugin_t *volatile p = NULL;
    if ((*error = find (path)))
        return NULL;
    ffs_depth++;
    if (setjmp (ffs_fatal) == 0) {
        if (!(p = lib.flux_plugin_create ()) || lib.flux_plugin_set_flags (p, RTLD_LAZY_FLAG) < 0
            || lib.flux_plugin_set_conf (p, conf) < 0 || lib.flux_plugin_load_dso (p, path) < 0) {
            snprintf (why, sizeof (why), "%s", p ? lib.flux_plugin_strerror (p) : strerror (errno));
            *error = why;
        }
    } else
        *error = "it has ended the job";
    ffs_depth--;
    return *error ? NULL : p;
}

const char *ffs_name (flux_plugin_t *p)
{
    return lib.flux_plugin_get_name (p);
}

int ffs_handles (flux_plugin_t *p, const char *topic)
{
    return lib.flux_plugin_match_handler (p, topic) != NULL;
}

int ffs_call (flux_plugin_t *p, const char *topic, const char *in, const char *out, char **said)
{
    volatile int code = -1;
    jmp_buf outer;
    flux_plugin_arg_t *args = lib.flux_plugin_arg_create ();
    memcpy (&outer, &ffs_fatal, sizeof (outer));
    ffs_depth++;
    if (args && setjmp (ffs_fatal) == 0) {
        if (lib.flux_plugin_arg_set (args, ARG_IN, in) == 0
            && lib.flux_plugin_arg_set (args, ARG_OUT, out) == 0)
            code = lib.flux_plugin_call (p, topic, args);
        lib.flux_plugin_arg_get (args, ARG_OUT, said);
    }
    ffs_depth--;
    memcpy (&ffs_fatal, &outer, sizeof (outer));
    if (args)
        lib.flux_plugin_arg_destroy (args);
    return code;
}

void ffs_unload (flux_plugin_t *p)
{
    lib.flux_plugin_destroy (p);
}
