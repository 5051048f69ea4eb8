//! The code map of ARCHITECTURE.md: what it names exists, and it names every crate.
//!
//! In the section, a word in backticks is a path if it has a slash or ends in a file name's
//! suffix. A list item that opens with a crate's folder speaks of that crate: its other paths are
//! relative to the crate's `src`.

use std::collections::BTreeSet;

use super::{Finding, section};

const HEADING: &str = "## Code map";
const SUFFIXES: &[&str] = &[".rs", ".md", ".toml", ".sh", ".c"];

/// Words of a line that stand in backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    word.chars().all(plain)
        && (word.contains('/') || SUFFIXES.iter().any(|suffix| word.ends_with(suffix)))
}

pub(super) fn check(
    doc: &str,
    text: &str,
    crates: &BTreeSet<&str>,
    exists: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let lines = section(text, HEADING);
    if lines.is_empty() {
        let todo = format!("add \"{HEADING}\" with an item for each crate");
        return vec![Finding::error(doc, 1, "no code map", todo)];
    }
    let start = lines[0].0;
    let mut findings = Vec::new();
    let mut unnamed = crates.clone();
    let mut current: Option<&str> = None;
    for (line, text) in lines {
        if !text.starts_with(' ') {
            current = None;
        }
        for word in quoted(text).filter(|word| is_path(word)) {
            let path = word.trim_end_matches('/');
            if path.starts_with("crates/") && text.starts_with("- ") && current.is_none() {
                current = Some(path);
                unnamed.remove(path);
            }
            let below = current.map(|folder| format!("{folder}/src/{path}"));
            if !exists(path) && !below.is_some_and(|path| exists(&path)) {
                findings.push(Finding::error(
                    doc,
                    line,
                    format!("{word} is not there"),
                    "name what the code has now",
                ));
            }
        }
    }
    findings.extend(unnamed.into_iter().map(|folder| {
        Finding::error(
            doc,
            start,
            format!("{folder} is not in the code map"),
            "add an item that says what it is for",
        )
    }));
    findings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::check;

    const MAP: &str = "\
# T

## Code map

- `crates/wire` is the messages (`codec.rs`,
  `deep/`); topics like `kvs.get`.
- `xtask` has chores: `xtask/src/main.rs`.

## Next

`not/checked.rs`
";

    fn findings(map: &str, crates: &[&str]) -> Vec<String> {
        let there = [
            "crates/wire",
            "crates/wire/src/codec.rs",
            "crates/wire/src/deep",
            "xtask/src/main.rs",
        ];
        let crates: BTreeSet<&str> = crates.iter().copied().collect();
        check("A.md", map, &crates, |path| there.contains(&path))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_true_map_passes() {
        assert!(findings(MAP, &["crates/wire"]).is_empty());
    }

    #[test]
    fn stale_paths_are_found() {
        let map = MAP
            .replace("`deep/`", "`gone.rs`")
            .replace("src/main", "src/other");
        assert_eq!(
            findings(&map, &["crates/wire"]),
            [
                "A.md:6: error: gone.rs is not there; name what the code has now",
                "A.md:7: error: xtask/src/other.rs is not there; name what the code has now",
            ]
        );
    }

    #[test]
    fn a_crate_without_an_item_is_found() {
        let found = findings(MAP, &["crates/kvs", "crates/wire"]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("crates/kvs is not in the code map"));
    }

    #[test]
    fn a_missing_map_is_an_error() {
        assert!(findings("# T\n", &[])[0].contains("no code map"));
    }
}
