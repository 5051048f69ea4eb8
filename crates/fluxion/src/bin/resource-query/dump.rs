//! The graph as a file for other tools.

use anyhow::{Context as _, Result};
use fluxion::graph::Graph;
use std::fmt::Write;
use std::path::Path;

/// The formats of a whole graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Dot,
    GraphMl,
}

impl Format {
    pub(crate) fn from_name(name: &str) -> Option<Format> {
        match name.to_ascii_lowercase().as_str() {
            "dot" => Some(Format::Dot),
            "graphml" => Some(Format::GraphMl),
            _ => None,
        }
    }

    pub(crate) fn write(self, graph: &Graph, base: &Path) -> Result<()> {
        let (extension, text) = match self {
            Format::Dot => ("dot", dot(graph)),
            Format::GraphMl => ("graphml", graphml(graph)),
        };
        let mut path = base.as_os_str().to_owned();
        path.push(".");
        path.push(extension);
        std::fs::write(&path, text).with_context(|| format!("{}", Path::new(&path).display()))
    }
}

fn each_edge(graph: &Graph, mut visit: impl FnMut(u32, u32, &str)) {
    let words = graph.words();
    for v in graph.vertices() {
        for parent in graph.parents(v) {
            visit(parent.0, v.0, words.text(graph.dominant()));
        }
    }
    for other in graph.others() {
        for (a, b) in &other.edges {
            visit(a.0, b.0, words.text(other.name));
        }
    }
}

fn dot(graph: &Graph) -> String {
    let mut out = String::from("digraph G {\n");
    for v in graph.vertices() {
        let _ = writeln!(
            out,
            "{}[label=\"{}\"];",
            v.0,
            graph.name(v).replace('"', "\\\"")
        );
    }
    each_edge(graph, |a, b, name| {
        let _ = writeln!(out, "{a}->{b} [label=\"{name}\"];");
    });
    out.push_str("}\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn graphml(graph: &Graph) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\">\n",
    );
    const KEYS: [(&str, &str); 8] = [
        ("type", "string"),
        ("basename", "string"),
        ("name", "string"),
        ("id", "long"),
        ("uniq_id", "long"),
        ("size", "long"),
        ("unit", "string"),
        ("path", "string"),
    ];
    for (name, kind) in KEYS {
        let _ = writeln!(
            out,
            "  <key id=\"{name}\" for=\"node\" attr.name=\"{name}\" attr.type=\"{kind}\"/>"
        );
    }
    out.push_str(
        "  <key id=\"subsystem\" for=\"edge\" attr.name=\"subsystem\" attr.type=\"string\"/>\n",
    );
    out.push_str("  <graph id=\"G\" edgedefault=\"directed\">\n");
    for v in graph.vertices() {
        let _ = writeln!(out, "    <node id=\"n{}\">", v.0);
        let values = [
            graph.kind_text(v).to_owned(),
            graph.base(v).to_owned(),
            graph.name(v),
            graph.id(v).to_string(),
            graph.uniq(v).to_string(),
            graph.size(v).to_string(),
            graph.unit(v).to_owned(),
            graph.path(v),
        ];
        for ((name, _), value) in KEYS.iter().zip(&values) {
            let _ = writeln!(out, "      <data key=\"{name}\">{}</data>", escaped(value));
        }
        out.push_str("    </node>\n");
    }
    each_edge(graph, |a, b, name| {
        let name = escaped(name);
        let _ = writeln!(
            out,
            "    <edge source=\"n{a}\" target=\"n{b}\"><data key=\"subsystem\">{name}</data></edge>"
        );
    });
    out.push_str("  </graph>\n</graphml>\n");
    out
}
