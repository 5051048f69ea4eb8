//! Instances among failing machines, full disks and programs that misbehave: others go on being served.
//!
//! Waiting is done by commands that end when what they wait for is there; nothing sleeps.

use std::io::{Read, Write};
use std::process::Command;

use e2e::{Site, installed, skipped};

/// What an instance of two can do when it is well.
const WELL: &str = "flux exec -r all flux getattr rank | sort | tr '\\n' ' '
    flux kvs put still.there=$$ && test $(flux kvs get still.there) = $$
    flux run -N2 echo served | sort -u";

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn requests_under_way_through_a_killed_router_fail() {
    let site = Site::new();
    let script = "
        under_way() { flux module stats overlay | grep -q '\"child-rpc\": *[1-9]'; }
        router=$(flux exec -r 1 flux getattr broker.pid)
        flux overlay status --timeout=0 --rank=3 --wait=lost 2>$TMPDIR/err & waiting=$!
        until under_way; do :; done
        kill -9 $router
        wait $waiting || grep -o 'No route to host' $TMPDIR/err
        rm $TMPDIR/err
        flux exec -r 2 flux getattr rank";
    let tree = [
        "start",
        "-s4",
        "-Stbon.topo=kary:2",
        "--test-exit-mode=leader",
    ];
    let rest = ["--test-exit-timeout=1m", "sh", "-euc", script];
    let out = site.flux(tree.into_iter().chain(rest));
    out.success().expect_stdout("No route to host\n2\n");
}

#[test]
fn large_messages_cross_the_tree() {
    let site = Site::new();
    let script = "
        head -c 10485760 /dev/urandom >$TMPDIR/big
        flux kvs put --raw big=- <$TMPDIR/big
        flux exec -r 2 sh -c 'flux kvs get --raw big' | cmp - $TMPDIR/big
        flux exec -r 2 sh -c 'flux kvs put --raw back=- <$0' $TMPDIR/big
        flux kvs get --raw back | cmp - $TMPDIR/big && echo same
        rm $TMPDIR/big";
    let out = site.flux(["start", "-s3", "-Stbon.topo=kary:1", "sh", "-euc", script]);
    out.success().expect_stdout("same\n");
}

#[test]
fn malformed_messages_end_their_connection_only() {
    let magic = 0xffee_0012_u32.to_ne_bytes();
    let frame = |body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&magic[..], &length, body].concat()
    };
    let malformed = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame(b""),
        frame(b"no message at all, and no protocol"),
        frame(&[0x8e; 4096]),
        [&magic[..], &[0xff; 4]].concat(),
    ];
    let site = Site::new();
    let out = site.beside("flux start -s2", |instance| {
        for bytes in malformed {
            let mut stream = instance.connect();
            stream.write_all(&bytes).unwrap();
            // The broker hangs up; it may do so with bytes of ours unread, which is an error here.
            assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        }
        // One that announces much and sends little is waited for, alone.
        let mut slow = instance.connect();
        let announced = [&magic[..], &0x2000_0000_u32.to_be_bytes(), b"begin"].concat();
        slow.write_all(&announced).unwrap();
        let out = instance.script(WELL);
        out.success().expect_stdout("0 1 served\n");
    });
    out.success();
}

#[test]
fn programs_that_do_not_read_hold_up_nobody() {
    let site = Site::new();
    // More than sockets take: what one does not read waits in the broker.
    let script = "
        text=$(head -c 100000 /dev/zero | tr '\\0' x)
        flux event sub --count=65 big >$TMPDIR/deaf & deaf=$!
        flux event sub --count=65 big >$TMPDIR/keen & keen=$!
        until test -s $TMPDIR/deaf -a -s $TMPDIR/keen; do flux event pub big.ready; done
        kill -STOP $deaf
        for i in $(seq 64); do flux event pub big.$i \"{\\\"x\\\": \\\"$text\\\"}\"; done
        wait $keen
        flux exec -r all flux getattr rank | sort
        kill -CONT $deaf
        wait $deaf
        tail -1 $TMPDIR/deaf | cut -c1-6
        rm $TMPDIR/deaf $TMPDIR/keen";
    let out = site.script(2, script);
    let out = out.success();
    assert_eq!(out.lines()[..2], ["0", "1"], "{out}");
    assert!(out.lines()[2].starts_with("big."), "{out}");
}

#[test]
fn a_broker_without_descriptors_serves_those_it_has() {
    let site = Site::new();
    let out = site.beside("ulimit -n 128; flux start -s2", |instance| {
        let mut early = instance.connect();
        // More than it can have; those it does not accept wait in the kernel's queue.
        let crowd: Vec<_> = (0..200).map(|_| instance.knock()).collect();
        let mut last = crowd.last().unwrap();
        last.set_nonblocking(true).unwrap();
        assert!(last.read(&mut [0]).is_err(), "it has room for all");
        // Those that are in are answered: garbage with a hang-up.
        early.write_all(&[0; 64]).unwrap();
        assert!(matches!(early.read(&mut [0]), Ok(0) | Err(_)));
        drop(crowd);
        let out = instance.script(&format!("ulimit -n 128\n{WELL}"));
        out.success().expect_stdout("0 1 served\n");
    });
    out.success();
}

