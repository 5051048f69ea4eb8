//! Resource events: the entries of the resource eventlog and journal, RFC 44.
//!
//! [`ResourceEvent`] is made from an [`crate::Event`] and back. Keys that the RFC does not name are
//! kept in `extra`, events it does not name in [`ResourceEvent::Other`], so that reading and
//! writing a log of a newer version loses nothing.
//!
//! ```
//! use formats::{Event, resource_event::ResourceEvent};
//!
//! let line = r#"{"timestamp":1.0,"name":"drain","context":{"idset":"0-1","nodelist":"n[0-1]","overwrite":0,"by":7}}"#;
//! let event = Event::decode(line)?;
//! let ResourceEvent::Drain(drain) = ResourceEvent::try_from(&event)? else { panic!() };
//! assert_eq!((drain.idset.len(), &drain.reason), (2, &None));
//! assert_eq!(ResourceEvent::Drain(drain).to_event(1.0).encode().trim_end(), line);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::event_enum::event_enum;
pub use crate::event_enum::{EventError, Other, Plain};
use crate::{Hostlist, Idset};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

event_enum! {
    /// An event of the resource service.
    ResourceEvent {
        Restart(Restart) = "restart",
        ResourceDefine(ResourceDefine) = "resource-define",
        ResourceUpdate(ResourceUpdate) = "resource-update",
        Drain(Drain) = "drain",
        Undrain(Drain) = "undrain",
        Online(Targets) = "online",
        Offline(Targets) = "offline",
        Torpid(Targets) = "torpid",
        Lively(Targets) = "lively",
        /// Events up to this time were dropped from the journal.
        Truncate(Plain) = "truncate",
    }
}

/// The resource service has started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// All execution targets of the instance.
    pub ranks: Idset,
    /// Those that are there.
    pub online: Idset,
    /// Their hosts, in the order of ranks.
    pub nodelist: Hostlist,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The resource set has been defined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceDefine {
    /// Where R came from.
    pub method: Method,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How the resource set was acquired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// The configuration.
    Configuration,
    /// Brokers looked at their nodes.
    DynamicDiscovery,
    /// Somebody gave it.
    Reload,
    /// The enclosing instance.
    JobInfo,
    /// The key-value store, from an earlier start.
    Kvs,
    /// Another word.
    Other(String),
}

/// The time limit of the resource set has changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceUpdate {
    /// Seconds since the epoch; 0 is no limit.
    pub expiration: f64,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Targets were drained or undrained.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// Their ranks.
    pub idset: Idset,
    /// The hosts of the targets. The RFC requires it; logs of old instances do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodelist: Option<Hostlist>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it does to those drained already.
    #[serde(default)]
    pub overwrite: Overwrite,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a drain changes of targets that are drained already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// They stay as they are.
    #[default]
    Nothing,
    /// They get the new reason.
    Reason,
    /// They get the new reason and time.
    ReasonAndTime,
}

/// The state of targets has changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// Their ranks.
    pub idset: Idset,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Method {
    /// The word in the event.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Configuration => "configuration",
            Method::DynamicDiscovery => "dynamic-discovery",
            Method::Reload => "reload",
            Method::JobInfo => "job-info",
            Method::Kvs => "kvs",
            Method::Other(name) => name,
        }
    }
}

impl From<&str> for Method {
    fn from(name: &str) -> Method {
        match name {
            "configuration" => Method::Configuration,
            "dynamic-discovery" => Method::DynamicDiscovery,
            "reload" => Method::Reload,
            "job-info" => Method::JobInfo,
            "kvs" => Method::Kvs,
            name => Method::Other(name.to_owned()),
        }
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Method, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Ok(Method::from(&*name))
    }
}

impl Serialize for Overwrite {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for Overwrite {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Overwrite, D::Error> {
        match i64::deserialize(d)? {
            0 => Ok(Overwrite::Nothing),
            1 => Ok(Overwrite::Reason),
            2 => Ok(Overwrite::ReasonAndTime),
            n => Err(serde::de::Error::custom(format!(
                "overwrite must be 0, 1 or 2, found {n}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    /// The examples of RFC 44, and what may come besides.
    #[test]
    fn logs_are_written_as_they_were_read() {
        for (name, context) in [
            (
                "restart",
                r#"{"ranks":"0-3","online":"","nodelist":"picl[0-3]"}"#,
            ),
            ("resource-define", r#"{"method":"configuration"}"#),
            ("resource-define", r#"{"method":"magic","wand":1}"#),
            ("resource-update", r#"{"expiration":1738009133.0}"#),
            (
                "drain",
                r#"{"idset":"0","nodelist":"picl0","reason":"unkillable processes for job ƒ4zX8UnMMxj","overwrite":0}"#,
            ),
            (
                "undrain",
                r#"{"idset":"0","nodelist":"picl0","reason":"node was rebooted","overwrite":2}"#,
            ),
            ("online", r#"{"idset":"1-15"}"#),
            ("offline", r#"{"idset":"12","why":{"who":["knows"]}}"#),
            ("torpid", r#"{"idset":"7"}"#),
            ("lively", r#"{"idset":"7"}"#),
            ("party", r#"{"guests":[]}"#),
        ] {
            let line = format!(r#"{{"timestamp":1.5,"name":"{name}","context":{context}}}"#) + "\n";
            let typed = ResourceEvent::try_from(&Event::decode(&line).unwrap()).unwrap();
            assert_eq!(typed.name(), name);
            assert_eq!(matches!(typed, ResourceEvent::Other(_)), name == "party");
            assert_eq!(typed.to_event(1.5).encode(), line);
        }
        let event = Event::new(2., "truncate");
        let typed = ResourceEvent::try_from(&event).unwrap();
        assert_eq!(
            (&typed, typed.to_event(2.)),
            (&ResourceEvent::Truncate(Plain::default()), event)
        );
    }

    #[test]
    fn faults() {
        let fails = |name: &str, context: Value| {
            let event = Event::new(0., name).with_context(context);
            ResourceEvent::try_from(&event).unwrap_err().to_string()
        };
        insta::assert_snapshot!([
            fails("restart", serde_json::json!({"ranks": "0"})),
            fails("drain", serde_json::json!({"idset": "0", "overwrite": 3})),
            fails("online", serde_json::json!({"idset": "1-0"})),
            fails("resource-define", Value::Null),
        ].join("\n"), @r"
        event restart: missing field `online`
        event drain: overwrite must be 0, 1 or 2, found 3
        event online: idset '1-0': '1-0' is not an id or a range such as 2-5
        event resource-define: missing field `method`
        ");
    }
}
