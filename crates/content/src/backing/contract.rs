//! One suite for all backing stores.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use serde_json::{Value, json};

use super::*;
use crate::{HashAlg, PRIMARY};

fn blob(text: &str) -> (BlobRef, Bytes) {
    let blobref = HashAlg::Sha1.hash(text.as_bytes());
    (blobref, Bytes::from(text.to_owned()))
}

/// One blob, if it is there and undamaged.
async fn load(store: &dyn Backing, blobref: BlobRef) -> Result<Option<Bytes>, BackingError> {
    let mut loaded = store.load(vec![blobref]).await?;
    assert!(loaded.is_complete && loaded.blobs.len() <= 1);
    let found = loaded.blobs.pop();
    found.map(|(_, blob)| blob).transpose()
}

/// All names, sorted.
async fn names(store: &dyn Backing) -> Vec<BlobRef> {
    let mut names: Vec<BlobRef> = store.names().try_concat().await.unwrap();
    names.sort_unstable();
    names
}

/// `kept`: checkpoints it keeps.
async fn suite(store: &dyn Backing, kept: usize) {
    let (a, b, empty) = (blob("alpha"), blob("beta"), blob(""));
    assert_eq!(load(store, a.0).await.unwrap(), None);
    assert!(!store.contains(a.0).await.unwrap());
    store.store_batch(vec![], Roots::default()).await.unwrap();
    let three = vec![a.clone(), b.clone(), empty.clone()];
    store.store_batch(three, Roots::default()).await.unwrap();
    for (r, data) in [&a, &b, &empty] {
        assert_eq!(load(store, *r).await.unwrap().as_ref(), Some(data));
        assert!(store.contains(*r).await.unwrap());
    }
    // Again, and twice in one batch.
    let twice = vec![a.clone(), a.clone()];
    store.store_batch(twice, Roots::default()).await.unwrap();
    assert_eq!(store.count().await.unwrap(), 3);
    let long = HashAlg::Sha256.hash(b"alpha");
    assert_eq!(load(store, long).await.unwrap(), None);

    // More rows than one statement can bind.
    let many: Vec<_> = (0..5000).map(|i| blob(&format!("blob {i}"))).collect();
    store
        .store_batch(many.clone(), Roots::default())
        .await
        .unwrap();
    assert_eq!(store.count().await.unwrap(), 5003);
    let last = load(store, many[4999].0).await.unwrap();
    assert_eq!(last.as_ref(), Some(&many[4999].1));

    // Many at once, one of them nowhere; all names; removal, and the same blob again.
    let mut asked: Vec<_> = many.iter().map(|(r, _)| *r).collect();
    asked.push(HashAlg::Sha1.hash(b"nowhere"));
    let loaded = store.load(asked.clone()).await.unwrap();
    assert!(loaded.is_complete);
    let found: HashMap<_, _> = loaded
        .blobs
        .into_iter()
        .map(|(r, b)| (r, b.unwrap()))
        .collect();
    assert_eq!(found, many.iter().cloned().collect());
    let mut there: Vec<_> = [a.0, b.0, empty.0].to_vec();
    there.extend(many.iter().map(|(r, _)| r));
    there.sort_unstable();
    assert_eq!(names(store).await, there);
    let gone: Vec<_> = asked.split_off(4500);
    let used = store.used().await.unwrap();
    let removed = store.remove(gone.clone()).await.unwrap();
    let bytes: usize = many[4500..].iter().map(|(_, data)| data.len()).sum();
    assert_eq!((removed.count, removed.bytes), (500, bytes as u64));
    assert_eq!(load(store, gone[0]).await.unwrap(), None);
    assert_eq!(store.count().await.unwrap(), 4503);
    assert!(store.used().await.unwrap() <= used);
    assert_eq!(store.remove(gone).await.unwrap(), Removed::default());
    store
        .store_batch(many[4500..].to_vec(), Roots::default())
        .await
        .unwrap();
    assert_eq!(names(store).await, there);

    assert!(store.checkpoints().await.unwrap().is_empty());
    for i in 0..kept + 2 {
        let value = json!({"version": 1, "sequence": i});
        store.checkpoint_put(value).await.unwrap();
    }
    let got = store.checkpoints().await.unwrap();
    assert_eq!((got.len(), &got[0]["sequence"]), (kept, &json!(kept + 1)));

    // The root of a batch comes before all checkpoints; a later checkpoint replaces it.
    let c = blob("gamma");
    let roots = [json!({"sequence": 100}), json!({"sequence": 101})];
    let [first, second] = roots;
    store
        .store_batch(vec![c.clone()], Roots::of(PRIMARY, first))
        .await
        .unwrap();
    let primary = Roots::of(PRIMARY, second);
    store.store_batch(vec![], primary).await.unwrap();
    let got = store.checkpoints().await.unwrap();
    assert_eq!((got.len(), &got[0]["sequence"]), (kept + 1, &json!(101)));
    assert_eq!(load(store, c.0).await.unwrap(), Some(c.1));
    store
        .checkpoint_put(json!({"sequence": 102}))
        .await
        .unwrap();
    let got = store.checkpoints().await.unwrap();
    assert_eq!((got.len(), &got[0]["sequence"]), (kept, &json!(102)));

    // Other namespaces are kept until they are removed.
    for (name, root) in [
        ("job/1", json!({"sequence": 1})),
        ("b", json!({})),
        ("job/1", json!({"sequence": 2})),
        ("b", Value::Null),
        ("never", Value::Null),
    ] {
        let root = Roots::of(name, root);
        store.store_batch(vec![], root).await.unwrap();
    }
    namespaces(store).await;
    assert_eq!(store.checkpoints().await.unwrap().len(), kept);
}

