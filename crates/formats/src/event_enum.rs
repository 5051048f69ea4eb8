//! Typed events over [`crate::Event`]: one struct per event name, unknown names and keys kept.

use serde_json::{Map, Value};

/// The context of an event does not fit its name.
#[derive(Debug, thiserror::Error)]
#[error("event {name}: {source}")]
pub struct EventError {
    /// Of the event.
    pub name: String,
    /// What does not fit.
    #[source]
    pub source: serde_json::Error,
}

/// An event of a name that is not known here, or one that keeps its context as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Other {
    /// As in the log.
    pub name: String,
    /// As in the log.
    pub context: Option<Map<String, Value>>,
}

/// The context of an event for which none is defined. What is there nevertheless is kept.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Plain {
    /// The context as it is.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Reads a context; a missing one is an empty one.
pub(crate) fn read<T: serde::de::DeserializeOwned>(event: &crate::Event) -> Result<T, EventError> {
    let result = match &event.context {
        Some(context) => T::deserialize(context),
        None => T::deserialize(&Map::new()),
    };
    result.map_err(|source| EventError {
        name: event.name.clone(),
        source,
    })
}

/// Writes a context; an empty one is left out.
pub(crate) fn write(context: &impl serde::Serialize) -> Option<Map<String, Value>> {
    match serde_json::to_value(context) {
        Ok(Value::Object(map)) if !map.is_empty() => Some(map),
        _ => None,
    }
}

/// Defines an enum of events with its readings from and writings to [`crate::Event`].
macro_rules! event_enum {
    ($(#[$doc:meta])* $enum:ident { $($(#[$vdoc:meta])* $variant:ident($context:ty) = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $enum {
            $(
                #[doc = concat!("`", $name, "`.")]
                $(#[$vdoc])*
                $variant($context),
            )*
            /// An event of another name.
            Other($crate::event_enum::Other),
        }

        impl TryFrom<&$crate::Event> for $enum {
            type Error = $crate::event_enum::EventError;

            fn try_from(event: &$crate::Event) -> Result<$enum, Self::Error> {
                Ok(match event.name.as_str() {
                    $($name => $enum::$variant($crate::event_enum::read(event)?),)*
                    _ => $enum::Other($crate::event_enum::Other {
                        name: event.name.clone(),
                        context: event.context.clone(),
                    }),
                })
            }
        }

        impl $enum {
            /// The name of the event.
            pub fn name(&self) -> &str {
                match self {
                    $($enum::$variant(_) => $name,)*
                    $enum::Other(other) => &other.name,
                }
            }

            /// The entry of an eventlog; `timestamp` is in seconds since the Unix epoch.
            pub fn to_event(&self, timestamp: f64) -> $crate::Event {
                let context = match self {
                    $($enum::$variant(context) => $crate::event_enum::write(context),)*
                    $enum::Other(other) => other.context.clone(),
                };
                $crate::Event {
                    timestamp,
                    name: self.name().to_owned(),
                    context,
                }
            }
        }
    };
}

pub(crate) use event_enum;
