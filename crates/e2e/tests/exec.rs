//! How jobs are started and made to end (flux-config-exec(5)).

use e2e::{Outcome, Site};

/// Run a script in an instance of two brokers with this table `exec`.
fn with_exec(site: &Site, table: &str, script: &str) -> Outcome {
    let config = site.write("exec.toml", &format!("[exec]\n{table}\n"));
    let config = format!("-c{}", config.display());
    site.flux(["start", "-s2", &config, "sh", "-euc", script])
}

/// A job shell that does something of its own on rank 1, as a line of the table.
fn odd_shell(site: &Site, on_rank_1: &str) -> String {
    let text = format!(
        "#!/bin/sh\ntest $(flux getattr rank) = 0 || {{ {on_rank_1}; }}\nexec flux-shell \"$@\"\n"
    );
    let path = site.write("odd-shell", &text);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("the file is the test's own");
    format!("job-shell = \"{}\"\n", path.display())
}

#[test]
fn tasks_that_do_not_end_when_asked_are_killed_and_their_output_is_kept() {
    let site = Site::new();
    let out = with_exec(
        &site,
        "kill-timeout = \"0.1s\"",
        r#"
        id=$(flux submit sh -c 'trap "echo asked" TERM; echo ready; while :; do sleep 0.01; done')
        flux job wait-event --waitcreate -p output -m stream=stdout $id data >/dev/null
        flux cancel $id
        flux job attach $id 2>/dev/null || echo ended with $?
        "#,
    );
    let out = out.success();
    let lines = out.lines();
    assert_eq!(lines.first(), Some(&"ready"), "{out}");
    assert!(lines.contains(&"asked"), "{out}");
    assert_eq!(lines.last(), Some(&"ended with 137"), "{out}");
}

#[test]
fn nodes_whose_processes_cannot_be_killed_are_drained() {
    let site = Site::new();
    // SIGCONT ends nobody: what cannot be killed, without anything of the kind.
    let table = "kill-timeout = \"0.05s\"\nmax-kill-count = 2\nkill-signal = \"SIGCONT\"\n\
                 term-signal = \"SIGCONT\"";
    let out = with_exec(
        &site,
        table,
        r#"
        id=$(flux submit -N1 sh -c 'echo $$ >pid; exec sleep inf')
        until test -s pid; do :; done
        flux cancel $id
        flux job wait-event $id clean >/dev/null
        flux resource drain -no '{nnodes} {reason}' | sed "s/$id/ID/"
        kill -9 $(cat pid)
        "#,
    );
    out.success()
        .expect_stdout("1 unkillable user processes for job ID\n");
}

#[test]
fn shells_that_do_not_come_to_the_barrier_are_not_waited_for_long() {
    let site = Site::new();
    let shell = odd_shell(&site, "exec sleep inf");
    let out = with_exec(
        &site,
        &(shell + "barrier-timeout = \"0.3s\""),
        "flux run -N2 true || echo ended with $?
        flux resource drain -no '{ranks} {reason}' | sed 's/job .* start/job ID start/'",
    );
    out.success()
        .expect_stdout("ended with 143\n1 job ID start timeout: possible node hang\n")
        .expect_error(&["start barrier timeout waiting for 1/2 nodes (rank 1)"]);
}

#[test]
fn shells_that_stay_after_the_leader_are_ended() {
    let site = Site::new();
    let shell = odd_shell(&site, "flux-shell \"$@\"; exec sleep inf");
    let out = with_exec(
        &site,
        &(shell + "shell-exit-timeout = \"0.2s\""),
        "flux run -N2 true || echo ended with $?
        flux job eventlog -p exec $(flux job last) | grep -o 'active_ranks=.*'",
    );
    out.success()
        .expect_stdout("ended with 143\nactive_ranks=\"1\"\n")
        .expect_error(&["(rank 1) 0.2s after leader shell exit"]);
}

#[test]
fn what_the_table_says_is_checked_and_shown() {
    let site = Site::new();
    let out = with_exec(
        &site,
        "kill-timeout = \"2s\"",
        r#"
        stats() { flux module stats job-exec | grep -o '"kill-timeout": [0-9.]*'; }
        stats
        sed -i s/2s/soon/ exec.toml
        flux config reload 2>&1 | grep -o 'exec.kill-timeout.*not a duration' || :
        stats
        flux module reload job-exec kill-timeout=7s
        stats
        "#,
    );
    out.success().expect_stdout(
        "\"kill-timeout\": 2.0\nexec.kill-timeout: 'soon' is not a duration\n\
        \"kill-timeout\": 2.0\n\"kill-timeout\": 7.0\n",
    );
}

#[test]
fn jobs_that_only_pretend_do_as_they_are_told() {
    let site = Site::new();
    let out = with_exec(
        &site,
        "",
        "pretend() { flux submit --setattr=exec.test.$1 true; }
        end() { flux job wait-event $1 clean >/dev/null; flux job status $1 2>/dev/null || echo $?; }
        id=$(pretend override=1)
        until flux job-exec-override start $id 2>/dev/null; do :; done
        flux job wait-event $id start >/dev/null
        flux job-exec-override finish $id 768; end $id
        id=$(pretend run_duration=0s); flux job wait-event $id start >/dev/null
        flux job-exec-override start $id 2>&1 | grep -o 'not in exec override mode'
        flux cancel $id; end $id
        id=$(pretend run_duration=never); end $id
        end $(pretend mock_exception=run)",
    );
    out.success()
        .expect_stdout("3\nnot in exec override mode\n143\n1\n143\n");
}
