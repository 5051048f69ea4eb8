//! Shells that share a process.

use e2e::{Outcome, Site};

/// `shared` waits until the node's shells share a process, which `holder` is then.
const TOOLS: &str = r#"
shared() { until flux run sh -c 'grep -q shared /proc/$PPID/cmdline'; do :; done 2>/dev/null; }
holder() { flux run sh -c 'echo $PPID'; }
running() { flux job wait-event -p exec $1 shell.start >/dev/null; }
shared
"#;

/// Run a script in an instance of one broker, where shells share a process whenever they can.
fn sharing(site: &Site, script: &str) -> Outcome {
    let config = site.write("exec.toml", "exec.shared-shells = \"always\"\n");
    let config = format!("-c{}", config.display());
    let script = site.write("script", &format!("{TOOLS}{script}"));
    let script = script.to_string_lossy();
    site.flux(["start", &config, "sh", "-eu", &script])
}

#[test]
fn jobs_with_shared_shells_are_as_others_are() {
    let site = Site::new();
    let out = sharing(
        &site,
        r#"
        test $(holder) = $(holder) && echo one process
        mkdir there
        id=$(flux submit --cwd=$PWD/there --output=out.txt -n2 sh -c 'pwd -P >pwd.$FLUX_TASK_RANK; echo $FLUX_TASK_RANK')
        flux job attach $id
        sort there/out.txt; test "$(cat there/pwd.1)" = "$PWD/there" && echo there
        echo input | flux run cat
        flux run --rlimit=nofile --env=A=b sh -c 'ulimit -n; echo $A; exit 7' >limits || echo code $?
        test $(head -1 limits) = $(ulimit -n) && tail -1 limits
        (ulimit -Sn 77; flux run sh -c 'ulimit -Sn')
        test $(flux run sh -c 'ulimit -n') = $(ulimit -n) && echo only one had 77
        flux run -o cpu-affinity=off nproc >all; test $(cat all) = $(nproc) && echo unbound
        flux run -n2 -o cpu-affinity=per-task flux pmi barrier >/dev/null && echo pmi
        flux run ./missing 2>err || echo code $?
        id=$(flux submit sh -c 'trap "echo stopped; exit 3" TERM; while :; do sleep 0.05; done'); running $id
        flux job kill $id; flux job attach $id || echo code $?
        id=$(flux submit sleep inf); running $id
        flux cancel $id; flux job status $id 2>/dev/null || echo cancelled
        flux run -o exit-timeout=none -t 0.2s sleep inf 2>/dev/null || echo code $?
        # What initrc files make of a shell, they make of one with a process of its own.
        mkdir rc; echo 'shell.setenv("A", "of the file")' >rc/a.lua
        FLUX_SHELL_RC_PATH=$PWD/rc flux run sh -c 'echo $A; grep -q shared /proc/$PPID/cmdline || echo own'
        flux jobs -ano '{status}' -f running | wc -l
        "#,
    );
    out.success().expect_stdout(
        "one process\n0\n1\nthere\ninput\ncode 7\nb\n77\nonly one had 77\nunbound\npmi\ncode 127\n\
        stopped\ncode 3\ncancelled\ncode 142\nof the file\nown\n0\n",
    );
}

#[test]
fn the_end_of_the_process_is_the_end_of_its_shells_alone() {
    let site = Site::new();
    let out = sharing(
        &site,
        r#"
        holder=$(holder)
        ids=$(flux submit --cc=1-2 sh -c 'until test -e over; do sleep 0.01; done; touch over.{cc}')
        for id in $ids; do running $id; done
        kill -9 $holder
        for id in $ids; do flux job attach $id 2>err || echo code $?; flux job eventlog $id | grep -c 'Killed'; done
        # As with a shell of one's own, tasks that nobody has told to end go on.
        touch over; until test -e over.1 -a -e over.2; do :; done
        shared
        test $(holder) != $holder && echo another process
        flux run echo jobs run
        "#,
    );
    out.success()
        .expect_stdout("code 137\n1\ncode 137\n1\nanother process\njobs run\n");
}

#[test]
fn shared_shells_outlive_the_module_that_started_them() {
    let site = Site::new();
    let out = sharing(
        &site,
        r#"
        mkfifo go
        before=$(holder)
        id=$(flux submit sh -c 'echo begin; read x <go; echo end; exit 3'); running $id
        flux module reload job-exec
        flux job wait-event -p exec $id re-started >/dev/null
        echo >go
        flux job attach $id || echo code $?
        shared
        test $(holder) = $before && echo the same process
        "#,
    );
    out.success()
        .expect_stdout("begin\nend\ncode 3\nthe same process\n");
}

#[test]
fn a_namespace_is_made_when_somebody_asks_for_it() {
    let site = Site::new();
    let out = sharing(
        &site,
        r#"
        guest() { echo $(flux job id --to=kvs $1).guest; }
        made() { flux kvs namespace list | grep -c job- || true; }
        names() { echo $(flux job eventlog -p exec $1 | awk '{ print $2 }'); }
        event() { flux job wait-event $1 $2 >/dev/null; }
        # Nobody asks: all is in the job's record, and a job with a process of its own has the same there.
        id=$(flux submit echo plain); event $id clean; names $id; flux job attach $id
        own=$(flux submit -o pty.capture echo plain); event $own clean
        test "$(names $own)" = "$(names $id)" && echo alike
        echo $(flux kvs ls $(guest $id)); made
        # A task asks.
        id=$(flux submit sh -c 'flux kvs put a=b; echo put'); flux job attach $id
        flux kvs get $(guest $id).a; names $id
        # Somebody who looks on asks, as soon as the job has started.
        id=$(flux submit sleep inf); event $id start
        flux job info $id guest.exec.eventlog | grep -c starting; made
        flux cancel $id; event $id clean; made
        # Somebody asks for what is not to be.
        flux kvs ls -N job-1 2>&1 || true
        "#,
    );
    let log = "init starting shell.init shell.start shell.task-exit shell-exit complete done";
    out.success().expect_stdout(&format!(
        "{log}\nplain\nalike\nexec input output\n0\nput\nb\n{log}\n1\n1\n0\n\
        .: Operation not supported: KVS namespace job-1 does not exist\n"
    ));
}

#[test]
fn what_a_shell_holds_back_outlives_the_module() {
    let site = Site::new();
    let out = sharing(
        &site,
        r#"
        ids=$(flux submit --cc=1-20 sh -c 'echo {cc}; sleep 0.0{cc}')
        flux module reload job-exec
        for id in $ids; do flux job attach $id; flux job eventlog -p exec $id | grep -c ' done'; done | sort -n | uniq -c | awk '{ print $1, $2 }'
        "#,
    );
    let each: String = (2..=20).map(|n| format!("1 {n}\n")).collect();
    out.success().expect_stdout(&format!("21 1\n{each}"));
}
