//! A broker's life: scripts, quorum, signals, shutdown (flux-broker(1), flux-shutdown(1)).

use e2e::{Outcome, Site};

#[test]
fn the_leader_runs_when_the_quorum_is_there() {
    let site = Site::new();
    // Rank 1 is held in its start-up script until the initial program lets it go.
    let script = "
        test $(flux getattr rank) = 0 || cat fifo
    ";
    let rc1 = site.write("rc1", script);
    let run = "
        flux uptime | grep '1 of 2 online\\|online' >/dev/null
        flux overlay status --timeout=0 --summary >/dev/null
        echo ran; echo go > fifo
    ";
    site.run("mkfifo", ["fifo"]).success();
    let rc1 = format!("-Sbroker.rc1_path=sh {}", rc1.display());
    site.flux([
        "start",
        "-s2",
        "-Sbroker.quorum=1",
        "-Sbroker.rc3_path=",
        &rc1,
        "sh",
        "-c",
        run,
    ])
    .success()
    .expect_stdout("ran\n");
}

#[test]
fn bad_limits_are_named() {
    let site = Site::new();
    for (attr, words) in [
        ("broker.quorum=9", ["broker.quorum", "from 1 to 2"]),
        ("broker.quorum=x", ["broker.quorum", "\"x\""]),
        (
            "broker.cleanup-timeout=x",
            ["broker.cleanup-timeout", "duration"],
        ),
    ] {
        let attr = format!("-S{attr}");
        let outcome = site.flux(["start", "-s2", &attr, "true"]);
        assert_ne!(outcome.code(), 0, "{attr}");
        outcome.expect_error(&words);
    }
}

#[test]
fn slow_brokers_are_named() {
    let site = Site::new();
    let rc1 = "-Sbroker.rc1_path=test $(flux getattr rank) = 0 || cat fifo";
    site.run("mkfifo", ["fifo"]).success();
    // Whoever reads the log lets the slow broker go.
    let start = format!(
        "flux start -s2 '{rc1}' -Sbroker.rc3_path= -Sbroker.quorum-warn=0.1s true 2>&1 |
        while read -r line; do
            case $line in
            *'quorum delayed: waiting for '*'(rank 1)') test $((seen += 1)) -gt 1 || echo go > fifo;;
            *'quorum reached') echo reached;;
            esac
        done"
    );
    let outcome = site.run("sh", ["-c", &start]).success();
    assert_eq!(outcome.lines(), ["reached"]);
}

#[test]
fn a_start_up_script_that_fails_ends_the_instance() {
    let site = Site::new();
    let rc1 = "-Sbroker.rc1_path=exit 3";
    site.flux(["start", "-s1", rc1, "echo", "never"])
        .expect_code(3)
        .expect_stdout("");
    site.flux(["start", rc1, "-Sbroker.exit-norestart=42", "true"])
        .expect_code(42);
    // To mend it one must get in.
    site.flux(["start", rc1, "-Sbroker.recovery-mode=1", "echo", "in"])
        .success()
        .expect_stdout("in\n");
}

