//! Selections in JSON Graph Format.

use super::Extra;
use super::json::{push_key, push_number, push_string, push_text};
use crate::graph::Graph;
use crate::matching::{Selection, Step};

/// Says that vertices below exclusive ones are left out.
pub(crate) const SHORTHAND: &str = "fluxion:jgf_shorthand";

/// A graph in JSON Graph Format, in the making.
#[derive(Debug, Default)]
pub struct Jgf {
    nodes: String,
    edges: String,
    shortened: bool,
}

impl Jgf {
    /// A selection; `short` leaves out what is below exclusive vertices.
    pub fn of(graph: &Graph, selection: &Selection, short: bool, extra: Extra) -> Jgf {
        let mut jgf = Jgf::default();
        let mut path = String::new();
        selection.walk(graph, |step| {
            if short && step.exclusive_above {
                jgf.shortened = true;
                return;
            }
            path.clear();
            jgf.node(graph, &step, &mut path, extra);
            if let Some(parent) = selection.above(graph, step.vertex) {
                jgf.edge(
                    &graph.uniq(parent).to_string(),
                    &graph.uniq(step.vertex).to_string(),
                );
            }
        });
        jgf
    }

    fn node(&mut self, graph: &Graph, step: &Step, path: &mut String, extra: Extra) {
        let out = &mut self.nodes;
        let v = step.vertex;
        out.push_str(if out.is_empty() { "{" } else { ", {" });
        push_text(out, "id", &graph.uniq(v).to_string());
        push_key(out, "metadata");
        out.push('{');
        push_text(out, "type", graph.kind_text(v));
        if graph.base(v) != graph.kind_text(v) {
            push_text(out, "basename", graph.base(v));
        }
        if let Some(name) = graph.own_name(v) {
            push_text(out, "name", name);
        }
        push_number(out, "id", graph.id(v));
        push_number(out, "rank", graph.rank(v));
        if let Some(properties) = graph.properties(v) {
            push_map(
                out,
                "properties",
                properties.iter().map(|(k, v)| (k.as_str(), v.as_str())),
            );
        }
        if !graph.unit(v).is_empty() {
            push_text(out, "unit", graph.unit(v));
        }
        if step.exclusive {
            push_key(out, "exclusive");
            out.push_str("true");
        }
        if step.amount != 1 {
            push_number(out, "size", i64::from(step.amount));
        }
        graph.push_path(v, path);
        let words = graph.words();
        let others = graph
            .other_paths(v)
            .iter()
            .map(|(s, path)| (words.text(*s), &**path));
        let mut paths: Vec<(&str, &str)> = others.collect();
        if graph.is_rooted(v) {
            paths.retain(|p| p.0 != words.text(graph.dominant()));
            paths.push((words.text(graph.dominant()), path));
        }
        paths.sort_unstable();
        push_map(out, "paths", paths.into_iter());
        if let Some(label) = step.label {
            push_map(out, "ephemeral", [("label", label)].into_iter());
        }
        extra(v, out);
        out.push_str("}}");
    }

    fn edge(&mut self, from: &str, to: &str) {
        let out = &mut self.edges;
        out.push_str(if out.is_empty() { "{" } else { ", {" });
        push_text(out, "source", from);
        push_text(out, "target", to);
        out.push('}');
    }

    /// The JSON text; empty if there is no vertex.
    pub fn render(self) -> String {
        if self.nodes.is_empty() {
            return String::new();
        }
        let mut out = String::with_capacity(self.nodes.len() + self.edges.len() + 96);
        out.push_str("{\"graph\": {\"nodes\": [");
        out.push_str(&self.nodes);
        out.push_str("], \"edges\": [");
        out.push_str(&self.edges);
        out.push_str("]}");
        if self.shortened {
            push_text(&mut out, "writer", SHORTHAND);
        }
        out.push('}');
        out
    }
}

/// Appends a member that is a map of texts.
pub fn push_map<'a>(out: &mut String, key: &str, map: impl Iterator<Item = (&'a str, &'a str)>) {
    push_key(out, key);
    out.push('{');
    for (key, value) in map {
        push_key(out, key);
        push_string(out, value);
    }
    out.push('}');
}
