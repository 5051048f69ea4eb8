//! Modules as built for upstream, run by the program. What stands in for upstream's library is `library.c`.

#[path = "../../jobtap-exec/tests/c/mod.rs"]
mod c;

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use c::{linked_object, shared_object};

fn module(dir: &Path, more: &[&str]) -> PathBuf {
    linked_object(dir, "module.c", "some.so", more)
}

struct Run {
    code: Option<i32>,
    signal: Option<i32>,
    out: Vec<String>,
    err: String,
}

fn run(words: &[&str], env: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flux-module-exec"));
    command.env_remove("FLUX_MODULE_URI").args(words);
    let done = command.envs(env.iter().copied()).output().unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    Run {
        code: done.status.code(),
        signal: done.status.signal(),
        out: out.lines().map(str::to_owned).collect(),
        err: String::from_utf8(done.stderr).unwrap(),
    }
}

#[test]
fn a_broker_starts_a_module() {
    let dir = tempfile::tempdir().unwrap();
    let path = module(dir.path(), &[]);
    let uri = ("FLUX_MODULE_URI", "fd://7");
    let words = [path.to_str().unwrap()];
    let well = run(&words, &[uri, ("MODULE_ARGS", "a b=c")]);
    assert_eq!(well.code, Some(0), "{}", well.err);
    let expected = [
        "open fd://7 0",
        "initialize",
        "handlers of welcomed",
        "main of welcomed: a b=c",
        "finalize welcomed 0",
        "close",
    ];
    assert_eq!(well.out, expected);

    let ill = run(&words, &[uri, ("MODULE_ARGS", "fail")]);
    let log = "log welcomed 2: module exiting abnormally (errno 5)";
    let end = [
        "main of welcomed: fail",
        log,
        "finalize welcomed 5",
        "close",
    ];
    assert_eq!(ill.out[3..], end);
}

#[test]
fn a_module_is_tried_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = module(dir.path(), &[]);
    let path = path.to_str().unwrap();
    let well = run(&[path, "x", "--name=y"], &[]);
    assert_eq!(well.code, Some(0), "{}", well.err);
    let expected = [
        "open - 0",
        "name some",
        "flux::uuid of 36",
        "ask attr.list 1",
        "attr rank",
        "attr size",
        "ask config.get 1",
        "config: the configuration",
        "service some",
        "handlers of some",
        "main of some: x --name=y",
        "close",
    ];
    assert_eq!(well.out, expected);

    let ill = run(&["--name=other", path, "fail"], &[]);
    assert_eq!(ill.code, Some(1));
    assert!(ill.out.contains(&"main of other: fail".to_owned()));
    assert!(ill.err.contains("module failed: Input/output error"));
}

#[test]
fn a_signal_that_kills_a_module_kills_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let path = module(dir.path(), &[]);
    let dead = run(&[path.to_str().unwrap(), "crash"], &[]);
    assert_eq!(dead.signal, Some(libc::SIGSEGV), "{}", dead.err);
}

#[test]
fn what_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = module(dir.path(), &["-DOLD_NAME=\"old\""]);
    let path = path.to_str().unwrap();
    let plain = shared_object(dir.path(), "library.c", "no_module.so", &[]);
    let plain = plain.to_str().unwrap();
    let uri = ("FLUX_MODULE_URI", "fd://7");
    let bad = ("FLUX_MODULE_URI", "fd://bad");
    for (words, env, why) in [
        (&[][..], None, "Usage: "),
        (&["--badopt", path], None, "unrecognized option '--badopt'"),
        (&["--name=x", path], Some(uri), "are incompatible"),
        (&[path, "x"], Some(uri), "are incompatible"),
        (&[path], Some(bad), "nobody is there"),
        (&[path], None, "is named \"old\" and cannot run as \"some\""),
        (&["/no/such.so"], None, "/no/such.so"),
        (&[plain], None, "does not define or link with mod_main()"),
    ] {
        let refused = run(words, &Vec::from_iter(env));
        assert_eq!(refused.code, Some(1), "{words:?}");
        assert!(refused.err.contains(why), "{words:?}: {}", refused.err);
    }
    assert_eq!(run(&["--name=old", path], &[]).code, Some(0));
}
