//! Submission commands with real jobs.

mod common;

use common::instance;

#[test]
fn run_shows_output_and_exit_code() {
    assert_eq!(instance(1, "flux run echo hello").ok(), "hello\n");
    let run = instance(
        2,
        "flux run -N2 -l sh -c 'echo $FLUX_TASK_RANK; exit $FLUX_TASK_RANK' | sort",
    );
    assert_eq!(run.out, "0: 0\n1: 1\n");
    assert!(
        run.err
            .contains("flux-job: task(s) exited with exit code 1"),
        "{}",
        run.err
    );
    assert_eq!(instance(1, "flux run sh -c 'exit 3'").code, 3);
    assert_eq!(instance(1, "flux run sh -c 'kill -9 $$'").code, 137);
}

#[test]
fn run_passes_input_on() {
    assert_eq!(instance(1, "echo text | flux run cat").ok(), "text\n");
    let script = "head -c 300000 /dev/zero | tr '\\0' x | flux run wc -c";
    assert_eq!(instance(1, script).ok().trim(), "300000");
    let script = "echo text | flux run -n2 -l --input=1 cat";
    assert_eq!(instance(2, script).ok(), "1: text\n");
}

#[test]
fn a_job_that_cannot_run_fails() {
    let run = instance(1, "flux run -N100 true");
    assert_eq!(run.code, 1);
    assert!(run.err.contains("job.exception"), "{}", run.err);
    let run = instance(1, "flux run no-such-command");
    assert_eq!(run.code, 127);
}

#[test]
fn submit_makes_copies_and_waits() {
    let script = "flux submit --quiet --watch --cc=1-3 echo n{cc} '$FLUX_JOB_CC' | sort";
    assert_eq!(
        instance(1, script).ok(),
        "n1 $FLUX_JOB_CC\nn2 $FLUX_JOB_CC\nn3 $FLUX_JOB_CC\n"
    );
    let script = "flux submit --quiet --wait --cc=0-4 sh -c 'exit $FLUX_JOB_CC'";
    assert_eq!(instance(1, script).code, 4);
    let script = "flux bulksubmit --quiet --watch echo {0} {1} ::: a b ::: 1 2 | sort";
    assert_eq!(instance(1, script).ok(), "a 1\na 2\nb 1\nb 2\n");
}

#[test]
fn batch_and_alloc_start_instances() {
    let script =
        "printf '#!/bin/sh\\n#flux: -n1\\n#flux: --output=out\\nflux getattr instance-level\\n\
                  flux run echo $1\\n' >job
                  flux batch --quiet job word
                  until grep -q word out 2>/dev/null; do :; done
                  cat out";
    assert_eq!(instance(1, script).ok(), "1\nword\n");
    assert_eq!(
        instance(1, "flux alloc -n1 flux getattr instance-level").ok(),
        "1\n"
    );
    assert_eq!(instance(1, "flux alloc -n1 sh -c 'exit 7'").code, 7);
}

#[test]
fn proxies() {
    assert_eq!(
        instance(2, "flux proxy $FLUX_URI flux getattr size").ok(),
        "2\n"
    );
    assert_eq!(instance(1, "flux proxy . 'exit 5'").code, 5);
    // A stand-in for ssh that runs its command here.
    let script =
        "printf '#!/bin/sh\\nshift\\nexec \"$@\"\\n' >ssh; chmod +x ssh; export FLUX_SSH=$PWD/ssh
                  flux proxy ssh://elsewhere${FLUX_URI#local:/} 'flux run echo $FLUX_PROXY_REMOTE'";
    assert_eq!(instance(1, script).ok(), "elsewhere\n");
}
