//! The store of an instance over time: garbage goes while it is in use, and what was acknowledged stays.

use std::process::Command;

use e2e::{Site, installed, skipped};

/// Garbage is collected as often as can be.
const EAGER: &str = "--conf=kvs.gc-grace=0s --conf=kvs.gc-minimum=1 --conf=kvs.gc-growth=0.001";

#[test]
fn the_size_follows_what_is_live() {
    let site = Site::new();
    std::fs::create_dir(site.path().join("state")).unwrap();
    // 6 MB are written, of which 20 kB are live at any time, while the size may be 1 MB at the end.
    let churn = "
        head -c 20000 /dev/zero | tr '\\0' x >value
        flux kvs put kept=here
        removed() { flux module stats kvs | tr -d '\\n' | sed 's/.*\"gc\": *{[^}{]*\"removed\": *//; s/[^0-9].*//'; }
        i=0
        until test $i -ge 300 && test $(removed) -ge 800 && test $(stat -c %s state/content.sqlite) -lt 1000000; do
            i=$((i + 1)); (cat value; echo $i) | flux kvs put --raw churn.deep.er=-
        done
        flux content dropcache
        flux exec -r 1 flux kvs get kept
        test \"$(flux exec -r 1 flux kvs get --raw churn.deep.er | tail -c 8 | tr -dc 0-9)\" = $i && echo last
        flux kvs sync && flux fsck -q >fsck && echo whole";
    let conf = "--conf=kvs.gc-grace=0s --conf=kvs.gc-minimum=200k --conf=kvs.gc-growth=0.5";
    let words = ["start", "-s2", "-Sstatedir=state"];
    let words = words.into_iter().chain(conf.split(' '));
    site.flux(words.chain(["sh", "-euc", churn]))
        .success()
        .expect_stdout("here\nlast\nwhole\n");
}

#[test]
fn garbage_is_collected_on_demand() {
    let site = Site::new();
    let script = "
        for i in 1 2 3 4 5 6 7 8 9; do flux kvs put x=$(printf '%0200d' $i); done
        flux kvs namespace create other; flux kvs put --namespace=other y=$(printf '%0200d' 1)
        flux gc -vv >out 2>err; grep -c 'gc complete: marked [0-9]*, reclaimed [0-9]* blobs' out
        grep -o 'enumerated 1 private namespace roots' err
        flux gc --grace=0s | grep -o 'reclaimed 0 blobs'
        flux gc --json --grace=0s | grep -o '\"removed\":0'
        flux content dropcache
        flux exec -r 1 flux kvs get --namespace=other y | tail -c 3; flux exec -r 1 flux kvs get x | tail -c 3";
    site.script(2, script).success().expect_stdout(
        "1\nenumerated 1 private namespace roots\nreclaimed 0 blobs\n\"removed\":0\n01\n09\n",
    );
    for (script, words) in [
        ("flux gc --grace=soon", &["--grace", "soon"][..]),
        ("flux gc --maxreqs=0", &["maxreqs", "at least 1"]),
    ] {
        site.script(1, script).expect_code(1).expect_error(words);
    }
    site.flux(["start", "--conf=kvs.gc-grace=soon", "true"])
        .expect_code(1)
        .expect_error(&["kvs.gc-grace", "soon"]);
}

/// Writers go on until their broker is killed; each line of `acked` is a key that was acknowledged.
const WRITE: &str = "
    flux getattr broker.pid >pid
    for w in 1 2 3; do
        (i=0; while i=$((i + 1)); do
            flux kvs put dir$((i % 5)).r$ROUND.w$w.k$i=$(printf '%0100d' $i) 2>/dev/null || exit 0
            echo dir$((i % 5)).r$ROUND.w$w.k$i $i >>acked.$w
            flux kvs put churn.$w=$(printf '%0300d' $ROUND$i) 2>/dev/null || exit 0
        done) &
    done
    wait";

#[test]
fn a_crash_while_garbage_is_collected_loses_nothing() {
    let site = Site::new();
    site.write("write", WRITE);
    for backing in ["content-sqlite", "content-files"] {
        let script = format!(
            "rm -rf state acked.*; mkdir state
            broker() {{
                rm -rf $1; mkdir $1
                flux broker -Sstatedir=state -Sstatedir-cleanup=0 -Srundir=$1 \
                    -Scontent.backing-module={backing} {EAGER} \"${{@:2}}\"
            }}
            lines() {{ cat acked.* 2>/dev/null | wc -l; }}
            for round in 1 2 3 4 5; do
                before=$(lines); export ROUND=$round
                broker run.$round sh write >/dev/null 2>&1 &
                until test $(lines) -ge $((before + 40)); do :; done
                kill -9 $(cat pid); wait $! 2>/dev/null || true
                broker checked sh -euc '
                    cat acked.* | while read key value; do
                        test $(flux kvs get $key) -eq $value || echo lost $key
                    done
                    flux kvs sync; flux fsck -q >fsck
                    flux gc --json --grace=0s >gc'
            done
            test -s gc && echo whole"
        );
        site.run("bash", ["-uc", &script])
            .success()
            .expect_stdout("whole\n");
    }
}

/// Keys are put until the disk is full; then there is room again. Each line of `acked` was acknowledged.
const FULL: &str = "
    put() { printf '%s %02000d' $1 $1 >value; flux kvs put --raw full.$1=- <value && echo $1 >>acked; }
    check() { cat acked | while read n; do flux kvs get --raw full.$n | cut -d' ' -f1 | grep -qx $n || echo lost $n; done; }
    i=0; while i=$((i + 1)); put $i 2>err; do :; done
    grep -io 'full\\|no space left on device' err | head -n 1 >why; test -s why && echo refused
    check; echo readable
    flux module stats content | grep -q '\"store-error\": *\"No space' && echo visible
    flux dmesg | grep -q 'the content store takes nothing' && echo logged
    flux exec -r 1 flux getattr rank
    rm small/ballast
    put 100000; put 100001; check
    flux module stats content | grep -q '\"store-error\": *null' && echo well
    flux dmesg | grep -q 'the content store works again' && echo logged";

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let mount = ["--mount", "sh", "-c", "mount -t tmpfs none /mnt"];
    let can = nix::unistd::geteuid().is_root() && installed("unshare") && installed("mount");
    let mut unshare = Command::new("unshare");
    if !can || !unshare.args(mount).status().is_ok_and(|s| s.success()) {
        return skipped("a full disk: needs root, unshare and leave to mount");
    }
    let site = Site::new();
    site.write("full", FULL);
    for backing in ["content-sqlite", "content-files"] {
        // The file system is that of this script and its children, and goes with them.
        let script = format!(
            "rm -f acked; mkdir -p small; mount -t tmpfs -o size=4m none small; mkdir small/state
            head -c 2500000 /dev/zero >small/ballast
            start() {{ flux start -s2 -Sstatedir=small/state -Scontent.backing-module={backing} sh -eu $1; }}
            start full
            echo 'cat acked | while read n; do flux kvs get --raw full.$n | grep -q . || echo lost $n; done
                flux fsck -q >fsck; test -s acked && echo kept' >after
            start after"
        );
        site.run("unshare", ["--mount", "bash", "-euc", &script])
            .success()
            .expect_stdout("refused\nreadable\nvisible\nlogged\n1\nwell\nlogged\nkept\n");
    }
}
