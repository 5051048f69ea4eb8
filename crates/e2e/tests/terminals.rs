//! Terminals of sessions and tasks, and processes beside a job's tasks (flux-terminus(1), flux-shell(1), flux-exec(1)).

use e2e::Site;

#[test]
fn sessions_come_and_go() {
    let site = Site::new();
    let script = "
        flux terminus list && exit 9
        flux terminus start --detach --name first sh
        flux terminus start --detach cat
        flux terminus list | sed 's/(created.*//; s/ since.*//'
        flux terminus kill 0
        flux terminus kill-server
        flux terminus start -d -r 1 true && exit 9
        flux exec -r 1 flux terminus start --detach cat
        flux terminus start --detach --rank 1 cat
        flux terminus list --rank 1 | grep -c '[[]cat[]]'
        flux terminus kill-server --rank 1
        flux terminus list && exit 9
        flux terminus start --detach /nowhere/to/be && exit 9
        exit 0
    ";
    let outcome = site.script(2, script).success();
    let uid = nix_uid();
    assert_eq!(
        outcome.lines(),
        [
            &format!("server at {uid}-terminus running on rank 0"),
            "2 current sessions:",
            "0: [first] 0 clients ",
            "1: [cat] 0 clients ",
            "2",
        ]
    );
    outcome
        .expect_error(&["no server running at"])
        .expect_error(&["failed to run /nowhere/to/be"]);
}

fn nix_uid() -> String {
    let me = std::fs::metadata("/proc/self").expect("Linux has /proc");
    std::os::unix::fs::MetadataExt::uid(&me).to_string()
}

#[test]
fn a_session_is_entered_left_and_entered_again() {
    let site = Site::new();
    // Each line the shell in the session writes to the fifo says that the one before has been done.
    let script = r#"
        mkfifo fifo
        flux terminus start --detach sh
        printf 'X=kept; echo one >fifo\n' | flux terminus attach --pipe 0
        cat fifo
        printf 'echo $X >fifo; exit 7\n' | flux terminus attach --pipe 0
        cat fifo
        script -qec 'flux terminus attach 0' log >/dev/null </dev/null || echo code $?
        grep -c 'detached: session exiting' log
        flux terminus kill-server || true
        exit 0
    "#;
    let outcome = site.script(1, script).success();
    assert_eq!(outcome.lines(), ["one", "kept", "code 7", "1"]);
}

#[test]
fn tasks_have_terminals() {
    let site = Site::new();
    let script = r#"
        flux run -n2 -N2 -o pty sh -c 'test -t 0 && test -t 1 && stty size' | tr -d '\r'
        flux run -n2 -o pty.ranks=1 --label-io sh -c 'test -t 0; echo $?' | tr -d '\r' | sort
        script -qec "stty rows 30 cols 99; flux run -o pty.interactive sh -c 'until stty size | grep 99; do :; done; exit 3'" log >/dev/null || echo code $?
        grep -ao '30 99' log | tail -n1
        flux submit -o pty.interactive cat >id
        flux job wait-event -p exec $(cat id) shell.start >/dev/null
        flux cancel $(cat id)
        flux job wait-event $(cat id) clean >/dev/null
        flux run -o pty.rank=1 true
    "#;
    let outcome = site.script(2, script);
    outcome
        .expect_error(&["pty.rank=1 is invalid"])
        .expect_code(1)
        .expect_stdout("25 80\n25 80\n0: 1\n1: 0\ncode 1\n30 99\n");
}

#[test]
fn processes_run_beside_tasks() {
    let site = Site::new();
    let script = r#"
        id=$(flux submit --wait-event=start -N2 sleep inf)
        flux exec --jobid $id flux getattr rank | sort
        flux exec --jobid $id -r 1 cat <word
        flux exec --jobid $id -r 0 sh -c 'exit 4' || echo code $?
        flux exec --jobid $id -r 2 true && exit 9
        # What runs when the job ends is ended, and heard of.
        flux exec --jobid $id -r 0 sh -c 'echo up; exec sleep inf' >up & pid=$!
        until grep -q up up; do :; done
        flux cancel $id
        wait $pid || echo code $?
        flux job wait-event $id clean >/dev/null
        flux exec --jobid $id true && exit 9
        exit 0
    "#;
    site.write("word", "hello\n");
    site.script(2, script)
        .success()
        .expect_error(&["--rank values", ": 2"])
        .expect_error(&["is not currently running"])
        .expect_stdout("0\n1\nhello\ncode 4\ncode 143\n");
}
