//! What shell options do to jobs, and PMI as programs use it.

use std::process::Command;

use e2e::{Site, installed, repository, skipped};

#[test]
fn affinity_is_told_and_tried_out() {
    let site = Site::new();
    let script = "bound() { sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status; }
        free=$(bound)
        flux run -n1 -o cpu-affinity=dry-run,map:0 sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status >free
        test \"$free\" = \"$(cat free)\" && echo unbound
        flux run -n1 -o cpu-affinity=verbose,map:0 sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status
        flux run -n1 -o cpu-affinity='map:0x0' true || echo refused";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["unbound", "0", "refused"], "{out}");
    assert_eq!(out.stderr.matches("task 0: cpus: 0").count(), 2, "{out}");
    assert!(out.stderr.contains("\"0x0\" is no set of ids"), "{out}");
}

#[test]
fn what_is_not_understood_is_remarked_on_or_refused() {
    let site = Site::new();
    let script = "flux run -o cpu-affinity=most -o output.mode=sideways echo ran
        for option in pmi.x pmi-simple.nomap=x pmi-simple.exchange.k=x oom.x=1 oom.adjust=1001 \\
            output.client.lwm=-1 rexec-shutdown-timeout=1 nosetpgrp=x; do
            flux run -o $option true 2>/dev/null && echo $option was taken
        done; true";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["ran"], "{out}");
    for remark in ["invalid option: most", "output.mode=sideways"] {
        assert!(out.stderr.contains(remark), "{out}");
    }
}

#[test]
fn the_topology_is_there_for_tasks() {
    let site = Site::new();
    let script = "flux run -n1 -o hwloc.xmlfile sh -c 'test $HWLOC_XMLFILE = $FLUX_JOB_TMPDIR/hwloc.xml && cat $HWLOC_XMLFILE' >whole
        flux run -n1 -c1 -o hwloc.xmlfile -o hwloc.restrict sh -c 'cat $HWLOC_XMLFILE' >part
        grep -c 'type=\"Core\"' part
        grep -q 'type=\"Machine\"' whole && echo whole";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["1", "whole"], "{out}");
}

#[test]
fn tasks_have_the_oom_score_that_is_asked_for() {
    let site = Site::new();
    site.script(1, "flux run -o oom.adjust=500 cat /proc/self/oom_score_adj")
        .success()
        .expect_stdout("500\n");
}

#[test]
fn a_directory_for_temporary_files_is_there() {
    let site = Site::new();
    let script = "TMPDIR=$PWD/new flux run sh -c 'test -d $TMPDIR && echo made'
        TMPDIR=/proc/none flux run printenv TMPDIR";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["made", "/tmp"], "{out}");
    assert!(
        out.stderr.contains("TMPDIR=/proc/none cannot be created"),
        "{out}"
    );
}

#[test]
fn signals_that_are_none_are_complained_of() {
    let site = Site::new();
    let script = "id=$(flux submit sleep 1000 | flux job id)
        flux job wait-event -p exec $id shell.start >/dev/null
        flux event pub shell-$id.kill '{}'
        flux event pub shell-$id.kill '{\"signum\":199}'
        flux event pub shell-$id.kill '{\"signum\":9}'
        flux job attach $id || echo $?";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["137"], "{out}");
    for complaint in ["ignoring malformed event", "signal 199: Invalid argument"] {
        assert!(out.stderr.contains(complaint), "{out}");
    }
}

/// Every way to the process manager, over four brokers.
#[test]
fn programs_exchange_over_pmi() {
    let site = Site::new();
    for method in ["simple", "libpmi", "libpmi2", "libpmi2 --libpmi2-cray"] {
        let script = format!("flux run -N4 -n8 flux pmi --method={method} exchange --count=3");
        let out = site.script(4, &script).success();
        assert_eq!(out.lines().len(), 3, "{method}: {out}");
        assert!(
            out.stdout.contains("completed pmi exchange on 8 tasks"),
            "{out}"
        );
    }
}

#[test]
fn pmi_tells_where_tasks_run() {
    let site = Site::new();
    let script = "flux run -N2 -n4 flux pmi get flux.taskmap PMI_process_mapping
        flux run -N2 -n4 flux pmi --method=libpmi2 get --ranks=1,3 PMI_process_mapping
        flux run -n1 -o pmi-simple.nomap flux pmi get PMI_process_mapping || echo unknown
        flux run -o pmi=off flux pmi --method=simple barrier || echo off
        flux run -o pmi=off printenv FLUX_PMI_LIBRARY_PATH || echo none";
    let out = site.script(2, script).success();
    let map = "(vector,(0,2,2))";
    let task_map = "{\"version\":1,\"map\":[[0,2,2,1]]}";
    assert_eq!(
        out.lines(),
        [task_map, map, map, map, "unknown", "off", "none"],
        "{out}"
    );
}

