//! Plugins of the job shell, as their authors build them.

use e2e::{Site, installed, repository};
use std::{path::PathBuf, process::Command};

/// Compiles a plugin in C into the site.
fn compile(site: &Site, source: PathBuf, name: &str) {
    let include = repository("crates/plugin-sdk/include");
    let mut cc = Command::new("cc");
    cc.args([
        "-shared", "-fPIC", "-std=c11", "-Wall", "-Wextra", "-Werror", "-I",
    ]);
    cc.arg(include)
        .arg("-o")
        .arg(site.path().join(name))
        .arg(source);
    assert!(cc.status().expect("cc is installed").success());
}

#[test]
fn the_example_in_c_tells_how_tasks_have_ended() {
    if !installed("cc") {
        return;
    }
    let site = Site::new();
    compile(&site, repository("examples/plugins/tally.c"), "tally.so");
    site.write(
        "tally.lua",
        "plugin.load { file = shell.getenv 'HERE' .. '/tally.so', conf = { label = 'x' } }",
    );
    let script = "export HERE=$PWD
        flux run -N2 -n4 -o userrc=tally.lua sh -c 'test $FLUX_TASK_RANK != 3' 2>err || echo $?
        sed 's/^[0-9.]*s: //' err | grep tally
        flux run -N2 -o userrc=tally.lua printenv TALLY
        flux job eventlog -p exec $(flux job last) | grep -c tally=true";
    let out = site.script(2, script).success();
    let conf = "{\"label\":\"x\"}";
    assert_eq!(
        out.lines(),
        [
            "1",
            "flux-shell[0]: tally: 3 well, 1 badly",
            conf,
            conf,
            "1"
        ],
        "{out}"
    );
}

#[test]
fn the_example_in_rust_maps_tasks() {
    let site = Site::new();
    let plugin = site.example_plugin("reverse");
    site.write("rc.toml", &format!("[[plugin]]\nfile = {plugin:?}"));
    let script =
        "flux run -N2 -n4 -o userrc=rc.toml --taskmap=reverse --label-io printenv REVERSED | sort
        flux job taskmap $(flux job last)";
    let out = site.script(2, script).success();
    let map = "[[1,1,2,1],[0,1,2,1]]";
    assert_eq!(out.lines(), ["0: 3", "1: 2", "2: 1", "3: 0", map], "{out}");
}

