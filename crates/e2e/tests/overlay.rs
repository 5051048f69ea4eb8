//! The brokers' tree when brokers are killed, stopped, cut off and come back.
//!
//! Waiting is done by `flux overlay status --wait` and by commands that end; nothing sleeps.

use e2e::{Outcome, Site};

/// Functions for scripts: the process of a rank, and waiting for the tree.
const TOOLS: &str = r#"
pid() { flux exec -r $1 flux getattr broker.pid; }
wait_for() { flux overlay status --timeout=0 --summary --wait=$1 >/dev/null; }
"#;

/// Run a script on rank 0 of an instance of four in a line, whose end is that of rank 0.
fn line(site: &Site, script: &str) -> Outcome {
    let script = format!("{TOOLS}{script}");
    let args = [
        "start",
        "-s4",
        "-Stbon.topo=kary:1",
        "--test-exit-mode=leader",
    ];
    let end = ["--test-exit-timeout=1m", "sh", "-c", &script];
    site.flux(args.into_iter().chain(end))
}

/// Brokers below each other, for [`configured`].
const LINE: &str = r#"
    { host = "fake[0-3]" },
    { host = "fake2", parent = "fake1" },
    { host = "fake3", parent = "fake2" },
"#;

/// All brokers below rank 0.
const FLAT: &str = r#"{ host = "fake[0-3]" }"#;

/// As [`line`], booted from configuration with these hosts; `start RANK` starts the broker of a rank again, and once more, as systemd
/// does, should it come before its earlier life or its parent's has ended.
fn configured(site: &Site, hosts: &str, script: &str) -> Outcome {
    let dir = site.path().join("run");
    std::fs::create_dir(&dir).unwrap();
    let run = dir.display();
    let cert = site.path().join("cert").display().to_string();
    site.flux(["keygen", "--name=test", &cert]).success();
    let config = format!(
        "[bootstrap]
        curve_cert = \"{cert}\"
        default_bind = \"ipc://{run}/tbon-%h\"
        default_connect = \"ipc://{run}/tbon-%h\"
        hosts = [{hosts}]
        "
    );
    let config = site.write("bootstrap.toml", &config).display().to_string();
    let script = format!(
        "{TOOLS}
        touch up
        broker() {{ flux broker -c {config} -Shostname=fake$1 -Srundir={run}; }}
        start() {{ until broker $1 2>>{run}/again.$1; do test -e up || break; done & }}
        {script}
        rm -f up"
    );
    let options = [
        "start",
        "-s4",
        "--test-hosts=fake[0-3]",
        "--test-exit-mode=leader",
        "--test-exit-timeout=1m",
        "--test-rundir-cleanup",
    ];
    let places = [format!("--test-rundir={run}"), format!("-c{config}")];
    let places = places.iter().map(String::as_str);
    let command = ["sh", "-c", &script];
    site.flux(options.into_iter().chain(places).chain(command))
}

#[test]
fn a_killed_leaf_is_lost_and_its_requests_fail() {
    let site = Site::new();
    let out = line(
        &site,
        "flux run -N4 true
        leaf=$(pid 3)
        flux overlay status --timeout=0 --rank=3 --wait=lost 2>$TMPDIR/err & waiting=$!
        flux ping -c1 3 >/dev/null
        kill -9 $leaf
        wait $waiting || grep -o 'No route to host' $TMPDIR/err
        wait_for degraded
        flux overlay status --no-pretty | sed 's/ [^ ]*:/:/'
        flux overlay errors | sed 's/.*: //'
        flux uptime | grep -o '1 offline'
        rm $TMPDIR/err",
    );
    let tree = "0: degraded\n1: degraded\n2: degraded\n3: lost lost connection\n";
    let want = format!("No route to host\n{tree}lost connection\n1 offline\n");
    out.success().expect_stdout(&want);
}

#[test]
fn a_killed_router_takes_those_below_with_it() {
    let site = Site::new();
    let out = line(
        &site,
        "flux run -N4 true
        kill -9 $(pid 1)
        wait_for degraded
        flux overlay status --no-pretty --down | sed 's/ [^ ]*:/:/'
        flux uptime | grep -o '3 offline'
        flux run hostname >/dev/null && echo works",
    );
    let tree = "0: degraded\n1: lost lost connection\n2: lost\n3: lost\n";
    out.success()
        .expect_stdout(&format!("{tree}3 offline\nworks\n"));
}

#[test]
fn a_router_that_ends_in_good_order_drains_its_subtree() {
    let site = Site::new();
    let out = line(
        &site,
        "kill -TERM $(pid 2)
        wait_for partial
        flux overlay status --no-pretty | sed 's/ [^ ]*:/:/'",
    );
    let tree = "0: partial\n1: partial\n2: offline administrative shutdown\n3: offline\n";
    out.success().expect_stdout(tree);
}

