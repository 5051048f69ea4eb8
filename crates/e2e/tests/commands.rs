//! Commands that look at jobs or take part in them: flux-multi-prog(1), flux-watch(1), flux-top(1).

use e2e::Site;

#[test]
fn tasks_run_what_the_file_has_for_them() {
    let site = Site::new();
    site.write(
        "programs",
        "0 echo first %t\n1-2 echo %t is %o\n* echo rest %t\n",
    );
    site.write("gap", "0 true\n");
    let script = "
        flux run -n4 flux multi-prog programs | sort
        flux run -n2 flux multi-prog gap 2>&1 | grep -c 'No matching line for rank 1'
        flux run -n2 flux multi-prog gap 2>/dev/null || echo code $?
        flux multi-prog programs 2>&1 | grep -c FLUX_TASK_RANK
    ";
    let outcome = site.script(4, script).success();
    assert_eq!(
        outcome.lines(),
        ["1 is 0", "2 is 1", "first 0", "rest 3", "1", "code 1", "1"]
    );
}

#[test]
fn jobs_are_watched_to_their_end() {
    let site = Site::new();
    let script = "
        flux watch --all && echo nothing
        flux submit --quiet --wait echo over
        flux submit --quiet --wait sh -c 'echo failed; exit 3' || true
        until flux jobs --stats-only | grep -q '1 completed, 1 failed'; do :; done
        { flux watch --all || echo code $?; } | sort
        flux watch --filter completed
        mkfifo go
        id=$(flux submit sh -c 'echo begun; cat go')
        flux job wait-event $id start >/dev/null
        flux watch --active > active & watcher=$!
        until grep -q begun active; do kill -0 $watcher; done
        echo went >go
        wait $watcher
        cat active
        flux watch --label-io $id | sed \"s/^$id/ID/\"
    ";
    let outcome = site.script(1, script);
    assert_eq!(
        outcome.lines(),
        [
            "nothing",
            "code 3",
            "failed",
            "over",
            "over",
            "begun",
            "went",
            "ID: 0: begun",
            "ID: 0: went"
        ]
    );
}

#[test]
fn top_shows_what_there_is() {
    let site = Site::new();
    let script = r"
        export TERM=xterm
        look() {
            script -qec 'flux top --test-exit --test-exit-dump=screen' /dev/null >/dev/null </dev/null
            cut -c 1-10 screen | grep nodes
            grep -Eo '[0-9]+ (pending|running|complete|failed)' screen
        }
        look
        flux submit --quiet --wait true
        flux submit --quiet --wait false || true
        flux submit --quiet --wait-event=start -N2 --job-name=both sleep inf
        flux submit --quiet -N2 true
        until flux jobs --stats-only | grep -q '1 running, 1 completed, 1 failed, 1 pending'; do :; done
        look
        grep -c 'sleep\|both' screen
        flux top </dev/null || echo code $?
        TERM=dumb script -qec 'flux top' /dev/null </dev/null | grep -c capabilities
        flux top --queue=none 2>&1 | grep -c none
        flux cancel --all
    ";
    let outcome = site.script(2, script);
    let none = [
        "nodes 0/2 ",
        "0 pending",
        "0 running",
        "0 complete",
        "0 failed",
    ];
    let some = [
        "nodes 2/2 ",
        "1 pending",
        "1 running",
        "1 complete",
        "1 failed",
    ];
    let rest = ["1", "code 1", "1", "1"];
    assert_eq!(outcome.lines(), [&none[..], &some, &rest].concat());
}

#[test]
fn top_enters_instances_and_leaves_them() {
    let site = Site::new();
    // What the screen shows says that keys that were sent have arrived.
    let script = r#"
        export TERM=xterm FLUX_SSH=false
        shown() { until tail -c +$from log | grep -q "$1"; do kill -0 $top; done; from=$(stat -c %s log); }
        flux alloc -n1 --bg --job-name=inner >/dev/null
        flux proxy $(flux jobs -no {id}) flux submit --quiet --wait-event=start --job-name=deeper sleep inf
        id=$(flux submit --wait-event=start --job-name=lost sleep inf)
        flux job memo $id uri=ssh://nowhere/run/flux/local
        until flux jobs -no {uri} $id | grep -q nowhere; do :; done
        mkfifo keys; touch log; from=1
        script -qfec 'flux top' log <keys >/dev/null & top=$!
        exec 3>keys
        shown lost
        printf 'j\n' >&3; shown 'error connecting to Flux'
        printf 'x'   >&3; shown inner
        printf 'k\n' >&3; shown deeper
        printf 'q'   >&3; shown inner
        printf 'q'   >&3; wait $top; echo code $?
        flux cancel --all
    "#;
    let outcome = site.script(2, script).success();
    assert_eq!(outcome.lines(), ["code 0"]);
}
