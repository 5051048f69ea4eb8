//! How long a round trip to the broker takes, and how many fit into a second.
//!
//! `roundtrip [N [CONCURRENT [TOPIC]]]` pings the broker of FLUX_URI N times one after the other, then with CONCURRENT
//! calls in flight, and prints a JSON object (microseconds, calls per second).

use std::time::{Duration, Instant};

use client::{Handle, Node, RpcError};
use serde_json::{Value, json};

fn argument<T: std::str::FromStr>(n: usize, default: T) -> T {
    let text = std::env::args().nth(n);
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn ping(handle: &Handle, topic: &str, seq: usize) -> Result<(), RpcError> {
    let request = json!({ "seq": seq, "pad": "" });
    let answer: Value = handle.call(topic, Node::Any, &request).await?;
    match answer["seq"] == seq {
        true => Ok(()),
        false => Err(RpcError::proto("the answer is to another ping")),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (n, concurrent) = (argument(1, 10_000), argument(2, 64));
    let topic = argument(3, "broker.ping".to_owned());
    let handle = Handle::open(None).await?;
    for seq in 0..n / 10 {
        ping(&handle, &topic, seq).await?;
    }
    let mut times = Vec::with_capacity(n);
    for seq in 0..n {
        let start = Instant::now();
        ping(&handle, &topic, seq).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let micros = |d: Duration| d.as_secs_f64() * 1e6;
    let at = |share: f64| micros(times[((n - 1) as f64 * share) as usize]);

    let start = Instant::now();
    let worker = async |worker: usize| {
        for seq in (worker..n).step_by(concurrent) {
            ping(&handle, &topic, seq).await?;
        }
        Ok::<(), RpcError>(())
    };
    futures::future::try_join_all((0..concurrent).map(worker)).await?;
    let rate = n as f64 / start.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "median": at(0.5), "p99": at(0.99), "least": at(0.), "pings": n,
            "concurrent": concurrent, "per_second": rate,
        })
    );
    Ok(())
}
