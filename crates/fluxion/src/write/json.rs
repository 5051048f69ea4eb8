//! JSON text with a space after commas and colons, as other writers of R make it.

use std::fmt::Write;

/// Appends a string with its quotes.
pub(super) fn push_string(out: &mut String, text: &str) {
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
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends `"key": `, after a comma unless it is the first of an object.
pub(super) fn push_key(out: &mut String, key: &str) {
    if !out.ends_with(['{', '[']) {
        out.push_str(", ");
    }
    push_string(out, key);
    out.push_str(": ");
}

/// Appends a member that is a text.
pub(super) fn push_text(out: &mut String, key: &str, text: &str) {
    push_key(out, key);
    push_string(out, text);
}

/// Appends a member that is a number.
pub(super) fn push_number(out: &mut String, key: &str, number: i64) {
    push_key(out, key);
    let _ = write!(out, "{number}");
}
