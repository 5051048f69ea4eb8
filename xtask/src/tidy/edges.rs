//! Edges between crates: only those that the table in ARCHITECTURE.md allows.
//!
//! The table lists crates from the bottom up. A crate may be built from crates in rows above its
//! own and from no others, which rules cycles out. Its tests may use what the third column names.

use std::collections::BTreeMap;

use super::manifest::{Dependency, Manifest};
use super::{Finding, section};

const HEADING: &str = "## Crate edges";

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    line: usize,
    name: &'a str,
    deps: Vec<&'a str>,
    dev_deps: Vec<&'a str>,
}

/// The words of a table cell: crate names, with or without backticks, separated by commas.
fn names(cell: &str) -> Vec<&str> {
    cell.split(',')
        .map(|word| word.trim().trim_matches('`'))
        .filter(|word| !word.is_empty() && *word != "-" && *word != "–")
        .collect()
}

/// Rows of the table: `| crate | built from | tests also use |`.
fn rows(text: &str) -> Vec<Row<'_>> {
    section(text, HEADING)
        .into_iter()
        .filter_map(|(line, text)| {
            let inner = text.trim().strip_prefix('|')?;
            Some((line, inner.strip_suffix('|').unwrap_or(inner)))
        })
        .skip(2) // titles and the line below them
        .map(|(line, text)| {
            let mut cells = text.split('|');
            let mut cell = || cells.next().unwrap_or("");
            Row {
                line,
                name: cell().trim().trim_matches('`'),
                deps: names(cell()),
                dev_deps: names(cell()),
            }
        })
        .collect()
}

pub(super) fn check(doc: &str, text: &str, manifests: &[Manifest]) -> Vec<Finding> {
    let rows = rows(text);
    if rows.is_empty() {
        let todo = format!("add \"{HEADING}\" with the columns crate, built from, tests also use");
        return vec![Finding::error(doc, 1, "no table of crate edges", todo)];
    }
    let mut findings = Vec::new();
    let known: BTreeMap<&str, &Manifest> = manifests.iter().map(|m| (m.name.as_str(), m)).collect();
    let mut seen: BTreeMap<&str, &Row<'_>> = BTreeMap::new();
    for row in &rows {
        check_row(doc, row, &known, &seen, &mut findings);
        if seen.insert(row.name, row).is_some() {
            let what = format!("{} has two rows", row.name);
            findings.push(Finding::error(doc, row.line, what, "join them"));
        }
    }
    for manifest in manifests {
        match seen.get(manifest.name.as_str()) {
            Some(row) => check_manifest(doc, row, manifest, &known, &mut findings),
            None => findings.push(Finding::error(
                &manifest.path,
                1,
                format!("{} is not in the table of crate edges", manifest.name),
                format!("add a row to {doc}, below all crates it is built from"),
            )),
        }
    }
    findings
}

fn check_row(
    doc: &str,
    row: &Row<'_>,
    known: &BTreeMap<&str, &Manifest>,
    above: &BTreeMap<&str, &Row<'_>>,
    findings: &mut Vec<Finding>,
) {
    let Some(manifest) = known.get(row.name) else {
        let what = format!("there is no crate {}", row.name);
        findings.push(Finding::error(doc, row.line, what, "remove the row"));
        return;
    };
    for dep in &row.deps {
        if !above.contains_key(dep) {
            findings.push(Finding::error(
                doc,
                row.line,
                format!(
                    "{} is said to be built from {dep}, which is not above it",
                    row.name
                ),
                "edges point downward: put the needed crate into an earlier row, or cut the edge",
            ));
        } else if !manifest.deps.iter().any(|d| d.package == *dep) {
            findings.push(Finding::warning(
                doc,
                row.line,
                format!("{} is no longer built from {dep}", row.name),
                "remove it from the row",
            ));
        }
    }
    for dep in row.dev_deps.iter().filter(|dep| !known.contains_key(*dep)) {
        let what = format!("there is no crate {dep}");
        findings.push(Finding::error(
            doc,
            row.line,
            what,
            "remove it from the row",
        ));
    }
}

