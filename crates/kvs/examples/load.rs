//! How fast a key-value store is: `load QUESTION`, in an instance whose brokers are all on this host.
//!
//! `commits [N [WRITERS]]`: one writer's put and commit, then N commits of WRITERS connections. `tree`: a client of each
//! broker commits, and waits until it sees the commits of all. `lookup`: values of 1000 bytes on the last rank, first
//! from rank 0, then from memory. `watch [N]`: a change until the last of N watchers of its key has it. `directory [N]`:
//! one directory of N keys. Prints a JSON object; times are in microseconds, rates in commits per second.

use std::time::{Duration, Instant};

use client::{Handle, Node, RpcError};
use futures::future::{join_all, try_join_all};
use kvs::{Txn, client as kv};
use serde_json::{Value, json};

type Error = Box<dyn std::error::Error>;

fn argument(n: usize, default: usize) -> usize {
    let text = std::env::args().nth(n);
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn summary(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    json!({ "median": at(0.5), "p99": at(0.99), "least": at(0.), "runs": times.len() })
}

fn once(time: Duration) -> Value {
    summary(vec![time])
}

fn put(key: &str, value: &str) -> Txn {
    let mut txn = Txn::new();
    txn.put(key, value);
    txn
}

async fn size(handle: &Handle) -> Result<u32, Error> {
    Ok(handle.getattr("size").await?.parse()?)
}

/// A connection to the broker of a rank.
async fn at(handle: &Handle, rank: u32) -> Result<Handle, Error> {
    let request = json!({ "name": "local-uri" });
    let uri: Value = handle.call("attr.get", Node::Rank(rank), &request).await?;
    Ok(Handle::open(uri["value"].as_str()).await?)
}

async fn commits(n: usize, writers: usize) -> Result<Value, Error> {
    let handle = Handle::open(None).await?;
    let mut times = Vec::new();
    for i in 0..500 {
        let start = Instant::now();
        kv::commit(&handle, None, &put(&format!("one.k{}", i % 100), "value")).await?;
        times.push(start.elapsed());
    }
    let opened = join_all((0..writers).map(|_| Handle::open(None))).await;
    let handles = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let write = async |writer: usize, handle: &Handle| {
        for i in 0..n / writers {
            kv::commit(handle, None, &put(&format!("many.w{writer}.k{i}"), "value")).await?;
        }
        Ok::<(), RpcError>(())
    };
    try_join_all(handles.iter().enumerate().map(|(w, h)| write(w, h))).await?;
    let rate = (n / writers * writers) as f64 / start.elapsed().as_secs_f64();
    Ok(json!({ "commit": summary(times), "rate": { "median": rate } }))
}

async fn tree() -> Result<Value, Error> {
    let handle = Handle::open(None).await?;
    let size = size(&handle).await?;
    let mut handles = Vec::new();
    for rank in 0..size {
        handles.push(at(&handle, rank).await?);
    }
    let mut times = Vec::new();
    for round in 0..20 {
        let start = Instant::now();
        let commit = async |rank: usize, handle: &Handle| {
            kv::commit(
                handle,
                None,
                &put(&format!("tree.r{rank}"), &format!("{round}")),
            )
            .await
        };
        let roots = try_join_all(handles.iter().enumerate().map(|(r, h)| commit(r, h))).await?;
        let last = roots.iter().map(|root| root.rootseq).max().unwrap_or(0);
        try_join_all(handles.iter().map(|h| kv::wait_version(h, None, last))).await?;
        times.push(start.elapsed());
    }
    Ok(json!({ "all ranks": summary(times) }))
}

async fn lookup() -> Result<Value, Error> {
    let handle = Handle::open(None).await?;
    let leaf = at(&handle, size(&handle).await? - 1).await?;
    let mut txn = Txn::new();
    for i in 0..1000 {
        txn.put(&format!("values.k{i}"), &format!("{i:01000}"));
    }
    let root = kv::commit(&handle, None, &txn).await?;
    kv::wait_version(&leaf, None, root.rootseq).await?;
    let mut read = Vec::new();
    for _ in 0..2 {
        let mut times = Vec::new();
        for i in 0..1000 {
            let start = Instant::now();
            kv::get(&leaf, None, &format!("values.k{i}")).await?;
            times.push(start.elapsed());
        }
        read.push(summary(times));
    }
    Ok(json!({ "lookup, cold": read[0], "lookup, hot": read[1] }))
}

async fn watch(n: usize) -> Result<Value, Error> {
    let handle = Handle::open(None).await?;
    kv::commit(&handle, None, &put("watched", "0")).await?;
    let mut watchers: Vec<_> = (0..n)
        .map(|_| kv::watch(&handle, None, "watched", 0))
        .collect();
    let mut times = Vec::new();
    for round in 0..11 {
        let start = Instant::now();
        if round > 0 {
            kv::commit(&handle, None, &put("watched", &format!("{round}"))).await?;
        }
        for watcher in &mut watchers {
            watcher.next().await.ok_or("a watch has ended")??;
        }
        if round > 0 {
            times.push(start.elapsed());
        }
    }
    Ok(json!({ "watchers": summary(times) }))
}

async fn directory(n: usize) -> Result<Value, Error> {
    let handle = Handle::open(None).await?;
    const BATCH: usize = 50_000;
    let start = Instant::now();
    for first in (0..n).step_by(BATCH) {
        let mut txn = Txn::new();
        for i in first..n.min(first + BATCH) {
            txn.put(&format!("big.k{i:07}"), &format!("{i}"));
        }
        kv::commit(&handle, None, &txn).await?;
    }
    let fill = start.elapsed();
    let mut more = Vec::new();
    for i in 0..5 {
        let start = Instant::now();
        kv::commit(&handle, None, &put(&format!("big.more{i}"), "value")).await?;
        more.push(start.elapsed());
    }
    let mut times = Vec::new();
    for i in 0..1000 {
        let start = Instant::now();
        kv::get(&handle, None, &format!("big.k{:07}", i * 7919 % n)).await?;
        times.push(start.elapsed());
    }
    let start = Instant::now();
    kv::commit(&handle, None, &put("beside", "value")).await?;
    Ok(json!({
        "fill": once(fill),
        "one more": summary(more),
        "lookup in it": summary(times),
        "commit beside it": once(start.elapsed()),
    }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let question = std::env::args().nth(1).unwrap_or_default();
    let record = match question.as_str() {
        "commits" => commits(argument(2, 10_000), argument(3, 64).max(1)).await?,
        "tree" => tree().await?,
        "lookup" => lookup().await?,
        "watch" => watch(argument(2, 1000)).await?,
        "directory" => directory(argument(2, 1_000_000)).await?,
        _ => return Err("say what: commits, tree, lookup, watch or directory".into()),
    };
    println!("{record}");
    Ok(())
}