#[test]
fn a_program_may_end_itself_and_its_peers() {
    let site = Site::new();
    for method in ["simple", "libpmi", "libpmi2"] {
        let script = format!(
            "flux run -N2 -n4 flux pmi --method={method} barrier --test-abort=3 || echo ended"
        );
        let out = site.script(2, &script).success();
        assert_eq!(out.lines(), ["ended"], "{method}: {out}");
        assert!(out.stderr.contains("rank 3 is aborting"), "{method}: {out}");
    }
}

/// A C program that is linked with the libraries finds them in a job.
#[test]
fn c_programs_use_the_libraries() {
    if !installed("cc") {
        return;
    }
    let site = Site::new();
    let (program, programs) = (site.path().join("pmi"), site.programs());
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-o"]);
    cc.arg(&program).arg(repository("examples").join("pmi.c"));
    cc.arg("-L").arg(programs).args(["-lpmi", "-lpmi2"]);
    assert!(cc.status().expect("cc is installed").success());
    for argument in ["", "2"] {
        let script = format!("flux run -N4 -n8 ./pmi {argument} | sort");
        let out = site.script(4, &script).success();
        let told = |rank: u32| {
            let (left, leader) = ((rank + 7) % 8, rank / 2 * 2);
            format!("{rank}: I am {left} of 8, node of 2 from {leader}")
        };
        let expected: Vec<String> = (0..8).map(told).collect();
        assert_eq!(out.lines(), expected, "{out}");
    }
}

#[test]
fn tasks_can_be_left_stopped_for_a_debugger() {
    let site = Site::new();
    let script = "id=$(flux submit -n2 -o stop-tasks-in-exec echo ran)
        flux job wait-event -p exec -m sync=true $id shell.start >/dev/null
        flux job info $id guest.output | grep -c ran || true
        flux job kill -s CONT $id
        flux job attach $id";
    let out = site.script(1, script).success();
    assert_eq!(out.lines(), ["0", "ran", "ran"], "{out}");
}

#[test]
fn the_shell_tells_what_it_does() {
    let site = Site::new();
    let script = "flux run -N2 -n2 -o verbose=2 --error=log.{{node.id}} flux pmi barrier
        for i in 0 1; do grep -c -e \"task $i complete\" -e cmd=finalize_ack log.$i; done";
    let out = site.script(2, script).success();
    assert!(out.stdout.ends_with("\n2\n2\n"), "{out}");
}

/// What a debugger reads of `flux`: its variables are there by their names.
#[test]
fn debuggers_find_the_interface() {
    if !installed("nm") {
        return;
    }
    let site = Site::new();
    let nm = Command::new("nm")
        .arg(site.programs().join("flux"))
        .output();
    let symbols = String::from_utf8(nm.expect("nm is installed").stdout).unwrap();
    for name in [
        "MPIR_Breakpoint",
        "MPIR_being_debugged",
        "MPIR_debug_abort_string",
        "MPIR_debug_state",
        "MPIR_executable_path",
        "MPIR_i_am_starter",
        "MPIR_partial_attach_ok",
        "MPIR_proctable",
        "MPIR_proctable_size",
        "MPIR_server_arguments",
    ] {
        assert!(
            symbols
                .lines()
                .any(|line| line.ends_with(&format!(" {name}"))),
            "{name}"
        );
    }
}

#[test]
fn a_debugger_gets_the_table_of_processes_and_lets_them_go_on() {
    let site = Site::new();
    let script = "flux run -N2 -n4 --debug-emulate echo ran
        id=$(flux submit -N2 -n2 -o stop-tasks-in-exec echo ran)
        flux job attach --debug $id
        flux job attach --debug $id 2>&1 || true";
    let out = site.script(2, script).success();
    assert_eq!(out.lines()[..6], ["ran"; 6], "{out}");
    assert!(
        out.lines()[6].ends_with("has finished: it cannot be debugged"),
        "{out}"
    );
    if !installed("gdb") {
        return skipped("gdb is not installed");
    }
    // As a debugger does it: start the program with the variable set, and look at the table at the breakpoint.
    let script = "flux=$(command -v flux)
        cat >commands <<END
        set breakpoint pending on
        set debuginfod enabled off
        break main
        run
        set language c
        set var *(int*)&MPIR_being_debugged = 1
        set var *(char(*)[6])&MPIR_executable_path = \"uname\"
        break MPIR_Breakpoint
        continue
        printf \"processes: %d\\n\", *(int*)&MPIR_proctable_size
        printf \"program: %s\\n\", ((char***)&MPIR_proctable)[0][1]
        delete
        continue
END
        gdb --batch -x commands --args $flux run -N2 -n3 sh -c 'echo task' 2>&1 | grep -a -e ^processes -e ^program -e ^task -e uname: || true";
    let out = site.script(2, script).success();
    let count = |line: &str| out.lines().iter().filter(|l| **l == line).count();
    assert_eq!(
        (count("processes: 3"), count("program: sh"), count("task")),
        (1, 1, 3),
        "{out}"
    );
    for rank in 0..2 {
        let line = format!("flux-job: MPIR: rank {rank}: uname: stdout: Linux");
        assert_eq!(count(&line), 1, "{out}");
    }
}
