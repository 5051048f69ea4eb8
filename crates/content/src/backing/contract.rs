//! One suite for all backing stores.

use serde_json::json;

use super::*;
use crate::HashAlg;

fn blob(text: &str) -> (BlobRef, Bytes) {
    let blobref = HashAlg::Sha1.hash(text.as_bytes());
    (blobref, Bytes::from(text.to_owned()))
}

/// `kept`: checkpoints it keeps.
async fn suite(store: &dyn Backing, kept: usize) {
    let (a, b, empty) = (blob("alpha"), blob("beta"), blob(""));
    assert_eq!(store.load(a.0).await.unwrap(), None);
    assert!(!store.contains(a.0).await.unwrap());
    store.store_batch(vec![], None).await.unwrap();
    let three = vec![a.clone(), b.clone(), empty.clone()];
    store.store_batch(three, None).await.unwrap();
    for (r, data) in [&a, &b, &empty] {
        assert_eq!(store.load(*r).await.unwrap().as_ref(), Some(data));
        assert!(store.contains(*r).await.unwrap());
    }
    // Again, and twice in one batch.
    let twice = vec![a.clone(), a.clone()];
    store.store_batch(twice, None).await.unwrap();
    assert_eq!(store.count().await.unwrap(), 3);
    let long = HashAlg::Sha256.hash(b"alpha");
    assert_eq!(store.load(long).await.unwrap(), None);

    // More rows than one statement can bind.
    let many: Vec<_> = (0..5000).map(|i| blob(&format!("blob {i}"))).collect();
    store.store_batch(many.clone(), None).await.unwrap();
    assert_eq!(store.count().await.unwrap(), 5003);
    let last = store.load(many[4999].0).await.unwrap();
    assert_eq!(last.as_ref(), Some(&many[4999].1));

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
        .store_batch(vec![c.clone()], Some(first))
        .await
        .unwrap();
    store.store_batch(vec![], Some(second)).await.unwrap();
    let got = store.checkpoints().await.unwrap();
    assert_eq!((got.len(), &got[0]["sequence"]), (kept + 1, &json!(101)));
    assert_eq!(store.load(c.0).await.unwrap(), Some(c.1));
    store
        .checkpoint_put(json!({"sequence": 102}))
        .await
        .unwrap();
    let got = store.checkpoints().await.unwrap();
    assert_eq!((got.len(), &got[0]["sequence"]), (kept, &json!(102)));
}

/// What was stored is there when it is opened again.
async fn after_restart(store: &dyn Backing, kept: usize) {
    let (r, data) = blob("alpha");
    assert_eq!(store.load(r).await.unwrap(), Some(data));
    assert_eq!(store.count().await.unwrap(), 5004);
    assert_eq!(store.checkpoints().await.unwrap().len(), kept);
    assert_eq!(store.checkpoints().await.unwrap()[0]["sequence"], 102);
}

fn run(f: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(f);
}

#[test]
fn sqlite() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.sqlite");
        let store = Sqlite::open(&path, Durability::Full).await.unwrap();
        suite(&store, 5).await;
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

#[test]
fn files() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.files");
        suite(&Files::open(&path, true).unwrap(), 1).await;
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
        store.store_batch(vec![a.clone()], None).await.unwrap();
        std::fs::write(path.join(a.0.to_string()), "alphb").unwrap();
        let e = store.load(a.0).await.unwrap_err();
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
