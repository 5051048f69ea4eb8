//! Nodes of an R with what hwloc sees in them.

use fluxion::graph::Graph;
use fluxion::read::instance;
use fluxion::read::rv1::Execution;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Two sockets of two cores, and a GPU in each; the devices are numbered backwards.
fn topology() -> String {
    let core = |i: u32| {
        format!(r#"<object type="Core" os_index="{i}"><object type="PU" os_index="{i}"/></object>"#)
    };
    let gpu = |i: u32| {
        format!(
            r#"<object type="PCIDev"><object type="OSDev" name="cuda{i}" osdev_type="5"/></object>"#
        )
    };
    let socket = |i: u32| {
        let inside = core(2 * i) + &core(2 * i + 1) + &gpu(1 - i);
        format!(r#"<object type="Package" os_index="{i}">{inside}</object>"#)
    };
    let sockets = socket(0) + &socket(1);
    format!(
        r#"<topology><object type="Machine"><info name="HostName" value="other"/>{sockets}</object></topology>"#
    )
}

fn read(children: Value, allowed: &[&str]) -> Graph {
    let r = json!({"version": 1, "execution": {"R_lite": [{"rank": "2-3", "children": children}],
        "nodelist": ["n[2-3]"], "properties": {"fast": "3"}, "starttime": 0, "expiration": 0}});
    let execution = Execution::of(&r).expect("a right R");
    let topologies = BTreeMap::from([2, 3].map(|rank| (rank, topology())));
    let made = instance::read(&execution, &topologies, allowed).expect("a right topology");
    made.finish("containment").expect("a tree").0
}

/// The paths of a type on one node.
fn paths(graph: &Graph, kind: &str) -> Vec<String> {
    let all = graph.vertices().filter(|v| graph.kind_text(*v) == kind);
    let here = all.filter(|v| graph.rank(*v) == 3);
    here.map(|v| graph.path(v)).collect()
}

#[test]
fn as_many_as_r_has_get_its_ids() {
    let graph = read(json!({"core": "4-7", "gpu": "2-3"}), &[]);
    let in_sockets = [(0, 4), (0, 5), (1, 6), (1, 7)];
    let cores = in_sockets.map(|(s, c)| format!("/cluster0/n3/socket{s}/core{c}"));
    assert_eq!(paths(&graph, "core"), cores);
    let gpus = [(0, 3), (1, 2)].map(|(s, g)| format!("/cluster0/n3/socket{s}/gpu{g}"));
    assert_eq!(paths(&graph, "gpu"), gpus);
    assert_eq!(paths(&graph, "pu").len(), 4);
    let node = graph
        .find_path("/cluster0/n3")
        .expect("hosts are those of R");
    let properties = graph.properties(node).expect("it has one");
    assert!(properties.contains_key("fast"));
}

#[test]
fn of_more_than_r_has_some_are_left_out() {
    let graph = read(json!({"core": "1-2"}), &["socket", "core"]);
    let cores = [(0, 1), (1, 2)].map(|(s, c)| format!("/cluster0/n3/socket{s}/core{c}"));
    assert_eq!(paths(&graph, "core"), cores);
    assert_eq!(paths(&graph, "pu").len(), 0);
    assert_eq!(paths(&graph, "gpu").len(), 0);
}

#[test]
fn what_hwloc_does_not_see_is_in_the_node() {
    let graph = read(json!({"core": "0-4", "gpu": "0-1", "port": "7"}), &[]);
    let sockets = [(0, 0), (0, 1), (1, 2), (1, 3)];
    let mut cores = sockets
        .map(|(s, c)| format!("/cluster0/n3/socket{s}/core{c}"))
        .to_vec();
    cores.push("/cluster0/n3/core4".into());
    assert_eq!(paths(&graph, "core"), cores);
    assert_eq!(paths(&graph, "port"), ["/cluster0/n3/port7"]);
}

#[test]
fn errors_name_the_rank() {
    let r = json!({"version": 1, "execution": {"R_lite": [{"rank": "0-1", "children": {"core": "0"}}],
        "nodelist": ["n[0-1]"], "starttime": 0, "expiration": 0}});
    let execution = Execution::of(&r).expect("a right R");
    let mut topologies = BTreeMap::from([(0, topology())]);
    let why = |t: &BTreeMap<u32, String>| {
        let made = instance::read(&execution, t, &[]);
        made.err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(why(&topologies), "rank 1: there is no topology of it");
    topologies.insert(1, "<topology><object type=</topology>".into());
    assert!(
        why(&topologies).starts_with("rank 1: "),
        "{}",
        why(&topologies)
    );
}