/// All that a plugin may ask, asked from a callback; what is wrong is told.
const ASKS: &str = r#"
#include <ferroflux/shell.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
static const ff_host *ff;
static const ff_shell *sh;
#define WANT(e) do { if (!(e)) return ff->fail (p, args, #e); } while (0)
#define IS(e, text) do { const char *s = (e); if (!s || strcmp (s, text)) { char b[4096]; \
    snprintf (b, sizeof (b), "%s is %s", #e, s ? s : ff->error (p)); return ff->fail (p, args, b); } } while (0)
#define HAS(e, text) do { const char *s = (e); if (!s || !strstr (s, text)) return ff->fail (p, args, #e " has no " text); } while (0)

static int init (ff_plugin *p, const char *topic, ff_args *args, void *data) {
    (void)topic; (void)data;
    IS (sh->getopt (p, "own.list"), "[1,2]");
    WANT (sh->getopt (p, "none") == NULL && errno == ENOENT);
    WANT (sh->setopt (p, "own.text", "\"x\"") == 0);
    IS (sh->getopt (p, "own.text"), "\"x\"");
    WANT (sh->setopt (p, "own", "x") == -1 && errno == EINVAL);
    WANT (sh->setenv (p, "A", "1", 1) == 0 && sh->setenv (p, "A", "2", 0) == 0 && sh->setenv (p, "B", "1", 0) == 0);
    IS (sh->getenv (p, "A"), "1");
    WANT (sh->unsetenv (p, "B") == 0 && sh->getenv (p, "B") == NULL);
    HAS (sh->environment (p), "\"A\":\"1\"");
    HAS (sh->info (p), "\"ntasks\":2");
    HAS (sh->rank_info (p, FF_THIS_SHELL), "\"taskids\":\"0-1\"");
    WANT (sh->rank_info (p, 1) == NULL && sh->rank_info (p, -2) == NULL && errno == EINVAL);
    HAS (sh->jobspec_info (p), "\"cores_per_slot\":1");
    HAS (sh->task_info (p, 1), "\"rank\":1");
    WANT (sh->task_info (p, FF_CURRENT_TASK) == NULL && sh->task_info (p, 2) == NULL);
    HAS (sh->taskmap (p), "[[0,1,2,1]]");
    WANT (sh->hostlist (p) && *sh->hostlist (p));
    IS (sh->render (p, "{{ntasks}}"), "2");
    WANT (sh->remove_completion_ref (p, "none") == -1 && errno == ENOENT);
    WANT (sh->service_register (p, "ask") == 0 && sh->service_register (p, "ask") == -1 && errno == EEXIST);
    WANT (sh->event_subscribe (p, "note") == 0 && sh->add_completion_ref (p, "note") == 0);
    WANT (sh->rpc (p, "ask", 9, "{}", "x") == -1 && errno == EINVAL);
    ff_args *own = ff->args_new ();
    ff->args_set (own, FF_IN, "{\"n\":1}");
    WANT (sh->call (p, "own.topic", own) == 0);
    IS (ff->args_get (own, FF_OUT), "{\"m\":2}");
    ff->args_free (own);
    WANT (sh->set_verbose (p, 1) == 0);
    return 0;
}
static int own (ff_plugin *p, const char *topic, ff_args *args, void *data) {
    (void)topic; (void)data;
    HAS (ff->args_get (args, FF_IN), "\"n\":1");
    return ff->args_set (args, FF_OUT, "{\"m\":2}");
}
static int task (ff_plugin *p, const char *topic, ff_args *args, void *data) {
    (void)topic; (void)data;
    IS (sh->task_command (p), "[\"false\"]");
    WANT (sh->task_setenv (p, "C", "3", 1) == 0 && sh->task_unsetenv (p, "A") == 0);
    IS (sh->task_getenv (p, "C"), "3");
    const char *rank = strstr (sh->task_info (p, FF_CURRENT_TASK), "\"rank\":1") ? "1" : "0";
    IS (sh->render (p, "{{taskid}}"), rank);
    return sh->set_task_command (p, "[\"sh\",\"-c\",\"echo $A $C\"]");
}
static int event (ff_plugin *p, const char *topic, ff_args *args, void *data) {
    (void)topic; (void)data;
    HAS (ff->args_get (args, FF_IN), "{\"payload\":{\"x\":1}}");
    ff->log (p, 6, "noted");
    return sh->remove_completion_ref (p, "note");
}
static int ask (ff_plugin *p, const char *topic, ff_args *args, void *data) {
    (void)topic; (void)data; (void)p;
    if (strstr (ff->args_get (args, FF_IN), "refuse"))
        return ff->args_set (args, FF_OUT, "{\"errnum\":1,\"errmsg\":\"not you\"}") - 1;
    return ff->args_set (args, FF_OUT, "{\"payload\":{\"yes\":true}}");
}
static int seen (ff_plugin *p, const char *topic, ff_args *args, void *data) {
    const char *in = ff->args_get (args, FF_IN);
    (void)topic; (void)data;
    FILE *f = fopen ("seen", "a");
    fprintf (f, "%s\n", in);
    fclose (f);
    ff->log (p, 5, "never logged");
    return 0;
}
int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p) {
    ff = host;
    if (!(sh = ff_shell_of (host, p)) || !FF_HAS (sh, call))
        return -1;
    ff->set_name (p, "asks");
    return ff->add_handler (p, "shell.init", init, NULL) || ff->add_handler (p, "own.topic", own, NULL)
        || ff->add_handler (p, "task.init", task, NULL) || ff->add_handler (p, "event.note", event, NULL)
        || ff->add_handler (p, "service.ask", ask, NULL) || ff->add_handler (p, "shell.log", seen, NULL);
}
"#;

#[test]
fn plugins_ask_and_change_the_shell() {
    if !installed("cc") {
        return;
    }
    let site = Site::new();
    let source = site.write("asks.c", ASKS);
    compile(&site, source, "asks.so");
    let script = "echo '[[plugin]]' >rc.toml; echo \"file = '$PWD/asks.so'\" >>rc.toml
        id=$(flux submit -n2 -o initrc=rc.toml -o own.list=[1,2] false)
        flux job wait-event -p exec $id shell.start >/dev/null
        flux event pub shell-$(flux job id $id).note '{\"x\":1}'
        flux job attach $id 2>err
        grep -c 'DEBUG: asks: noted' err
        grep -c '\"message\":\"noted\"' seen
        grep 'never logged' err seen || echo never";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["3", "3", "1", "1", "never"], "{out}");
}

#[test]
fn what_is_no_plugin_ends_the_job() {
    let site = Site::new();
    site.write("text.so", "no plugin");
    let script = "echo \"plugin.load '$PWD/text.so'\" >rc.lua
        flux run -o userrc=rc.lua true || echo refused";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["refused"], "{out}");
    assert!(
        out.stderr.contains("rc.lua:1: ") && out.stderr.contains("text.so: is no plugin"),
        "{out}"
    );
}
