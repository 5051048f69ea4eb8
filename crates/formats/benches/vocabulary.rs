//! How long the formats take that everything else is made of. `bench/micro` runs this and compares
//! with the budgets.

use criterion::{Criterion, criterion_group, criterion_main};
use formats::{Event, Hostlist, Idset, JobId, Jobspec, JobspecBuilder, Taskmap, eventlog, shape};
use std::hint::black_box;

/// Ten thousand hosts that do not compress: every second number, in racks.
fn scattered() -> String {
    let hosts = (0..10_000).map(|i| format!("rack{}-node{}", i % 97, 2 * i));
    hosts.collect::<Vec<_>>().join(",")
}

fn hostlists(c: &mut Criterion) {
    let scattered = scattered();
    let list: Hostlist = scattered.parse().expect("a list of hosts");
    let regular = "node[00001-10000]";
    c.bench_function("hostlist/parse 10000 regular", |b| {
        b.iter(|| black_box(regular).parse::<Hostlist>())
    });
    c.bench_function("hostlist/parse 10000 scattered", |b| {
        b.iter(|| black_box(&scattered).parse::<Hostlist>())
    });
    c.bench_function("hostlist/write 10000 scattered", |b| {
        b.iter(|| list.to_string())
    });
    c.bench_function("hostlist/index 10000 scattered", |b| {
        b.iter(|| list.index().contains("x"))
    });
    let index = list.index();
    c.bench_function("hostlist/find in 10000 scattered", |b| {
        b.iter(|| index.find(black_box("rack31-node10120")))
    });
}

fn idsets(c: &mut Criterion) {
    let evens: Idset = (0..200_000).step_by(2).collect();
    let threes: Idset = (0..300_000).step_by(3).collect();
    let (low, high) = (
        Idset::from_range(0, 99_999),
        Idset::from_range(50_000, 149_999),
    );
    let text = evens.to_string();
    c.bench_function("idset/union of 100000 in one range", |b| {
        b.iter(|| low.union(black_box(&high)))
    });
    c.bench_function("idset/union of 100000 single ids", |b| {
        b.iter(|| evens.union(black_box(&threes)))
    });
    c.bench_function("idset/parse 100000 single ids", |b| {
        b.iter(|| black_box(&text).parse::<Idset>())
    });
}

fn jobs(c: &mut Criterion) {
    let environment = (0..60).map(|i| (format!("VARIABLE_{i}"), format!("/some/path/{i}:/other")));
    let spec = JobspecBuilder::new(["/usr/bin/app", "--input", "file"])
        .slots(16, 4, 1, Some(4), false)
        .duration(3600.)
        .cwd("/srv/project");
    let small = spec.clone().build().expect("a jobspec");
    let small = serde_json::to_string(&small).expect("a jobspec is JSON");
    let large = spec.environment(environment).build().expect("a jobspec");
    let large = serde_json::to_string(&large).expect("a jobspec is JSON");
    c.bench_function("jobspec/parse and check", |b| {
        b.iter(|| black_box(&small).parse::<Jobspec>())
    });
    c.bench_function("jobspec/parse and check, 60 variables", |b| {
        b.iter(|| black_box(&large).parse::<Jobspec>())
    });
    c.bench_function("jobid/write f58", |b| {
        b.iter(|| black_box(JobId(6731191091817518)).f58())
    });
    c.bench_function("jobid/parse f58", |b| {
        b.iter(|| black_box("ƒuZZybuNNy").parse::<JobId>())
    });
    c.bench_function("shape/parse", |b| {
        b.iter(|| {
            shape::parse(
                black_box("node=4/slot=2{task}/[core=4;gpu;memory=4{unit:GB}]"),
                "task",
            )
        })
    });
    let map = Taskmap::from_counts(&[4; 10_000]);
    c.bench_function("taskmap/cyclic over 10000 nodes", |b| {
        b.iter(|| map.cyclic(1))
    });
}

fn events(c: &mut Criterion) {
    let line = r#"{"timestamp":1552593348.073045,"name":"submit","context":{"userid":5588,"urgency":16,"flags":0,"version":1}}"#;
    let event = Event::decode(line).expect("an event");
    let log = format!("{line}\n").repeat(1000);
    c.bench_function("event/parse", |b| b.iter(|| Event::decode(black_box(line))));
    c.bench_function("event/typed", |b| {
        b.iter(|| formats::job_event::JobEvent::try_from(black_box(&event)))
    });
    c.bench_function("eventlog/parse 1000 events", |b| {
        b.iter(|| eventlog::decode(black_box(&log)))
    });
}

criterion_group!(benches, hostlists, idsets, jobs, events);
criterion_main!(benches);