#[test]
fn signals_that_end_nothing_go_to_the_jobs() {
    let site = Site::new();
    let job =
        "trap 'echo caught; exit 0' USR1; echo ready > fifo; while :; do read x < never; done";
    let script = format!(
        "mkfifo fifo never; exec 3<>never
        id=$(flux submit -n1 sh -c \"{job}\"); read x < fifo
        kill -USR1 $(flux getattr broker.pid)
        flux job attach $id"
    );
    site.script(1, &script).success().expect_stdout("caught\n");
}

#[test]
fn a_signal_ends_the_initial_program_and_what_takes_too_long_to_clean_up() {
    let site = Site::new();
    let script = "
        mkfifo fifo
        echo 'cat fifo' | flux admin cleanup-push
        kill -TERM $(flux getattr broker.pid)
        cat fifo
    ";
    let timeout = "-Sbroker.cleanup-timeout=0.2s";
    site.flux(["start", timeout, "-Slog-stderr-level=6", "sh", "-c", script])
        .expect_code(129)
        .expect_error(&["cleanup.0: cat fifo Hangup"]);
}

#[test]
fn who_shuts_an_instance_down_sees_it_end() {
    let site = Site::new();
    let script = "
        flux start -s2 --test-rundir=run --test-rundir-cleanup -Sbroker.rc2_none &
        until flux proxy local://$PWD/run/local-0 true 2>/dev/null; do :; done
        flux shutdown local://$PWD/run/local-0 2>&1 | grep -o '[a-z0-9-]*: finalize->goodbye'
        wait $!
    ";
    std::fs::create_dir(site.path().join("run")).unwrap();
    site.run("sh", ["-c", script])
        .success()
        .expect_stdout("rc3-success: finalize->goodbye\n");
    site.script(2, "flux exec -r1 flux shutdown; true")
        .expect_error(&["may only be initiated on rank 0"]);
}

#[test]
fn guests_get_what_is_open_to_them() {
    let site = Site::new();
    let script = "
        export FLUX_HANDLE_USERID=9999 FLUX_HANDLE_ROLEMASK=2
        flux getattr size
        flux jobs -no {id}
        flux exec -r0 true 2>&1 | grep -o 'not permitted' || true
        flux module load content 2>&1 | grep -o 'owner' || true
        flux setattr log-stderr-level 7 2>&1 | grep -o 'owner' || true
    ";
    site.script(2, script)
        .success()
        .expect_stdout("2\nnot permitted\nowner\nowner\n");
}

/// Runs a script in an instance of one broker whose run directory other users can enter.
fn within_reach(site: &Site, script: &str) -> Outcome {
    let rundir = format!("-Srundir={}", site.path().display());
    site.flux(["broker", &rundir, "bash", "-c", script])
        .success()
}

#[test]
fn other_users_connect_if_the_configuration_lets_them() {
    if !nix::unistd::getuid().is_root() || !e2e::installed("setpriv") {
        return e2e::skipped("other users need root and setpriv");
    }
    let site = Site::new();
    site.run("chmod", ["755", "."]).success();
    let script = "
        guest() { setpriv --reuid=65534 --regid=65534 --clear-groups $(command -v flux) \"$@\" 2>&1; }
        guest getattr size || echo refused
        flux config load <<< '[access]
allow-guest-user = true'
        guest getattr size
        guest dmesg | grep -o owner
        flux config load <<< '[access]
allow-guests = true' 2>&1 | grep -o 'unknown field .allow-guests.'
        guest getattr size
    ";
    let outcome = within_reach(&site, script);
    let lines = outcome.lines();
    assert!(lines[0].contains("Operation not permitted"), "{outcome}");
    let rest = ["refused", "1", "owner", "unknown field `allow-guests`", "1"];
    assert_eq!(lines[1..], rest, "{outcome}");
}

#[test]
fn other_users_cannot_have_the_owner_run_their_programs() {
    if !nix::unistd::getuid().is_root() || !e2e::installed("setpriv") {
        return e2e::skipped("other users need root and setpriv");
    }
    let site = Site::new();
    site.run("chmod", ["755", "."]).success();
    let script = "
        guest() { setpriv --reuid=65534 --regid=65534 --clear-groups $(command -v flux) \"$@\" 2>&1; }
        flux config load <<< '[access]
allow-guest-user = true'
        guest run id -u || echo refused
        guest jobs -A -a -n
        guest job kill $(flux submit sleep inf) || true
        guest cancel --all || true
        flux jobs -n -o {state}
    ";
    let outcome = within_reach(&site, script);
    let lines = outcome.lines();
    assert!(
        lines[0].contains("only the instance owner can use sign-type=none"),
        "{outcome}"
    );
    assert_eq!(lines[1], "refused", "{outcome}");
    assert!(
        lines[2].contains("guests may only send signals to their own jobs"),
        "{outcome}"
    );
    assert_eq!(lines.last(), Some(&"RUN"), "{outcome}");
}

#[test]
fn an_instance_whose_store_is_damaged_ends_at_once() {
    let site = Site::new();
    let state = site.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("content.sqlite"), "no database at all").unwrap();
    let state = format!("-Sstatedir={}", state.display());
    // A broker that has not joined by then waits for its parent until it is ended.
    let outcome = site.flux(["start", "-s2", "--test-exit-timeout=1s", &state, "true"]);
    assert_ne!(outcome.code(), 0, "{outcome}");
    let outcome = outcome.expect_error(&["content.sqlite", "not a database"]);
    assert!(!outcome.stderr.contains("did not end"), "{outcome}");
}

#[test]
fn blobs_are_stored_in_files_too() {
    let site = Site::new();
    let script = "
        flux module list | grep -o content-files
        printf hello | flux content store
        flux content flush
        flux content load sha1-aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d; echo
        flux exec -r1 flux content load sha1-aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d; echo
        flux kvs put a=1; flux kvs get a
        flux module stats content-files | grep -c object_count
    ";
    let start = ["start", "-s2", "-Scontent.backing-module=content-files"];
    site.flux(start.into_iter().chain(["sh", "-euc", script]))
        .success()
        .expect_stdout(
            "content-files\nsha1-aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d\nhello\nhello\n1\n1\n",
        );
}

#[test]
fn where_jobs_are_private_guests_learn_of_their_own_alone() {
    if !nix::unistd::geteuid().is_root() {
        return e2e::skipped("other users need root and setpriv");
    }
    let site = Site::new();
    site.run("chmod", ["755", "."]).success();
    let script = "
        flux config load <<< '[access]
allow-guest-user = true
private-mode = true'
        flux submit --quiet --urgency=hold true
        id=$(flux jobs -no {id})
        guest() { setpriv --reuid=65534 --regid=65534 --clear-groups $(command -v flux) \"$@\" 2>&1; }
        guest jobs -A -no {id} | wc -l
        guest jobs --stats-only | grep -c 'jobs are private'
        guest module stats job-manager || echo refused
        flux module stats job-manager >/dev/null && echo told
        flux cancel $id
    ";
    let outcome = within_reach(&site, script);
    let lines = outcome.lines();
    assert_eq!(lines[..2], ["0", "1"], "{outcome}");
    assert_eq!(lines[lines.len() - 2..], ["refused", "told"], "{outcome}");
}
