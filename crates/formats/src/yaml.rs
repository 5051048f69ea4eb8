//! YAML as JSON values: jobspecs (RFC 14) are written in it, and JSON is a part of it.

use serde_json::{Map, Value, json};
use yaml_rust2::{ScanError, Yaml, YamlLoader};

/// Why a text is no YAML.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(transparent)]
pub struct YamlError(#[from] ScanError);

/// The first document of a text, if there is one. Keys that are no texts become their JSON.
///
/// ```
/// let value = formats::yaml::first("a: [1, yes, 'yes']").unwrap();
/// assert_eq!(value, Some(serde_json::json!({"a": [1, "yes", "yes"]})));
/// assert_eq!(formats::yaml::first("").unwrap(), None);
/// assert!(formats::yaml::first("a: [").is_err());
/// ```
pub fn first(text: &str) -> Result<Option<Value>, YamlError> {
    let documents = YamlLoader::load_from_str(text)?;
    Ok(documents.first().map(to_json))
}

fn to_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Real(text) => text
            .parse::<f64>()
            .map_or_else(|_| json!(text), |n| json!(n)),
        Yaml::Integer(n) => json!(n),
        Yaml::String(text) => json!(text),
        Yaml::Boolean(b) => json!(b),
        Yaml::Array(list) => Value::Array(list.iter().map(to_json).collect()),
        Yaml::Hash(map) => {
            let entry = |(k, v): (&Yaml, &Yaml)| match to_json(k) {
                Value::String(key) => (key, to_json(v)),
                other => (other.to_string(), to_json(v)),
            };
            Value::Object(map.iter().map(entry).collect::<Map<_, _>>())
        }
        Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobspecs_are_yaml() {
        let yaml = "version: 9999\nresources:\n  - {type: core, count: 2, exclusive: true}\nx: [1.5, ~, a]\n";
        let expected = json!({
            "version": 9999,
            "resources": [{"type": "core", "count": 2, "exclusive": true}],
            "x": [1.5, null, "a"],
        });
        assert_eq!(first(yaml), Ok(Some(expected)));
    }
}
