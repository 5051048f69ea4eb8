//! Shared objects built by the C compiler from our header, loaded by the host's side.

mod common;

use std::ffi::{CStr, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Host, load_with};
use plugin_sdk::Args;
use plugin_sdk::host::{LoadError, Plugin};
use serde_json::json;

fn build(dir: &Path, name: &str, body: &str) -> PathBuf {
    let (source, object) = (dir.join(name).with_extension("c"), dir.join(name));
    let text = format!(
        "#include <ferroflux/plugin.h>\n#include <string.h>\n#include <errno.h>\nstatic const ff_host *ff;\n{body}"
    );
    std::fs::write(&source, text).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Werror", "-I"])
        .args([&include, &source, Path::new("-o"), &object])
        .status()
        .unwrap();
    assert!(built.success());
    object
}

fn load(path: &Path, host: &mut Host) -> Result<std::sync::Arc<Plugin>, LoadError> {
    load_with(path, json!({"limit": 3}), host)
}

const WHOLE: &str = r#"
static int freed;
static void release (void *value) { freed += *(int *)value; }
static int five = 5;

static int first (ff_plugin *p, const char *topic, ff_args *args, void *data) {
    const char *answer;
    if (strstr (ff->args_get (args, FF_IN), "\"id\":1") == NULL)
        return ff->fail (p, args, "no id");
    if (ff->ask (p, "echo", "{\"a\":1}", &answer) < 0
        || strcmp (answer, "{\"plugin\":7,\"params\":{\"a\":1}}") != 0)
        return ff->fail (p, args, "echo");
    if (ff->ask (p, "none", "{}", &answer) == 0 || errno != ENOSYS
        || strcmp (ff->error (p), "no method none") != 0)
        return ff->fail (p, args, "none");
    if (ff->ask (p, "panic", "{}", &answer) == 0 || errno != EIO)
        return ff->fail (p, args, "panic");
    if (ff->ask (p, "echo", "nonsense", &answer) == 0 || errno != EINVAL)
        return ff->fail (p, args, "nonsense");
    if (ff->aux_get (p, "five") != &five || ff->aux_get (p, "six") != NULL)
        return ff->fail (p, args, "aux");
    ff->log (p, 6, (const char *)data);
    return ff->args_set (args, FF_OUT, "{\"priority\":42}");
}
static int dead (ff_plugin *p, const char *topic, ff_args *args, void *data) {
    ff->aux_set (p, "five", NULL, NULL);
    return freed == 5 ? 0 : -1;
}
int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p) {
    ff = host;
    if (!FF_HAS (ff, ask) || strcmp (ff->kind, "test") != 0 || strcmp (ff->conf (p), "{\"limit\":3}") != 0)
        return -1;
    ff->set_name (p, "whole");
    ff->aux_set (p, "five", &five, release);
    return ff->add_handler (p, "job.state.*", first, "hello") || ff->add_handler (p, "dead", dead, NULL);
}
"#;

#[test]
fn handlers_are_called_with_the_host_behind_them() {
    let (dir, mut host) = (tempfile::tempdir().unwrap(), Host::default());
    let plugin = load(&build(dir.path(), "whole.so", WHOLE), &mut host).unwrap();
    assert_eq!(plugin.name(), "whole");
    assert!(plugin.handles("job.state.run") && !plugin.handles("job.new"));
    let mut args = Args::new(serde_json::from_value(json!({"id": 1})).unwrap());
    assert_eq!(plugin.call("job.new", &mut args, &mut host), None);
    assert_eq!(
        plugin.call("job.state.run", &mut args, &mut host),
        Some(0),
        "{:?}",
        args.error()
    );
    assert_eq!(args.output.get("priority"), Some(&json!(42)));
    assert_eq!(host.lines, ["6 hello"]);
    let mut none = Args::default();
    assert_eq!(plugin.call("job.state.run", &mut none, &mut host), Some(-1));
    assert_eq!(none.error(), Some("no id"));
    assert_eq!(
        plugin.call("dead", &mut Args::default(), &mut host),
        Some(0)
    );
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let (dir, mut host) = (tempfile::tempdir().unwrap(), Host::default());
    let mut why = |name, body| load(&build(dir.path(), name, body), &mut host).unwrap_err();
    assert_eq!(
        why("none.so", "const void *used(void) { return ff; }"),
        LoadError::NoEntry
    );
    let refuses = r#"int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p) { ff = host; return ff->fail (p, NULL, "not today"); }"#;
    assert_eq!(
        why("no.so", refuses),
        LoadError::Refused("not today".to_owned())
    );
    let missing = "int nowhere (void); int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p) { ff = host; return nowhere (); }";
    assert!(matches!(why("open.so", missing), LoadError::Open(text) if text.contains("nowhere")));
    let file = dir.path().join("text.so");
    std::fs::write(&file, "text").unwrap();
    assert!(matches!(
        load(&file, &mut host).unwrap_err(),
        LoadError::Open(_)
    ));
}

#[test]
fn nothing_can_be_asked_outside_of_a_call() {
    let (dir, mut host) = (tempfile::tempdir().unwrap(), Host::default());
    let body = r#"
static ff_plugin *me;
int outside (void) { const char *answer; return ff->ask (me, "echo", "{}", &answer) == -1 && errno == EINVAL; }
int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p) { ff = host; me = p; return 0; }
"#;
    let path = build(dir.path(), "outside.so", body);
    let _plugin = load(&path, &mut host).unwrap();
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the object is loaded, and the function is the one above.
    let is_refused = unsafe {
        let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
        let outside: &CStr = c"outside";
        let function = libc::dlsym(library, outside.as_ptr());
        assert!(!function.is_null());
        std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> i32>(function)()
    };
    assert_eq!(is_refused, 1);
}

#[test]
fn what_is_given_back_at_the_end_may_still_be_logged() {
    let (dir, mut host) = (tempfile::tempdir().unwrap(), Host::default());
    let body = r#"
static ff_plugin *me;
static int value;
static void release (void *v) { ff->log (me, 5, v == &value ? "released" : "what?"); }
int ferroflux_plugin_v1 (const ff_host *host, ff_plugin *p) { ff = host; me = p; return ff->aux_set (p, "v", &value, release); }
"#;
    let plugin = load(&build(dir.path(), "last.so", body), &mut host).unwrap();
    plugin.retire(&mut host);
    drop(plugin);
    assert_eq!(host.lines, ["5 released"]);
}
