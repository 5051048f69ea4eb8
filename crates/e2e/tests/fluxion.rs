//! The graph scheduler in whole instances: in place of `sched-simple`, in jobs, and reloaded under jobs.

use e2e::Site;

/// Puts the graph scheduler in the place of the simple one. `$RESOURCE` and `$QUEUES` are options of the modules. Two
/// nodes of four cores are all there is.
const BEGIN: &str = r#"
    flux module remove sched-simple
    flux R encode -r0-1 -c0-3 -Hn[0-1] >R
    flux resource reload R
    flux module load sched-fluxion-resource $RESOURCE
    flux module load sched-fluxion-feasibility
    flux module load sched-fluxion-qmanager $QUEUES
"#;

fn script(site: &Site, resource: &str, queues: &str, script: &str) -> e2e::Outcome {
    let dir = site.path().display();
    let text =
        format!("cd {dir}; RESOURCE='{resource}'; QUEUES='{queues}'\n{BEGIN}{script}\nrm -f R");
    site.script(2, &text).success()
}

#[test]
fn a_small_job_passes_one_that_waits() {
    let site = Site::new();
    let outcome = script(
        &site,
        "policy=lonode",
        "queue-policy=easy",
        "
        first=$(flux submit -N1 -c4 -n1 -t 10m --setattr=exec.test.run_duration=600s true)
        large=$(flux submit -N2 -n2 -c4 -t 10m --setattr=exec.test.run_duration=600s true)
        long=$(flux submit -N1 -n1 -c4 -t 20m --setattr=exec.test.run_duration=600s true)
        small=$(flux submit -N1 -n1 -c2 -t 5m --setattr=exec.test.run_duration=600s true)
        flux job wait-event $small start >/dev/null
        flux jobs -no '{state} {annotations.sched.selection_type} {annotations.sched.reason_pending}' $first $large $long $small
        at=$(flux jobs -no '{annotations.sched.t_estimate}' $large)
        end=$(flux job info $first R | tr ',' '\\n' | sed -n 's/.*expiration\": *\\([0-9]*\\).*/\\1/p')
        test ${at%.*} = $end && echo the estimate is when the first one ends
        flux cancel $first; flux cancel $small
        flux job wait-event $large start >/dev/null
        flux jobs -no '{state} {annotations.sched.selection_type} {annotations.sched.t_estimate}' $large
        flux cancel --all --quiet
        ",
    );
    outcome.expect_stdout(
        "RUN immediate \nSCHED reserved resources\nSCHED  resources\nRUN backfill \n\
        the estimate is when the first one ends\nRUN reserved \n",
    );
}

#[test]
fn what_can_never_run_is_denied() {
    let site = Site::new();
    let outcome = script(
        &site,
        "",
        "",
        "
        id=$(flux submit -N3 -n3 true)
        flux job wait-event $id clean >/dev/null
        flux job eventlog $id | grep -o 'exception.*unsatisfiable'
        printf 'ingest.validator.plugins = [\"feasibility\"]\\n' >feasible.toml
        flux config load feasible.toml
        flux submit -n1 -c5 true 2>&1 | grep -o Unsatisfiable
        flux run -n1 -c4 echo this can
        rm feasible.toml
        ",
    );
    outcome.expect_stdout(
        "exception type=\"alloc\" severity=0 note=\"unsatisfiable\nUnsatisfiable\nthis can\n",
    );
}

#[test]
fn the_scheduler_says_what_becomes_of_jobs_whose_queue_is_gone() {
    let site = Site::new();
    let outcome = script(
        &site,
        "",
        "",
        "
        flux module remove sched-fluxion-qmanager
        nowhere=$(flux submit true)
        printf '[queues.batch]\\n' >queues.toml
        flux config load queues.toml
        flux queue start --quiet --all
        batch=$(flux submit -q batch true)
        stopped=$(flux submit -q batch --urgency=hold true)
        flux job wait-event $batch priority >/dev/null
        flux module load sched-fluxion-qmanager
        flux job wait-event $nowhere clean >/dev/null
        flux job wait-event $batch clean >/dev/null
        flux module remove sched-fluxion-qmanager
        flux job urgency $stopped default
        flux job wait-event $stopped priority >/dev/null
        flux config load </dev/null
        flux module load sched-fluxion-qmanager
        flux job wait-event $stopped clean >/dev/null
        for id in $nowhere $batch $stopped; do flux job eventlog $id | grep -oE 'note=\"[^\"]*|status=0'; done
        flux dmesg | grep -q 'scheduler: hello +partial-ok' && echo greeted
        rm queues.toml
        ",
    );
    outcome.expect_stdout(
        "note=\"queue (default) doesn't exist\nstatus=0\nnote=\"queue (batch) doesn't exist\ngreeted\n",
    );
}

