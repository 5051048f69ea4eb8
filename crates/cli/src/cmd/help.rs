//! What `flux --help` lists, and the manual.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use client::installation;
use serde::Deserialize;

use crate::cmd::TABLE;
use crate::error::{Failure, Outcome};
use crate::exec_path;

/// Commands of somebody else's, described in a file.
#[derive(Deserialize)]
struct Section {
    description: String,
    commands: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    description: String,
}

/// The text of `flux --help`.
pub(crate) fn usage() -> String {
    let mut text = String::from(
        "Usage: flux [OPTIONS] COMMAND [ARGS]\n\
         \x20 -h, --help     print this\n\
         \x20 -v, --verbose  say what the environment is and where commands are looked for\n\
         \x20 -V, --version  print versions\n\
         \x20 -p, --parent   talk to the enclosing instance (may be repeated)\n\
         \x20 -r, --root     talk to the outermost instance\n\n\
         Commands:\n",
    );
    for command in TABLE {
        line(&mut text, command.name, command.help);
    }
    for file in files() {
        match read(&file) {
            Ok(sections) => sections.iter().for_each(|section| show(&mut text, section)),
            Err(e) => eprintln!("flux: {}: {e}", file.display()),
        }
    }
    text
}

fn line(text: &mut String, name: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "   {name:<18} {help}");
}

fn show(text: &mut String, section: &Section) {
    let _ = writeln!(text, "\n{}:", section.description);
    for entry in &section.commands {
        line(text, &entry.name, &entry.description);
    }
}

fn read(file: &Path) -> Result<Vec<Section>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    serde_json::from_str(&text).map_err(|e| e.to_string())
}

/// The files FLUX_CMDHELP_PATTERN stands for, by default those of this installation.
fn files() -> Vec<PathBuf> {
    let pattern = std::env::var_os("FLUX_CMDHELP_PATTERN").map_or_else(
        || PathBuf::from(installation::value("datadir").unwrap_or_default()).join("help.d/*.json"),
        PathBuf::from,
    );
    let (Some(dir), Some(name)) = (
        pattern.parent(),
        pattern.file_name().and_then(|n| n.to_str()),
    ) else {
        return Vec::new();
    };
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let glob = wire::Glob::new(name);
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|e| e.file_name().to_str().is_some_and(|n| glob.matches(n)))
        .map(|e| e.path())
        .collect();
    files.sort();
    files
}

/// Show a page of the manual: that of a command or, if the name says so, of a function of the C library.
pub(crate) fn manual(name: &str) -> Outcome {
    let page = match name.starts_with("flux_") || name.starts_with("libflux") {
        true => name.to_owned(),
        false => format!("flux-{name}"),
    };
    let failure: Failure = exec_path::exec(Path::new("man"), [page]);
    Err(failure)
}
