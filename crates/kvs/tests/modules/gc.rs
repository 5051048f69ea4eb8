//! `kvs.gc`: garbage goes, and nothing else.

use client::{Handle, Node};
use kvs::{TreeObj, Txn, client as kv};
use serde_json::{Value, json};

use crate::bed::{Bed, get, put};

async fn gc(h: &Handle, grace: f64) -> Value {
    let request = json!({ "grace": grace });
    h.call("kvs.gc", Node::Any, &request).await.unwrap()
}

async fn count(h: &Handle) -> u64 {
    let request = json!({});
    let stats: Value = h
        .call("content-sqlite.stats-get", Node::Rank(0), &request)
        .await
        .unwrap();
    stats["object_count"].as_u64().unwrap()
}

fn long(n: usize) -> String {
    format!("{n}-").repeat(100)
}

#[tokio::test]
async fn garbage_goes_and_the_rest_stays() {
    let bed = Bed::new(2).await;
    let h = bed.instance.client(1);
    for n in 0..20 {
        kv::commit(&h, None, &put("churn", &long(n))).await.unwrap();
    }
    kv::namespace_create(&h, "other", testbed::OWNER)
        .await
        .unwrap();
    kv::commit(&h, Some("other"), &put("a.b", &long(100)))
        .await
        .unwrap();
    let before = count(&h).await;
    let done = gc(&h, 0.).await;
    assert!(done["removed"].as_u64().unwrap() >= 38, "{done}");
    assert_eq!(count(&h).await + done["removed"].as_u64().unwrap(), before);
    // All that is left is live: nothing goes the second time.
    assert_eq!(gc(&h, 0.).await["removed"], 0);
    for rank in [0, 1] {
        let h = bed.instance.client(rank);
        for service in ["content.dropcache", "kvs.dropcache"] {
            h.rpc(service, Node::Any, &json!({})).await.unwrap();
        }
    }
    assert_eq!(get(&h, "churn").await, long(19));
    let other = kv::get(&h, Some("other"), "a.b").await.unwrap();
    assert_eq!(other, long(100).into_bytes());
}

#[tokio::test]
async fn what_was_let_go_a_moment_ago_stays() {
    let bed = Bed::new(1).await;
    let h = bed.instance.client(0);
    kv::commit(&h, None, &put("dir.a", &long(1))).await.unwrap();
    let root = kv::getroot(&h, None).await.unwrap().rootref;
    kv::commit(&h, None, Txn::new().unlink("dir"))
        .await
        .unwrap();
    let request = json!({ "grace": 3600 });
    let waiting = h.rpc("kvs.gc", Node::Any, &request);
    // The first cycle is over when the store has condemned something.
    loop {
        let stats: Value = h
            .call("content.stats-get", Node::Any, &json!({}))
            .await
            .unwrap();
        if stats["gc"]["condemned"].as_u64() > Some(0) && stats["gc"]["busy"] == false {
            break;
        }
        tokio::task::yield_now().await;
    }
    h.rpc("kvs.dropcache", Node::Any, &json!({})).await.unwrap();
    let mut txn = Txn::new();
    txn.put_treeobj("old", TreeObj::DirRef(root));
    kv::commit(&h, None, &txn).await.unwrap();
    assert_eq!(get(&h, "old.dir.a").await, long(1));
    drop(waiting);
}

#[tokio::test]
async fn nothing_is_removed_below_a_root_that_is_not_whole() {
    let bed = Bed::new(1).await;
    let h = bed.instance.client(0);
    let mut txn = put("junk", &long(1));
    txn.put_treeobj("lost", TreeObj::DirRef(kvs::HashAlg::Sha1.hash(b"nowhere")));
    kv::commit(&h, None, &txn).await.unwrap();
    kv::commit(&h, None, Txn::new().unlink("junk"))
        .await
        .unwrap();
    let before = count(&h).await;
    let request = json!({ "grace": 0 });
    let e = h.rpc("kvs.gc", Node::Any, &request).await.unwrap_err();
    let nowhere = kvs::HashAlg::Sha1.hash(b"nowhere").to_string();
    assert!(e.to_string().contains(&nowhere), "{e}");
    assert_eq!(count(&h).await, before);
    kv::commit(&h, None, Txn::new().unlink("lost"))
        .await
        .unwrap();
    assert!(gc(&h, 0.).await["removed"].as_u64() > Some(0));
}

#[tokio::test]
async fn it_begins_by_itself_when_much_was_stored() {
    let config = || json!({ "kvs": { "gc-grace": "0s", "gc-minimum": "4k", "gc-growth": 0.1 } });
    let mut bed = Bed::idle(1);
    bed.instance.serve("config.get", move |_| Ok(config()));
    bed.start(1);
    let h = bed.instance.client(0);
    kv::commit(&h, None, &put("kept", &long(7))).await.unwrap();
    let mut n = 0;
    loop {
        kv::commit(&h, None, &put("churn", &long(n))).await.unwrap();
        let stats: Value = h
            .call("kvs.stats-get", Node::Any, &json!({}))
            .await
            .unwrap();
        if stats["gc"]["removed"].as_u64() > Some(100) {
            break;
        }
        n += 1;
    }
    h.rpc("kvs.dropcache", Node::Any, &json!({})).await.unwrap();
    h.rpc("content.dropcache", Node::Any, &json!({}))
        .await
        .unwrap();
    assert_eq!(get(&h, "kept").await, long(7));
    assert_eq!(get(&h, "churn").await, long(n));
}

#[tokio::test]
async fn nothing_goes_while_somebody_holds() {
    let bed = Bed::new(2).await;
    let h = bed.instance.client(1);
    kv::commit(&h, None, &put("key", "1")).await.unwrap();
    let hold = kv::GcHold::acquire(&h).await.unwrap();
    let blob = bytes::Bytes::from(long(1));
    let stored = h
        .rpc_raw("content.store", Node::Any, Some(blob.clone()))
        .await
        .unwrap();
    let reference = stored.payload().unwrap().clone();
    let request = json!({ "grace": 0 });
    let mut waiting = h.rpc("kvs.gc", Node::Any, &request);
    // What is asked afterwards is answered first: the collection has not begun.
    for _ in 0..50 {
        kv::commit(&h, None, &put("key", "2")).await.unwrap();
        let load = h.rpc_raw(
            "content-backing.load",
            Node::Rank(0),
            Some(reference.clone()),
        );
        assert_eq!(load.await.unwrap().payload(), Some(&blob));
        assert!(futures::poll!(&mut waiting).is_pending());
    }
    drop(hold);
    let done: Value = waiting.await.unwrap().json().unwrap();
    assert!(done["removed"].as_u64().unwrap() > 0, "{done}");
    let load = h.rpc_raw("content-backing.load", Node::Rank(0), Some(reference));
    assert_eq!(load.await.unwrap_err().errno, libc::ENOENT);
}
