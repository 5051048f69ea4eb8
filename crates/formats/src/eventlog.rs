//! Eventlogs: the append-only lists of JSON lines of RFC 18.
//!
//! One event is one compact JSON object and a newline, its keys in the order `timestamp`,
//! `name`, `context`. The context is kept as a JSON map because each event name defines its own;
//! [`crate::job_event`] and [`crate::exec_event`] give the contexts of jobs types. Other keys of an
//! entry are passed over.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// One entry of an eventlog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since the Unix epoch.
    pub timestamp: f64,
    /// What happened.
    pub name: String,
    /// What belongs to it; each name defines its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "object"
    )]
    pub context: Option<Map<String, Value>>,
}

/// Why text is not an eventlog (entry).
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum EventlogError {
    #[error("eventlog line {line}: {source}")]
    Json {
        line: usize,
        source: serde_json::Error,
    },
    #[error("eventlog line {line}: timestamp {timestamp} must not be negative")]
    Timestamp { line: usize, timestamp: f64 },
    #[error("eventlog line {line}: the last line does not end in a newline")]
    Unterminated { line: usize },
}

/// A context that is there is an object, not null.
fn object<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Map<String, Value>>, D::Error> {
    Map::deserialize(d).map(Some)
}

/// `t` as the seconds an event carries.
pub fn timestamp(t: SystemTime) -> f64 {
    t.duration_since(UNIX_EPOCH).map_or(0., |d| d.as_secs_f64())
}

impl Event {
    /// An event without context; `timestamp` is in seconds since the Unix epoch.
    pub fn new(timestamp: f64, name: impl Into<String>) -> Event {
        Event {
            timestamp,
            name: name.into(),
            context: None,
        }
    }

    /// Sets the context; anything but a JSON object leaves the event without one.
    pub fn with_context(mut self, context: Value) -> Event {
        self.context = match context {
            Value::Object(map) => Some(map),
            _ => None,
        };
        self
    }

    /// A member of the context.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.context.as_ref()?.get(key)
    }

    /// The entry as one line, newline included.
    pub fn encode(&self) -> String {
        let mut line = String::with_capacity(64);
        self.encode_to(&mut line);
        line
    }

    /// Appends the entry as one line to `log`.
    pub fn encode_to(&self, log: &mut String) {
        let line = serde_json::to_string(self).expect("an event holds only JSON values");
        log.push_str(&line);
        log.push('\n');
    }

    /// Parses one line, with or without its newline.
    pub fn decode(line: &str) -> Result<Event, EventlogError> {
        decode_line(line.strip_suffix('\n').unwrap_or(line), 1)
    }
}

fn decode_line(text: &str, line: usize) -> Result<Event, EventlogError> {
    let event: Event =
        serde_json::from_str(text).map_err(|source| EventlogError::Json { line, source })?;
    if event.timestamp < 0. {
        return Err(EventlogError::Timestamp {
            line,
            timestamp: event.timestamp,
        });
    }
    Ok(event)
}

/// Parses a whole log. Every line ends in a newline; an empty string is an empty log.
pub fn decode(log: &str) -> Result<Vec<Event>, EventlogError> {
    let mut events = Vec::new();
    for (i, text) in log.split_inclusive('\n').enumerate() {
        let line = i + 1;
        let text = text
            .strip_suffix('\n')
            .ok_or(EventlogError::Unterminated { line })?;
        events.push(decode_line(text, line)?);
    }
    Ok(events)
}

/// The text of a whole log.
pub fn encode<'a>(events: impl IntoIterator<Item = &'a Event>) -> String {
    let mut log = String::new();
    for event in events {
        event.encode_to(&mut log);
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const LOG: &str = concat!(
        r#"{"timestamp":1795387648.6772456,"name":"submit","context":{"userid":0,"urgency":16,"flags":0,"version":1}}"#,
        "\n",
        r#"{"timestamp":1795387648.6889274,"name":"validate"}"#,
        "\n",
    );

    #[test]
    fn keeps_the_text_of_a_log() {
        let events = decode(LOG).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].get("urgency"), Some(&json!(16)));
        assert_eq!(events[1].context, None);
        assert_eq!(encode(&events), LOG);
        assert!(decode("").unwrap().is_empty());
    }

    #[test]
    fn names_the_bad_line() {
        for (tail, want) in [
            (
                "{}\n",
                "eventlog line 3: missing field `timestamp` at line 1 column 2",
            ),
            (
                "{\"timestamp\":1,\"name\":\"a\",\"context\":null}\n",
                "eventlog line 3: invalid type: null, expected a map at line 1 column 40",
            ),
            (
                "{\"timestamp\":-1,\"name\":\"a\"}\n",
                "eventlog line 3: timestamp -1 must not be negative",
            ),
            (
                "{\"timestamp\":1,\"name\":\"a\"}",
                "eventlog line 3: the last line does not end in a newline",
            ),
        ] {
            assert_eq!(
                decode(&format!("{LOG}{tail}")).unwrap_err().to_string(),
                want
            );
        }
    }

    proptest! {
        #[test]
        fn entries_round_trip(t in 0f64..4e9, name in "[a-z.-]{1,12}", key in "[a-z]{1,4}", text: String, n: i64) {
            let event = Event::new(t, name).with_context(json!({ key: [text, n] }));
            let line = event.encode();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(Event::decode(&line).unwrap(), event);
        }
    }
}
