//! Resource events: the entries of the resource eventlog and journal, RFC 44.
//!
//! One variant for each event with a struct of its context. Members that the RFC does not define
//! are kept in `extra`, and events it does not define in [`ResourceEvent::Unknown`], so that
//! reading and writing a log of a newer version loses nothing.

use crate::{Event, Hostlist, Idset};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Value};

/// An event of the resource service.
///
/// ```
/// use formats::{Event, resource_event::ResourceEvent};
///
/// let line = r#"{"timestamp":1.0,"name":"drain","context":{"idset":"0-1","nodelist":"n[0-1]","overwrite":0,"by":7}}"#;
/// let event = Event::decode(line)?;
/// let ResourceEvent::Drain(drain) = ResourceEvent::try_from(&event)? else { panic!() };
/// assert_eq!((drain.idset.len(), &drain.reason), (2, &None));
/// assert_eq!(ResourceEvent::Drain(drain).to_event(1.0).encode().trim_end(), line);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum ResourceEvent {
    Restart(Restart),
    ResourceDefine(ResourceDefine),
    ResourceUpdate(ResourceUpdate),
    Drain(Drain),
    Undrain(Drain),
    Online(Targets),
    Offline(Targets),
    Torpid(Targets),
    Lively(Targets),
    /// Events up to this time were dropped from the journal.
    Truncate,
    Unknown {
        name: String,
        context: Option<Map<String, Value>>,
    },
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
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The resource set has been defined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceDefine {
    pub method: Method,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How the resource set was acquired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    Configuration,
    DynamicDiscovery,
    Reload,
    JobInfo,
    Kvs,
    Other(String),
}

/// The time limit of the resource set has changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceUpdate {
    /// Seconds since the epoch; 0 is no limit.
    pub expiration: f64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Targets were drained or undrained.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    pub idset: Idset,
    /// The hosts of the targets. The RFC requires it; logs of old instances do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodelist: Option<Hostlist>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default)]
    pub overwrite: Overwrite,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a drain changes of targets that are drained already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overwrite {
    #[default]
    Nothing,
    Reason,
    ReasonAndTime,
}

/// The state of targets has changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    pub idset: Idset,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Why an event does not have the context its name demands.
#[derive(Debug, thiserror::Error)]
#[error("resource event {name}: context: {source}")]
pub struct ResourceEventError {
    pub name: String,
    pub source: serde_json::Error,
}

impl Method {
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

impl TryFrom<&Event> for ResourceEvent {
    type Error = ResourceEventError;

    fn try_from(event: &Event) -> Result<ResourceEvent, ResourceEventError> {
        fn read<T: DeserializeOwned>(event: &Event) -> Result<T, ResourceEventError> {
            let context = event.context.clone().unwrap_or_default();
            T::deserialize(Value::Object(context)).map_err(|source| ResourceEventError {
                name: event.name.clone(),
                source,
            })
        }

        Ok(match event.name.as_str() {
            "restart" => ResourceEvent::Restart(read(event)?),
            "resource-define" => ResourceEvent::ResourceDefine(read(event)?),
            "resource-update" => ResourceEvent::ResourceUpdate(read(event)?),
            "drain" => ResourceEvent::Drain(read(event)?),
            "undrain" => ResourceEvent::Undrain(read(event)?),
            "online" => ResourceEvent::Online(read(event)?),
            "offline" => ResourceEvent::Offline(read(event)?),
            "torpid" => ResourceEvent::Torpid(read(event)?),
            "lively" => ResourceEvent::Lively(read(event)?),
            "truncate" => ResourceEvent::Truncate,
            name => ResourceEvent::Unknown {
                name: name.to_owned(),
                context: event.context.clone(),
            },
        })
    }
}

impl ResourceEvent {
    /// The event's name in the log.
    pub fn name(&self) -> &str {
        match self {
            ResourceEvent::Restart(_) => "restart",
            ResourceEvent::ResourceDefine(_) => "resource-define",
            ResourceEvent::ResourceUpdate(_) => "resource-update",
            ResourceEvent::Drain(_) => "drain",
            ResourceEvent::Undrain(_) => "undrain",
            ResourceEvent::Online(_) => "online",
            ResourceEvent::Offline(_) => "offline",
            ResourceEvent::Torpid(_) => "torpid",
            ResourceEvent::Lively(_) => "lively",
            ResourceEvent::Truncate => "truncate",
            ResourceEvent::Unknown { name, .. } => name,
        }
    }

    /// The log entry of the event.
    pub fn to_event(&self, timestamp: f64) -> Event {
        fn context(value: impl Serialize) -> Option<Map<String, Value>> {
            match serde_json::to_value(value).expect("contexts hold only JSON values") {
                Value::Object(map) => Some(map),
                _ => None,
            }
        }

        let mut event = Event::new(timestamp, self.name());
        event.context = match self {
            ResourceEvent::Restart(c) => context(c),
            ResourceEvent::ResourceDefine(c) => context(c),
            ResourceEvent::ResourceUpdate(c) => context(c),
            ResourceEvent::Drain(c) | ResourceEvent::Undrain(c) => context(c),
            ResourceEvent::Online(c)
            | ResourceEvent::Offline(c)
            | ResourceEvent::Torpid(c)
            | ResourceEvent::Lively(c) => context(c),
            ResourceEvent::Truncate => None,
            ResourceEvent::Unknown { context, .. } => context.clone(),
        };
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(
                matches!(typed, ResourceEvent::Unknown { .. }),
                name == "party"
            );
            assert_eq!(typed.to_event(1.5).encode(), line);
        }
        let event = Event::new(2., "truncate");
        let typed = ResourceEvent::try_from(&event).unwrap();
        assert_eq!(
            (&typed, typed.to_event(2.)),
            (&ResourceEvent::Truncate, event)
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
        resource event restart: context: missing field `online`
        resource event drain: context: overwrite must be 0, 1 or 2, found 3
        resource event online: context: idset '1-0': '1-0' is not an id or a range such as 2-5
        resource event resource-define: context: missing field `method`
        ");
    }
}
