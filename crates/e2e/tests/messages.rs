//! What the client library does for every command: whom it speaks for, how it finds instances, what it shows.

use e2e::Site;

/// Shell functions: `fake NAME BODY` puts a command of that name first on PATH.
const FAKES: &str = r#"
    bin=$(mktemp -d -p "$TMPDIR"); trap 'rm -r "$bin"' EXIT
    fake() { { echo '#!/bin/sh'; echo "$2"; } >"$bin/$1"; chmod +x "$bin/$1"; }
    with_fakes() { PATH=$bin:$PATH "$@"; }
"#;

#[test]
fn the_log_keeps_severities() {
    let site = Site::new();
    let script =
        "flux logger -s err one; flux logger two; flux dmesg | grep logger | cut -d' ' -f2-
        flux dmesg -C; flux dmesg | grep logger || echo cleared";
    let out = site.script(1, script);
    out.success()
        .expect_stdout("logger.err[0]: one\nlogger.info[0]: two\ncleared\n");
}

#[test]
fn the_owner_may_stand_in_for_guests() {
    let site = Site::new();
    let script = "export FLUX_HANDLE_USERID=77 FLUX_HANDLE_ROLEMASK=0x2
        flux ping -c1 --userid broker | grep -c 'userid=77 rolemask=0x2'
        flux ping -c1 --userid -r1 kvs | grep -c 'userid=77 rolemask=0x2'
        flux setattr some value 2>/dev/null || echo refused
        flux dmesg >/dev/null 2>&1 || echo refused";
    let out = site.script(2, script);
    out.success().expect_stdout("1\n1\nrefused\nrefused\n");
}

#[test]
fn requests_of_other_ranks_are_not_local() {
    let site = Site::new();
    let script = "flux ping -c1 --userid kvs | grep -c rolemask=0x5
        flux ping -c1 --userid -r1 kvs | grep -c rolemask=0x1";
    site.script(2, script).success().expect_stdout("1\n1\n");
}

#[test]
fn traces_show_both_directions() {
    let site = Site::new();
    let script = "FLUX_HANDLE_TRACE=1 flux getattr rank 2>&1 | grep -E '^[<>] (attr|\\{)'";
    let out = site.script(1, script);
    out.success().expect_stdout(
        "> attr.get\n> {\"name\":\"rank\"}\n< attr.get\n< {\"value\":\"0\",\"flags\":1}\n",
    );
}

#[test]
fn instances_are_reached_over_a_remote_shell() {
    let site = Site::new();
    let script = FAKES.to_owned()
        + r#"
        fake ssh 'echo "$1 $2 $3" >&2; shift 3; exec "$@"'
        export FLUX_SSH=$bin/ssh
        FLUX_URI=ssh://ada@elsewhere:22${FLUX_URI#local://} flux getattr size 2>$bin/words
        cat $bin/words"#;
    let out = site.script(2, &script);
    out.success().expect_stdout("2\n-p 22 ada@elsewhere\n");
}

#[test]
fn slurm_jobs_are_resolved() {
    let site = Site::new();
    let script = FAKES.to_owned()
        + r#"
        fake scontrol "echo PID JOBID STEPID LOCALID GLOBALID; echo 1 7 0 1 1; echo $$ 7 0 0 0"
        test "$(with_fakes flux uri slurm:7?local)" = "$FLUX_URI" && echo here
        with_fakes flux uri slurm:7 | grep -c ^ssh://
        fake scontrol 'exit 1'
        fake squeue 'test "$*" = "-h -o %N -j 7" && echo n[3-5]'
        fake srun 'test -z "$FLUX_URI" && test "$*" = "--overlap --jobid=7 -w n3 -n1 -N1 flux uri slurm:7" && echo ssh://n3/x'
        with_fakes flux uri slurm:7
        fake squeue 'exit 1'
        with_fakes flux uri slurm:7 2>&1 || true"#;
    let out = site.script(1, &script);
    out.success()
        .expect_stdout("here\n1\nssh://n3/x\nflux-uri: cannot find the nodes of Slurm job 7\n");
}

#[test]
fn lsf_jobs_are_resolved() {
    let site = Site::new();
    let script = FAKES.to_owned()
        + r#"
        fake csm 'test "$*" = "-j 9" && printf "compute_nodes:\n - c2\n - c1\n"'
        fake ssh 'test "$*" = "c1 flux uri --remote lsf:9?is_compute" && echo ssh://c1/x'
        export FLUX_SSH=$bin/ssh FLUX_SSH_RCMD=flux CSM_ALLOCATION_QUERY=$bin/csm
        flux uri lsf:9"#;
    site.script(1, &script)
        .success()
        .expect_stdout("ssh://c1/x\n");
}

#[test]
fn processes_and_paths_are_resolved() {
    let site = Site::new();
    let script = r#"
        for target in pid:$$ / . jobid:. ..; do
            test "$(flux uri --local $target)" = "$FLUX_URI" && echo $target
        done
        flux uri 'x?local&remote' 2>&1 | grep -c only
        flux uri none:x 2>&1 | grep -c 'jobid, lsf, pid, slurm'"#;
    let out = site.script(1, script).success();
    let lines = out.lines();
    assert!(lines[0].starts_with("pid:"), "{lines:?}");
    assert_eq!(lines[1..], ["/", ".", "jobid:.", "..", "1", "1"]);
}
