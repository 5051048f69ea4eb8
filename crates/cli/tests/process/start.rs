//! `flux start` and the driver with real brokers.

use crate::common::{command, instance, run};

#[test]
fn exit_codes_are_those_of_the_initial_program() {
    for (script, code) in [
        ("true", 0),
        ("exit 3", 3),
        ("no-such-command", 127),
        ("kill -9 $$", 137),
    ] {
        assert_eq!(instance(1, script).code, code, "{script}");
    }
    assert_eq!(run(&["start", "-s1", "no-such-command", "x"]).code, 127);
}

#[test]
fn brokers_form_one_instance() {
    assert_eq!(instance(4, "flux getattr size").ok(), "4\n");
    assert_eq!(
        instance(3, "flux exec -r all flux getattr rank | sort").ok(),
        "0\n1\n2\n"
    );
    assert_eq!(
        instance(
            2,
            "flux overlay lookup 0-1 >/dev/null && flux overlay parentof 1"
        )
        .ok(),
        "0\n"
    );
}

#[test]
fn a_broker_that_dies_takes_the_instance_with_it() {
    let run = run(&[
        "start",
        "-s3",
        "--test-exit-timeout=0.1s",
        "kill -9 $(flux getattr broker.pid)",
    ]);
    assert_eq!(run.code, 137);
    // The others end because they lose their parent, or at the exit timeout, whichever is first.
    assert!(run.err.contains("Killed"), "{}", run.err);
}

#[test]
fn run_directories() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let option = format!("--test-rundir={}", path.display());
    let start = |more: &[&str]| {
        let words = [&["start", "-s1", &option], more].concat();
        command(dir.path(), &words).output().unwrap()
    };
    assert_eq!(
        start(&["true"]).status.code(),
        Some(1),
        "the directory must exist"
    );
    std::fs::create_dir(&path).unwrap();
    let kept = start(&["flux getattr rundir"]);
    assert_eq!(
        String::from_utf8_lossy(&kept.stdout).trim(),
        path.to_str().unwrap()
    );
    assert!(path.exists());
    start(&["--test-rundir-cleanup", "true"]);
    assert!(!path.exists());
}

#[test]
fn without_size_it_is_one_broker() {
    assert_eq!(run(&["start", "flux getattr size"]).ok(), "1\n");
    assert_eq!(
        run(&["broker", "flux", "getattr", "broker.boot-method"]).ok(),
        "single\n"
    );
    let refused = run(&["start", "--test-exit-mode=any", "true"]);
    assert_eq!(
        refused.err,
        "flux-start: --test-exit-mode works only with --test-size\n"
    );
}

#[test]
fn mistakes_are_one_line() {
    let line = |words: &[&str]| {
        let run = run(words);
        format!("{} {}", run.code, run.err.trim_end())
    };
    insta::assert_snapshot!(
        [
            line(&["no-such"]),
            line(&["--bogus"]),
            line(&["getattr"]),
            line(&["getattr", "rank"]),
            line(&["submit", "--bogus"]),
            line(&["submit"]),
            line(&["start", "-s0"]),
            line(&["module", "frob"]),
        ]
        .join("\n"),
        @r"
    1 flux: 'no-such' is not a flux command; see 'flux --help'
    1 flux: unknown option '--bogus' (see flux --help)
    1 flux-getattr: missing <NAME>
    1 flux-getattr: no Flux instance: FLUX_URI is not set (start one with `flux start`)
    2 flux-submit: unknown option or argument '--bogus'
    1 flux-submit: job command and arguments are missing
    1 flux-start: --test-size <N>: invalid value '0': 0 is not in 1..=4294967295
    1 flux-module: unknown command 'frob'
    "
    );
}

#[test]
fn commands_of_others_are_found() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flux-hello");
    std::fs::write(&path, "#!/bin/sh\necho hello $@\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = command(dir.path(), &["hello", "-x", "y"])
        .env("FLUX_EXEC_PATH", dir.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello -x y\n");
}
