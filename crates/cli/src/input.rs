//! What a command reads: a file, or standard input.

use std::io::Result;
use std::path::Path;

/// The name of what is read, for messages, and its text; nothing stands for standard input.
pub(crate) fn text(path: Option<&Path>) -> (String, Result<String>) {
    match path {
        Some(path) => (path.display().to_string(), std::fs::read_to_string(path)),
        None => (
            "stdin".to_owned(),
            std::io::read_to_string(std::io::stdin()),
        ),
    }
}
