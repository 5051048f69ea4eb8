//! Resource sets of a large system: 11,520 nodes of 96 cores and 4 gpus.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use formats::{Constraint, Idset, ResourceSet};
use serde_json::json;

const NODES: u32 = 11_520;

/// R of the whole system: one entry for all ranks, or one for each.
fn r(entries: u32) -> String {
    let children = json!({"core": "0-95", "gpu": "0-3"});
    let r_lite: Vec<_> = match entries {
        1 => vec![json!({"rank": format!("0-{}", NODES - 1), "children": children})],
        _ => (0..NODES)
            .map(|rank| json!({"rank": rank.to_string(), "children": children}))
            .collect(),
    };
    json!({"version": 1, "execution": {
        "R_lite": r_lite, "starttime": 0.0, "expiration": 0.0,
        "nodelist": [format!("node[{}-{}]", 1000, 1000 + NODES - 1)],
        "properties": {"batch": format!("0-{}", NODES - 100), "debug": format!("{}-{}", NODES - 99, NODES - 1)},
    }})
    .to_string()
}

/// A set in which each node has other cores.
fn different() -> ResourceSet {
    let mut set = ResourceSet::new();
    for rank in 0..NODES {
        let cores = Idset::from_range(rank % 48, 48 + rank % 47);
        set.add(
            rank,
            &format!("node{}", 1000 + rank),
            &cores,
            &Idset::from(rank % 4),
        );
    }
    set
}

fn benches(c: &mut Criterion) {
    let (one, many) = (r(1), r(NODES));
    let whole: ResourceSet = one.parse().expect("valid R");
    c.bench_function("rset/parse/1 entry", |b| {
        b.iter(|| black_box(&one).parse::<ResourceSet>().expect("valid R"));
    });
    c.bench_function("rset/parse/11520 entries", |b| {
        b.iter(|| black_box(&many).parse::<ResourceSet>().expect("valid R"));
    });
    let different = different();
    let text = serde_json::to_string(&different).expect("R is JSON");
    c.bench_function("rset/parse/different", |b| {
        b.iter(|| black_box(&text).parse::<ResourceSet>().expect("valid R"));
    });
    let value = whole.to_value();
    c.bench_function("rset/from_value/1 entry", |b| {
        b.iter(|| ResourceSet::try_from(black_box(&value)).expect("valid R"));
    });
    let half = whole.on_ranks(&(0..NODES).step_by(2).collect());
    c.bench_function("rset/union", |b| {
        b.iter(|| black_box(&half).union(black_box(&whole)))
    });
    c.bench_function("rset/difference", |b| {
        b.iter(|| black_box(&whole).difference(black_box(&half)));
    });
    c.bench_function("rset/difference/different", |b| {
        b.iter(|| black_box(&whole).difference(black_box(&different)));
    });
    c.bench_function("rset/intersection/different", |b| {
        b.iter(|| black_box(&whole).intersection(black_box(&different)));
    });
    c.bench_function("rset/serialise", |b| {
        b.iter(|| serde_json::to_string(black_box(&whole)).expect("R is JSON"));
    });
    c.bench_function("rset/serialise/different", |b| {
        b.iter(|| serde_json::to_string(black_box(&different)).expect("R is JSON"));
    });
    let constraint = json!({"and": [
        {"properties": ["batch", "^debug"]}, {"not": [{"hostlist": ["node[1500-1999,2500-2999]"]}]},
        {"or": [{"ranks": ["0-5999"]}, {"properties": ["node9000"]}]}]});
    let constraint = Constraint::from_value(&constraint).expect("valid constraint");
    c.bench_function("rset/constraint/ranks_of", |b| {
        b.iter(|| black_box(&constraint).ranks_of(black_box(&whole)));
    });
    c.bench_function("rset/constraint/matches each", |b| {
        b.iter(|| {
            let holds = |t: &&formats::resource_set::Target| {
                let has = |p: &str| whole.has_property(t.rank, p);
                constraint.matches(&t.host, t.rank, &has)
            };
            black_box(&whole).targets().iter().filter(holds).count()
        });
    });
}

criterion_group!(all, benches);
criterion_main!(all);
