//! What the message layer costs: a typical request encoded and decoded, large payloads, matching.

use std::hint::black_box;

use bytes::{Buf, Bytes, BytesMut};
use criterion::{Criterion, criterion_group, criterion_main};
use wire::{Credentials, FrameQueue, Glob, Message, NODEID_ANY, Subscriptions, string_payload};

/// As a broker passes it on: credentials set, one hop, a short JSON payload.
fn typical() -> Message {
    let payload = string_payload(r#"{"key":"job.f2k.eventlog","flags":4,"namespace":"primary"}"#);
    let mut msg = Message::request("kvs.lookup", NODEID_ANY, 17, 0, Some(payload));
    msg.set_credentials(Credentials::owner(1000));
    msg.push_route("01234567-89ab-4cde-8f01-23456789abcd".into());
    msg
}

fn encoded(msg: &Message) -> Bytes {
    let mut buf = BytesMut::new();
    msg.encode(&mut buf);
    buf.freeze()
}

fn codec(c: &mut Criterion) {
    let msg = typical();
    let bytes = encoded(&msg);
    let mut buf = BytesMut::with_capacity(4096);
    c.bench_function("encode a typical request", |b| {
        b.iter(|| {
            buf.clear();
            black_box(&msg).encode(&mut buf);
        });
    });
    c.bench_function("decode a typical request", |b| {
        b.iter(|| Message::decode(black_box(&bytes)).unwrap());
    });
    c.bench_function("encode and decode a typical request", |b| {
        b.iter(|| {
            let mut buf = BytesMut::new();
            black_box(&msg).encode(&mut buf);
            Message::decode(&buf.freeze()).unwrap()
        });
    });
    let large = Message::request(
        "content.store",
        0,
        1,
        0,
        Some(Bytes::from(vec![7; 1 << 20])),
    );
    c.bench_function("queue a request of 1 MiB for writing", |b| {
        b.iter(|| {
            let mut queue = FrameQueue::default();
            queue.push(black_box(&large)).unwrap();
            queue.remaining()
        });
    });
    let bytes = encoded(&large);
    c.bench_function("decode a request of 1 MiB", |b| {
        b.iter(|| Message::decode(black_box(&bytes)).unwrap());
    });
}

fn matching(c: &mut Criterion) {
    let glob = Glob::new("job-*.[a-s]*");
    c.bench_function("match a glob", |b| {
        b.iter(|| black_box(&glob).matches(black_box("job-manager.submit")));
    });
    let mut subs = Subscriptions::default();
    for client in 0..10_000u32 {
        subs.add(&format!("job.{client}."), client);
    }
    c.bench_function("find 1 subscriber of 10,000", |b| {
        b.iter(|| black_box(&subs).subscribers(black_box("job.77.state")));
    });
}

criterion_group!(benches, codec, matching);
criterion_main!(benches);
