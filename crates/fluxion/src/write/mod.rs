//! What a match chose, in the formats others read.

mod execution;
mod jgf;
mod json;
mod text;

pub(crate) use jgf::SHORTHAND;
pub use jgf::{Jgf, push_map};

use crate::graph::Graph;
use crate::matching::Selection;
use crate::plan::Time;

/// The formats of a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line for each vertex, contents first.
    Simple,
    /// A line for each vertex, contents last.
    Pretty,
    /// JSON Graph Format.
    Jgf,
    /// JSON Graph Format without what is below exclusive vertices.
    JgfShorthand,
    /// `R_lite`: ranks and what is used of each.
    Rlite,
    /// R version 1, RFC 20, with the graph as the scheduler's part.
    Rv1,
    /// R version 1 with the short graph.
    Rv1Shorthand,
    /// R version 1 without a scheduler's part.
    Rv1Nosched,
}

/// What belongs to a selection beside its vertices.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame<'a> {
    /// Since when it is had.
    pub start: Time,
    /// Until when.
    pub end: Time,
    /// The queue.
    pub queue: Option<&'a str>,
}

impl Format {
    /// The format of a name that command lines and configurations use.
    pub fn from_name(name: &str) -> Option<Format> {
        Some(match name {
            "simple" => Format::Simple,
            "pretty_simple" => Format::Pretty,
            "jgf" => Format::Jgf,
            "jgf_shorthand" => Format::JgfShorthand,
            "rlite" => Format::Rlite,
            "rv1" => Format::Rv1,
            "rv1_shorthand" => Format::Rv1Shorthand,
            "rv1_nosched" => Format::Rv1Nosched,
            _ => return None,
        })
    }

    /// Writes a selection, with a line's end; nothing if the format has nothing to say of it.
    pub fn write(self, graph: &Graph, selection: &Selection, frame: Frame) -> String {
        self.write_with(graph, selection, frame, &mut |_, _| {})
    }

    /// As [`Format::write`]; `extra` may append members to the metadata of vertices of a graph.
    pub fn write_with(
        self,
        graph: &Graph,
        selection: &Selection,
        frame: Frame,
        extra: Extra,
    ) -> String {
        let mut out = match self {
            Format::Simple => return text::simple(graph, selection),
            Format::Pretty => return text::pretty(graph, selection),
            Format::Jgf => Jgf::of(graph, selection, false, extra).render(),
            Format::JgfShorthand => Jgf::of(graph, selection, true, extra).render(),
            Format::Rlite => execution::rlite(graph, selection),
            Format::Rv1Nosched => execution::rv1(graph, selection, frame, None),
            Format::Rv1 | Format::Rv1Shorthand => {
                let short = self == Format::Rv1Shorthand;
                let scheduling = Jgf::of(graph, selection, short, extra).render();
                execution::rv1(graph, selection, frame, Some(&scheduling))
            }
        };
        if !out.is_empty() {
            out.push('\n');
        }
        out
    }
}

/// Appends members to the metadata of a vertex.
pub type Extra<'a> = &'a mut dyn FnMut(crate::graph::Vertex, &mut String);
