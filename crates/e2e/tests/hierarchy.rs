//! Instances within instances.

use e2e::Site;

#[test]
fn alloc_runs_a_command_in_an_instance_of_its_own() {
    let site = Site::new();
    let out = site.script(
        2,
        "flux alloc -N2 sh -c 'flux getattr size; flux run -N2 echo hi'",
    );
    out.success().expect_stdout("2\nhi\nhi\n");
}

#[test]
fn an_instance_uses_what_its_job_was_given() {
    let site = Site::new();
    let out = site.script(
        3,
        "flux alloc -N1 flux resource list -s free -no '{nnodes} {ncores}'; nproc",
    );
    let out = out.success();
    let lines = out.lines();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!(lines[0], format!("1 {}", lines[1]), "{out}");
}

#[test]
fn exit_codes_pass_through_the_levels() {
    let site = Site::new();
    site.script(1, "flux alloc -n1 flux run sh -c 'exit 3'")
        .expect_code(3);
}

#[test]
fn three_levels_by_batch_and_alloc() {
    let site = Site::new();
    let inner =
        "flux alloc -n1 sh -c 'echo level $(flux getattr instance-level); flux run echo deep'";
    let script = site.write(
        "batch.sh",
        &format!("#!/bin/sh\n#flux: -n1\necho level $(flux getattr instance-level)\n{inner}\n"),
    );
    let outer = format!(
        "echo level $(flux getattr instance-level)
        id=$(flux batch --output=batch.out {})
        flux job attach $id
        flux job status $id
        cat batch.out",
        script.display()
    );
    let out = site.script(1, &outer).success();
    out.expect_stdout("level 0\nlevel 1\nlevel 2\ndeep\n");
}

#[test]
fn a_script_from_standard_input_is_wrapped() {
    let site = Site::new();
    let script = "id=$(flux batch --wrap -n1 --output=out flux run echo wrapped)
        flux job attach $id
        cat out";
    site.script(1, script).success().expect_stdout("wrapped\n");
}

/// What `flux uri`, `flux proxy`, `flux --parent` and recursive listings reach.
#[test]
fn levels_reach_each_other() {
    let site = Site::new();
    let script = site.write(
        "inner.sh",
        "#!/bin/sh\nflux run -n1 --job-name=child sh -c 'echo up >up; while [ ! -e down ]; do :; done'\n\
         flux --parent getattr size\n",
    );
    let outer = format!(
        "id=$(flux batch -n1 --output=out {})
        flux job wait-event $id memo >/dev/null
        while [ ! -e up ]; do :; done
        flux proxy $(flux uri --local $id) flux getattr instance-level
        flux proxy $id flux jobs -no {{name}}
        flux jobs --recursive -no '{{name}}' | grep -c child
        touch down
        flux job attach $id
        cat out",
        script.display()
    );
    let out = site.script(2, &outer).success();
    out.expect_stdout("1\nchild\n1\n2\n");
}

#[test]
fn brokers_choose_their_address_as_told() {
    let site = Site::new();
    let alloc =
        "flux alloc -N2 --broker-opts=-Stbon.prefertcp=1 --broker-opts=-Stbon.interface-hint";
    let script = format!(
        "for hint in lo 127.0.0.0/8; do {alloc}=$hint flux getattr tbon.endpoint; done | sed 's/:[0-9]*$//'
        {alloc}=nosuch0 true"
    );
    site.script(2, &script)
        .expect_code(1)
        .expect_stdout("tcp://127.0.0.1\ntcp://127.0.0.1\n")
        .expect_error(&["tbon.interface-hint", "'nosuch0'"]);
}

#[test]
fn what_an_instance_leaves_behind_does_not_hold_up_its_job() {
    let site = Site::new();
    let group = "sh -c 'ps -o pgid= -p $$; flux getattr broker.pid'";
    let script = format!(
        "flux alloc -N1 sh -c 'sleep 1000 & echo done'
        set -- $(flux alloc -N1 {group}); test $1 = $2 && echo shared
        set -- $(flux alloc -N1 --broker-opts=-Sbroker.rc2_pgrp=1 {group}); test $1 = $2 || echo its own"
    );
    site.script(1, &script)
        .success()
        .expect_stdout("done\nshared\nits own\n");
}
