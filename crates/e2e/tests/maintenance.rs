//! Dump, restore, check and repair of the key-value store, and restart from a dump.

use e2e::Site;

/// Fills the store: values of all sizes, appended ones, links, long names.
const FILL: &str = "
    flux kvs put a.short=1 a.long=$(printf '%0500d' 7) a.empty= &&
    for i in 1 2 3; do flux kvs put --append log.x=$(printf '%0200d' $i) || exit 1; done &&
    flux kvs link a.short link && flux kvs link --target-namespace=other a nslink &&
    flux kvs put $(printf '%070d' 1).$(printf '%090d' 2)=deep &&";

/// Archives of the same store are the same, but for what the instance itself keeps in it.
const SAME: &str = "
    list() { tar -xf $1 -C $2 && (cd $2 && find a log link nslink 0* -type f | sort | xargs cat && readlink link nslink); }
    mkdir -p one two && list one.tar one >one.txt && list two.tar two >two.txt && cmp one.txt two.txt &&";

#[test]
fn what_was_dumped_is_restored() {
    let site = Site::new();
    let formats = "tar tgz tar.gz tar.bz2 tar.xz tar.zst tar.lz4";
    let dump = format!(
        "{FILL} for s in {formats}; do flux dump -q x.$s || exit 1; done; flux dump -q - >one.tar"
    );
    site.script(1, &dump).success();
    let restore = format!(
        "for s in {formats}; do
            rm -rf two all* && k=k$(echo $s | tr . _) &&
            flux restore -q --key=$k x.$s && flux dump -q --maxreqs=1 all.tar && mkdir all && tar -xf all.tar -C all &&
            tar -cf two.tar -C all/$k . && {SAME} echo $s same || exit 1
        done; flux restore -q --key=z - <x.tgz && flux kvs readlink z.link"
    );
    let lines: String = formats.split(' ').map(|s| format!("{s} same\n")).collect();
    site.script(2, &restore)
        .success()
        .expect_stdout(&format!("{lines}a.short\n"));
}

#[test]
fn mistakes_are_named() {
    let site = Site::new();
    site.write("junk.tar", "no archive");
    for (script, words) in [
        ("flux dump x.zip", &["x.zip", ".tar.zst"][..]),
        ("flux dump --maxreqs=0 x.tar", &["maxreqs", "at least 1"]),
        (
            "flux dump /nonesuch/x.tar",
            &["/nonesuch/x.tar", "No such file"],
        ),
        ("flux restore x.tar", &["--checkpoint", "--key"]),
        ("flux restore --key=a x.tar", &["x.tar", "No such file"]),
        ("flux restore --key=a junk.tar", &["junk.tar"]),
        ("flux restore --checkpoint x.tar", &["unload", "kvs"]),
        ("flux fsck --repair", &["unload", "kvs"]),
        ("flux fsck --rootref=sha1-12", &["sha1", "bytes"]),
    ] {
        site.script(1, script).expect_code(1).expect_error(words);
    }
}

#[test]
fn an_instance_starts_from_its_dump() {
    let site = Site::new();
    std::fs::create_dir(site.path().join("state")).unwrap();
    let start = [
        "start",
        "-Sstatedir=state",
        "-Scontent.dump=auto",
        "-Scontent.restore=auto",
    ];
    let run = |script: &'static str| site.flux(start.into_iter().chain([script])).success();
    run("flux kvs put a=1 junk=$(head -c 60000 /dev/zero | tr '\\0' x)$$ && flux kvs unlink junk");
    let size = || site.path().join("state/dump/RESTORE").symlink_metadata();
    assert!(size().unwrap().is_symlink());
    // Only what the dump had is there, and the link is gone while the instance runs.
    run("flux kvs get a; flux kvs ls | grep junk; test -e state/dump/RESTORE || echo gone; flux kvs put b=2")
        .expect_stdout("1\ngone\n");
    run("flux kvs get a b").expect_stdout("1\n2\n");
    assert!(size().unwrap().is_symlink());
}

#[test]
fn a_dump_that_is_not_there_keeps_the_store() {
    let site = Site::new();
    std::fs::create_dir(site.path().join("state")).unwrap();
    let start =
        |more: &'static [&'static str]| site.flux(["start", "-Sstatedir=state"].iter().chain(more));
    start(&["flux kvs put a=1"]).success();
    start(&["-Scontent.restore=nonesuch.tgz", "true"]).expect_code(1);
    start(&["flux kvs get a"]).success().expect_stdout("1\n");
}

const LOW_THRESHOLD: &[&str] = &["--conf=kvs.gc-threshold=1"];

