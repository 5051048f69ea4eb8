//! Queues, limits, dependencies, updates: what an instance allows jobs, and when it lets them run.

use e2e::Site;

const QUEUES: &str = r#"
[queues.batch]
policy.limits.duration = "1h"
policy.limits.job-size.max.nnodes = 1
[queues.debug]
[queues.late]
parent = "batch"
[policy.jobspec.defaults.system]
queue = "batch"
duration = "10m"
"#;

/// Run a script in an instance of `size` brokers with this configuration.
fn configured(site: &Site, size: u32, config: &str, script: &str) -> e2e::Outcome {
    let path = site.write("config.toml", config);
    let config = format!("--config-path={}", path.display());
    let size = format!("-s{size}");
    site.flux(["start", &size, &config, "sh", "-euc", script])
}

#[test]
fn queues_give_defaults_and_limits() {
    let site = Site::new();
    let script = "id=$(flux submit --urgency=hold true)
        flux job info $id jobspec >jobspec
        grep -o '\"queue\":\"[a-z]*\"' jobspec
        grep -o '\"duration\":[0-9]*' jobspec
        flux submit -q none true 2>&1 || true
        flux submit -t2h true 2>&1 || true
        flux submit -N2 true 2>&1 || true
        flux submit -q late -N2 true 2>&1 || true
        flux cancel $id";
    let out = configured(&site, 2, QUEUES, script).success();
    let want = [
        "\"queue\":\"batch\"",
        "\"duration\":600",
        "flux-submit: Invalid queue 'none' specified",
        "flux-submit: requested duration (2h) exceeds policy limit of 1h for queue batch",
        "flux-submit: requested nnodes (2) exceeds policy limit of 1 for queue batch",
        "flux-submit: requested nnodes (2) exceeds policy limit of 1 for queue late",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn a_stopped_queue_keeps_its_jobs_and_a_disabled_one_takes_none() {
    let site = Site::new();
    let script = "flux queue start --quiet debug
        flux run -q debug true
        held=$(flux submit -q batch true)
        flux job wait-event $held priority >/dev/null
        flux jobs -no '{state}' $held
        flux queue start --quiet batch
        flux job wait-event $held clean >/dev/null
        flux queue disable --quiet -m full batch
        flux submit -q batch true 2>&1 || true";
    let out = configured(&site, 1, QUEUES, script).success();
    let refused = "flux-submit: job submission to batch is disabled: full";
    assert_eq!(out.lines(), ["SCHED", refused], "{out}");
}

#[test]
fn queues_are_as_they_were_after_a_restart() {
    let site = Site::new();
    let state = site.path().join("state");
    std::fs::create_dir(&state).expect("the directory of the test can be written");
    let config = site.write("config.toml", QUEUES);
    let run = |script: &str| {
        let config = format!("--config-path={}", config.display());
        let state = format!("-Sstatedir={}", state.display());
        site.flux(["start", &config, &state, "sh", "-euc", script])
    };
    let change = "flux queue start --quiet --all
        flux queue stop --quiet -m 'no power' debug
        flux queue disable --quiet -m full late
        flux queue status >/dev/null";
    run(change).success();
    let out = run("flux run -q batch true; flux queue status").success();
    let want = [
        "batch: Job submission is enabled",
        "batch: Scheduling is started",
        "debug: Job submission is enabled",
        "debug: Scheduling is stopped: no power",
        "late: Job submission is disabled: full",
        "late: Scheduling is started",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn a_reload_keeps_jobs() {
    let site = Site::new();
    let script = "flux queue start --quiet --all
        id=$(flux submit -q debug sleep 1000)
        flux job wait-event $id start >/dev/null
        echo '[queues.debug]' | flux config load
        flux jobs -no '{state} {queue}' $id
        flux queue status
        flux cancel $id
        printf '[queues.x]\\nparent = \"y\"\\n' | flux config load 2>&1 || true
        flux queue list -no '{queue}'";
    let out = configured(&site, 1, QUEUES, script).success();
    let lines = out.lines();
    let (fault, rest) = (lines[3], [&lines[..3], &lines[4..]].concat());
    assert!(
        fault.contains("parent queue 'y' is not configured"),
        "{out}"
    );
    let want = [
        "RUN debug",
        "debug: Job submission is enabled",
        "debug: Scheduling is started",
        "debug",
    ];
    assert_eq!(rest, want, "{out}");
}

#[test]
fn jobs_wait_for_a_time_and_for_their_turn() {
    let site = Site::new();
    let script = "id=$(flux submit --dependency=begin-time:1 true)
        flux job wait-event $id dependency-remove >/dev/null
        flux job wait-event $id clean >/dev/null
        first=$(flux submit --job-name=one sleep 1000)
        second=$(flux submit --job-name=one --dependency=singleton true)
        flux job wait-event $second dependency-add >/dev/null
        flux jobs -no '{state} {dependencies}' $second
        flux cancel $first
        flux job attach $second && echo 0
        flux job wait-event $second clean >/dev/null
        flux submit --dependency=afterok:fzzzzz true 2>&1 || true
        flux submit --dependency=afternotok:$second true 2>&1 || true";
    let out = site.script(1, script).success();
    assert_eq!(out.lines()[..2], ["DEPEND singleton", "0"], "{out}");
    assert!(out.lines()[2].ends_with("job not found"), "{out}");
    assert!(out.lines()[3].ends_with("can never be satisfied"), "{out}");
}

#[test]
fn an_update_reaches_waiting_and_running_jobs() {
    let site = Site::new();
    let script = "id=$(flux submit --urgency=hold -t1m sleep 1000)
        flux update --wait $id duration=1h
        flux job info $id jobspec | grep -o '\"duration\":[0-9.]*'
        flux job urgency $id default
        flux job wait-event $id start >/dev/null
        flux update $id duration=10ms 2>&1 || true
        flux update $id name=x 2>&1 || true
        flux update $id duration=$(($(date +%s) - $(date +%s) + 2))
        flux job wait-event -m type=timeout $id exception >/dev/null
        flux update $id duration=1h 2>&1 || true";
    let out = site.script(1, script).success();
    let want = [
        "\"duration\":3600.0",
        "flux-update: requested duration places job expiration in the past",
        "flux-update: update of attributes.system.job.name not supported",
        "flux-update: job is inactive",
    ];
    assert_eq!(out.lines()[..3], want[..3], "{out}");
}

#[test]
fn a_pending_job_moves_to_another_queue() {
    let site = Site::new();
    let script = "id=$(flux submit --urgency=hold -q batch true)
        flux queue start --quiet debug
        flux update --wait $id queue=debug
        flux job urgency $id default
        flux job wait-event $id clean >/dev/null
        flux jobs -no '{queue} {result}' $id
        flux job purge --force --num-limit=0
        flux jobs -ano '{id}'";
    let out = configured(&site, 1, QUEUES, script).success();
    let want = ["debug COMPLETED", "purged 1 inactive jobs, 0 remaining"];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn a_queue_that_starts_begins_with_the_highest_priority() {
    let site = Site::new();
    let script = "flux queue stop --quiet
        for urgency in 8 10 12; do
            flux submit --quiet --urgency=$urgency -N1 --exclusive sh -c \"echo $urgency >>order\"
        done
        flux queue start --quiet
        flux queue drain
        cat order";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["12", "10", "8"], "{out}");
}
