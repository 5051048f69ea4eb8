//! From the formats that describe resources to a [`Graph`](crate::graph::Graph).

pub mod grug;
pub mod hwloc;
pub mod instance;
pub mod jgf;
mod recipe;
pub mod rv1;

use crate::graph::{Builder, GraphError};

/// Why a text is not a graph.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum ReadError {
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("GraphML, byte {at}: {message}")]
    Xml { at: u64, message: String },
    #[error("recipe {place}: {message}")]
    Recipe { place: String, message: String },
    #[error("JSON: {0}")]
    Json(serde_json::Error),
    #[error("{place}: {message}")]
    Content { place: String, message: String },
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> ReadError {
        ReadError::Json(error)
    }
}

pub(crate) fn content(place: impl Into<String>, message: impl Into<String>) -> ReadError {
    ReadError::Content {
        place: place.into(),
        message: message.into(),
    }
}

/// The formats a graph is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A recipe in GraphML.
    Grug,
    /// JSON Graph Format, also its shorthand.
    Jgf,
    /// R version 1, RFC 20: what its execution section says.
    Rv1,
    /// XML of hwloc.
    Hwloc,
}

impl Format {
    /// The format of a name that command lines and configurations use.
    pub fn from_name(name: &str) -> Option<Format> {
        Some(match name {
            "grug" => Format::Grug,
            "hwloc" => Format::Hwloc,
            "jgf" | "jgf_shorthand" => Format::Jgf,
            "rv1exec" | "rv1exec_force" => Format::Rv1,
            _ => return None,
        })
    }

    /// Reads a text; of hwloc only the types of `allowed`, unless there are none.
    pub fn read_allowed(self, text: &str, allowed: &[&str]) -> Result<Builder, ReadError> {
        match self {
            Format::Grug => grug::read(text),
            Format::Jgf => jgf::read(text),
            Format::Rv1 => rv1::read(text),
            Format::Hwloc => hwloc::read(text, allowed),
        }
    }

    /// Reads a text.
    pub fn read(self, text: &str) -> Result<Builder, ReadError> {
        self.read_allowed(text, &[])
    }
}