#[test]
fn a_broker_can_be_cut_off() {
    let site = Site::new();
    let out = line(
        &site,
        "flux overlay disconnect 3 2>/dev/null
        wait_for degraded
        flux overlay status --no-pretty --rank=2 | tail -1 | sed 's/ [^ ]*:/:/'
        flux overlay disconnect 3 2>&1 | tail -1",
    );
    let status = "3: lost administrative disconnect\n";
    let again = "flux-overlay: overlay.disconnect-subtree: rank 3 is already lost\n";
    out.success().expect_stdout(&format!("{status}{again}"));
}

#[test]
fn brokers_boot_from_configuration() {
    let site = Site::new();
    let out = configured(
        &site,
        LINE,
        "wait_for full
        flux getattr broker.boot-method; flux getattr hostlist; flux getattr tbon.topo
        flux exec -r 3 flux getattr tbon.level; flux overlay parentof 3; flux overlay lookup fake2",
    );
    out.success()
        .expect_stdout("config\nfake[0-3]\ncustom\n3\n2\n2\n");
}

#[test]
fn a_leaf_comes_back() {
    let site = Site::new();
    let out = configured(
        &site,
        LINE,
        "wait_for full
        for signal in 9 15; do
            state=degraded; test $signal = 9 || state=partial
            kill -$signal $(pid 3)
            wait_for $state
            start 3
            wait_for full
            flux exec -r 3 flux kvs put came.back=$signal
            flux kvs get came.back
        done",
    );
    out.success().expect_stdout("9\n15\n");
}

#[test]
fn leaves_are_restarted_in_turn_while_jobs_run() {
    let site = Site::new();
    let out = configured(
        &site,
        FLAT,
        "wait_for full
        touch ran; jobs() { flux jobs --filter=running -no '{ranks}'; }
        steady=$(flux submit -N1 cat)
        flux job wait-event $steady start >/dev/null
        home=$(flux jobs -no '{ranks}' $steady)
        (while test -e up; do flux run -N1 true || echo failed; echo >>ran; done) & work=$!
        for leaf in 1 2 3; do
            test $leaf = $home && continue
            flux resource drain $leaf restart
            while jobs | grep -qx $leaf; do :; done
            before=$(wc -l <ran)
            kill -15 $(pid $leaf)
            wait_for partial
            until test $(wc -l <ran) -gt $((before + 2)); do :; done
            start $leaf
            wait_for full
            flux resource undrain $leaf
            echo restarted
        done
        rm up; wait $work
        flux job kill -s 9 $steady; flux job status $steady 2>/dev/null || echo steady ended with $?
        touch up
        flux resource list -s free -no '{nnodes}'",
    );
    let out = out.success();
    let lines = out.lines();
    assert!(
        lines.iter().filter(|l| **l == "restarted").count() >= 2,
        "{out}"
    );
    assert!(lines.ends_with(&["steady ended with 137", "4"]), "{out}");
    assert!(!lines.contains(&"failed"), "{out}");
}

#[test]
fn a_router_comes_back_and_those_below_after_it() {
    let site = Site::new();
    let out = configured(
        &site,
        LINE,
        "wait_for full
        kill -9 $(pid 1)
        wait_for degraded
        start 1; start 2; start 3
        wait_for full
        flux exec -r 1-3 flux getattr rank | sort",
    );
    out.success().expect_stdout("1\n2\n3\n");
}

#[test]
fn a_second_broker_of_a_rank_is_refused() {
    let site = Site::new();
    let out = configured(
        &site,
        LINE,
        "wait_for full
        dir=$(flux getattr rundir); mkdir $dir/other
        config=$(dirname $dir)/bootstrap.toml
        flux broker -c $config -Shostname=fake3 -Srundir=$dir/other 2>&1 | grep -o 'rank 3 is already connected' | sort -u
        flux exec -r 3 flux getattr rank
        rm -rf $dir/other",
    );
    out.success()
        .expect_stdout("rank 3 is already connected\n3\n");
}

#[test]
fn a_stopped_broker_is_torpid_until_it_goes_on() {
    let site = Site::new();
    let script = format!(
        "{TOOLS}
        dmesg_has() {{ until flux dmesg | grep -o \"$1\"; do :; done; }}
        leaf=$(pid 1)
        kill -STOP $leaf
        dmesg_has 'rank 1 has been unresponsive'
        kill -CONT $leaf
        dmesg_has 'rank 1 is responsive now'
        flux exec -r 1 flux getattr rank"
    );
    let limits = ["-Stbon.torpid_min=0.3s", "-Stbon.torpid_max=0.8s"];
    let args = ["start", "-s2"].into_iter().chain(limits);
    let out = site.flux(args.chain(["sh", "-c", &script]));
    out.success()
        .expect_stdout("rank 1 has been unresponsive\nrank 1 is responsive now\n1\n");
}