#[test]
fn each_module_is_reloaded_under_jobs() {
    for format in ["rv1", "rv1_nosched"] {
        let site = Site::new();
        let outcome = script(
            &site,
            &format!("match-format={format}"),
            "queue-policy=conservative",
            "
            id=$(flux submit -N2 -n2 -c3 sleep inf)
            flux job wait-event $id start >/dev/null
            ids=$(flux submit --cc=1-30 -n1 --setattr=exec.test.run_duration=0.01s true)
            flux module remove sched-fluxion-qmanager
            flux module load sched-fluxion-qmanager queue-policy=easy
            flux module reload job-manager
            flux module remove sched-fluxion-qmanager
            flux module reload sched-fluxion-resource $RESOURCE
            flux module load sched-fluxion-feasibility
            flux module load sched-fluxion-qmanager
            for job in $ids; do flux job wait-event $job clean >/dev/null; done
            flux jobs -ano '{result}' | sort | uniq -c | tr -s ' '
            flux ion-resource find -q 'sched-now=allocated' | grep -o 'R_lite.*nodelist'
            flux submit -n1 -c2 true >/dev/null
            flux jobs --stats-only 2>&1 | grep -o '1 pending'
            flux cancel $id
            flux queue drain
            flux ion-resource find -q 'sched-now=allocated'
            flux jobs --filter=failed -no '{name}'
            ",
        );
        outcome.expect_stdout(
            " 30 COMPLETED\nR_lite\": [{\"rank\": \"0-1\", \"children\": {\"core\": \"1-3\"}}], \"nodelist\n\
            1 pending\nnull\n",
        );
    }
}

#[test]
fn every_level_has_its_own_policies() {
    let site = Site::new();
    let config = r#"
        [modules.alternatives]
        sched = "sched-fluxion-qmanager"
        feasibility = "sched-fluxion-feasibility"
        [sched-fluxion-resource]
        match-policy = "POLICY"
        match-format = "rv1"
        [sched-fluxion-qmanager]
        queue-policy = "QUEUE"
    "#;
    let [outer, inner] = [
        ("outer.toml", "lonodex", "easy"),
        ("inner.toml", "high", "fcfs"),
    ]
    .map(|(name, policy, queue)| {
        let text = config.replace("POLICY", policy).replace("QUEUE", queue);
        site.write(name, &text).display().to_string()
    });
    let probe = r#"
        flux module list | grep -c sched-fluxion
        flux ion-resource params | grep -o '"policy": "[a-z]*"'
        flux module stats sched-fluxion-qmanager | grep -o '"policy": "[a-z]*"'
        flux run -n1 hostname >/dev/null && echo ran
    "#;
    let probe = site.write("probe", probe).display().to_string();
    let command = format!("sh -eu {probe}; flux alloc -N1 -n1 --conf={inner} sh -eu {probe}");
    let outcome = site.flux([
        "start",
        "-s2",
        &format!("-c{outer}"),
        "sh",
        "-eu",
        "-c",
        &command,
    ]);
    outcome.success().expect_stdout(
        "3\n\"policy\": \"lonodex\"\n\"policy\": \"easy\"\nran\n\
        3\n\"policy\": \"high\"\n\"policy\": \"fcfs\"\nran\n",
    );
}

