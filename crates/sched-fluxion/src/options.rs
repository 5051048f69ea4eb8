//! What configuration and arguments say about the graph.

use serde_json::{Map, Value, json};

use client::module::ModuleError;
use client::{Handle, Node};
use fluxion::{read, write};

/// How the graph is made and searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file that has the graph; otherwise it comes from the instance's R.
    pub load_file: Option<String>,
    /// A name of [`read::Format`].
    pub load_format: String,
    /// Types to read, with commas.
    pub load_allowlist: Option<String>,
    /// The match policy.
    pub policy: String,
    /// A name of [`write::Format`].
    pub match_format: String,
    /// The subsystem that is searched.
    pub subsystems: String,
    /// How many vertices to expect. Says nothing here.
    pub reserve: u64,
    /// What is counted where.
    pub prune_filters: String,
    /// For how many seconds what is allocated may be told from memory.
    pub update_interval: u64,
    /// "simple" or "flexible".
    pub traverser: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            load_file: None,
            load_format: "rv1exec".into(),
            load_allowlist: None,
            policy: "first".into(),
            match_format: "rv1_nosched".into(),
            subsystems: "containment".into(),
            reserve: 0,
            prune_filters: "ALL:core,ALL:node".into(),
            update_interval: 0,
            traverser: "simple".into(),
        }
    }
}

/// The largest number an option may have.
const MOST: u64 = 2_000_000;

/// A number, or what was there if it is not one.
fn number(text: &str, before: u64) -> u64 {
    match text.parse() {
        Ok(n) if (1..=MOST).contains(&n) => n,
        _ => before,
    }
}

/// A value of a configuration as an argument has it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The broker's configuration.
pub(crate) async fn configuration(handle: &Handle) -> Result<Value, ModuleError> {
    Ok(handle.call("config.get", Node::Any, &json!({})).await?)
}

/// The parts of `NAME=VALUE`.
pub(crate) fn argument(arg: &str) -> Result<(&str, &str), ModuleError> {
    arg.split_once('=')
        .ok_or_else(|| ModuleError::invalid(format!("{arg:?}: must be NAME=VALUE")))
}

impl Options {
    /// Reads a table of the configuration, then arguments, which go before it.
    pub fn read(config: &Value, table: &str, args: &[String]) -> Result<Options, ModuleError> {
        let mut options = Options::default();
        let empty = Map::new();
        let configured = config.get(table).map_or(Some(&empty), Value::as_object);
        let configured = configured
            .ok_or_else(|| ModuleError::invalid(format!("[{table}]: must be a table")))?;
        let mut filters = Vec::new();
        for (key, value) in configured {
            let wrong = |e| ModuleError::new(&format!("[{table}]"), e);
            options
                .set(key, &text(value), &mut filters)
                .map_err(wrong)?;
        }
        // What is logged is not up to this module.
        for arg in args.iter().filter(|arg| !arg.starts_with("log-level=")) {
            let (key, value) = argument(arg)?;
            let mut own = Vec::new();
            options.set(key, value, &mut own)?;
            if !own.is_empty() {
                filters = own;
            }
        }
        if !filters.is_empty() {
            options.prune_filters = filters.join(",");
        }
        Ok(options)
    }

    fn set(
        &mut self,
        key: &str,
        value: &str,
        filters: &mut Vec<String>,
    ) -> Result<(), ModuleError> {
        let unknown = |what: &str| ModuleError::invalid(format!("{key}: {value:?} is no {what}"));
        match key {
            "load-file" => self.load_file = Some(value.into()),
            "load-format" if read::Format::from_name(value).is_some() => {
                self.load_format = value.into()
            }
            "match-format" if write::Format::from_name(value).is_some() => {
                self.match_format = value.into()
            }
            // A format nobody knows leaves the default, as an unknown number does.
            "load-format" | "match-format" => {}
            "load-allowlist" => self.load_allowlist = Some(value.into()),
            "policy" | "match-policy" => {
                fluxion::matching::Policy::parse(value).map_err(|_| unknown("match policy"))?;
                self.policy = value.into();
            }
            "subsystems" => self.subsystems = value.into(),
            "reserve-vtx-vec" => self.reserve = number(value, self.reserve),
            "prune-filters" if !value.trim().is_empty() => filters.push(value.into()),
            "prune-filters" => {}
            "update-interval" => self.update_interval = number(value, self.update_interval),
            "traverser" if matches!(value, "simple" | "flexible") => self.traverser = value.into(),
            "traverser" => return Err(unknown("traverser")),
            _ => return Err(ModuleError::invalid(format!("{key}: unknown option"))),
        }
        Ok(())
    }

    /// The options as `params` tells them.
    pub fn to_value(&self) -> Value {
        json!({
            "load-file": self.load_file,
            "load-format": self.load_format,
            "load-allowlist": self.load_allowlist,
            "policy": self.policy,
            "match-format": self.match_format,
            "subsystems": self.subsystems,
            "reserve-vtx-vec": self.reserve,
            "prune-filters": self.prune_filters,
            "update-interval": self.update_interval,
            "traverser": self.traverser,
        })
    }

    /// The types to read; all if there are none.
    pub(crate) fn allowed(&self) -> Vec<&str> {
        let listed = self.load_allowlist.iter();
        listed.flat_map(|l| l.split(',')).collect()
    }

    /// For the graph.
    pub(crate) fn context(&self) -> fluxion::Options {
        fluxion::Options {
            policy: self.policy.clone(),
            prune: self.prune_filters.clone(),
            // Subsystems besides the first are for searches that name them.
            subsystem: self
                .subsystems
                .split([',', ':'])
                .next()
                .unwrap_or("containment")
                .into(),
            flexible: self.traverser == "flexible",
            ..fluxion::Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_go_before_configuration() {
        let config = json!({"t": {"match-policy": "lonodex", "reserve-vtx-vec": 200000, "prune-filters": "ALL:core,ALL:gpu"}});
        let read = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            Options::read(&config, "t", &args)
        };
        let options = read(&["policy=high", "match-format=rv1"]).unwrap();
        assert_eq!(options.policy, "high");
        assert_eq!(
            (options.match_format.as_str(), options.reserve),
            ("rv1", 200_000)
        );
        assert_eq!(options.prune_filters, "ALL:core,ALL:gpu");
        assert_eq!(
            read(&["prune-filters=ALL:core"]).unwrap().prune_filters,
            "ALL:core"
        );
        assert_eq!(
            read(&["match-format=x"]).unwrap().match_format,
            "rv1_nosched"
        );
        for bad in ["policy=foo", "traverser=x", "foo=1", "foo"] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
        assert_eq!(
            Options::read(&json!({}), "t", &[]).unwrap(),
            Options::default()
        );
    }
}
