//! `--conf`: configuration for the brokers of a nested instance, collected from several options.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::Failure;

/// Merge all options, later ones over earlier ones; `None` without any.
pub(super) fn collect(options: &[String]) -> Result<Option<Value>, Failure> {
    if options.is_empty() {
        return Ok(None);
    }
    let mut config = Value::Object(Map::new());
    for option in options {
        update(&mut config, option)?;
    }
    Ok(Some(config))
}

fn update(config: &mut Value, option: &str) -> Result<(), Failure> {
    if option.contains('\n') {
        let parsed = serde_json::from_str(option)
            .ok()
            .or_else(|| toml::from_str(option).ok());
        let text = "--conf: the text is neither TOML nor JSON";
        merge(config, parsed.ok_or_else(|| Failure::new(text))?);
        return Ok(());
    }
    if let Some((key, value)) = option.split_once('=') {
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.into()));
        let nested = key.rsplit('.').fold(value, |value, name| {
            let mut map = Map::new();
            map.insert(name.to_owned(), value);
            Value::Object(map)
        });
        merge(config, nested);
        return Ok(());
    }
    let path = match Path::new(option).extension().and_then(|e| e.to_str()) {
        Some("toml" | "json") => PathBuf::from(option),
        _ => find(option)
            .ok_or_else(|| Failure::new(format!("--conf: named config '{option}' not found")))?,
    };
    let fail = |e: &dyn std::fmt::Display| Failure::new(format!("--conf: {}: {e}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|e| fail(&e))?;
    let parsed = match path.extension().is_some_and(|e| e == "json") {
        true => serde_json::from_str(&text).map_err(|e| fail(&e))?,
        false => toml::from_str(&text).map_err(|e| fail(&e))?,
    };
    merge(config, parsed);
    Ok(())
}

/// A configuration by name in the user's and the system's directories.
fn find(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    let system = std::env::var_os("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
    let dirs: Vec<PathBuf> = home
        .into_iter()
        .chain(std::env::split_paths(&system))
        .collect();
    let files = dirs.iter().flat_map(|dir| {
        ["toml", "json"].map(|ext| dir.join("flux/config").join(format!("{name}.{ext}")))
    });
    files.into_iter().find(|path| path.exists())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn updates() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("c.toml");
        std::fs::write(&file, "[x]\nc = 3\n").unwrap();
        let options = [
            "x.a=1",
            "x.b=word",
            "[y]\nz = true\n",
            file.to_str().unwrap(),
            "x.a=[2]",
        ];
        let options = options.map(str::to_owned);
        assert_eq!(
            collect(&options).unwrap(),
            Some(json!({"x": {"a": [2], "b": "word", "c": 3}, "y": {"z": true}}))
        );
        assert_eq!(collect(&[]).unwrap(), None);
        for bad in ["no-such-config-name", "/no/such.toml", "[\n"] {
            assert!(collect(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
