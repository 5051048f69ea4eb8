//! `kvs.stats-get`, and what it shows of merging.

use client::{Handle, Node};
use futures::future::try_join_all;
use kvs::{Txn, client as kv};
use serde_json::{Value, json};

use crate::bed::{Bed, put};

pub(crate) async fn of(h: &Handle) -> Value {
    h.call("kvs.stats-get", Node::Any, &json!({}))
        .await
        .unwrap()
}

#[tokio::test]
async fn commits_and_objects_are_counted() {
    let mut bed = Bed::new(2).await;
    let h = bed.instance.client(0);
    kv::commit(&h, None, &put("a", "1")).await.unwrap();
    let mut t = Txn::new();
    t.put("b", "1").put("c", "2").put("d", &"x".repeat(3000));
    kv::commit(&h, None, &t).await.unwrap();
    let stats = of(&h).await;
    let ops = &stats["transaction-opcount"]["commit"];
    let shown = (&ops["count"], &ops["min"], &ops["max"], &ops["mean"]);
    assert_eq!(shown, (&json!(2), &json!(1), &json!(3), &json!(2.0)));
    assert!((ops["stddev"].as_f64().unwrap() - 2f64.sqrt()).abs() < 1e-9);
    let sizes = &stats["cache"]["obj size (KiB)"];
    // The empty root, two more, and the long value.
    assert_eq!((&sizes["count"], &sizes["max"]), (&json!(4), &json!(2)));
    assert!(sizes["stddev"].as_f64().unwrap() > 0.);
    assert_eq!(stats["pending_requests"], 0);
    assert_eq!(stats["namespace"]["primary"]["#no-op stores"], 0);
    // The same directory and value again.
    kv::commit(&h, None, &t).await.unwrap();
    assert_eq!(of(&h).await["namespace"]["primary"]["#no-op stores"], 2);
    // Rank 0 counts, wherever a commit came from.
    let far = bed.instance.client(1);
    kv::commit(&far, None, &put("e", "1")).await.unwrap();
    kv::commit(&h, None, &Txn::new()).await.unwrap();
    let ops = &of(&h).await["transaction-opcount"]["commit"];
    assert_eq!((&ops["count"], &ops["min"]), (&json!(5), &json!(0)));
    assert_eq!(of(&far).await["transaction-opcount"]["commit"]["count"], 0);
    bed.stop().await;
}

#[tokio::test]
async fn without_merging_each_commit_makes_a_root() {
    for (args, is_merged) in [
        (&["transaction-merge=0"][..], false),
        (&["transaction-merge=1"][..], true),
    ] {
        let mut bed = Bed::with(1, args).await;
        let h = bed.instance.client(0);
        let commits = (0..20).map(|i| kv::commit(&h, None, &put("k", &i.to_string())));
        try_join_all(commits).await.unwrap();
        let roots = kv::getroot(&h, None).await.unwrap().rootseq;
        assert_eq!(roots < 20, is_merged, "{roots}");
        bed.stop().await;
    }
}
