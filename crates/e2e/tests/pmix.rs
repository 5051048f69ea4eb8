//! Programs that use PMIx. They are built with what the machine has: libpmix, Open MPI.

use e2e::{Site, installed, repository, skipped};
use std::process::Command;

/// Compiles `examples/pmix.c`; false if there is no libpmix to compile with.
fn compile(site: &Site) -> bool {
    let flags = Command::new("pkg-config")
        .args(["--cflags", "--libs", "pmix"])
        .output();
    let flags = flags.ok().filter(|flags| flags.status.success());
    let Some(flags) = flags.filter(|_| installed("cc")) else {
        skipped("libpmix is not installed (Debian: libpmix-dev)");
        return false;
    };
    let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
    let mut cc = Command::new("cc");
    cc.args([
        "-std=c11",
        "-D_GNU_SOURCE",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-o",
    ]);
    cc.arg(site.path().join("pmix"))
        .arg(repository("examples/pmix.c"));
    cc.args(flags.split_whitespace());
    assert!(cc.status().expect("cc is installed").success());
    true
}

#[test]
fn tasks_exchange_over_pmix() {
    let site = Site::new();
    if !compile(&site) {
        return;
    }
    for (nodes, tasks) in [(1, 1), (2, 4), (4, 7)] {
        let script = format!("flux run -N{nodes} -n{tasks} -o pmi=pmix ./pmix | sort");
        let out = site.script(4, &script).success();
        // The first nodes have one task more than the others, where the number does not divide.
        let (each, more) = (tasks / nodes, tasks % nodes);
        let place = |rank: u32| {
            let mut left = rank;
            let of = |node| each + u32::from(node < more);
            let node = (0..nodes).find(|node| match left.checked_sub(of(*node)) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            });
            let node = node.expect("all tasks are on nodes");
            format!("{rank} of {tasks}, {left} of {} on node {node}", of(node))
        };
        // How many tasks there are where the reader is, the writer has said of its own node.
        let mut want: Vec<String> = (0..tasks)
            .flat_map(|rank| {
                let next = (rank + 1) % tasks;
                [
                    format!("{rank}: {}", place(next)),
                    format!("{rank}: {next} was here"),
                ]
            })
            .collect();
        want.sort();
        assert_eq!(out.lines(), want, "{nodes} nodes: {out}");
    }
}

#[test]
fn what_pmix_does_not_offer_is_refused_and_an_abort_ends_the_job() {
    let site = Site::new();
    if !compile(&site) {
        return;
    }
    let script = "flux run -N2 -n2 -o pmi=pmix,simple ./pmix spawn
        flux run -N2 -n2 -o pmi=pmix ./pmix connect
        flux run -N2 -n2 -o pmi=pmix ./pmix abort || echo ended
        flux run -o pmi=off printenv PMIX_NAMESPACE || echo none";
    let out = site.script(2, script).success();
    let (spawn, connect) = ("spawn: NOT-SUPPORTED", "connect: NOT-SUPPORTED");
    assert_eq!(
        out.lines(),
        [spawn, spawn, connect, connect, "ended", "none"],
        "{out}"
    );
    for want in [
        "task 1: spawning processes is not supported",
        "connecting processes is not supported",
        ".1 called PMIx_Abort (status=7): enough",
    ] {
        assert!(out.stderr.contains(want), "{want}: {out}");
    }
}

#[test]
fn open_mpi_programs_span_brokers() {
    if !installed("mpicc.openmpi") {
        return skipped("Open MPI is not installed (Debian: openmpi-bin, libopenmpi-dev)");
    }
    let site = Site::new();
    for name in ["ring", "allreduce"] {
        let mut cc = Command::new("mpicc.openmpi");
        cc.args(["-std=c11", "-O1", "-o"])
            .arg(site.path().join(name));
        cc.arg(repository("examples").join(format!("{name}.c")));
        assert!(cc.status().expect("mpicc.openmpi is installed").success());
    }
    let script = "flux run -N4 -n4 -o pmi=pmix ./ring | tail -n1
        flux run -N2 -n4 -o pmi=pmix ./allreduce | grep -o 'over 4 ranks, sum.0. = 6,'";
    let out = site.script(4, script).success();
    assert_eq!(
        out.lines(),
        ["ring: 4 hops, sum of ranks 6", "over 4 ranks, sum[0] = 6,"],
        "{out}"
    );
}
