//! Selections as indented lines.

use crate::graph::Graph;
use crate::matching::{Selection, Step};
use std::fmt::Write;

fn push_line(graph: &Graph, step: &Step, modes: (&str, &str), out: &mut String) {
    out.push_str("      ");
    (0..=step.depth).for_each(|_| out.push_str("---"));
    graph.push_name(step.vertex, out);
    let mode = if step.exclusive { modes.0 } else { modes.1 };
    let _ = writeln!(out, "[{}:{}]", step.amount, mode);
}

pub(super) fn simple(graph: &Graph, selection: &Selection) -> String {
    let mut out = String::new();
    selection.walk(graph, |step| push_line(graph, &step, ("x", "s"), &mut out));
    out
}

pub(super) fn pretty(graph: &Graph, selection: &Selection) -> String {
    let mut lines = Vec::new();
    selection.walk(graph, |step| {
        let mut line = String::new();
        push_line(graph, &step, ("exclusive", "shared"), &mut line);
        lines.push(line);
    });
    lines.iter().rev().map(String::as_str).collect()
}
