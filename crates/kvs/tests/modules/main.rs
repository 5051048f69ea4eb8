//! The content, kvs and kvs-watch modules together, on several ranks.

mod bed;
mod checkpoint;
mod ends;
mod gc;
mod stats;

use std::time::Instant;

use client::Node;
use futures::future::try_join_all;
use kvs::{TreeObj, Txn, client as kv, flags};
use serde_json::{Value, json};

use bed::{Bed, append, get, put};

#[tokio::test]
async fn what_is_written_on_one_rank_is_read_there_and_elsewhere() {
    let mut bed = Bed::new(3).await;
    let clients: Vec<_> = (0..3).map(|r| bed.instance.client(r)).collect();
    for (i, h) in clients.iter().enumerate() {
        let key = format!("dir.key{i}");
        let long = "v".repeat(500);
        let root = kv::commit(h, None, &put(&key, &long)).await.unwrap();
        // At once where it was written, and anywhere once that version is there.
        assert_eq!(get(h, &key).await, long);
        for other in &clients {
            kv::wait_version(other, None, root.rootseq).await.unwrap();
            assert_eq!(get(other, &key).await, long);
        }
    }
    let e = kv::get(&clients[1], None, "no.such.key").await.unwrap_err();
    assert_eq!(e.errno, libc::ENOENT);
    let e = kv::get(&clients[1], None, "dir").await.unwrap_err();
    assert_eq!(e.errno, libc::EISDIR);
    let mut bad = Txn::new();
    bad.append("dir", b"x");
    let e = kv::commit(&clients[2], None, &bad).await.unwrap_err();
    assert_eq!(e.errno, libc::EISDIR);
    // From a cold cache everything is faulted in again.
    for h in &clients {
        h.rpc("kvs.dropcache", Node::Any, &json!({})).await.unwrap();
        h.rpc("content.dropcache", Node::Any, &json!({}))
            .await
            .unwrap();
    }
    assert_eq!(get(&clients[2], "dir.key0").await.len(), 500);
    bed.stop().await;
}

#[tokio::test]
async fn acknowledged_commits_survive_a_crash_and_a_restart() {
    let mut bed = Bed::new(1).await;
    let h = bed.instance.client(0);
    kv::commit(&h, None, &put("a.b", "1")).await.unwrap();
    bed.kill().await;
    bed.start(1);
    assert_eq!(get(&h, "a.b").await, "1");
    let root = kv::commit(&h, None, &put("a.c", "2")).await.unwrap();
    assert_eq!(root.rootseq, 2);
    bed.stop().await;
    bed.start(1);
    assert_eq!(get(&h, "a.c").await, "2");
    assert_eq!(kv::getroot(&h, None).await.unwrap(), root);
    kv::commit_with(&h, None, &put("a.d", "3"), flags::SYNC)
        .await
        .unwrap();
    let checkpoints: Value = h
        .call("content.checkpoint-get", Node::Any, &json!({}))
        .await
        .unwrap();
    assert_eq!(checkpoints["value"][0]["sequence"], 3);
    bed.stop().await;
}

#[tokio::test]
async fn namespaces_survive_a_crash_and_a_restart_until_they_are_removed() {
    let mut bed = Bed::new(1).await;
    let h = bed.instance.client(0);
    let guest = bed.instance.guest(0, 7);
    for name in ["mine", "brief"] {
        kv::namespace_create(&h, name, 7).await.unwrap();
        kv::commit(&guest, Some(name), &put("a", "1"))
            .await
            .unwrap();
    }
    kv::namespace_remove(&h, "brief").await.unwrap();
    // Stored in this order, so the end of the namespace is stored, too.
    let root = kv::commit(&guest, Some("mine"), &put("b", "2"))
        .await
        .unwrap();
    for restart in 0..2 {
        match restart {
            0 => bed.kill().await,
            _ => bed.stop().await,
        }
        bed.start(1);
        assert_eq!(kv::getroot(&guest, Some("mine")).await.unwrap(), root);
        assert_eq!(kv::get(&guest, Some("mine"), "a").await.unwrap(), b"1");
        let e = kv::getroot(&h, Some("brief")).await.unwrap_err();
        assert_eq!(e.errno, libc::ENOTSUP);
        let other = bed.instance.guest(0, 8);
        let e = kv::get(&other, Some("mine"), "a").await.unwrap_err();
        assert_eq!(e.errno, libc::EPERM);
    }
    bed.stop().await;
}

