//! JSON as upstream's tools print it: a space after `:` and `,`.

use serde_json::Value;

/// All non-ASCII characters escaped, floats as Python prints them.
pub(crate) fn dumps(value: &Value) -> String {
    let mut out = String::new();
    write(value, true, &mut out);
    out
}

/// Characters as they are.
pub(crate) fn dumps_utf8(value: &Value) -> String {
    let mut out = String::new();
    write(value, false, &mut out);
    out
}

fn write(value: &Value, ascii: bool, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => match (n.is_f64(), n.as_f64()) {
            (true, Some(x)) => out.push_str(&crate::format::float(x)),
            _ => out.push_str(&n.to_string()),
        },
        Value::String(s) => write_str(s, ascii, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write(item, ascii, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                write_str(key, ascii, out);
                out.push_str(": ");
                write(item, ascii, out);
            }
            out.push('}');
        }
    }
}

fn write_str(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spaces_and_escapes() {
        let value = json!({"id": "ƒ1", "list": [1, 2.0, null], "s": "a\"\n😀"});
        insta::assert_snapshot!(dumps(&value), @r#"{"id": "\u01921", "list": [1, 2.0, null], "s": "a\"\n\ud83d\ude00"}"#);
        insta::assert_snapshot!(dumps_utf8(&value), @r#"{"id": "ƒ1", "list": [1, 2.0, null], "s": "a\"\n😀"}"#);
    }
}
