//! Configuration of garbage collection: keys of the table `kvs`.

use std::time::Duration;

use client::RpcError;
use serde_json::Value;

/// When garbage is collected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::module) struct Settings {
    /// `gc-automatic`: without being asked.
    pub(super) automatic: bool,
    /// `gc-grace`: what nothing has referred to for so long may go.
    pub(super) grace: Duration,
    /// `gc-growth`: how much of what is live may be stored anew before garbage is looked for.
    pub(super) growth: f64,
    /// `gc-minimum`: bytes that are stored before garbage is looked for at all.
    pub(super) minimum: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            automatic: true,
            grace: Duration::from_secs(600),
            growth: 0.5,
            minimum: 64 << 20,
        }
    }
}

impl Settings {
    pub(in crate::module) fn parse(config: &Value) -> Result<Settings, RpcError> {
        let mut settings = Settings::default();
        // Another part says so if it is no table.
        let Some(table) = config["kvs"].as_object() else {
            return Ok(settings);
        };
        let invalid = |key: &str, expected: &str, found: &Value| {
            let text = format!("configuration: kvs.{key} must be {expected}, found {found}");
            RpcError::explained(libc::EINVAL, text)
        };
        if let Some(value) = table.get("gc-automatic") {
            let flag = value.as_bool();
            settings.automatic =
                flag.ok_or_else(|| invalid("gc-automatic", "true or false", value))?;
        }
        if let Some(value) = table.get("gc-grace") {
            let grace = value.as_str().and_then(duration);
            settings.grace =
                grace.ok_or_else(|| invalid("gc-grace", "a duration like \"10m\"", value))?;
        }
        if let Some(value) = table.get("gc-growth") {
            let growth = value.as_f64().filter(|g| *g > 0.);
            settings.growth =
                growth.ok_or_else(|| invalid("gc-growth", "a number above 0", value))?;
        }
        if let Some(value) = table.get("gc-minimum") {
            let minimum = value.as_u64().or_else(|| bytes(value.as_str()?));
            settings.minimum = minimum
                .ok_or_else(|| invalid("gc-minimum", "a number of bytes like \"64M\"", value))?;
        }
        Ok(settings)
    }
}

fn duration(text: &str) -> Option<Duration> {
    let seconds = formats::fsd::parse(text).ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'M') => (&text[..at], 20),
        (at, 'G') => (&text[..at], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings() {
        let read =
            |table: Value| Settings::parse(&json!({ "kvs": table })).map_err(|e| e.to_string());
        assert_eq!(read(json!({})), Ok(Settings::default()));
        assert_eq!(
            Settings::parse(&Value::Null).ok(),
            Some(Settings::default())
        );
        let all = json!({
            "gc-automatic": false, "gc-grace": "2m", "gc-growth": 2, "gc-minimum": "3k",
        });
        let expected = Settings {
            automatic: false,
            grace: Duration::from_secs(120),
            growth: 2.,
            minimum: 3072,
        };
        assert_eq!(read(all), Ok(expected));
        assert_eq!(read(json!({"gc-minimum": 7})).unwrap().minimum, 7);
        let errors = [
            json!({"gc-automatic": 1}),
            json!({"gc-grace": 60}),
            json!({"gc-grace": "infinity"}),
            json!({"gc-growth": 0}),
            json!({"gc-minimum": "lots"}),
        ];
        insta::assert_snapshot!(errors.map(|t| read(t).unwrap_err()).join("\n"), @r#"
        Invalid argument: configuration: kvs.gc-automatic must be true or false, found 1
        Invalid argument: configuration: kvs.gc-grace must be a duration like "10m", found 60
        Invalid argument: configuration: kvs.gc-grace must be a duration like "10m", found "infinity"
        Invalid argument: configuration: kvs.gc-growth must be a number above 0, found 0
        Invalid argument: configuration: kvs.gc-minimum must be a number of bytes like "64M", found "lots"
        "#);
    }
}