#[tokio::test]
async fn namespaces_have_owners_and_end() {
    let mut bed = Bed::new(2).await;
    let owner = bed.instance.client(1);
    let (guest, other) = (bed.instance.guest(1, 7), bed.instance.guest(1, 8));
    kv::namespace_create(&owner, "mine", 7).await.unwrap();
    let e = kv::namespace_create(&owner, "mine", 7).await.unwrap_err();
    assert_eq!(e.errno, libc::EEXIST);
    let ns = Some("mine");
    kv::commit(&guest, ns, &put("a", "1")).await.unwrap();
    assert_eq!(kv::get(&guest, ns, "a").await.unwrap(), b"1");
    assert_eq!(kv::get(&owner, ns, "a").await.unwrap(), b"1");
    assert_eq!(
        kv::get(&other, ns, "a").await.unwrap_err().errno,
        libc::EPERM
    );
    assert_eq!(
        kv::commit(&other, ns, &put("a", "2"))
            .await
            .unwrap_err()
            .errno,
        libc::EPERM
    );
    assert_eq!(
        kv::get(&guest, None, "a").await.unwrap_err().errno,
        libc::EPERM
    );
    let mut link = Txn::new();
    link.symlink("l", None, "a");
    assert_eq!(
        kv::commit(&guest, ns, &link).await.unwrap_err().errno,
        libc::EPERM
    );
    // A link from the primary namespace into it.
    link = Txn::new();
    link.symlink("far", ns, "a");
    kv::commit(&owner, None, &link).await.unwrap();
    assert_eq!(get(&owner, "far").await, "1");

    let mut watch = kv::watch(&guest, ns, "a", 0);
    assert_eq!(watch.next().await.unwrap().unwrap(), b"1");
    let mut waiting = kv::watch_append(&owner, Some("later"), "log", true);
    kv::namespace_remove(&owner, "mine").await.unwrap();
    assert_eq!(
        watch.next().await.unwrap().unwrap_err().errno,
        libc::ENOTSUP
    );
    assert!(kv::namespace_remove(&owner, "primary").await.is_err());
    kv::namespace_create(&owner, "later", 7).await.unwrap();
    kv::commit(&owner, Some("later"), &append("log", "x"))
        .await
        .unwrap();
    assert_eq!(waiting.next().await.unwrap().unwrap(), b"x");
    let e = kv::get(&bed.instance.client(0), ns, "a").await.unwrap_err();
    assert_eq!(e.errno, libc::ENOTSUP);
    bed.stop().await;
}

#[tokio::test]
async fn watches_see_every_change_in_order() {
    let mut bed = Bed::new(2).await;
    let (h, far) = (bed.instance.client(0), bed.instance.client(1));
    let mut plain = kv::watch(&far, None, "k", flags::WAITCREATE);
    kv::commit(&h, None, &put("k", "0")).await.unwrap();
    assert_eq!(plain.next().await.unwrap().unwrap(), b"0");
    let mut uniq = kv::watch(&far, None, "k", flags::WATCH_UNIQ);
    assert_eq!(uniq.next().await.unwrap().unwrap(), b"0");
    for value in ["1", "1", "2"] {
        kv::commit(&h, None, &put("other", value)).await.unwrap();
        kv::commit(&h, None, &put("k", value)).await.unwrap();
    }
    for want in ["1", "1", "2"] {
        assert_eq!(plain.next().await.unwrap().unwrap(), want.as_bytes());
    }
    for want in ["1", "2"] {
        assert_eq!(uniq.next().await.unwrap().unwrap(), want.as_bytes());
    }
    let mut t = Txn::new();
    t.unlink("k");
    kv::commit(&h, None, &t).await.unwrap();
    assert_eq!(plain.next().await.unwrap().unwrap_err().errno, libc::ENOENT);
    kv::commit(&h, None, &put("k", "3")).await.unwrap();
    let mut third = kv::watch(&far, None, "k", 0);
    assert_eq!(third.next().await.unwrap().unwrap(), b"3");
    third.cancel();
    assert!(third.next().await.is_none());
    let missing = kv::watch(&far, None, "nothing", 0).next().await.unwrap();
    assert_eq!(missing.unwrap_err().errno, libc::ENOENT);
    bed.stop().await;
}

