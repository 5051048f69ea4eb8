//! How long a tree of brokers takes to answer from near and far, and to tell all of an event.
//!
//! `tree [PINGS [EVENTS]]`, on rank 0 of an instance whose brokers are all on this host. Pings rank 0 and the last
//! rank, one call after the other. Then one connection to each broker subscribes; the time of an event is that
//! from before its publication over the connection to rank 0 to its arrival on the last of them, by one clock.
//! Prints a JSON object (microseconds).

use std::time::{Duration, Instant};

use client::{Handle, Node, RpcError};
use futures::future::try_join_all;
use serde_json::{Value, json};

fn argument(n: usize, default: usize) -> usize {
    let text = std::env::args().nth(n);
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn attribute(handle: &Handle, node: Node, name: &str) -> Result<String, RpcError> {
    let answer: Value = handle
        .call("attr.get", node, &json!({ "name": name }))
        .await?;
    let value = answer["value"].as_str();
    value
        .map(str::to_owned)
        .ok_or_else(|| RpcError::proto("an attribute without value"))
}

fn summary(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    json!({ "median": at(0.5), "p99": at(0.99), "least": at(0.), "runs": times.len() })
}

async fn pings(handle: &Handle, rank: u32, n: usize) -> Result<Value, RpcError> {
    let mut times = Vec::with_capacity(n);
    for seq in 0..n + n / 10 {
        let start = Instant::now();
        let request = json!({ "seq": seq, "pad": "" });
        let _: Value = handle
            .call("broker.ping", Node::Rank(rank), &request)
            .await?;
        times.push(start.elapsed());
    }
    Ok(summary(times.split_off(n / 10)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (n, events) = (argument(1, 2000).max(1), argument(2, 200).max(1));
    let handle = Handle::open(None).await?;
    let size: u32 = attribute(&handle, Node::Any, "size").await?.parse()?;
    let near = pings(&handle, 0, n).await?;
    let far = pings(&handle, size - 1, n).await?;

    let mut handles = Vec::new();
    for rank in 0..size {
        let uri = attribute(&handle, Node::Rank(rank), "local-uri").await?;
        handles.push(Handle::open(Some(&uri)).await?);
    }
    let mut streams = try_join_all(handles.iter().map(|h| h.events(&["fanout"]))).await?;
    let mut times = Vec::with_capacity(events);
    for _ in 0..events {
        let start = Instant::now();
        let all = async {
            for stream in &mut streams {
                stream.next().await.ok_or("a broker has gone")??;
            }
            Ok::<(), Box<dyn std::error::Error>>(())
        };
        let payload = json!({});
        let publish = async { handle.publish("fanout", &payload).await.map_err(Into::into) };
        futures::future::try_join(publish, all).await?;
        times.push(start.elapsed());
    }
    let level = attribute(&handle, Node::Rank(size - 1), "tbon.level").await?;
    let hops: u32 = level.parse()?;
    let fanout = summary(times);
    let record = json!({ "size": size, "hops": hops, "near": near, "far": far, "fanout": fanout });
    println!("{record}");
    Ok(())
}