fn check_manifest(
    doc: &str,
    row: &Row<'_>,
    manifest: &Manifest,
    known: &BTreeMap<&str, &Manifest>,
    findings: &mut Vec<Finding>,
) {
    let mut refuse = |dep: &Dependency, how: &str| {
        findings.push(Finding::error(
            &manifest.path,
            dep.line,
            format!("{} may not {how} {}", manifest.name, dep.package),
            format!(
                "cut the edge; if the design has changed, change {doc}:{}",
                row.line
            ),
        ));
    };
    let ours = |dep: &&Dependency| known.contains_key(dep.package.as_str());
    for dep in manifest.deps.iter().filter(ours) {
        if !row.deps.contains(&dep.package.as_str()) {
            refuse(dep, "be built from");
        }
    }
    for dep in manifest.dev_deps.iter().filter(ours) {
        let name = dep.package.as_str();
        if !row.deps.contains(&name) && !row.dev_deps.contains(&name) {
            refuse(dep, "use in its tests");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Manifest;
    use super::check;

    const TABLE: &str = "\
## Crate edges

| crate | built from | tests also use |
|---|---|---|
| `wire` | | |
| `client` | `wire` | |
| `testbed` | `client`, `wire` | |
| `kvs` | `client` | `testbed` |
";

    fn manifest(name: &str, deps: &[&str], dev_deps: &[&str]) -> Manifest {
        let list = |names: &[&str]| -> String {
            names
                .iter()
                .map(|n| format!("{n}.workspace = true\n"))
                .collect()
        };
        let text = format!(
            "[package]\nname = \"{name}\"\n[dependencies]\n{}[dev-dependencies]\n{}",
            list(deps),
            list(dev_deps)
        );
        Manifest::parse(&format!("crates/{name}/Cargo.toml"), &text).unwrap()
    }

    fn workspace() -> Vec<Manifest> {
        vec![
            manifest("wire", &["bytes"], &[]),
            manifest("client", &["wire"], &["proptest"]),
            manifest("testbed", &["client", "wire"], &[]),
            manifest("kvs", &["client"], &["testbed"]),
        ]
    }

    fn findings(table: &str, manifests: &[Manifest]) -> Vec<String> {
        let findings = check("A.md", table, manifests);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_table_says_passes() {
        assert!(findings(TABLE, &workspace()).is_empty());
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_refused() {
        let mut all = workspace();
        all[1] = manifest("client", &["kvs", "wire"], &[]);
        assert_eq!(
            findings(TABLE, &all),
            [
                "crates/client/Cargo.toml:4: error: client may not be built from kvs; \
              cut the edge; if the design has changed, change A.md:6"
            ]
        );
    }

    #[test]
    fn test_edges_have_a_column_of_their_own() {
        let mut all = workspace();
        all[1] = manifest("client", &["wire"], &["testbed"]);
        all[3] = manifest("kvs", &["client", "testbed"], &[]);
        let found = findings(TABLE, &all);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("client may not use in its tests testbed"));
        assert!(found[1].contains("kvs may not be built from testbed"));
    }

    #[test]
    fn the_table_points_downward() {
        let table = TABLE.replace("| `wire` | | |", "| `wire` | `kvs` | |");
        let found = findings(&table, &workspace());
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("A.md:5: error: wire is said to be built from kvs"));
    }

    #[test]
    fn rows_and_crates_correspond() {
        let mut all = workspace();
        all.push(manifest("new", &[], &[]));
        all.remove(3);
        let found = findings(TABLE, &all);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("A.md:8: error: there is no crate kvs"));
        assert!(found[1].contains("new is not in the table"));
    }

    #[test]
    fn an_edge_nobody_uses_is_a_warning() {
        let mut all = workspace();
        all[2] = manifest("testbed", &["client"], &[]);
        let found = findings(TABLE, &all);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("warning: testbed is no longer built from wire"));
    }

    #[test]
    fn a_missing_table_is_an_error() {
        assert!(findings("# A\n", &workspace())[0].contains("no table of crate edges"));
    }
}
