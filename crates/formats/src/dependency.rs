//! Job dependencies, RFC 26: `afterok:ƒ2oLkTLb`, `begin-time:1552594348`, `string:foo?type=out`.
//!
//! [`Dependency`] is what a jobspec holds; [`Dependency::requirement`] reads the schemes of the RFC.
//! Other schemes belong to plugins and are kept as they are.

use crate::JobId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{fmt, str::FromStr};

/// An entry of `attributes.system.dependencies`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    /// Says what the value means.
    pub scheme: String,
    /// Such as a job id.
    pub value: String,
    /// What else the scheme needs.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What must be before a job may run.
#[derive(Debug, Clone, PartialEq)]
pub enum Requirement {
    /// A job has come so far.
    Job(Condition, JobId),
    /// It is that time, in seconds since the Unix epoch.
    Time(f64),
    /// An OpenMP-style dependency on a name.
    Symbol(Symbol),
    /// A scheme of somebody else's.
    Other,
}

/// How far another job must have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// `after` and `afterstart`: it has started.
    After,
    /// `afterany`: it is inactive.
    AfterAny,
    /// `afterok`: it has succeeded.
    AfterOk,
    /// `afternotok`: it has run, and not succeeded.
    AfterNotOk,
    /// `afterexcept`: an exception has ended it.
    AfterExcept,
}

/// The schemes `string` and `fluid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Symbol {
    /// Whether the job depends on the name, others do on it, or both.
    #[serde(rename = "type")]
    pub direction: Direction,
    /// Whose jobs are meant.
    pub scope: Scope,
}

/// How a job uses a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It waits for jobs before it.
    In,
    /// Jobs after it wait for it.
    Out,
    /// Both.
    InOut,
}

/// Whose jobs share a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those of the same user.
    User,
    /// Everybody's.
    Global,
}

/// Why something is not a dependency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dependency '{text}': {why}")]
pub struct DependencyError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl Dependency {
    fn error(&self, why: impl Into<String>) -> DependencyError {
        DependencyError {
            text: self.to_string(),
            why: why.into(),
        }
    }

    /// The text that identifies it in events: `scheme=value`.
    pub fn description(&self) -> String {
        format!("{}={}", self.scheme, self.value)
    }

    /// What it asks for.
    pub fn requirement(&self) -> Result<Requirement, DependencyError> {
        let job = |condition| match self.value.parse() {
            Ok(id) => Ok(Requirement::Job(condition, id)),
            Err(_) => Err(self.error(format!("'{}' is not a job id", self.value))),
        };
        match self.scheme.as_str() {
            "after" | "afterstart" => job(Condition::After),
            "afterany" => job(Condition::AfterAny),
            "afterok" => job(Condition::AfterOk),
            "afternotok" => job(Condition::AfterNotOk),
            "afterexcept" => job(Condition::AfterExcept),
            "begin-time" => match self.value.parse::<f64>() {
                Ok(time) if time.is_finite() && time >= 0. => Ok(Requirement::Time(time)),
                _ => Err(self.error(format!("'{}' is not a time", self.value))),
            },
            "string" | "fluid" => {
                let symbol = Symbol::deserialize(&self.extra);
                let symbol = symbol.map_err(|e| self.error(e.to_string()))?;
                if self.scheme == "fluid" && self.value.parse::<JobId>().is_err() {
                    return Err(self.error(format!("'{}' is not a job id", self.value)));
                }
                Ok(Requirement::Symbol(symbol))
            }
            _ => Ok(Requirement::Other),
        }
    }
}

/// The form of the command line, `scheme:value[?key=value[&key=value…]]`. Numbers are numbers; a
/// key that comes again makes a list.
impl FromStr for Dependency {
    type Err = DependencyError;