async fn namespaces(store: &dyn Backing) {
    let kept = Roots::of("job/1", json!({"sequence": 2}));
    assert_eq!(store.namespaces().await.unwrap(), kept);
}

/// What was stored is there when it is opened again.
async fn after_restart(store: &dyn Backing, kept: usize) {
    let (r, data) = blob("alpha");
    assert_eq!(load(store, r).await.unwrap(), Some(data));
    assert_eq!(store.count().await.unwrap(), 5004);
    assert_eq!(store.checkpoints().await.unwrap().len(), kept);
    assert_eq!(store.checkpoints().await.unwrap()[0]["sequence"], 102);
    namespaces(store).await;
}

fn run<T>(f: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(f)
}

/// Megabytes come in several answers, each with something in it.
async fn much_at_once(store: &dyn Backing) {
    let big: Vec<_> = (0..9u8)
        .map(|n| Bytes::from(vec![n; 1 << 20]))
        .map(|data| (HashAlg::Sha1.hash(&data), data))
        .collect();
    store
        .store_batch(big.clone(), Roots::default())
        .await
        .unwrap();
    let mut left: Vec<_> = big.iter().map(|(r, _)| *r).collect();
    let mut answers = 0;
    while !left.is_empty() {
        let loaded = store.load(left.clone()).await.unwrap();
        assert_eq!(loaded.is_complete, loaded.blobs.len() == left.len());
        left.retain(|r| loaded.blobs.iter().all(|(found, _)| found != r));
        answers += 1;
    }
    assert_eq!(answers, 2);
    let all = big.into_iter().map(|(r, _)| r).collect();
    assert_eq!(store.remove(all).await.unwrap().bytes, 9 << 20);
}

#[test]
fn a_file_gives_back_what_is_free() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.sqlite");
        let store = Sqlite::open(&path, Durability::Full).await.unwrap();
        much_at_once(&store).await;
        while store.give_back().await.unwrap() {}
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size < 1 << 20, "{size}");
        store.close().await;
    });
}

#[test]
fn sqlite() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.sqlite");
        let store = Sqlite::open(&path, Durability::Full).await.unwrap();
        suite(&store, 5).await;
        much_at_once(&store).await;
        store.close().await;
        let store = Sqlite::open(&path, Durability::Off).await.unwrap();
        after_restart(&store, 5).await;
        store.close().await;
        Sqlite::remove(&path).unwrap();
        let store = Sqlite::open(&path, Durability::Off).await.unwrap();
        assert_eq!(store.count().await.unwrap(), 0);
        store.close().await;
    });
}

async fn journaled(dir: &Path, turn: usize, durability: Durability) -> Journaled<Sqlite> {
    let sqlite = Sqlite::open(&dir.join("content.sqlite"), durability).await;
    let settings = journal::Settings { turn, syncs: true };
    let journal = dir.join("content.journal");
    Journaled::open(sqlite.unwrap(), &journal, settings)
        .await
        .unwrap()
}

#[test]
fn sqlite_behind_a_journal() {
    for turn in [1, 1000, 16 << 20] {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let store = journaled(dir.path(), turn, Durability::Full).await;
            suite(&store, 5).await;
            much_at_once(&store).await;
            store.close().await;
            assert!(!journal::is_there(&dir.path().join("content.journal")));
            let store = journaled(dir.path(), turn, Durability::Full).await;
            after_restart(&store, 5).await;
            store.close().await;
        });
    }
}