#[tokio::test]
async fn appended_data_arrives_once_and_whole() {
    let mut bed = Bed::new(2).await;
    let (h, far) = (bed.instance.client(0), bed.instance.client(1));
    let mut early = kv::watch_append(&far, None, "job.log", true);
    let mut want = String::new();
    let mut commits = Vec::new();
    for i in 0..100 {
        let line = format!("line {i}\n");
        want.push_str(&line);
        commits.push(kv::commit(&h, None, &append("job.log", &line)));
    }
    try_join_all(commits).await.unwrap();
    let mut late = kv::watch_append(&far, None, "job.log", false);
    for watch in [&mut early, &mut late] {
        let mut got = Vec::new();
        while got.len() < want.len() {
            got.extend(watch.next().await.unwrap().unwrap());
        }
        assert_eq!(String::from_utf8(got).unwrap(), want);
    }
    // The sentinel tells old from new.
    let request = json!({"namespace": "primary", "key": "job.log", "flags":
        flags::WATCH | flags::WATCH_APPEND | flags::WATCH_INITIAL_SENTINEL});
    let mut raw = far.stream("kvs-watch.lookup", Node::Any, &request);
    for _ in 0..100 {
        assert!(raw.next().await.unwrap().unwrap().payload().is_some());
    }
    assert!(raw.next().await.unwrap().unwrap().payload().is_none());
    kv::commit(&h, None, &put("job.log", "new")).await.unwrap();
    assert_eq!(raw.next().await.unwrap().unwrap_err().errno, libc::EINVAL);
    assert_eq!(early.next().await.unwrap().unwrap_err().errno, libc::EINVAL);
    // A stream ends.
    let request = json!({"namespace": "primary", "key": "job.log", "flags": flags::STREAM});
    let mut stream = far.stream("kvs-watch.lookup", Node::Any, &request);
    let first: Value = stream.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(first["val"], json!(TreeObj::val(b"new")));
    assert!(stream.next().await.is_none());
    bed.stop().await;
}

/// Not a check of speed, but the way to see it: `cargo test --release -- --nocapture rate`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_rate() {
    let mut bed = Bed::new(1).await;
    let h = bed.instance.client(0);
    let start = Instant::now();
    const N: usize = 2000;
    // Each commit is a job's first events: its own directory, a value, an append.
    let commits = (0..N).map(|i| {
        let mut t = Txn::new();
        let dir = format!("job.0000.{:04x}.{:04x}.0000", i / 256, i % 256);
        t.put(&format!("{dir}.jobspec"), &"j".repeat(800));
        t.append(
            &format!("{dir}.eventlog"),
            b"{\"timestamp\":1.0,\"name\":\"submit\"}\n",
        );
        kv::commit(&h, None, &t)
    });
    try_join_all(commits).await.unwrap();
    let rate = N as f64 / start.elapsed().as_secs_f64();
    let stats: Value = h
        .call("kvs.stats-get", Node::Any, &json!({}))
        .await
        .unwrap();
    println!(
        "{rate:.0} commits/s in {} root updates",
        stats["root-updates"]
    );
    bed.stop().await;
}