#[test]
fn a_full_run_directory_does_not_end_an_instance() {
    let mount = ["--mount", "sh", "-c", "mount -t tmpfs none /mnt"];
    let can = is_root() && installed("unshare") && installed("mount");
    if !can
        || !Command::new("unshare")
            .args(mount)
            .status()
            .is_ok_and(|s| s.success())
    {
        return skipped("a full run directory: needs root, unshare and leave to mount");
    }
    let site = Site::new();
    // The file system is that of this script and its children, and goes with them. Without a statedir content
    // that finds no room stays in memory; with one, nothing is called stored that is not.
    let inner = "
        head -c $((4194304 - 262144)) /dev/zero >small/ballast
        flux kvs put before=1
        flux kvs put --raw big=- <big 2>&1 | grep -o 'No space left' || flux kvs get --raw big | cmp - big
        flux kvs get before
        flux exec -r 1 flux getattr rank
        rm small/ballast
        flux kvs put after=2 && flux kvs get after && flux run -N2 echo served | sort -u";
    let script = format!(
        "head -c 10485760 /dev/urandom >big
        mkdir small; mount -t tmpfs -o size=4m none small
        mkdir small/run small/state
        cat >inner <<'END'\n{inner}\nEND
        flux start -s2 --test-rundir=small/run sh -eu inner
        rm -f small/run/*
        flux start -s2 -Sstatedir=small/state sh -eu inner"
    );
    let out = site.run("unshare", ["--mount", "sh", "-euc", &script]);
    let then = "1\n1\n2\nserved\n";
    out.success()
        .expect_stdout(&format!("{then}No space left\n{then}"));
}

/// Two network namespaces with a cable between them.
struct Hosts {
    names: [String; 2],
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip")
        .args(args)
        .status()
        .is_ok_and(|s| s.success())
}

impl Hosts {
    fn new() -> Option<Self> {
        let pid = std::process::id();
        let names = ["a", "b"].map(|host| format!("e2e{pid}{host}"));
        let hosts = Self { names };
        let [a, b] = &hosts.names;
        let made = ip(&["netns", "add", a])
            && ip(&["netns", "add", b])
            && ip(&[
                "link", "add", "cable", "netns", a, "type", "veth", "peer", "cable", "netns", b,
            ])
            && ip(&["-n", a, "addr", "add", "10.9.8.1/24", "dev", "cable"])
            && ip(&["-n", b, "addr", "add", "10.9.8.2/24", "dev", "cable"]);
        (made
            && hosts
                .names
                .iter()
                .all(|n| ip(&["-n", n, "link", "set", "cable", "up"])))
        .then_some(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&["netns", "del", name]);
        }
    }
}

#[test]
fn a_cut_cable_loses_the_broker_at_its_end_and_no_other() {
    let hosts = (is_root() && installed("ip")).then(Hosts::new).flatten();
    let Some(hosts) = hosts else {
        return skipped("a cut cable: needs root and `ip netns`");
    };
    let site = Site::new();
    let [a, b] = &hosts.names;
    let cert = site.path().join("cert").display().to_string();
    site.flux(["keygen", "--name=test", &cert]).success();
    let config = format!(
        "[tbon]
        tcp_user_timeout = \"2s\"
        [bootstrap]
        curve_cert = \"{cert}\"
        hosts = [
            {{ host = \"left\", bind = \"tcp://10.9.8.1:8050\", connect = \"tcp://10.9.8.1:8050\" }},
            {{ host = \"right\" }},
        ]
        "
    );
    let config = site.write("bootstrap.toml", &config).display().to_string();
    let inner = format!(
        "wait_for() {{ flux overlay status --timeout=0 --summary --wait=$1 >/dev/null; }}
        right() {{ ip netns exec {b} flux broker -c {config} -Shostname=right; }}
        wait_for full
        first=$(flux exec -r 1 flux getattr broker.pid)
        flux exec -r 1 flux getattr hostname
        flux ping --count=1 --rank=1 broker >/dev/null
        flux run -N2 true
        ip -n {b} link set cable down
        flux overlay status --timeout=0 --rank=1 --wait=lost 2>&1 | grep -o 'No route to host'
        wait_for degraded
        flux run -N1 echo served
        ip -n {b} link set cable up
        while kill -0 $first 2>/dev/null; do :; done
        right &
        wait_for full
        flux exec -r 1 flux getattr rank"
    );
    let inner = site.write("inner", &inner).display().to_string();
    // The program starts when both are there, so the other one is started beside it.
    let both = format!(
        "ip netns exec {b} flux broker -c {config} -Shostname=right &
        ip netns exec {a} flux broker -c {config} -Shostname=left sh -u {inner}"
    );
    let out = site.run("sh", ["-c", &both]);
    let stages = "right\nNo route to host\nserved\n1\n";
    out.success().expect_stdout(stages);
}
