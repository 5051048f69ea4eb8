//! The arguments of a call: one JSON object goes into a plugin, one comes out.

use std::ffi::{CStr, CString};

use serde_json::{Map, Value};

/// What a topic's handlers are told, and what they say.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Args {
    pub input: Map<String, Value>,
    pub output: Map<String, Value>,
    /// The text given out last; see [`Args::text`].
    text: CString,
}

/// Merge `from` into `into`, dictionaries in depth.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

impl Args {
    pub fn new(input: Map<String, Value>) -> Self {
        Self {
            input,
            ..Self::default()
        }
    }

    fn side(&mut self, out: bool) -> &mut Map<String, Value> {
        match out {
            true => &mut self.output,
            false => &mut self.input,
        }
    }

    /// Set what comes out (`out`) or goes in.
    pub fn set(&mut self, out: bool, replace: bool, values: Map<String, Value>) {
        let side = self.side(out);
        match replace {
            true => *side = values,
            false => merge(side, values),
        }
    }

    /// One side as JSON; good until the next call.
    pub fn text(&mut self, out: bool) -> &CStr {
        let text = serde_json::to_string(self.side(out)).unwrap_or_default();
        // JSON has no zero bytes.
        self.text = CString::new(text).unwrap_or_default();
        &self.text
    }

    /// What is at a dotted path, strings as they are and all else as JSON; good until the next call.
    pub fn find(&mut self, out: bool, path: &str) -> Option<&CStr> {
        let side = self.side(out);
        let (head, rest) = path.split_once('.').unwrap_or((path, ""));
        let keys = rest.split('.').filter(|key| !key.is_empty());
        let found = keys.fold(side.get(head), |value, key| value?.get(key))?;
        let text = found
            .as_str()
            .map_or_else(|| found.to_string(), str::to_owned);
        self.text = CString::new(text).ok()?;
        Some(&self.text)
    }

    /// Why the handler failed, in its own words.
    pub fn error(&self) -> Option<&str> {
        self.output.get("errmsg").and_then(Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_comes_out_is_merged_or_replaced() {
        let mut args = Args::new(map(json!({"id": 1})));
        args.set(true, false, map(json!({"annotations": {"a": 1}})));
        args.set(
            true,
            false,
            map(json!({"annotations": {"b": 2}, "priority": 3})),
        );
        assert_eq!(
            args.text(true).to_str().unwrap(),
            r#"{"annotations":{"a":1,"b":2},"priority":3}"#
        );
        args.input = map(json!({"a": {"b": "text", "c": [1]}}));
        let mut find = |path| {
            args.find(false, path)
                .map(|text| text.to_str().unwrap().to_owned())
        };
        assert_eq!(find("a.b").as_deref(), Some("text"));
        assert_eq!(find("a.c").as_deref(), Some("[1]"));
        assert_eq!((find("a.d"), find("b"), find("")), (None, None, None));
        args.input = map(json!({"id": 1}));
        args.set(true, true, map(json!({"errmsg": "no"})));
        assert_eq!(args.error(), Some("no"));
        assert_eq!(args.text(false).to_str().unwrap(), r#"{"id":1}"#);
    }
}
