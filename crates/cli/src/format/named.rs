//! Formats by name: built in, or configured by the site or the user.
//!
//! Files `flux/TOOL.toml` and `flux/TOOL.json` in the XDG configuration directories add formats
//! under `[formats.NAME]` (or `[COMMAND.formats.NAME]` for tools with sub-commands); the
//! environment variable `TOOL_COMMAND_FORMAT_DEFAULT` names what `default` is.

use std::path::PathBuf;

use serde_json::Value as Json;

use crate::error::Failure;
use crate::output::outln;

/// A named format: name, what it is for, format.
pub(crate) type Named = (&'static str, &'static str, &'static str);

/// Where a command's formats come from.
pub(crate) struct Formats<'a> {
    /// The stem of the configuration file: `flux-jobs`.
    pub(crate) config: &'a str,
    /// The name the environment variable has, if it is not the file's.
    pub(crate) tool: &'a str,
    pub(crate) subcommand: Option<&'a str>,
    pub(crate) builtin: &'a [Named],
}

/// The sub-commands that have a section in the file of a tool.
const SECTIONS: [(&str, &[&str]); 2] = [
    ("flux-queue", &["list"]),
    ("flux-resource", &["drain", "list", "status"]),
];

/// What is in the file of a tool with sub-commands that nobody reads.
fn unknown_section(config: &str, table: &Json) -> Option<String> {
    let (_, known) = SECTIONS.iter().find(|(tool, _)| *tool == config)?;
    let sections = table.as_object().into_iter().flatten();
    let mut unknown = sections
        .map(|(key, _)| key)
        .filter(|key| !known.contains(&key.as_str()));
    let key = unknown.next()?;
    Some(format!(
        "invalid key {key}: sections are {}",
        known.join(", ")
    ))
}

fn directories() -> Vec<PathBuf> {
    let set = |name| std::env::var(name).ok().filter(|v: &String| !v.is_empty());
    let site = set("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
    let home = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| {
        let home = set("HOME")?;
        Some(PathBuf::from(home).join(".config"))
    });
    // The last one wins: the user's, then the site's first directory.
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&site).collect();
    dirs.reverse();
    dirs.extend(home);
    dirs
}

impl Formats<'_> {
    /// The table of configured formats of all files, the strongest last.
    pub(crate) fn configured(&self) -> Result<Vec<Json>, Failure> {
        let mut tables = Vec::new();
        for dir in directories() {
            for extension in ["json", "toml"] {
                let path = dir
                    .join("flux")
                    .join(format!("{}.{extension}", self.config));
                let Ok(text) = std::fs::read_to_string(&path) else {
                    continue;
                };
                let fault =
                    |e: String| Failure::new(format!("{}: {}", path.display(), e.trim_end()));
                let table: Json = match extension {
                    "json" => serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?,
                    _ => toml::from_str(&text).map_err(|e| fault(e.message().to_owned()))?,
                };
                if let Some(why) = unknown_section(self.config, &table) {
                    return Err(fault(why));
                }
                let table = match self.subcommand {
                    Some(name) => table.get(name).cloned().unwrap_or(Json::Null),
                    None => table,
                };
                for (name, entry) in table["formats"].as_object().into_iter().flatten() {
                    if self.builtin.iter().any(|b| b.0 == name) {
                        return Err(fault(format!(
                            "override of builtin format '{name}' not permitted"
                        )));
                    }
                    if !entry["format"].is_string() {
                        return Err(fault(format!("formats.{name}: 'format' must be a string")));
                    }
                }
                tables.push(table);
            }
        }
        Ok(tables)
    }

    /// All formats: name, description, format.
    fn all(&self) -> Result<Vec<(String, String, String)>, Failure> {
        let builtin = self.builtin.iter();
        let mut all: Vec<_> = builtin
            .map(|(n, d, f)| ((*n).to_owned(), (*d).to_owned(), (*f).to_owned()))
            .collect();
        for table in self.configured()? {
            for (name, entry) in table["formats"].as_object().into_iter().flatten() {
                let text = |key: &str| entry[key].as_str().unwrap_or("").to_owned();
                all.retain(|(n, ..)| n != name);
                all.push((name.clone(), text("description"), text("format")));
            }
        }
        Ok(all)
    }

    fn variable(&self) -> String {
        let subcommand = self
            .subcommand
            .map_or_else(String::new, |s| format!("_{s}"));
        let name = format!("{}{subcommand}_FORMAT_DEFAULT", self.tool);
        name.to_uppercase().replace('-', "_")
    }

    /// The format a name stands for; `None` if the name asked for help, which was printed.
    pub(crate) fn resolve(&self, name: &str) -> Result<Option<String>, Failure> {
        if name.contains('{') {
            return Ok(Some(name.to_owned()));
        }
        let all = self.all()?;
        let find = |name: &str| all.iter().find(|(n, ..)| n == name);
        if name == "help" {
            outln!("\nConfigured {} output formats:\n", self.config);
            for (name, description, _) in &all {
                outln!("  {name:<12} {description}");
            }
            return Ok(None);
        }
        if let Some(name) = name.strip_prefix("get-config=") {
            let (name, description, format) = find(name)
                .ok_or_else(|| Failure::new(format!("--format: No such format {name}")))?;
            let table = self
                .subcommand
                .map_or_else(String::new, |s| format!("{s}."));
            outln!("[{table}formats.{name}]");
            if !description.is_empty() {
                outln!("description = \"{description}\"");
            }
            outln!("format = \"{format}\"");
            return Ok(None);
        }
        let chosen = match std::env::var(self.variable()) {
            Ok(value) if name == "default" => value,
            _ => name.to_owned(),
        };
        if chosen.contains('{') {
            return Ok(Some(chosen));
        }
        match find(&chosen) {
            Some((_, _, format)) => Ok(Some(format.clone())),
            None => Err(Failure::new(format!(
                "--format: No such format {chosen} (Did you mean '{{{chosen}}}'?)"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sections_nobody_reads_are_named() {
        let of = |config: &str, table: Json| unknown_section(config, &table);
        let table = json!({"list": {}, "lists": {}});
        let why = "invalid key lists: sections are drain, list, status";
        assert_eq!(of("flux-resource", table.clone()).as_deref(), Some(why));
        assert_eq!(of("flux-resource", json!({"status": {}})), None);
        assert_eq!(of("flux-jobs", table), None);
    }
}
