//! Selections as an execution system needs them: R version 1, RFC 20.
//!
//! A node that has cores or gpus of a selection is an entry; nodes with the same ones share it.

use super::Frame;
use super::json::{push_key, push_number, push_string, push_text};
use crate::graph::{Graph, Vertex};
use crate::matching::Selection;
use formats::resource_set::is_local_property;
use formats::{Hostlist, Idset};
use std::collections::BTreeMap;

/// What a selection says about execution.
#[derive(Default)]
struct Execution {
    /// By what is used of them: nodes, by rank.
    nodes: BTreeMap<String, Vec<(i64, Vertex)>>,
    /// Ranks of properties.
    properties: BTreeMap<String, Vec<i64>>,
}

fn ids(numbers: &mut [i64]) -> String {
    numbers.sort_unstable();
    let mut set = Idset::new();
    for id in numbers.iter().filter_map(|n| u32::try_from(*n).ok()) {
        set.insert(id);
    }
    set.to_string()
}

impl Execution {
    fn of(graph: &Graph, selection: &Selection) -> Execution {
        let words = graph.words();
        let of = |name| words.find(name);
        let kinds = [("core", of("core")), ("gpu", of("gpu"))];
        let gathers = [of("node"), of("storage_node")];
        let mut used: [Vec<i64>; 2] = Default::default();
        let mut execution = Execution::default();
        selection.walk(graph, |step| {
            let v = step.vertex;
            let kind = Some(graph.kind(v));
            if let Some(i) = kinds.iter().position(|k| k.1 == kind) {
                used[i].push(graph.id(v));
                return;
            }
            if !gathers.contains(&kind) || used.iter().all(Vec::is_empty) {
                return;
            }
            let mut children = String::from("{");
            for ((name, _), numbers) in kinds.iter().zip(&mut used) {
                if !numbers.is_empty() {
                    push_text(&mut children, name, &ids(numbers));
                    numbers.clear();
                }
            }
            children.push('}');
            let rank = graph.rank(v);
            execution.nodes.entry(children).or_default().push((rank, v));
            for (name, value) in graph.properties(v).into_iter().flatten() {
                let property = match value.is_empty() {
                    true => name.clone(),
                    false => format!("{name}={value}"),
                };
                if !is_local_property(&property) {
                    execution.properties.entry(property).or_default().push(rank);
                }
            }
        });
        execution
    }

    fn push_rlite(&self, out: &mut String) {
        out.push('[');
        for (children, nodes) in &self.nodes {
            if !out.ends_with('[') {
                out.push_str(", ");
            }
            let mut ranks: Vec<i64> = nodes.iter().map(|n| n.0).collect();
            out.push('{');
            push_text(out, "rank", &ids(&mut ranks));
            push_key(out, "children");
            out.push_str(children);
            out.push('}');
        }
        out.push(']');
    }

    fn nodelist(&self, graph: &Graph) -> String {
        let mut nodes: Vec<(i64, Vertex)> = Vec::new();
        for list in self.nodes.values() {
            nodes.extend(list);
        }
        nodes.sort_by_key(|n| n.0);
        let mut hosts = Hostlist::new();
        nodes.iter().for_each(|(_, v)| hosts.push(&graph.name(*v)));
        hosts.to_string()
    }
}

pub(super) fn rlite(graph: &Graph, selection: &Selection) -> String {
    let execution = Execution::of(graph, selection);
    let mut out = String::new();
    if !execution.nodes.is_empty() {
        execution.push_rlite(&mut out);
    }
    out
}

pub(super) fn rv1(
    graph: &Graph,
    selection: &Selection,
    frame: Frame,
    scheduling: Option<&str>,
) -> String {
    let execution = Execution::of(graph, selection);
    let mut out = String::new();
    if execution.nodes.is_empty() {
        return out;
    }
    out.push_str("{\"version\": 1, \"execution\": {\"R_lite\": ");
    execution.push_rlite(&mut out);
    push_key(&mut out, "nodelist");
    out.push('[');
    push_string(&mut out, &execution.nodelist(graph));
    out.push(']');
    if !execution.properties.is_empty() {
        push_key(&mut out, "properties");
        out.push('{');
        for (name, ranks) in &execution.properties {
            push_text(&mut out, name, &ids(&mut ranks.clone()));
        }
        out.push('}');
    }
    push_number(&mut out, "starttime", frame.start);
    push_number(&mut out, "expiration", frame.end);
    out.push('}');
    if let Some(scheduling) = scheduling {
        push_key(&mut out, "scheduling");
        out.push_str(scheduling);
        if let Some(queue) = frame.queue {
            out.push_str(", \"attributes\": {\"system\": {\"scheduler\": {");
            push_text(&mut out, "queue", queue);
            out.push_str("}}}");
        }
    }
    out.push('}');
    out
}