#[test]
fn a_journal_that_was_left_is_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let batch = |n: u64| vec![blob(&format!("of {n}")), blob(&"x".repeat(n as usize % 90))];
    let root = |n: u64| Roots::of(PRIMARY, json!({ "sequence": n }));
    let sequence = |kept: Vec<Value>| kept.first().map_or(0, |c| c["sequence"].as_u64().unwrap());
    let mut last = 0;
    // Each time it ends as in a crash, before the files have changed turns or after.
    for batches in [3, 1, 0, 200, 40] {
        last = run(async {
            let store = journaled(dir.path(), 1000, Durability::Full).await;
            assert_eq!(sequence(store.checkpoints().await.unwrap()), last);
            for n in 1..=last {
                for (blobref, data) in batch(n) {
                    assert_eq!(load(&store, blobref).await.unwrap(), Some(data), "{n}");
                }
            }
            for n in last + 1..=last + batches {
                store.store_batch(batch(n), root(n)).await.unwrap();
            }
            last + batches
        });
    }
    // Without the journal, what only that held is not there.
    journal::remove(&dir.path().join("content.journal")).unwrap();
    run(async {
        let store = journaled(dir.path(), 1000, Durability::Full).await;
        assert!(sequence(store.checkpoints().await.unwrap()) < last);
    });
}

#[test]
fn numbers_of_records_cannot_be_foretold() {
    let first_bytes = || {
        let dir = tempfile::tempdir().unwrap();
        run(async {
            let store = journaled(dir.path(), 1000, Durability::Full).await;
            let batch = vec![blob("alpha")];
            store.store_batch(batch, Roots::default()).await.unwrap();
            std::fs::read(dir.path().join("content.journal.0")).unwrap()
        })
    };
    assert_ne!(first_bytes(), first_bytes());
}

#[test]
fn as_many_checkpoints_are_kept_as_one_says() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut options = sqlite::Options::new(Durability::Off);
        for bad in [json!(0), json!(-1), json!("many")] {
            let e = options.set_max_checkpoints(&bad).unwrap_err();
            assert!(e.to_string().starts_with("max_checkpoints: "), "{e}");
        }
        options.set_max_checkpoints(&json!(2)).unwrap();
        let path = dir.path().join("content.sqlite");
        let store = Sqlite::open_with(&path, options).await.unwrap();
        for i in 0..3 {
            store.checkpoint_put(json!(i)).await.unwrap();
        }
        assert_eq!(store.checkpoints().await.unwrap(), [json!(2), json!(1)]);
        store.close().await;
    });
}

#[test]
fn files() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.files");
        suite(&Files::open(&path, true).unwrap(), 1).await;
        much_at_once(&Files::open(&path, true).unwrap()).await;
        after_restart(&Files::open(&path, false).unwrap(), 1).await;
        Files::remove(&path).unwrap();
        let store = Files::open(&path, false).unwrap();
        assert_eq!(store.count().await.unwrap(), 0);
    });
}

#[test]
fn what_cannot_be_opened_is_named() {
    run(async {
        let path: &Path = "/nonexistent/content".as_ref();
        let e = Sqlite::open(path, Durability::Off).await.err().unwrap();
        assert!(e.to_string().contains("/nonexistent/content"), "{e}");
        let e = Files::open(path, false).err().unwrap();
        assert!(e.to_string().contains("/nonexistent/content"), "{e}");
        assert_eq!(e.errno(), libc::ENOENT);
    });
}

#[test]
fn damage_is_found() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.files");
        let store = Files::open(&path, false).unwrap();
        let a = blob("alpha");
        store
            .store_batch(vec![a.clone()], Roots::default())
            .await
            .unwrap();
        std::fs::write(path.join(a.0.to_string()), "alphb").unwrap();
        let e = load(&store, a.0).await.unwrap_err();
        assert!(e.to_string().contains(&a.0.to_string()), "{e}");

        // A header of something else, then a file that is cut short.
        let path = dir.path().join("content.sqlite");
        let damages: [fn(&mut Vec<u8>); 2] = [
            |file: &mut Vec<u8>| file[..16].fill(b'x'),
            |file: &mut Vec<u8>| file.truncate(48),
        ];
        for damage in damages {
            Sqlite::remove(&path).unwrap();
            let store = Sqlite::open(&path, Durability::Full).await.unwrap();
            store.close().await;
            let mut file = std::fs::read(&path).unwrap();
            damage(&mut file);
            std::fs::write(&path, file).unwrap();
            let e = Sqlite::open(&path, Durability::Full).await.err().unwrap();
            assert!(e.to_string().contains("content.sqlite"), "{e}");
        }
    });
}
