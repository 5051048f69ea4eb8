//! Vertices that more than one other contains: paths, cycles, what is written, and what else there is in such a graph.

use fluxion::graph::{Builder, Graph, GraphError, NewVertex, Vertex};
use fluxion::request::{self, Request};
use fluxion::{Context, Match, Op, Options, write};
use serde_json::{Value, json};

fn request(context: &Context, resources: Value) -> Request {
    let text = json!({"version": 9999, "resources": resources, "attributes": {"system": {"duration": 10}},
        "tasks": [{"command": ["app"], "slot": "task", "count": {"per_slot": 1}}]});
    let jobspec = request::parse(&text.to_string()).expect("a right jobspec");
    context.request(&jobspec).expect("all types are there")
}

/// A graph of (type, size) and (from, to).
fn graph(vertices: &[(&str, i64)], edges: &[(u32, u32)]) -> Result<Graph, GraphError> {
    let mut builder = Builder::default();
    let contained = builder.subsystem("containment")?;
    for (uniq, (kind, size)) in vertices.iter().enumerate() {
        let new = NewVertex::new(kind, kind, uniq as i64, uniq as u64);
        builder.vertex(NewVertex { size: *size, ..new })?;
    }
    for (from, to) in edges {
        builder.edge(contained, *from, *to);
    }
    Ok(builder.finish("containment")?.0)
}

#[test]
fn every_way_to_a_vertex_is_a_path_of_it() {
    let vertices = [
        ("cluster", 1),
        ("rack", 1),
        ("tier", 1),
        ("unit", 1),
        ("ssd", 8),
    ];
    let edges = [(2, 3), (0, 1), (0, 2), (1, 3), (3, 4), (1, 3)];
    let graph = graph(&vertices, &edges).expect("no cycle");
    assert_eq!((graph.len(), graph.edges()), (5, 5));
    let by_rack = graph
        .find_path("/cluster0/rack1/unit3/ssd4")
        .expect("a path");
    let by_tier = graph
        .find_path("/cluster0/tier2/unit3/ssd4")
        .expect("a path");
    assert_eq!(by_rack, by_tier);
    assert_eq!(graph.path(by_rack), "/cluster0/rack1/unit3/ssd4");
    let ssd = graph.words().find("ssd").expect("a type");
    let tier = graph.find_path("/cluster0/tier2").expect("a path");
    assert_eq!(
        (graph.total(tier, ssd), graph.total(graph.root(), ssd)),
        (8, 8)
    );
}

#[test]
fn what_contains_itself_is_refused() {
    let vertices = [("cluster", 1), ("rack", 1), ("unit", 1), ("ssd", 1)];
    let made = graph(&vertices, &[(0, 1), (1, 2), (2, 3), (3, 1)]);
    let cycle = GraphError::Cycle("containment".into(), 1);
    assert_eq!(made.err(), Some(cycle));
}

#[test]
fn an_r_says_by_which_way_it_came() {
    let vertices = [
        ("cluster", 1),
        ("rack", 1),
        ("tier", 1),
        ("unit", 1),
        ("ssd", 8),
    ];
    let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)];
    let graph = graph(&vertices, &edges).expect("no cycle");
    let mut context = Context::new(graph, Options::default()).expect("right options");
    let disks = json!([{"type": "ssd", "count": 8, "exclusive": true}]);
    let unit = json!([{"type": "unit", "count": 1, "with": disks}]);
    let request = request(
        &context,
        json!([{"type": "tier", "count": 1, "with": unit}]),
    );
    let found = context
        .submit(Op::Allocate, 1, &request, 0)
        .expect("all is free");
    let jgf = write::Format::Jgf.write(context.graph(), &found.selection, Default::default());
    let jgf: Value = serde_json::from_str(&jgf).expect("JSON");
    let ends = |e: &Value| [e["source"].clone(), e["target"].clone()];
    let edges = jgf["graph"]["edges"].as_array().expect("a list");
    let edges: Vec<[Value; 2]> = edges.iter().map(ends).collect();
    assert_eq!(json!(edges), json!([["3", "4"], ["2", "3"], ["0", "2"]]));

    let listed = context
        .listed_in_jgf(&jgf.to_string())
        .expect("of this graph");
    context.cancel(1).expect("it is there");
    let again = context
        .restore(2, listed, 0, 10, false)
        .expect("it is free");
    let places = |found: &Match| -> Vec<Vertex> {
        let items = found.selection.items().iter();
        items.map(|s| s.vertex).collect()
    };
    assert_eq!(places(&again), places(&found));
    let unit = context
        .graph()
        .find_path("/cluster0/rack1/unit3")
        .expect("a path");
    let above = again.selection.above(context.graph(), unit);
    assert_eq!(above, context.graph().find_path("/cluster0/tier2"));
}

/// Searches that follow an order made beforehand choose the same nodes where other vertices have several parents.
#[test]
fn nodes_beside_shared_vertices_are_found_as_without() {
    let make = |shared: bool| {
        let mut vertices = vec![("cluster", 1), ("tier", 1)];
        let mut edges = vec![(0, 1)];
        for rack in 0..10 {
            let at = vertices.len() as u32;
            vertices.extend([("rack", 1), ("unit", 1), ("ssd", 4)]);
            edges.extend([(0, at), (at, at + 1), (at + 1, at + 2)]);
            edges.extend(shared.then_some((1, at + 1)));
            for node in 0..30 {
                let place = vertices.len() as u32;
                vertices.extend([("node", 1), ("core", 1)]);
                edges.extend([(at, place), (place, place + 1)]);
                assert_eq!(place, at + 3 + 2 * node, "rack {rack}");
            }
        }
        let options = Options {
            policy: "lonode".into(),
            ..Options::default()
        };
        let graph = graph(&vertices, &edges).expect("no cycle");
        Context::new(graph, options).expect("right options")
    };
    let chosen = |context: &mut Context| -> Vec<(Vec<String>, (u64, u64))> {
        let node = json!([{"type": "node", "count": 40, "exclusive": true}]);
        let request = request(context, node);
        let mut all = Vec::new();
        for job in 1..9 {
            let found = context.submit(Op::Allocate, job, &request, 0);
            let items = found.map_or_else(|_| Vec::new(), |f| f.selection.items().to_vec());
            let names = items.iter().map(|s| context.graph().path(s.vertex));
            all.push((names.collect(), context.visits()));
        }
        all
    };
    let found = chosen(&mut make(true));
    assert_eq!(found, chosen(&mut make(false)));
    assert_eq!(found.iter().filter(|f| f.0.is_empty()).count(), 1);
}
