//! Commands that ask about an instance: its store, jobs, queues and resources.

use crate::common::instance;

#[test]
fn the_store_is_read_and_written() {
    let script =
        "flux kvs put a.b=1 'a.c=two words' && flux kvs link a.b l && flux kvs get a.b a.c l
                  flux kvs ls -F a; flux kvs dir -R a; flux kvs readlink l
                  flux kvs move a.b a.d; flux kvs dir -d a
                  flux kvs eventlog append log x '{\"n\":1}'; flux kvs eventlog append log y
                  flux kvs eventlog wait-event -u log x | cut -d, -f2-
                  flux kvs unlink -R a; flux kvs ls -d a 2>&1";
    insta::assert_snapshot!(instance(1, script).out, @r#"
    1
    two words
    1
    b    c
    a.b = 1
    a.c = two words
    a.b
    a.c
    a.d
    "name":"x","context":{"n":1}}
    a: No such file or directory
    "#);
}

#[test]
fn watches_end_at_their_count() {
    let script = "flux kvs put k=1
                  flux kvs get --watch --count=3 k >out &
                  while ! grep -qs 1 out; do :; done
                  flux kvs put k=2
                  while ! grep -q 2 out; do :; done
                  flux kvs put k=3; wait; cat out";
    assert_eq!(instance(1, script).ok(), "1\n2\n3\n");
}

#[test]
fn jobs_are_listed_and_told_apart() {
    let script = "id=$(flux submit -n1 true); flux submit --quiet -n1 --job-name=bad sh -c 'exit 3'
                  flux submit --quiet --urgency=hold -n1 sleep inf
                  flux queue idle --quiet >/dev/null
                  flux jobs -a --sort=name -no '{name} {status_abbrev} {returncode} {contextual_info}' | sed s/$(hostname)/HOST/
                  flux jobs --filter=failed -no '{name} {inactive_reason}'
                  flux job status $id; echo $?
                  flux job eventlog $id | awk '{print $2}' | paste -sd,
                  flux pgrep -no '{name}' sl
                  flux cancel --all; flux queue drain; flux jobs --stats-only; echo $?";
    let run = instance(1, script);
    insta::assert_snapshot!(run.out, @r"
    bad F 3 HOST
    sleep S  held
    true CD 0 HOST
    bad Exit 3
    0
    submit,validate,depend,priority,alloc,start,finish,release,free,clean
    sleep
    0 running, 1 completed, 2 failed, 0 pending, 0 inactive purged
    1
    ");
    assert_eq!(run.err, "flux-cancel: Canceled 1 job (0 errors)\n");
}

#[test]
fn queues_and_resources_are_shown() {
    let script = "flux resource eventlog --wait=resource-define >/dev/null
                  flux queue stop -m maintenance; flux queue status
                  flux resource info | sed 's/[0-9]* Cores/N Cores/'
                  flux resource drain 1 broken disk
                  flux resource status -s drain -no '{state} {ranks} {reason}.'
                  flux resource undrain 1
                  flux resource list -s free,down -no '{state} {nnodes} {ranks}.'
                  flux resource R | flux R decode --ranks
                  flux hostlist --count instance";
    insta::assert_snapshot!(instance(2, script).ok(), @r"
    Scheduling is stopped: maintenance
    Job submission is enabled
    Scheduling is stopped: maintenance
    2 Nodes, N Cores, 0 GPUs
    draining  .
    drained 1 broken disk.
    free 2 0-1.
    down 0 .
    0-1
    2
    ");
}

#[test]
fn mistakes_are_one_line_with_upstreams_exit_codes() {
    let script = "for words in 'jobs --bogus' 'jobs -o {x}' 'job eventlog f1' 'kvs get nope' \
                  'queue status nosuch' 'resource list -s x' 'cancel f1' 'job status'; do
                      flux $words; echo \"$words: $?\" >&2; done";
    insta::assert_snapshot!(instance(1, script).err, @r#"
    flux-jobs: unrecognized option '--bogus'
    jobs --bogus: 2
    flux-jobs: Error in user format: Unknown format field: x
    jobs -o {x}: 1
    flux-job: job f1 not found
    job eventlog f1: 1
    flux-kvs: nope: No such file or directory
    kvs get nope: 1
    flux-queue: status: 'nosuch' is not a valid queue
    queue status nosuch: 1
    flux-resource: Invalid resource state x specified
    resource list -s x: 1
    flux-cancel: ƒ1: unknown job id
    cancel f1: 1
    flux-job: missing <ID>...; usage: flux job status <ID>...
    job status: 1
    "#);
}
