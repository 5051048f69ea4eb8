//! The simple schedulers: annotations of jobs that wait, places in the queue, backfill, what they are told when they are loaded.

use e2e::{Outcome, Site};

/// A script in an instance of one broker with two cores.
fn script(text: &str) -> Outcome {
    let site = Site::new();
    let config =
        "[resource]\nnoverify = true\n[[resource.config]]\nhosts = \"node\"\ncores = \"0-1\"\n";
    let config = site.write("config.toml", config);
    let option = format!("--config-path={}", config.display());
    site.flux([
        "start",
        "-s1",
        "-Shostname=node",
        &option,
        "sh",
        "-euc",
        &format!("{HELPERS}\n{text}"),
    ])
    .success()
}

/// `note JOB KEY` prints an annotation; `told JOB KEY` waits until it is there, `untold JOB KEY` until it is not.
const HELPERS: &str = "
note() { flux jobs -no \"{annotations.sched.$2}\" $1; }
told() { while test -z \"$(note $1 $2)\"; do :; done; }
untold() { while test -n \"$(note $1 $2)\"; do :; done; }
";

#[test]
fn waiting_jobs_are_told_when_they_begin() {
    let out = script(
        "run=$(flux submit -n2 -t 1h --wait-event=alloc sleep 600)
        one=$(flux submit -n2 -t 1h true)
        two=$(flux submit -n1 -t 1h true)
        told $two t_estimate
        echo $(note $one reason_pending), $(note $two reason_pending)
        end=$(flux job info $run R | sed 's/.*\"expiration\": *\\([0-9]*\\).*/\\1/')
        echo $(($(note $one t_estimate | cut -d. -f1) - end)) $(($(note $two t_estimate | cut -d. -f1) - end))
        flux submit -n2 --urgency=20 true
        untold $one t_estimate
        flux cancel $run
        flux queue drain
        flux jobs -no '{annotations.sched.reason_pending}{annotations.sched.t_estimate}.' $one",
    );
    let lines = out.lines();
    assert_eq!(lines[..2], ["insufficient resources,", "0 3600"], "{out}");
    assert_eq!(lines.last(), Some(&"."), "{out}");
}

#[test]
fn places_in_the_queue_are_told_when_they_are_asked_for() {
    let out = script(
        "flux module debug --setbit 2 sched-simple >/dev/null
        run=$(flux submit -n2 -t 1h --wait-event=alloc sleep 600)
        one=$(flux submit true); two=$(flux submit true)
        told $two jobs_ahead
        echo $(note $one jobs_ahead) $(note $two jobs_ahead) $(note $two reason_pending)
        flux job urgency $two 20
        while test $(note $two jobs_ahead) != 0 || test $(note $one jobs_ahead) != 1; do :; done
        flux module debug --setbit 4 sched-simple >/dev/null
        flux update $run duration=+1h 2>&1 || true
        flux cancel --all; flux queue drain",
    );
    let lines = out.lines();
    assert_eq!(lines[0], "0 1 insufficient resources", "{out}");
    assert!(lines[1].contains("Rejecting expiration update"), "{out}");
}

#[test]
fn a_limited_queue_is_refilled() {
    script(
        "flux module reload sched-simple queue-depth=2
        flux submit --quiet --cc=1-20 true
        flux queue drain
        test $(flux jobs -a -no {result} | grep -c COMPLETED) = 20
        for bad in queue-depth=0 mode=single log-level=loud nonsense; do
            flux module remove sched-simple
            ! flux module load sched-simple $bad 2>/dev/null
            flux module load sched-fifo
            flux module remove sched-fifo
            flux module load sched-simple
        done",
    );
}

#[test]
fn short_jobs_go_around_the_head_of_the_queue() {
    let out = script(
        "flux module remove sched-simple
        flux module load sched-backfill log-level=debug
        run=$(flux submit -n1 -t 1h --wait-event=alloc sleep 600)
        head=$(flux submit -n2 -t 1h true)
        told $head t_estimate
        endless=$(flux submit -n1 true)
        long=$(flux submit -n1 -t 2h true)
        short=$(flux submit -n1 -t 1m true)
        flux job wait-event $short clean >/dev/null
        test \"$(note $short backfill)\" = $head && echo overtaken
        flux jobs -no {state} $head $endless $long
        first=$(flux submit -n2 --urgency=31 true)
        told $first t_estimate; untold $head t_estimate
        flux update $run duration=30s
        flux cancel $run; flux queue drain
        flux dmesg | grep -c 'sched-backfill.*free: .*(final)'",
    );
    let lines = out.lines();
    assert_eq!(
        lines[..4],
        ["overtaken", "SCHED", "SCHED", "SCHED"],
        "{out}"
    );
    assert_eq!(lines.last(), Some(&"6"), "{out}");
}
