//! Resource graphs, and jobs on them.

use fluxion::find::Criteria;
use fluxion::read::Format;
use fluxion::write::{self, Frame};
use fluxion::{Context, Op, Options, request};

/// What a graph of a few bytes may become and still be looked at.
const FEW: usize = 2_000;

pub(crate) fn grug(data: &[u8]) {
    read(data, Format::Grug);
}

pub(crate) fn jgf(data: &[u8]) {
    read(data, Format::Jgf);
}

pub(crate) fn rv1(data: &[u8]) {
    read(data, Format::Rv1);
}

pub(crate) fn hwloc(data: &[u8]) {
    read(data, Format::Hwloc);
}

fn dump(context: &Context) -> String {
    let all = Criteria::parse("status=up or status=down").expect("an expression");
    write::Format::Jgf.write(context.graph(), &context.find(&all), Frame::default())
}

fn read(data: &[u8], format: Format) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(context) = Context::load(text, format, Options::default()) else {
        return;
    };
    let graph = context.graph();
    for v in graph.vertices().take(FEW) {
        assert!(graph.subtree(v).contains(&v.0));
        let parent = graph.parent(v);
        assert!(parent.is_none_or(|p| graph.subtree(p).end >= graph.subtree(v).end));
        assert!(!graph.path(v).is_empty());
    }
    if graph.len() <= FEW {
        let written = dump(&context);
        assert!(
            written.trim().is_empty()
                || serde_json::from_str::<serde_json::Value>(&written).is_ok()
        );
    }
}

/// Four nodes of two sockets of two cores, a gpu, and memory that is shared.
fn machine(policy: &str) -> Context {
    let mut nodes = String::new();
    let mut edges = String::new();
    let mut count = 0;
    let mut add = |kind: &str, id: u32, size: u32, path: &str, rank: i64, above: Option<u32>| {
        let comma = if count == 0 { "" } else { "," };
        nodes += &format!(
            r#"{comma}{{"id": "{count}", "metadata": {{"type": "{kind}", "id": {id}, "size": {size}, "rank": {rank}, "paths": {{"containment": "{path}"}}}}}}"#
        );
        if let Some(above) = above {
            let comma = if edges.is_empty() { "" } else { "," };
            edges += &format!(r#"{comma}{{"source": "{above}", "target": "{count}"}}"#);
        }
        count += 1;
        count - 1
    };
    let root = add("cluster", 0, 1, "/cluster0", -1, None);
    for n in 0..4 {
        let path = format!("/cluster0/node{n}");
        let node = add("node", n, 1, &path, i64::from(n), Some(root));
        for s in 0..2 {
            let path = format!("{path}/socket{s}");
            let socket = add("socket", s, 1, &path, i64::from(n), Some(node));
            for c in 2 * s..2 * s + 2 {
                add(
                    "core",
                    c,
                    1,
                    &format!("{path}/core{c}"),
                    i64::from(n),
                    Some(socket),
                );
            }
        }
        add(
            "gpu",
            0,
            1,
            &format!("{path}/gpu0"),
            i64::from(n),
            Some(node),
        );
        add(
            "memory",
            0,
            8,
            &format!("{path}/memory0"),
            i64::from(n),
            Some(node),
        );
    }
    let text = format!(r#"{{"graph": {{"nodes": [{nodes}], "edges": [{edges}]}}}}"#);
    let options = Options {
        policy: policy.into(),
        ..Options::default()
    };
    Context::load(&text, Format::Jgf, options).expect("a right graph")
}

/// The first byte chooses a policy, the rest is a jobspec.
pub(crate) fn matching(data: &[u8]) {
    const POLICIES: [&str; 8] = [
        "first",
        "firstnodex",
        "high",
        "low",
        "lonode",
        "hinodex",
        "locality",
        "variation",
    ];
    let Some((which, text)) = data.split_first() else {
        return;
    };
    let Ok(jobspec) = std::str::from_utf8(text)
        .map_err(drop)
        .and_then(|text| request::parse(text).map_err(drop))
    else {
        return;
    };
    let mut context = machine(POLICIES[usize::from(*which) % POLICIES.len()]);
    let Ok(request) = context.request(&jobspec) else {
        return;
    };
    let ever = context.submit(Op::Satisfiability, 0, &request, 0).is_ok();
    let first = context.submit(Op::Allocate, 1, &request, 0);
    assert!(ever || first.is_err(), "what is had could be had");
    for job in 2..6 {
        let Ok(found) = context.submit(Op::AllocateOrElseReserve, job, &request, 1) else {
            continue;
        };
        assert!(first.is_ok(), "an idle machine has all it ever has");
        assert!(found.start >= 1 && found.end >= found.start);
        for format in [write::Format::Rv1, write::Format::Simple] {
            format.write(context.graph(), &found.selection, Frame::default());
        }
    }
    let jobs: Vec<_> = context.jobs().keys().copied().collect();
    for job in jobs {
        context.cancel(job).expect("it is there");
    }
    assert_eq!(context.ledger().busy(), 0, "nothing is left behind");
}
