//! Jobs when what looks after them is replaced, or the whole instance ends and comes back.

use e2e::Site;

#[test]
fn running_jobs_outlive_the_modules_that_look_after_them() {
    let site = Site::new();
    let script = "
        mkfifo go
        id=$(flux submit -N2 -n2 sh -c 'echo begin; test $FLUX_TASK_RANK = 1 || read x <go; echo end; exit 3')
        mock=$(flux submit --setattr=exec.test.run_duration=0.5s true)
        flux job wait-event $mock start >/dev/null
        flux job wait-event -p exec $id shell.start >/dev/null
        flux module reload job-exec
        flux job wait-event -p exec $id re-started >/dev/null
        flux module reload job-manager
        flux job wait-event -p exec -c 2 $id re-started >/dev/null
        flux run echo others run
        flux module reload sched-simple
        flux run echo and again
        flux module reload job-list
        echo >go
        flux job attach $id | sort || true
        flux job status $mock
        flux job eventlog $id | cut -d' ' -f2 | tr '\\n' ' '
        flux jobs -ano '{name} {result}' | sort
        flux resource list -s free -no '{nnodes}'
    ";
    let outcome = site.script(2, script).success();
    outcome.expect_stdout(
        "others run\nand again\nbegin\nbegin\nend\nend\n\
        submit validate depend priority alloc start finish release free clean \
        echo COMPLETED\necho COMPLETED\nsh FAILED\ntrue COMPLETED\n2\n",
    );
}

#[test]
fn jobs_are_there_after_a_crash() {
    let site = Site::new();
    let [state, run] = site.lasting();
    let first = "
        flux run true
        held=$(flux submit --urgency=hold -n1 echo held)
        flux submit --dependency=afterok:$held echo after
        running=$(flux submit -n1 sh -c 'echo $$ $PPID >pids; exec sleep inf')
        flux job wait-event $running start >/dev/null
        until test -s pids; do :; done
        echo $held >held; echo $running >running; flux job last >last
        kill -9 $(flux getattr broker.pid)
    ";
    let first = site.write("first", first);
    // Shells that are not to outlive their brokers end by themselves.
    let config = site.write("exec.toml", "exec.broker-timeout = \"0\"\n");
    let config = format!("-c{}", config.display());
    let line = format!(
        "flux start {config} {state} {run} sh -eu {}; code=$?
        for pid in $(cat pids); do while kill -0 $pid; do :; done; done 2>/dev/null
        exit $code",
        first.display()
    );
    site.run("sh", ["-c", &line]).expect_code(137);
    let second = "
        flux jobs --filter=pending -no '{name} {state}' | sort
        test $(flux job last) = $(cat last) && echo the same last job
        flux job wait-event $(cat running) clean >/dev/null
        flux job status $(cat running) 2>/dev/null || echo ended with $?
        flux job urgency $(cat held) default
        flux queue drain
        flux jobs -ano '{name} {result}' | sort
        new=$(flux submit true)
        test $(flux job id --to=dec $new) -gt $(flux job id --to=dec $(cat last)) && echo newer
        flux queue drain
    ";
    let outcome = site
        .flux(["start", &config, &state, &run, "sh", "-euc", second])
        .success();
    outcome.expect_stdout(
        "echo DEPEND\necho SCHED\nthe same last job\nended with 127\n\
            echo COMPLETED\necho COMPLETED\nsh FAILED\ntrue COMPLETED\nnewer\n",
    );
}

#[test]
fn what_a_job_has_written_outlives_its_instance() {
    let site = Site::new();
    let state = site.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let state = format!("-Sstatedir={}", state.display());
    // The instance ends and leaves its jobs to the next.
    let first = "
        id=$(flux submit sh -c 'echo so far; exec sleep inf')
        flux job wait-event --waitcreate -p output $id data >/dev/null
        echo $id >id
    ";
    let second = "
        flux job wait-event $(cat id) clean >/dev/null
        flux job attach $(cat id) || echo ended with $?
    ";
    let run = |script| {
        let line = format!("FLUX_DISABLE_JOB_CLEANUP=t flux start {state} sh -euc \"$0\"");
        site.run("sh", ["-c", &line, script]).success()
    };
    run(first);
    run(second)
        .expect_stdout("so far\nended with 127\n")
        .expect_error(&["job.exception", "type=exec"]);
}

#[test]
fn inactive_jobs_are_listed_from_the_archive() {
    let site = Site::new();
    let [state, run] = site.lasting();
    let first = "
        flux module reload job-list block=4
        flux submit --quiet --cc=1-12 --setattr=exec.test.run_duration=0.001s true
        flux submit --quiet --cc=1-8 --setattr=exec.test.run_duration=0.001s --job-name=other true
        flux submit --quiet --urgency=hold true
        while test $(flux jobs -nf inactive | wc -l) -lt 20; do :; done
        until flux kvs dir inactive.0000 | grep -q 03; do :; done
        flux job purge --force --num-limit=18
        flux jobs -ano '{id} {name} {t_inactive} {annotations.sched} {ranks}' >before
        kill -9 $(flux getattr broker.pid)
    ";
    let again = "
        flux jobs -ano '{id} {name} {t_inactive} {annotations.sched} {ranks}' | diff before - && echo the same
        flux jobs -anc 3 --name=other -o '{name} {result}'
        flux module stats job-manager | grep _jobs
        flux job last '[:]' | wc -l
    ";
    let told = "the same\nother COMPLETED\nother COMPLETED\nother COMPLETED\n \
        \"active_jobs\": 1,\n \"inactive_jobs\": 18,\n19\n";
    let start = |script: &str| site.flux(["start", &state, &run, "sh", "-euc", script]);
    start(first).expect_code(137);
    start(again).success().expect_stdout(told);
    // One that cannot be read is made anew.
    start("flux queue list >list; flux kvs put inactive.floor=what").success();
    let logged =
        "until flux dmesg | grep -q 'all jobs are read: inactive.floor: expected'; do :; done";
    let damaged = format!("{again}\n{logged}");
    start(&damaged).success().expect_stdout(told);
    let now = "flux kvs get inactive.floor 2>/dev/null || echo none";
    start(now).success().expect_stdout("none\n");
}