#[test]
fn shutdown_dumps_when_asked() {
    let site = Site::new();
    let shutdown = |options: &'static [&'static str], command: &str| {
        let script = format!("flux kvs put a=1 && {command}");
        let words = ["start", "-s3"].iter().chain(options).copied();
        site.flux(words.chain([&*script])).expect_code(129);
    };
    let there = |path: &str| site.path().join(path).symlink_metadata().is_ok();
    shutdown(&[], "flux shutdown --dump=x.tgz");
    assert!(there("x.tgz") && !there("dump"));
    shutdown(&["-Scontent.dump=auto"], "flux shutdown --skip-gc");
    assert!(!there("dump"));
    let twice = "flux kvs put b=1 && flux kvs put c=1 &&";
    shutdown(LOW_THRESHOLD, &format!("{twice} flux shutdown -n"));
    assert!(!there("dump"));
    shutdown(
        LOW_THRESHOLD,
        &format!("{twice} flux shutdown </dev/null; test $? = 1 && flux shutdown -y"),
    );
    assert!(there("dump/RESTORE"));
    site.flux(["start", "-s3", "-Scontent.restore=x.tgz", "flux kvs get a"])
        .success()
        .expect_stdout("1\n");
}

/// A value whose second blob is nowhere.
const LOSE: &str = r#"
    lose() { flux kvs get --treeobj $1 | sed 's/\(sha1-[0-9a-f]*","\)sha1-[0-9a-f]*/\1sha1-1234567890123456789012345678901234567890/' >bad && flux kvs put --treeobj $1="$(cat bad)"; }
    value() { flux kvs put $1=one && flux kvs put --append $1=two && flux kvs put --append $1=three; }
"#;

#[test]
fn what_is_lost_is_named_and_the_rest_is_kept() {
    let site = Site::new();
    let script = format!(
        "{LOSE} value d.v && flux kvs put d.good=1 && value job.0000.0000.0000.0001.log &&
        flux kvs put job.0000.0000.0000.0001.R=r job.0000.0000.0000.0002.R=s && flux kvs sync &&
        flux fsck -v 2>/dev/null && lose d.v && lose job.0000.0000.0000.0001.log &&
        flux kvs put --treeobj 'dir={{\"data\":[\"sha1-1234567890123456789012345678901234567890\"],\"type\":\"dirref\",\"ver\":1}}' &&
        flux kvs sync && flux module remove kvs &&
        {{ flux fsck >/dev/null 2>errors; echo fsck $?; }} && cut -d' ' -f2-4 errors | sort
        flux fsck --repair --job-aware --quiet >/dev/null 2>errors; echo repair $?
        flux fsck >/dev/null; echo again $?
        flux module load kvs && flux kvs get lost+found.d.v d.good job.0000.0000.0000.0002.R &&
        flux kvs get lost+found.job.0000.0000.0000.0001.log lost+found.job.0000.0000.0000.0001.R &&
        ! flux kvs get d.v 2>/dev/null && ! flux kvs ls dir 2>/dev/null && ! flux kvs ls job.0000.0000.0000.0001 2>/dev/null && echo done"
    );
    let rc1 = "-Sbroker.rc1_path=flux modprobe load content-sqlite kvs";
    let outcome = site.flux(["start", rc1, &script]);
    let lines = outcome.lines();
    assert!(lines[0].starts_with("Checking integrity"), "{lines:?}");
    assert_eq!(
        lines[1..],
        [
            "fsck 1",
            "Total errors: 3",
            "d.v: missing blobref(s):",
            "dir: missing dirref",
            "job.0000.0000.0000.0001.log: missing blobref(s):",
            "repair 1",
            "again 0",
            "onethree",
            "1",
            "s",
            "onethree",
            "r",
            "done",
        ]
    );
}

#[test]
fn an_instance_that_is_down_is_mended_in_recovery_mode() {
    let site = Site::new();
    let state = site.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let place = format!("-Sstatedir={}", state.display());
    site.flux(["start", &place, "flux", "kvs", "put", "a=1"])
        .success();
    let recovery = format!("--recovery={}", state.display());
    let script = "flux kvs get a; flux kvs put a=2; flux resource list -s up -no {nnodes}; flux getattr broker.quorum";
    site.flux(["start", &recovery, "sh", "-c", script])
        .success()
        .expect_stdout("1\n0\n1\n");
    site.flux(["start", &place, "flux", "kvs", "get", "a"])
        .success()
        .expect_stdout("2\n");
    let missing = format!("--recovery={}/none", state.display());
    let refused = site.flux(["start", &missing, "true"]);
    assert_ne!(refused.code(), 0);
    refused.expect_error(&["state/none", "No such file"]);
}
