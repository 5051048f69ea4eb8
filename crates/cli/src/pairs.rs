//! `KEY=VALUE` words as one object.

use std::io::Read as _;

use serde_json::{Map, Value, json};

use crate::error::{Context as _, Failure};

/// Set a value at a dotted path.
fn set_path(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((key, rest)) => {
            let entry = map.entry(key).or_insert_with(|| json!({}));
            if !entry.is_object() {
                *entry = json!({});
            }
            if let Value::Object(inner) = entry {
                set_path(inner, rest, value);
            }
        }
    }
}

/// What the words say together: dots in keys nest, what is not JSON is text, `-` stands for standard input.
///
/// # Errors
/// A word has no value, or standard input cannot be read.
pub(crate) fn tree(command: &str, pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut tree = Map::new();
    for pair in pairs {
        let (key, text) = pair
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("{command}: no value for key={pair}")))?;
        let mut text = text.to_owned();
        if text == "-" {
            text.clear();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("stdin")?;
        }
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        set_path(&mut tree, key, value);
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_nest_by_their_dots() {
        let words = ["a.b=1", "a.c=two", "d={\"e\":[]}", "a.b.f=true"].map(str::to_owned);
        let expected = json!({"a": {"b": {"f": true}, "c": "two"}, "d": {"e": []}});
        assert_eq!(Value::Object(tree("memo", &words).unwrap()), expected);
        let e = tree("memo", &["a".to_owned()]).unwrap_err();
        assert!(format!("{e:?}").contains("no value for key=a"), "{e:?}");
    }
}
