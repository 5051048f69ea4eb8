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
    1 flux-getattr: missing <NAME>; usage: flux getattr <NAME>
    1 flux-getattr: flux_open: no Flux instance: FLUX_URI is not set (start one with `flux start`)
    2 flux-submit: unrecognized option '--bogus'
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

#[test]
fn options_for_brokers_are_split_at_commas() {
    let words = [
        "start",
        "-s1",
        "-o,-Stest.a=1,-Stest.b=2",
        "flux getattr test.a; flux getattr test.b",
    ];
    assert_eq!(run(&words).ok(), "1\n2\n");
    let bad = run(&["start", "-o,--bogus", "true"]);
    assert_eq!(bad.code, 1);
    assert!(
        bad.err.contains("unknown option \"--bogus\""),
        "{}",
        bad.err
    );
}

#[test]
fn a_critical_rank_is_a_rank() {
    let bad = run(&["start", "-Sbroker.critical-ranks=0-1", "true"]);
    assert_eq!(bad.code, 1);
    assert!(
        bad.err.contains("goes beyond the last rank, 0"),
        "{}",
        bad.err
    );
}

#[test]
fn attributes_tell_of_directories_and_nodes() {
    let script = "flux getattr statedir-cleanup; flux getattr broker.mapping; test -h $(flux getattr rundir)/bin/flux && echo link";
    assert_eq!(instance(2, script).ok(), "1\n[[0,1,2,1]]\nlink\n");
}

#[test]
fn starts_are_logged() {
    let text = instance(1, "flux kvs eventlog get --waitcreate admin.eventlog >/dev/null && flux startlog -v && flux startlog --check --quiet").ok();
    assert_eq!(text.lines().count(), 1);
    assert!(
        text.contains(env!("CARGO_PKG_VERSION")) && text.contains(" - running ("),
        "{text}"
    );
}

#[test]
fn rank_0_of_an_instance_with_guests_is_for_its_own_node() {
    let script = "flux exec -r 1 flux exec -r 0 echo no; flux exec -r 0 echo yes";
    let conf = "--conf=access.allow-guest-user=true";
    let run = run(&["start", "-s2", conf, script]);
    assert_eq!((run.code, run.out.as_str()), (0, "yes\n"));
    assert!(
        run.err
            .contains("rank 0: echo: error launching process: Operation not permitted"),
        "{}",
        run.err
    );
}

#[test]
fn commands_that_are_meant() {
    let wrong = run(&["dmsg"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("did you mean dmesg?"), "{}", wrong.err);
    let none = run(&["proxy", "bloop:1", "true"]);
    assert!(
        none.err.contains("Unable to resolve bloop:1 to a URI"),
        "{}",
        none.err
    );
}

#[test]
fn added_commands_scripts_and_help() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("flux-one", "#!/bin/sh\necho one $1"),
        ("flux-two.py", "print('two')"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let help = r#"[{"name": "x", "description": "extra commands", "commands": [{"name": "one", "description": "first"}]}]"#;
    std::fs::write(dir.path().join("x.json"), help).unwrap();
    let output = |words: &[&str]| {
        let mut cmd = command(dir.path(), words);
        cmd.env("FLUX_EXEC_PATH_PREPEND", dir.path());
        cmd.env("FLUX_CMDHELP_PATTERN", dir.path().join("*.json"));
        String::from_utf8(cmd.output().unwrap().stdout).unwrap()
    };
    assert_eq!(output(&["one", "x"]), "one x\n");
    assert_eq!(output(&["two"]), "two\n");
    assert_eq!(output(&["/bin/echo", "path"]), "path\n");
    assert!(output(&["help"]).ends_with("\nextra commands:\n   one                first\n"));
    let path = output(&["env", "printenv", "FLUX_EXEC_PATH"]);
    assert!(
        path.starts_with(&format!("{}:", dir.path().display())),
        "{path}"
    );
}

#[test]
fn the_launcher_signals_and_waits_for_brokers() {
    use client::{Handle, Node};
    use serde_json::{Value, json};
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    let dir = tempfile::tempdir().unwrap();
    let words = [
        "start",
        "-s2",
        "--test-exit-mode=leader",
        "echo $FLUX_START_URI; read line",
    ];
    let mut cmd = command(dir.path(), &words);
    cmd.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = cmd.spawn().unwrap();
    let mut uri = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut uri)
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let handle = Handle::open(Some(uri.trim())).await.unwrap();
        let call = async |topic: &str, payload: Value| {
            handle
                .call::<Value>(topic, Node::Any, &payload)
                .await
                .map_err(|e| e.errno)
        };
        let status = call("start.status", json!({})).await.unwrap();
        assert!(status["procs"][1]["pid"].as_i64().unwrap() > 0, "{status}");
        assert_eq!(
            call("start.run", json!({"rank": 1})).await,
            Err(libc::EEXIST)
        );
        assert_eq!(
            call("start.wait", json!({"rank": 2})).await,
            Err(libc::EINVAL)
        );
        let kill = json!({"rank": 1, "signum": 9});
        handle.rpc("start.kill", Node::Any, &kill).await.unwrap();
        let end = call("start.wait", json!({"rank": 1})).await.unwrap();
        assert_eq!(end, json!({"exit_rc": 137}));
        assert_eq!(call("start.kill", kill).await, Err(libc::ESRCH));
        let status = call("start.status", json!({})).await.unwrap();
        assert_eq!(status["procs"][1]["pid"], -1);
    });
    drop(child.stdin.take());
    child.wait().unwrap();
}
