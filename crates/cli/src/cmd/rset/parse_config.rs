//! `flux R parse-config`: the resource set that the table `[resource]` of a configuration
//! defines.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::ResourceSet;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{file, named};
use crate::error::Failure;

#[derive(Deserialize)]
struct Table {
    config: Option<Value>,
    path: Option<PathBuf>,
    scheduling: Option<PathBuf>,
}

/// One file, TOML or JSON, or all `*.toml` of a directory.
fn configuration(path: &Path) -> Result<Value, Failure> {
    if !path.is_dir() {
        return table(path);
    }
    let what = path.display();
    let entries = named(&what, std::fs::read_dir(path))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(named(&what, entry)?.path());
    }
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let mut all = Value::Object(Map::new());
    for path in files {
        update(&mut all, table(&path)?);
    }
    Ok(all)
}

fn table(path: &Path) -> Result<Value, Failure> {
    let what = path.display();
    let text = file(path)?;
    match path.extension() {
        Some(e) if e == "json" => named(what, serde_json::from_str(&text)),
        _ => named(what, toml::from_str(&text)),
    }
}

/// Tables are joined, anything else is replaced.
fn update(all: &mut Value, new: Value) {
    match (all, new) {
        (Value::Object(all), Value::Object(new)) => {
            for (key, value) in new {
                update(all.entry(key).or_insert(Value::Null), value);
            }
        }
        (all, new) => *all = new,
    }
}

/// The set that a configuration file or directory defines.
pub(super) fn read(path: &Path) -> Result<ResourceSet, Failure> {
    let fault = |why: String| Failure::new(format!("Config file error: {why}"));
    let conf = configuration(path)?;
    let table = conf
        .get("resource")
        .ok_or_else(|| fault("there is no table [resource]".to_owned()))?;
    let table = Table::deserialize(table).map_err(|e| fault(format!("resource: {e}")))?;
    let mut set = match (&table.config, &table.path) {
        (Some(entries), _) => {
            ResourceSet::from_config(entries).map_err(|e| fault(e.to_string()))?
        }
        (None, Some(path)) => {
            let what = path.display();
            let text = file(path)?;
            named(what, text.parse())?
        }
        (None, None) => {
            let why = "resource.config or resource.path must be defined";
            return Err(fault(why.to_owned()));
        }
    };
    if let Some(path) = &table.scheduling {
        let what = format!("resource.scheduling: {}", path.display());
        let text = file(path)?;
        let scheduling: Value = named(what, serde_json::from_str(&text))?;
        set.scheduling = Some(Arc::new(scheduling));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let shown = |path: &Path| match read(path) {
            Ok(set) => set.to_value().to_string(),
            Err(e) => e.message.replace(dir.path().to_str().unwrap(), "DIR"),
        };
        let r = at(
            "R.json",
            r#"{"version":1,"execution":{"R_lite":[{"rank":"0","children":{"core":"0"}}],"nodelist":["a"]}}"#,
        );
        let r = r.to_str().unwrap();
        let sched = at("sched.json", r#"{"writer":"x"}"#);
        let one = at(
            "a.toml",
            "[[resource.config]]\nhosts = 'n[0-1]'\ncores = '0-3'\nproperties = ['p']\n",
        );
        at(
            "b.toml",
            &format!("[resource]\nscheduling = '{}'\n", sched.display()),
        );
        insta::assert_snapshot!([
            shown(&one),
            shown(dir.path()),
            shown(&at("c.json", &format!(r#"{{"resource":{{"path":"{r}"}}}}"#))),
            shown(&at("bad", "[resource]\nnoverify = true\n")),
            shown(&at("worse", "[exec]\n")),
            shown(&at("worst", "[[resource.config]]\nhosts = 'a'\ncores = 'x'\n")),
            shown(&dir.path().join("none")),
        ].join("\n"), @r#"
        {"version":1,"execution":{"R_lite":[{"rank":"0-1","children":{"core":"0-3"}}],"starttime":0.0,"expiration":0.0,"nodelist":["n[0-1]"],"properties":{"p":"0-1"}}}
        {"version":1,"execution":{"R_lite":[{"rank":"0-1","children":{"core":"0-3"}}],"starttime":0.0,"expiration":0.0,"nodelist":["n[0-1]"],"properties":{"p":"0-1"}},"scheduling":{"writer":"x"}}
        {"version":1,"execution":{"R_lite":[{"rank":"0","children":{"core":"0"}}],"starttime":0.0,"expiration":0.0,"nodelist":["a"]}}
        Config file error: resource.config or resource.path must be defined
        Config file error: there is no table [resource]
        Config file error: resource.config[0].cores: idset 'x': 'x' is not an id or a range such as 2-5
        DIR/none: No such file or directory
        "#);
    }
}
