//! Loading, matching and cancelling on machines of three sizes; timelines of many points.

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use fluxion::plan::Timeline;
use fluxion::request::{self, Request};
use fluxion::{Context, Op, Options, read};
use serde_json::json;
use std::hint::black_box;

const SIZES: [u32; 3] = [112, 1_120, 11_520];

fn machine(nodes: u32) -> String {
    let children = json!({"core": "0-95", "gpu": "0-3"});
    json!({"version": 1, "execution": {"R_lite": [{"rank": format!("0-{}", nodes - 1), "children": children}],
        "nodelist": [format!("n[0-{}]", nodes - 1)], "starttime": 0, "expiration": 0}})
    .to_string()
}

fn context(nodes: u32) -> Context {
    let options = Options {
        policy: "lonode".into(),
        ..Options::default()
    };
    Context::load(&machine(nodes), read::Format::Rv1, options).expect("a right R")
}

fn nodes(context: &Context, count: u32) -> Request {
    let text = json!({"version": 1, "resources": [{"type": "node", "count": count, "exclusive": true, "with": [{"type":
        "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}]}], "tasks": [{"command": ["app"],
        "slot": "task", "count": {"per_slot": 1}}], "attributes": {"system": {"duration": 60}}});
    let jobspec = request::parse(&text.to_string()).expect("a right jobspec");
    context.request(&jobspec).expect("a right jobspec")
}

fn load(c: &mut Criterion) {
    let mut group = c.benchmark_group("load");
    group.sample_size(10);
    for size in SIZES {
        let text = machine(size);
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                read::Format::Rv1
                    .read(black_box(&text))
                    .expect("a right R")
                    .finish("containment")
            });
        });
    }
}

fn match_and_cancel(c: &mut Criterion) {
    let mut group = c.benchmark_group("match and cancel");
    for size in SIZES {
        let mut context = context(size);
        for count in [1, 64] {
            let request = nodes(&context, count);
            group.bench_function(BenchmarkId::new(format!("{count} of"), size), |b| {
                b.iter(|| {
                    context
                        .submit(Op::Allocate, 1, &request, 0)
                        .expect("all is free");
                    context.cancel(1).expect("it is there");
                });
            });
        }
    }
}

fn timeline(c: &mut Criterion) {
    let mut line = Timeline::default();
    for i in 0..10_000 {
        line.add(i % 97, 100 + i * 7, 1 + i % 5);
    }
    c.bench_function("timeline/add to 10000", |b| {
        b.iter_batched_ref(
            || line.clone(),
            |l| l.add(50, 33_333, 4),
            BatchSize::LargeInput,
        );
    });
    c.bench_function("timeline/first fit of 10000", |b| {
        b.iter(|| line.first_fit(black_box(0), 500, 6_000));
    });
}

criterion_group!(benches, load, match_and_cancel, timeline);
criterion_main!(benches);
