//! The instance's configuration: TOML files merged into one object (flux-config(5)).
//!
//! A path names one file, or a directory whose `*.toml` files are read in the order of their names. Tables are merged
//! key by key; a key that two files give is the later one's.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// Why there is no configuration. Names the file and the place in it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path}: {why}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// What is wrong, and in which line.
        why: String,
    },
    /// A value given on the command line.
    #[error("--conf={text}: {why}")]
    Argument {
        /// As it was given.
        text: String,
        /// What is wrong.
        why: String,
    },
}

/// Where a configuration comes from, so that it can be read again.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file or a directory.
    pub path: Option<PathBuf>,
    /// `--conf` values, applied after the files.
    pub arguments: Vec<String>,
}

impl Sources {
    /// Read and merge them all.
    pub fn read(&self) -> Result<Value, ConfigError> {
        let mut config = Map::new();
        if let Some(path) = &self.path {
            for file in files(path)? {
                merge(&mut config, read_file(&file)?);
            }
        }
        for text in &self.arguments {
            let table = parse_argument(text).map_err(|why| ConfigError::Argument {
                text: text.clone(),
                why,
            })?;
            merge(&mut config, table);
        }
        Ok(Value::Object(config))
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|e| e == "toml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let parsed = match path.extension().is_some_and(|e| e == "json") {
        true => serde_json::from_str(&text).map_err(|e| e.to_string()),
        false => toml::from_str(&text).map_err(|e| toml_error(&text, &e)),
    };
    parsed.map_err(|why| ConfigError::Parse {
        path: path.to_owned(),
        why,
    })
}

/// What is wrong, in one line.
fn toml_error(text: &str, e: &toml::de::Error) -> String {
    let line = e
        .span()
        .map(|span| text[..span.start].matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {}", e.message()),
        None => e.message().to_owned(),
    }
}

/// A `--conf` value: the name of a file, a JSON object, a TOML document, or `KEY=VALUE` with a bare word as text.
fn parse_argument(text: &str) -> Result<Map<String, Value>, String> {
    let file = Path::new(text);
    let extension = file.extension().and_then(|e| e.to_str());
    let named = matches!(extension, Some("toml" | "json")) || file.is_file();
    if named && !text.contains(['=', '\n']) {
        return read_file(file).map_err(|e| e.to_string());
    }
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|e| e.to_string());
    }
    toml::from_str(text).or_else(|e| match text.split_once('=') {
        Some((key, value)) if !text.contains('\n') => {
            let quoted = format!("{key} = {}", Value::from(value));
            toml::from_str(&quoted).map_err(|e| toml_error(&quoted, &e))
        }
        _ => Err(toml_error(text, &e)),
    })
}

/// Later tables add to and override earlier ones, key by key.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn read(path: &Path, arguments: &[&str]) -> Result<Value, String> {
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        let path = Some(path.to_owned());
        Sources { path, arguments }
            .read()
            .map_err(|e| e.to_string())
    }

    #[test]
    fn files_and_arguments_are_merged_in_order() {
        let dir = dir(&[
            ("b.toml", "[x]\nb = 3\n"),
            ("a.toml", "y = 1\n[x]\na = 1\nb = 2\n"),
            ("note.txt", "not TOML"),
        ]);
        let config = read(dir.path(), &["x.a=word", "z = [1]"]).unwrap();
        assert_eq!(
            config,
            serde_json::json!({"y": 1, "x": {"a": "word", "b": 3}, "z": [1]})
        );
        assert_eq!(Sources::default().read().unwrap(), serde_json::json!({}));
    }

    #[test]
    fn arguments_are_settings_documents_or_files() {
        let dir = dir(&[("a.toml", "x = 1\n"), ("b.json", "{\"y\": {\"z\": 2}}")]);
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let none = dir.path().join("a.toml");
        let (a, b, missing) = (path("a.toml"), path("b.json"), path("c.toml"));
        let read = |argument: &str| read(&none, &[argument]);
        assert_eq!(read(&a).unwrap(), serde_json::json!({"x": 1}));
        assert_eq!(read(&b).unwrap()["y"]["z"], 2);
        assert_eq!(read("{\"x\": 3}").unwrap()["x"], 3);
        assert_eq!(read("[x]\ny = 4").unwrap()["x"]["y"], 4);
        assert!(read("{\"x\": }").unwrap_err().contains("expected value"));
        assert!(read(&missing).unwrap_err().contains("No such file"));
    }

    #[test]
    fn errors_name_file_and_line() {
        let dir = dir(&[("a.toml", "y = 1\nx = \n")]);
        let e = read(dir.path(), &[]).unwrap_err();
        assert!(e.contains("a.toml: line 2: "), "{e}");
        let e = read(&dir.path().join("none"), &[]).unwrap_err();
        assert!(e.contains("none: No such file"), "{e}");
        let e = read(&dir.path().join("../"), &["= ="]).unwrap_err();
        assert!(e.starts_with("--conf== ="), "{e}");
    }
}
