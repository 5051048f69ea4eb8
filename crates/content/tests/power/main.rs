//! Power loss: whatever is lost that was not synced, what a store has acknowledged is there.
//!
//! A child process works on a store while a small library (`recorder.c`, built here) writes down what it does to its
//! files. Then power fails after this or that event: [`disk`] says what is left, and the store is opened there.
//! `POWER_CUTS` is the number of cuts for each store.

mod disk;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use content::backing::journal::{Journaled, Settings};
use content::backing::{Backing, Durability, Files, Sqlite};
use content::roots::Roots;
use content::{BlobRef, HashAlg, PRIMARY};
use serde_json::json;

use disk::{Dice, Disk, Event};

const COMMITS: u64 = 60;
/// A commit's blobs are removed so many commits later.
const KEPT: u64 = 20;

/// The blobs of a commit: small ones, and sometimes one of many pages.
fn blobs(commit: u64) -> Vec<(BlobRef, Bytes)> {
    let size = |n: u64| match (commit + n) % 7 {
        0 => 9000,
        other => 40 + 150 * other,
    };
    let data = |n: u64| format!("{commit}.{n} ").repeat(size(n) as usize / 5);
    (0..4)
        .map(|n| Bytes::from(data(n)))
        .map(|data| (HashAlg::Sha1.hash(&data), data))
        .collect()
}

async fn open(kind: &str, dir: &Path, is_durable: bool) -> Box<dyn Backing> {
    match kind {
        "sqlite" | "journal" => {
            let durability = match is_durable {
                true => Durability::Full,
                false => Durability::Off,
            };
            let path = dir.join("content.sqlite");
            let store = Sqlite::open(&path, durability).await.unwrap();
            if kind == "sqlite" {
                return Box::new(store);
            }
            // Small enough for many turns.
            let settings = Settings {
                turn: 20_000,
                syncs: true,
            };
            let path = dir.join("content.journal");
            Box::new(Journaled::open(store, &path, settings).await.unwrap())
        }
        _ => Box::new(Files::open(&dir.join("content.files"), is_durable).unwrap()),
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work)
}

/// What the child does: commits, each noted when it is acknowledged, checkpoints and removals.
async fn work(kind: &str, dir: &Path) {
    let store = open(kind, dir, true).await;
    let mut acks = std::fs::File::create(dir.join("acks")).unwrap();
    for commit in 1..=COMMITS {
        let root = Roots::of(PRIMARY, json!({ "sequence": commit }));
        store.store_batch(blobs(commit), root).await.unwrap();
        writeln!(acks, "{commit}").unwrap();
        if commit % 15 == 0 {
            let value = json!({ "sequence": commit });
            store.checkpoint_put(value).await.unwrap();
        }
        if commit > KEPT {
            let old = blobs(commit - KEPT).into_iter().map(|(r, _)| r);
            store.remove(old.collect()).await.unwrap();
        }
        if commit == COMMITS / 2 {
            while store.give_back().await.unwrap() {}
        }
    }
}

/// Opens what is left, which must have every commit up to this one.
async fn check(kind: &str, dir: &Path, acknowledged: u64) -> Result<(), String> {
    if acknowledged == 0 {
        return Ok(());
    }
    // What a journal holds goes into a store that keeps roots.
    let store = open(kind, dir, kind == "journal").await;
    let kept = store.checkpoints().await.map_err(|e| e.to_string())?;
    let last = kept.first().and_then(|c| c["sequence"].as_u64());
    let last = last
        .filter(|last| *last >= acknowledged)
        .ok_or_else(|| format!("the last root is {last:?}"))?;
    for commit in last.saturating_sub(KEPT - 1).max(1)..=last {
        let expected = blobs(commit);
        let asked = expected.iter().map(|(r, _)| *r).collect();
        let loaded = store.load(asked).await.map_err(|e| e.to_string())?;
        for (_, blob) in &loaded.blobs {
            blob.as_ref().map_err(ToString::to_string)?;
        }
        if loaded.blobs.len() != expected.len() {
            return Err(format!(
                "{} blobs of {commit} are there",
                loaded.blobs.len()
            ));
        }
    }
    store.close().await;
    Ok(())
}

/// The recording library, or why there is none.
fn recorder(dir: &Path) -> Result<PathBuf, String> {
    let library = dir.join("recorder.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power/recorder.c");
    let words = ["-shared", "-fPIC", "-O1", "-o"];
    let built = Command::new("cc")
        .args(words)
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .output();
    match built {
        Ok(out) if out.status.success() => Ok(library),
        Ok(out) => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        Err(e) => Err(format!("cc: {e}")),
    }
}

fn power_fails(kind: &str) {
    let place = tempfile::tempdir().unwrap();
    let library = match recorder(place.path()) {
        Ok(library) => library,
        Err(why) => return eprintln!("!!! SKIPPED, NOT TESTED: power loss: {why}"),
    };
    let (dir, trace) = (place.path().join("store"), place.path().join("trace"));
    std::fs::create_dir(&dir).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env("POWER_KIND", kind)
        .env("RECORD_DIR", &dir)
        .env("RECORD_TRACE", &trace)
        .env("LD_PRELOAD", library)
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    let events = disk::read_trace(&std::fs::read(&trace).unwrap());
    let cuts = std::env::var("POWER_CUTS").map_or(150, |n| n.parse().unwrap());
    let mut dice = Dice::new(cuts);
    let mut points: Vec<_> = (0..cuts).map(|_| dice.below(events.len() + 1)).collect();
    points.sort_unstable();
    let (mut disk, mut at, mut acknowledged, mut acks) = (Disk::default(), 0, 0, 0);
    for (number, point) in points.into_iter().enumerate() {
        while at < point {
            disk.apply(&events[at]);
            match &events[at] {
                Event::Open(file, path) if path == "acks" => acks = *file,
                Event::Write(file, _, data) if *file == acks => {
                    acknowledged += data.iter().filter(|byte| **byte == b'\n').count() as u64;
                }
                _ => {}
            }
            at += 1;
        }
        // A place of its own: who closed the last one may still be tidying up there.
        let left = place.path().join(format!("left{number}"));
        std::fs::create_dir(&left).unwrap();
        disk.fail(&mut Dice::new(number as u64), &left, &["acks", "-shm"]);
        if let Err(e) = run(check(kind, &left, acknowledged)) {
            panic!(
                "cut {number} at event {point} of {}: {acknowledged} was acknowledged: {e}",
                events.len()
            );
        }
        std::fs::remove_dir_all(&left).unwrap();
    }
    assert!(acknowledged > 0, "all cuts are before the first commit");
}

#[test]
fn sqlite() {
    power_fails("sqlite");
}

#[test]
fn sqlite_behind_a_journal() {
    power_fails("journal");
}

#[test]
fn files() {
    power_fails("files");
}

#[test]
#[ignore = "what the others record"]
fn child() {
    let kind = std::env::var("POWER_KIND").expect("the test that starts it sets it");
    let dir = std::env::var_os("RECORD_DIR").expect("the test that starts it sets it");
    run(work(&kind, dir.as_ref()));
}