#[test]
fn the_graph_is_asked() {
    let site = Site::new();
    let outcome = script(
        &site,
        "policy=high",
        "",
        "
        flux run --dry-run -n1 -c4 -t 1m true >spec
        flux ion-resource match allocate spec | sed -n 2p | tr -s ' ' | cut -d' ' -f1,2
        flux ion-resource match allocate spec >/dev/null
        flux ion-resource match allocate spec >/dev/null || echo busy: $?
        flux ion-resource match allocate_orelse_reserve spec | sed -n 2p | tr -s ' ' | cut -d' ' -f1,2
        flux ion-resource match without_allocating_future spec | grep -c R_lite
        flux ion-resource info 2 | sed -n 2p | tr -s ' ' | cut -d' ' -f1,2
        flux ion-resource find -q 'jobid-alloc=0' | grep -o '\"rank\": \"[0-9]*\"'
        flux ion-resource cancel 0
        flux ion-resource info 0 >/dev/null || echo gone: $?
        flux ion-resource match satisfiability spec | grep Satis
        flux run --dry-run -N9 -n9 true >large
        flux ion-resource match satisfiability large >/dev/null || echo never: $?
        flux ion-resource set-property /cluster0/n0 colour=red
        flux ion-resource get-property /cluster0/n0 colour
        flux ion-resource set-status /cluster0/n1 down
        flux ion-resource find -q status=down | grep -o 'n1'
        flux ion-resource stats | grep Vertices:
        flux ion-resource match allocate nothing >/dev/null || echo no file: $?
        rm spec large
        ",
    );
    outcome.expect_stdout(
        "0 ALLOCATED\nbusy: 16\n2 RESERVED\n1\n2 RESERVED\n\"rank\": \"0\"\ngone: 3\nSatisfiable request\nnever: 19\n\
        colour = ['red']\nn1\nNum. of Vertices:  11\nno file: 3\n",
    );
}

#[test]
fn a_scheduler_needs_what_another_has() {
    let site = Site::new();
    let outcome = site.script(
        1,
        "
        flux module load sched-fluxion-qmanager 2>&1 | grep -o 'File exists'
        flux module load sched-fluxion-resource
        flux module stats sched-fluxion-resource >/dev/null 2>&1 || echo nothing to schedule
        flux run echo goes on
        ",
    );
    outcome
        .success()
        .expect_stdout("File exists\nnothing to schedule\ngoes on\n");
}

/// hwloc makes up nodes of two sockets with two cores each.
#[test]
fn the_graph_has_what_hwloc_sees_on_each_rank() {
    let site = Site::new();
    let outcome = site.script(
        1,
        "
        cat >inside.sh <<'END'
        flux module remove sched-simple
        flux module load sched-fluxion-resource load-format=hwloc load-allowlist=socket,core
        flux module load sched-fluxion-qmanager
        cat >two.yaml <<'SPEC'
        version: 9999
        resources: [{type: slot, count: 2, label: s, with: [{type: socket, count: 1, with: [{type: core, count: 2}]}]}]
        tasks: [{command: [a], slot: s, count: {per_slot: 1}}]
        attributes: {system: {duration: 60}}
SPEC
        for i in 1 2 3; do flux ion-resource match allocate two.yaml >found 2>&1 && grep -o 'ALLOCATED' found || echo busy; done
        flux ion-resource find --format=jgf status=up | grep -o '/cluster0/[^/]*/socket[01]/core[0-9]' | sed 's,.*/socket,socket,' | sort | uniq -c | tr -s ' '
        flux ion-resource cancel 0; flux ion-resource cancel 1
        flux run -N2 -n2 -c2 echo runs
END
        HWLOC_SYNTHETIC='pack:2 core:2 pu:1' flux start --test-size=2 sh inside.sh
        rm -f inside.sh two.yaml found
        ",
    );
    outcome.success().expect_stdout(
        "ALLOCATED\nALLOCATED\nbusy\n 2 socket0/core0\n 2 socket0/core1\n 2 socket1/core2\n 2 socket1/core3\nruns\nruns\n",
    );
}

#[test]
fn a_rank_that_is_not_there_cannot_tell_what_it_has() {
    let site = Site::new();
    let outcome = site.script(
        1,
        "
        flux module remove sched-simple
        flux R encode -r0-1 -c0-3 -Hn[0-1] >R
        flux resource reload -f R
        flux module load sched-fluxion-resource load-format=hwloc
        flux module stats sched-fluxion-resource >/dev/null 2>&1 || echo it has ended
        flux dmesg | grep -o 'rank 1 is not .*'
        rm -f R
        ",
    );
    outcome.success().expect_stdout(
        "it has ended\nrank 1 is not in this instance of 1; load-format=hwloc needs all nodes to be up\n",
    );
}
