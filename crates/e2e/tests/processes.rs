//! Processes that brokers run for `flux exec`: in the background, waited for, attached to (RFC 42),
//! and the end of an instance by `flux shutdown`.

use e2e::Site;

#[test]
fn background_processes_are_listed_signalled_and_waited_for() {
    let site = Site::new();
    let script = r#"
        flux exec -r 1 --bg --waitable --label=sleeper sleep 1000 >started
        flux sproc ps -r 1 -n -o '{state} {label} {rank} {cmd}'
        flux sproc kill --wait -r 1 15 sleeper && exit 1
        echo "code $?"
        flux sproc ps -r 1 -n
        flux exec -r 1 --bg --waitable --label=done sh -c 'echo out; echo err >&2; exit 3' >>started
        flux sproc wait -o -r 1 done 2>err && exit 1
        echo "code $?"
        cat err; grep -c '^1: ' started"#;
    site.script(2, script)
        .success()
        .expect_stdout("R sleeper 1 sleep\ncode 143\nout\ncode 3\nerr\n2\n");
}

#[test]
fn labels_are_unique_and_only_waitable_processes_are_waited_for() {
    let site = Site::new();
    let script = r#"
        pid=$(flux exec -r 0 --bg --label=one sleep 1000 | sed 's/.*: //')
        flux exec -r 0 --bg --label=one true && exit 1
        flux sproc wait one && exit 1
        flux sproc wait 1 && exit 1
        flux sproc kill 15 "$pid""#;
    let out = site.script(1, script).success();
    for text in [
        "label one is in use by another process",
        "one: process is not waitable",
        "1: pid 1 does not belong to any subprocess",
    ] {
        assert!(out.stderr.contains(text), "{text}\n{out}");
    }
}

#[test]
fn clients_attach_to_background_processes_and_leave_them() {
    let site = Site::new();
    // The process goes on when told to: once the client is attached.
    let script = r#"
        mkfifo go
        flux exec -r 0 --bg --label=it sh -c 'read line <go; echo "got $line"; exit 7' >/dev/null
        flux exec -r 0 -v --attach it >out 2>log & client=$!
        until grep -q attached log; do :; done
        flux exec -r 0 --attach nothing 2>err && exit 1
        flux exec -r 0 --attach it 2>err && exit 1
        grep -o 'Device or resource busy' err
        echo word >go
        wait $client && exit 1
        echo "code $?"; cat out
        flux exec -r 0 --bg --waitable --label=ended sh -c 'exit 5' >/dev/null
        flux exec -r 0 --attach ended 2>/dev/null && exit 1
        echo "code $?"; flux sproc ps -n"#;
    site.script(1, script)
        .success()
        .expect_stdout("Device or resource busy\ncode 7\ngot word\ncode 5\n");
}

#[test]
fn output_of_background_processes_is_logged() {
    let site = Site::new();
    let script = r#"
        flux exec -r 0 --bg --waitable --label=x sh -c 'echo hello; echo trouble >&2' >/dev/null
        flux sproc wait x
        flux dmesg | grep -o 'sh\[[0-9]*\]: std.*' | sed 's/\[[0-9]*\]//' | sort"#;
    site.script(1, script)
        .success()
        .expect_stdout("sh: stderr: trouble\nsh: stdout: hello\n");
}

#[test]
fn shutdown_ends_the_instance() {
    let site = Site::new();
    let script = "flux exec -r 1 flux shutdown 2>err && exit 1
        grep -q 'rank 0' err || exit 2
        flux shutdown --background
        sleep 1000";
    // The initial program is ended by a signal, as the shell that runs it is.
    site.script(2, script).expect_code(143);
}
