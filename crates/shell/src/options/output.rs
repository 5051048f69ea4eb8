//! Options `output.*`: where the tasks' streams go, and how.

use super::{bad, flag};
use crate::{Fatal, info::JobInfo, template};
use serde_json::Value;

/// Where a stream of the tasks goes.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamOptions {
    /// The template of a file's path; without one the stream goes to the KVS.
    pub path: Option<String>,
    /// The path differs by node or task, so every shell writes its own files.
    pub per_shell: bool,
    pub label: bool,
    pub append: bool,
    pub line_buffered: bool,
}

/// All of `output`.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputOptions {
    pub stdout: StreamOptions,
    pub stderr: StreamOptions,
    /// Bytes of each stream the KVS takes; `None` is the default.
    pub limit: Option<u64>,
}

/// The greatest `output.limit`.
const LIMIT_MAX: u64 = 1 << 30;

pub(super) fn read(info: &JobInfo, remarks: &mut Vec<String>) -> Result<OutputOptions, Fatal> {
    let get = |path| info.jobspec.shell_option(path);
    check_window(get("output.client"))?;
    let append = match get("output.mode") {
        None => false,
        Some(mode) if mode == "truncate" => false,
        Some(mode) if mode == "append" => true,
        Some(mode) => {
            let mode = plain(mode);
            remarks.push(format!(
                "ignoring invalid output.mode={mode}: files are truncated"
            ));
            false
        }
    };
    let stdout = StreamOptions {
        path: None,
        per_shell: false,
        label: false,
        append,
        line_buffered: true,
    };
    let stdout = stream(info, "stdout", stdout, remarks)?;
    // What is said of stdout holds for stderr too, except how it is buffered.
    let stderr = StreamOptions {
        line_buffered: false,
        ..stdout.clone()
    };
    let stderr = stream(info, "stderr", stderr, remarks)?;
    let limit = get("output.limit").map(|value| {
        let size = size(value).filter(|n| (1..=LIMIT_MAX).contains(n));
        size.ok_or_else(|| bad("output.limit", value, "a size from 1 to 1G"))
    });
    let limit = limit.transpose()?;
    Ok(OutputOptions {
        stdout,
        stderr,
        limit,
    })
}

/// What is on its way to the leader is bounded by bytes: marks in entries are checked, and not needed.
fn check_window(client: Option<&Value>) -> Result<(), Fatal> {
    let mark = |key: &str, default: i64| match client.and_then(|c| c.get(key)) {
        None => Ok(default),
        Some(value) => value.as_i64().filter(|n| *n >= 0).ok_or_else(|| {
            bad(
                &format!("output.client.{key}"),
                value,
                "a number of entries",
            )
        }),
    };
    let (low, high) = (mark("lwm", 100)?, mark("hwm", 1000)?);
    if low >= high {
        return Err(Fatal::new(format!(
            "shell option output.client.lwm={low} must be below output.client.hwm={high}"
        )));
    }
    Ok(())
}

/// A value as users write it.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A size as a number or as text.
pub(super) fn size(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| parse_size(value.as_str()?))
}

/// A size such as `10M`.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    let number: f64 = digits.parse().ok().filter(|n| *n >= 0.)?;
    Some((number * scale as f64) as u64)
}

fn stream(
    info: &JobInfo,
    name: &str,
    mut base: StreamOptions,
    remarks: &mut Vec<String>,
) -> Result<StreamOptions, Fatal> {
    let Some(option) = info
        .jobspec
        .shell_option("output")
        .and_then(|o| o.get(name))
    else {
        return Ok(base);
    };
    let place = |key: &str| format!("output.{name}.{key}");
    let text = |key: &str| match option.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(bad(&place(key), other, "a string")),
    };
    if let Some(label) = option.get("label") {
        base.label = flag(Some(label));
    }
    if let Some(kind) = option.get("buffer").and_then(|b| b.get("type")) {
        match plain(kind).to_ascii_lowercase().as_str() {
            "none" => base.line_buffered = false,
            "line" => base.line_buffered = true,
            other => remarks.push(format!(
                "{}: invalid buffer type {other}: there are none and line",
                place("buffer.type")
            )),
        }
    }
    if text("type")?.as_deref() == Some("kvs") {
        base.path = None;
        base.per_shell = false;
    } else if let Some(path) = text("path")? {
        base.per_shell = template::is_per_rank(info, &path);
        base.path = Some(path);
    }
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn windows() {
        let check = |client: Value| check_window(Some(&client)).map_err(|e| e.message);
        assert_eq!(check_window(None).map_err(|e| e.message), Ok(()));
        assert_eq!(check(json!({"lwm": 0, "hwm": 1})), Ok(()));
        for bad in [
            json!({"lwm": -1}),
            json!({"hwm": -1}),
            json!({"hwm": "x"}),
            json!({"hwm": 100}),
            json!({"lwm": 1, "hwm": 1}),
        ] {
            assert!(check(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("2K", Some(2048)),
            ("1.5m", Some(3 << 19)),
            ("7", Some(7)),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}