    fn from_str(text: &str) -> Result<Dependency, DependencyError> {
        let fault = |why: &str| DependencyError {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        let (value, query) = rest.split_once('?').unwrap_or((rest, ""));
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"+-.".contains(&c);
        if scheme.is_empty() || !scheme.bytes().all(plain) {
            return Err(fault("a dependency is written SCHEME:VALUE[?KEY=VALUE…]"));
        }
        let mut extra = Map::new();
        for pair in query.split(['&', ';']).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| fault("what follows ? is KEY=VALUE, separated by &"))?;
            if ["scheme", "value"].contains(&key) {
                return Err(fault("'scheme' and 'value' cannot be set after ?"));
            }
            let value = match (value.parse::<i64>(), value.parse::<f64>()) {
                (Ok(n), _) => json!(n),
                (_, Ok(n)) if n.is_finite() => json!(n),
                _ => json!(value),
            };
            match extra.get_mut(key) {
                None => drop(extra.insert(key.to_owned(), value)),
                Some(Value::Array(list)) => list.push(value),
                Some(first) => *first = json!([first.take(), value]),
            }
        }
        Ok(Dependency {
            scheme: scheme.to_owned(),
            value: value.to_owned(),
            extra,
        })
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme, self.value)?;
        let mut separator = '?';
        for (key, value) in &self.extra {
            let values = match value {
                Value::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            };
            for value in values {
                match value {
                    Value::String(text) => write!(f, "{separator}{key}={text}")?,
                    other => write!(f, "{separator}{key}={other}")?,
                }
                separator = '&';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_rfc() {
        for (text, want) in [
            (
                "afterany:ƒ2oLkTLb",
                json!({"scheme": "afterany", "value": "ƒ2oLkTLb"}),
            ),
            (
                "string:foo?type=out",
                json!({"scheme": "string", "value": "foo", "type": "out"}),
            ),
            (
                "string:foo?type=out&n=1&n=2.5",
                json!({"scheme": "string", "value": "foo", "type": "out", "n": [1, 2.5]}),
            ),
            ("singleton", json!({"scheme": "singleton", "value": ""})),
        ] {
            let dependency: Dependency = text.parse().unwrap();
            assert_eq!(serde_json::to_value(&dependency).unwrap(), want);
            assert_eq!(dependency.to_string().parse(), Ok(dependency));
        }
    }

    #[test]
    fn requirements() {
        let of = |text: &str| text.parse::<Dependency>().unwrap().requirement();
        assert_eq!(
            of("after:ƒ2"),
            Ok(Requirement::Job(Condition::After, JobId(1)))
        );
        assert_eq!(of("begin-time:1.5"), Ok(Requirement::Time(1.5)));
        let symbol = Symbol {
            direction: Direction::InOut,
            scope: Scope::Global,
        };
        assert_eq!(
            of("string:x?type=inout&scope=global"),
            Ok(Requirement::Symbol(symbol))
        );
        assert_eq!(of("mine:x"), Ok(Requirement::Other));
    }

    #[test]
    fn faults_say_what_is_wrong() {
        for (text, want) in [
            (
                ":x",
                "dependency ':x': a dependency is written SCHEME:VALUE[?KEY=VALUE…]",
            ),
            (
                "a:b?c",
                "dependency 'a:b?c': what follows ? is KEY=VALUE, separated by &",
            ),
            (
                "a:b?value=1",
                "dependency 'a:b?value=1': 'scheme' and 'value' cannot be set after ?",
            ),
        ] {
            assert_eq!(text.parse::<Dependency>().unwrap_err().to_string(), want);
        }
        for (text, want) in [
            ("after:?", "dependency 'after:': '' is not a job id"),
            (
                "begin-time:soon",
                "dependency 'begin-time:soon': 'soon' is not a time",
            ),
            ("string:x", "dependency 'string:x': missing field `type`"),
        ] {
            let fault = text
                .parse::<Dependency>()
                .unwrap()
                .requirement()
                .unwrap_err();
            assert_eq!(fault.to_string(), want);
        }
    }
}
