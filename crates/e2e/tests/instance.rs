//! Instances come up, serve and go away.

use e2e::{Site, installed, skipped};

#[test]
fn the_initial_programs_exit_code_is_that_of_start() {
    let site = Site::new();
    site.flux(["start", "true"]).success();
    site.flux(["start", "-s2", "sh", "-c", "exit 7"])
        .expect_code(7);
    site.flux(["start", "sh", "-c", "kill -TERM $$"])
        .expect_code(143);
    site.flux(["start", "no-such-program"]).expect_code(127);
}

#[test]
fn brokers_know_their_place() {
    let site = Site::new();
    let out = site.script(
        3,
        "flux getattr size; flux exec flux getattr rank | sort -n",
    );
    out.success().expect_stdout("3\n0\n1\n2\n");
}

#[test]
fn eight_brokers_run_a_command_each() {
    let site = Site::new();
    site.flux(["start", "-s8", "flux", "exec", "-r", "all", "true"])
        .success();
}

#[test]
fn exec_reports_the_worst_exit_code() {
    let site = Site::new();
    let script = "flux exec sh -c 'exit $(flux getattr rank)'";
    site.script(3, script).expect_code(2);
}

#[test]
fn a_value_put_on_one_rank_is_read_on_another() {
    let site = Site::new();
    let out = site.script(4, "flux kvs put a=42; flux exec -r 3 flux kvs get a");
    out.success().expect_stdout("42\n");
}

#[test]
fn values_put_on_all_ranks_are_all_there() {
    let site = Site::new();
    let script = "flux exec sh -c 'r=$(flux getattr rank); flux kvs put dir.$r=$r'
        for r in 0 1 2 3; do flux exec -r 1 flux kvs get dir.$r; done";
    site.script(4, script)
        .success()
        .expect_stdout("0\n1\n2\n3\n");
}

#[test]
fn brokers_started_by_mpiexec_find_each_other() {
    if !installed("mpiexec.hydra") {
        return skipped("mpiexec.hydra is not installed (Debian: mpich)");
    }
    let site = Site::new();
    let args = ["-n", "4", "flux", "start", "flux", "resource", "list"];
    let out = site.run("mpiexec.hydra", args).success();
    let free = out
        .lines()
        .into_iter()
        .find(|line| line.trim_start().starts_with("free"));
    let nodes = free.and_then(|line| line.split_whitespace().nth(1));
    assert_eq!(nodes, Some("4"), "free nodes\n{out}");
}

#[test]
fn jobs_still_running_at_the_end_are_ended() {
    let site = Site::new();
    let script = "id=$(flux submit -N2 sleep 1000)
        flux job wait-event $id start >/dev/null
        flux submit sleep 1000 >/dev/null
        echo running";
    site.script(2, script).success().expect_stdout("running\n");
}

#[test]
fn an_instance_that_is_told_to_end_leaves_nothing() {
    let site = Site::new();
    let script = "id=$(flux submit -N2 sleep 1000)
        flux job wait-event $id start >/dev/null
        echo running
        kill -TERM $(flux getattr broker.pid)
        sleep 1000";
    let out = site.script(2, script);
    assert_ne!(out.code(), 0, "{out}");
    out.expect_stdout("running\n");
}

/// The initial program may end before the instance has looked at its resources, or while the last
/// brokers are being welcomed.
#[test]
fn instances_may_be_very_short() {
    let site = Site::new();
    for _ in 0..10 {
        site.flux(["start", "-s8", "true"]).success();
    }
}

#[test]
fn configuration_comes_from_the_command_line() {
    let site = Site::new();
    let out = site.flux([
        "start",
        "--conf=a.b=1",
        "--conf=a.c=word",
        "flux",
        "module",
        "list",
    ]);
    out.success();
    site.flux(["start", "--conf==", "true"]).expect_code(1);
}

/// More input than a process is given credit for at once.
#[test]
fn exec_passes_input_of_any_size_and_kind() {
    let site = Site::new();
    let script = "head -c 300000 /dev/urandom >data; flux exec -r 1 cat <data | cmp - data";
    site.script(2, script).success();
}
