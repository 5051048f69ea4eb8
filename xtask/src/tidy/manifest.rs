//! What the checks need to know of a `Cargo.toml`.

use anyhow::Context as _;
use toml::{Table, Value};

/// A dependency by package name, and the line that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) package: String,
    pub(super) line: usize,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) path: String,
    pub(super) name: String,
    /// What the package is built from: dependencies and build dependencies, for any target.
    pub(super) deps: Vec<Dependency>,
    /// What only its tests need.
    pub(super) dev_deps: Vec<Dependency>,
}

impl Manifest {
    pub(super) fn parse(path: &str, text: &str) -> anyhow::Result<Self> {
        let table: Table = text.parse().with_context(|| path.to_owned())?;
        let name = table
            .get("package")
            .and_then(|p| p.get("name"))
            .and_then(Value::as_str)
            .with_context(|| format!("{path}: no package name"))?;
        let mut deps = Vec::new();
        let mut dev_deps = Vec::new();
        let per_target = table.get("target").and_then(Value::as_table);
        let targets = per_target.into_iter().flat_map(Table::values);
        for part in targets.filter_map(Value::as_table).chain([&table]) {
            for section in ["dependencies", "build-dependencies"] {
                collect(text, part, section, &mut deps);
            }
            collect(text, part, "dev-dependencies", &mut dev_deps);
        }
        deps.sort_by_key(|dep| dep.line);
        Ok(Self {
            path: path.to_owned(),
            name: name.to_owned(),
            deps,
            dev_deps,
        })
    }
}

fn collect(text: &str, part: &Table, section: &str, into: &mut Vec<Dependency>) {
    for (key, value) in part
        .get(section)
        .and_then(Value::as_table)
        .into_iter()
        .flatten()
    {
        let renamed = value.get("package").and_then(Value::as_str);
        into.push(Dependency {
            package: renamed.unwrap_or(key).to_owned(),
            line: line_of(text, section, key),
        });
    }
}

/// The line of `key` in a section whose header ends with its name; 1 if it is written otherwise.
fn line_of(text: &str, section: &str, key: &str) -> usize {
    let mut inside = false;
    for (i, line) in text.lines().enumerate() {
        if let Some(header) = line.trim().strip_prefix('[') {
            let header = header.trim_end_matches(']');
            inside = header.rsplit('.').next() == Some(section);
        } else if inside
            && let Some(rest) = line.trim_start().strip_prefix(key)
            && rest.trim_start().starts_with(['.', '='])
        {
            return i + 1;
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::{Dependency, Manifest};

    fn dependency(package: &str, line: usize) -> Dependency {
        Dependency {
            package: package.to_owned(),
            line,
        }
    }

    #[test]
    fn dependencies_of_all_kinds_are_found() {
        let text = r#"
[package]
name = "a"

[dependencies]
wire.workspace = true
other = { package = "client", path = "../client" }

[target.'cfg(unix)'.dependencies]
overlay = "1"

[dev-dependencies]
testbed = { workspace = true }
"#;
        let manifest = Manifest::parse("crates/a/Cargo.toml", text).unwrap();
        assert_eq!(manifest.name, "a");
        assert_eq!(
            manifest.deps,
            [
                dependency("wire", 6),
                dependency("client", 7),
                dependency("overlay", 10),
            ]
        );
        assert_eq!(manifest.dev_deps, [dependency("testbed", 13)]);
    }

    #[test]
    fn a_manifest_without_name_is_named_in_the_error() {
        let err = Manifest::parse("x/Cargo.toml", "[workspace]\n").unwrap_err();
        assert_eq!(err.to_string(), "x/Cargo.toml: no package name");
    }
}
