//! Jobs run, end and are remembered.

use std::process::Command;

use e2e::{Site, installed, repository, skipped};

#[test]
fn exit_codes_reach_the_caller_of_run() {
    let table = [
        ("true", 0),
        ("false", 1),
        ("sh -c 'exit 42'", 42),
        ("no-such-program", 127),
        ("sh -c 'kill -TERM $$'", 143),
        ("sh -c 'kill -KILL $$'", 137),
    ];
    let mut script = String::new();
    for (command, _) in table {
        script += &format!("flux run {command} && echo 0 || echo $?\n");
    }
    let site = Site::new();
    let out = site.script(1, &script).success();
    let expected: Vec<String> = table.iter().map(|(_, code)| code.to_string()).collect();
    assert_eq!(out.lines(), expected, "{out}");
}

#[test]
fn a_job_spans_all_nodes() {
    let site = Site::new();
    let out = site
        .flux(["start", "-s4", "flux", "run", "-N4", "hostname"])
        .success();
    assert_eq!(out.lines().len(), 4, "{out}");
}

#[test]
fn tasks_know_who_they_are() {
    let site = Site::new();
    let task = "echo $FLUX_TASK_RANK/$FLUX_JOB_SIZE/$FLUX_JOB_NNODES";
    let script = format!("flux run -N4 -n4 sh -c '{task}' | sort");
    site.script(4, &script)
        .success()
        .expect_stdout("0/4/4\n1/4/4\n2/4/4\n3/4/4\n");
}

#[test]
fn output_is_complete_and_on_the_right_stream() {
    let site = Site::new();
    let out = site
        .script(2, "flux run -N2 sh -c 'seq 5000; echo oops >&2'")
        .success();
    assert_eq!(out.lines().len(), 10_000, "lines of output");
    assert_eq!(out.stderr, "oops\noops\n");
}

#[test]
fn input_reaches_the_task() {
    let site = Site::new();
    let out = site.script(1, "printf 'one\\ntwo\\n' | flux run cat");
    out.success().expect_stdout("one\ntwo\n");
}

#[test]
fn an_eventlog_tells_the_whole_life_of_a_job() {
    let site = Site::new();
    let script = "id=$(flux submit true)
        flux job attach $id
        flux job wait-event $id clean >/dev/null
        flux job eventlog -H $id";
    let out = site.script(1, script).success();
    let names = [
        "submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free",
        "clean",
    ];
    for name in names {
        assert!(out.stdout.contains(name), "no event {name}\n{out}");
    }
}

#[test]
fn ended_jobs_are_listed() {
    let site = Site::new();
    let script = "flux run true; flux run false || true; flux jobs -a -n -o '{result} {name}'";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["FAILED false", "COMPLETED true"], "{out}");
}

#[test]
fn a_cancelled_job_ends() {
    let site = Site::new();
    let script = "id=$(flux submit sleep 1000)
        flux job wait-event $id start >/dev/null
        flux cancel $id
        flux job attach $id && echo 0 || echo $?";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["143"], "{out}");
}

#[test]
fn jobs_wait_for_each_other() {
    let site = Site::new();
    let script = "first=$(flux submit sh -c 'echo first >>order')
        flux run --dependency=afterok:$first sh -c 'echo second >>order'
        cat order";
    site.script(1, script)
        .success()
        .expect_stdout("first\nsecond\n");
}

#[test]
fn many_jobs_all_end_well() {
    let site = Site::new();
    let script = "flux submit --cc=1-100 --quiet true
        flux queue drain
        flux jobs -a -n -c 0 -o '{result}' | sort | uniq -c";
    let out = site.script(2, script).success();
    assert_eq!(
        out.stdout.split_whitespace().collect::<Vec<_>>(),
        ["100", "COMPLETED"],
        "{out}"
    );
}

/// Compile one of the example programs into the directory of the test.
fn compile(site: &Site, name: &str) -> String {
    let program = site.path().join(name);
    let source = repository("examples").join(format!("{name}.c"));
    let args = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"];
    let status = Command::new("mpicc.mpich")
        .args(args)
        .arg(&program)
        .arg(source)
        .status();
    assert!(status.expect("mpicc.mpich is installed").success());
    program.to_string_lossy().into_owned()
}

#[test]
fn mpi_programs_span_brokers() {
    if !installed("mpicc.mpich") {
        return skipped("mpicc.mpich is not installed (Debian: mpich, libmpich-dev)");
    }
    let site = Site::new();
    let ring = compile(&site, "ring");
    let out = site
        .script(4, &format!("flux run -N4 -n4 {ring}"))
        .success();
    let hops = out
        .lines()
        .iter()
        .filter(|line| line.starts_with("hop "))
        .count();
    assert_eq!(hops, 4, "{out}");
    assert!(
        out.stdout.contains("ring: 4 hops, sum of ranks 6\n"),
        "{out}"
    );

    let allreduce = compile(&site, "allreduce");
    let out = site
        .script(2, &format!("flux run -N2 -n2 {allreduce}"))
        .success();
    assert!(out.stdout.contains("over 2 ranks, sum[0] = 1,"), "{out}");
}

#[test]
fn the_processes_of_a_running_job_are_known() {
    let site = Site::new();
    let script = "
        id=$(flux submit -N2 -n2 sh -c 'echo $$ >pid.$FLUX_TASK_RANK; exec sleep inf')
        flux job hostpids -d '\\n' $id | sed 's/.*://' >seen
        until test -s pid.0 && test -s pid.1; do :; done
        cat pid.0 pid.1 | cmp - seen && echo the same
        test $(flux job hostpids -r1 $id | sed 's/.*://') = $(cat pid.1) && echo one of them
        flux cancel $id; flux job wait-event $id clean >/dev/null
        flux job hostpids $id || echo not any more";
    let out = site.script(2, script).success();
    out.expect_stdout("the same\none of them\nnot any more\n")
        .expect_error(&["flux-job: the job does not run"]);
}

#[test]
fn the_time_limit_is_kept() {
    let site = Site::new();
    let out = site
        .script(1, "flux run -t 0.2s sleep 1000")
        .expect_code(142);
    assert!(out.stderr.contains("type=timeout"), "{out}");
}

#[test]
fn allocations_are_annotated() {
    let site = Site::new();
    let script = "flux run -n1 true; flux jobs -ano '{annotations.sched.resource_summary}'";
    site.script(1, script)
        .success()
        .expect_stdout("rank0/core0\n");
}

#[test]
fn shells_may_warn_before_they_meet() {
    let site = Site::new();
    // The leader comes late: the other shell has something to say before anybody can hear it.
    site.write(
        "late-leader",
        "#!/bin/sh\ntest $(flux getattr rank) = 1 || sleep 0.5\nexec flux-shell \"$@\"\n",
    );
    let out = site.script(
        2,
        "chmod +x late-leader
         flux run -N2 --setattr=exec.job_shell=$PWD/late-leader -o rlimit.nothing=1 echo done",
    );
    assert_eq!(out.clone().success().lines(), ["done", "done"]);
    let warned = |rank| out.stderr.contains(&format!("flux-shell[{rank}]:  WARN: "));
    assert!(warned(0) && warned(1), "{out}");
}
