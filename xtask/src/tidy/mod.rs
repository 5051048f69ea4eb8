//! `cargo xtask tidy`: what compiler and linter do not see.
//!
//! Each check is a function from texts to [`Finding`]s; reading files happens here only.

mod docs;
mod edges;
mod manifest;
mod rules;
mod source;
mod units;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use manifest::Manifest;

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// Directories that hold nothing written by hand.
const SKIPPED_DIRS: &[&str] = &["target", ".git", "examples/build", "bench/results"];

/// Whether a finding fails the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
}

/// Something a person has to look at: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    level: Level,
    path: String,
    line: usize,
    what: String,
    todo: String,
}

impl Finding {
    fn error(path: &str, line: usize, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            path: path.to_owned(),
            line,
            what: what.into(),
            todo: todo.into(),
        }
    }

    fn warning(path: &str, line: usize, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::error(path, line, what, todo)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        write!(
            f,
            "{}:{}: {level}: {}; {}",
            self.path, self.line, self.what, self.todo
        )
    }
}

/// Paths of all files below `root` relative to it, in order.
fn files(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let full = root.join(&dir);
        for entry in full
            .read_dir()
            .with_context(|| full.display().to_string())?
        {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            let name = path.to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED_DIRS.contains(&name.as_str()) {
                dirs.push(path);
            } else if kind.is_file() {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The manifests of the workspace, by folder.
fn manifests(root: &Path, files: &[String]) -> anyhow::Result<Vec<Manifest>> {
    files
        .iter()
        .filter(|path| path.ends_with("/Cargo.toml"))
        .map(|path| Manifest::parse(path, &std::fs::read_to_string(root.join(path))?))
        .collect()
}

fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let files = files(root)?;
    let manifests = manifests(root, &files)?;
    let architecture = std::fs::read_to_string(root.join(ARCHITECTURE)).context(ARCHITECTURE)?;
    let mut findings = edges::check(ARCHITECTURE, &architecture, &manifests);
    let crates: BTreeSet<&str> = manifests
        .iter()
        .filter_map(|m| m.path.strip_suffix("/Cargo.toml"))
        .filter(|folder| folder.starts_with("crates/"))
        .collect();
    findings.extend(docs::check(ARCHITECTURE, &architecture, &crates, |path| {
        root.join(path).exists()
    }));
    let text = |path: &str| std::fs::read_to_string(root.join(path)).context(path.to_owned());
    findings.extend(units::check(
        &text(units::PACKAGED)?,
        &text(units::GENERATED)?,
    ));
    for path in &files {
        if rules::concerns(path) {
            let bytes = std::fs::read(root.join(path))?;
            findings.extend(rules::check(path, &String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(findings)
}

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let findings = check(root)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.iter().filter(|f| f.level == Level::Error).count() {
        0 => Ok(()),
        1 => bail!("tidy: 1 error"),
        n => bail!("tidy: {n} errors"),
    }
}

/// The lines of the section that a heading opens, up to the next heading of the same rank or a
/// higher one, numbered from 1. Empty when there is no such heading.
fn section<'a>(text: &'a str, heading: &str) -> Vec<(usize, &'a str)> {
    let rank = |line: &str| line.bytes().take_while(|b| *b == b'#').count();
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    if !lines.any(|(_, line)| line == heading) {
        return Vec::new();
    }
    lines
        .take_while(|(_, line)| !(1..=rank(heading)).contains(&rank(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Finding, section};

    #[test]
    fn a_section_ends_at_the_next_heading_of_its_rank() {
        let text = "# T\n## A\none\n### Sub\ntwo\n## B\nthree\n";
        let lines = section(text, "## A");
        assert_eq!(lines, [(3, "one"), (4, "### Sub"), (5, "two")]);
        assert!(section(text, "## C").is_empty());
    }

    #[test]
    fn a_finding_reads_as_editors_expect() {
        let finding = Finding::error("a/b.rs", 3, "bad", "make it good");
        assert_eq!(finding.to_string(), "a/b.rs:3: error: bad; make it good");
    }
}
