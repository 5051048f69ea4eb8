//! Whether a node has what it should have.
//!
//! The resource module compares what a broker discovers with what the set says of its rank.
//! Missing resources are an error; more than expected are worth a word only. Which types are
//! looked at, and how strictly, is configured as `resource.verify`.

use super::{Children, ResourceSet};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// How strictly one thing is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// What is there must be what is configured.
    #[default]
    Strict,
    /// More may be there.
    AllowExtra,
    /// Less may be there.
    AllowMissing,
    /// Nothing is compared.
    Ignore,
}

/// How strictly things are compared: the configuration key `resource.verify`.
///
/// ```
/// use formats::resource_set::verify::{Config, Mode};
///
/// let table = serde_json::json!({"default": "allow-extra", "hostname": "ignore"});
/// let config = Config::from_value(&table)?;
/// assert_eq!((config.mode("core"), config.mode("hostname")), (Mode::AllowExtra, Mode::Ignore));
/// # Ok::<(), formats::resource_set::verify::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    default: Mode,
    modes: BTreeMap<&'static str, Mode>,
}

/// Why a value is not a verification table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum ConfigError {
    #[error("verify must be a table or boolean")]
    Type,
    #[error("verify.{0}: mode must be a string")]
    ModeType(String),
    #[error(
        "verify.{key}: unknown verify mode '{mode}'; use strict, allow-extra, allow-missing or ignore"
    )]
    Mode { key: String, mode: String },
    #[error("verify: unsupported resource type: {0}; use default, hostname, core or gpu")]
    Kind(String),
}

/// The node does not have what it should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum Mismatch {
    #[error("Verification supported on single rank only")]
    NotOneRank,
    #[error("rank {0} not found in expected ranks")]
    UnknownRank(u32),
    #[error("rank {rank} got hostname '{found}', expected '{expected}'")]
    Host {
        rank: u32,
        found: String,
        expected: String,
    },
    #[error("rank {rank} ({host}) missing resources: {missing}")]
    Missing {
        rank: u32,
        host: String,
        missing: String,
    },
}

/// The node has more than it should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank} ({host}) has extra resources: {extra}")]
#[allow(missing_docs)] // their messages say it
pub struct Extra {
    pub rank: u32,
    pub host: String,
    pub extra: String,
}

impl Config {
    /// `true` is strict, `false` ignores all; a table gives modes by what they apply to.
    pub fn from_value(value: &Value) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let table = match value {
            Value::Bool(true) => return Ok(config),
            Value::Bool(false) => {
                config.default = Mode::Ignore;
                return Ok(config);
            }
            Value::Object(table) => table,
            _ => return Err(ConfigError::Type),
        };
        for (key, value) in table {
            let mode = value
                .as_str()
                .ok_or_else(|| ConfigError::ModeType(key.clone()))?;
            let mode = Mode::deserialize(value).map_err(|_| ConfigError::Mode {
                key: key.clone(),
                mode: mode.to_owned(),
            })?;
            let known = ["hostname", "core", "gpu"];
            match known.iter().find(|k| *k == key) {
                Some(kind) => drop(config.modes.insert(kind, mode)),
                None if key == "default" => config.default = mode,
                None => return Err(ConfigError::Kind(key.clone())),
            }
        }
        Ok(config)
    }

    /// The mode for `hostname`, `core` or `gpu`.
    pub fn mode(&self, kind: &str) -> Mode {
        self.modes.get(kind).copied().unwrap_or(self.default)
    }

    /// What of `children` counts when modes `free` do not look.
    fn relevant(&self, children: Children, free: Mode) -> Children {
        let looks = |kind| ![Mode::Ignore, free].contains(&self.mode(kind));
        Children {
            cores: if looks("core") {
                children.cores
            } else {
                Default::default()
            },
            gpus: if looks("gpu") {
                children.gpus
            } else {
                Default::default()
            },
            other: children.other,
        }
    }
}

/// Compares `found`, the resources of one rank, with what `expected` says of this rank. Hosts
/// are compared if both are known.
pub fn verify(
    expected: &ResourceSet,
    found: &ResourceSet,
    config: &Config,
) -> Result<Option<Extra>, Mismatch> {
    let [target] = found.targets() else {
        return Err(Mismatch::NotOneRank);
    };
    let rank = target.rank;
    let want = expected.get(rank).ok_or(Mismatch::UnknownRank(rank))?;
    let known = !want.host.is_empty() && !target.host.is_empty();
    if config.mode("hostname") == Mode::Strict && known && want.host != target.host {
        return Err(Mismatch::Host {
            rank,
            found: target.host.to_string(),
            expected: want.host.to_string(),
        });
    }
    let host = match target.host.as_str() {
        "" => "unknown".to_owned(),
        host => host.to_owned(),
    };
    let missing = want.children.difference(&target.children);
    let missing = config.relevant(missing, Mode::AllowMissing);
    if !missing.is_empty() {
        let missing = missing.to_string();
        return Err(Mismatch::Missing {
            rank,
            host,
            missing,
        });
    }
    let extra = target.children.difference(&want.children);
    let extra = config.relevant(extra, Mode::AllowExtra);
    Ok((!extra.is_empty()).then(|| Extra {
        rank,
        host,
        extra: extra.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Idset;
    use serde_json::json;

    fn node(rank: u32, host: &str, cores: &str, gpus: &str) -> ResourceSet {
        let mut set = ResourceSet::new();
        let ids = |text: &str| text.parse::<Idset>().unwrap();
        set.add(rank, host, &ids(cores), &ids(gpus));
        set
    }

    fn told(expected: &ResourceSet, found: &ResourceSet, config: Value) -> String {
        let config = Config::from_value(&config).unwrap();
        match verify(expected, found, &config) {
            Ok(None) => "ok".to_owned(),
            Ok(Some(extra)) => extra.to_string(),
            Err(e) => format!("error: {e}"),
        }
    }

    #[test]
    fn comparisons() {
        let want = node(0, "a", "0-3", "0").union(&node(1, "b", "0-3", ""));
        insta::assert_snapshot!([
            told(&want, &node(0, "a", "0-3", "0"), json!(true)),
            told(&want, &node(0, "", "0-3", "0"), json!({})),
            told(&want, &node(0, "a", "0-5", "0-1"), json!({})),
            told(&want, &node(0, "a", "0-5", "0-1"), json!({"gpu": "allow-extra"})),
            told(&want, &node(0, "a", "2-5", ""), json!({})),
            told(&want, &node(0, "a", "2-5", ""), json!({"default": "allow-missing"})),
            told(&want, &node(0, "a", "2-5", ""), json!({"core": "ignore", "gpu": "ignore"})),
            told(&want, &node(0, "b", "0-3", "0"), json!({})),
            told(&want, &node(0, "b", "", "1"), json!(false)),
            told(&want, &node(7, "b", "0", ""), json!({})),
            told(&want, &want, json!({})),
        ].join("\n"), @r"
        ok
        ok
        rank 0 (a) has extra resources: core[4-5],gpu1
        rank 0 (a) has extra resources: core[4-5]
        error: rank 0 (a) missing resources: core[0-1],gpu0
        rank 0 (a) has extra resources: core[4-5]
        ok
        error: rank 0 got hostname 'b', expected 'a'
        ok
        error: rank 7 not found in expected ranks
        error: Verification supported on single rank only
        ");
    }

    #[test]
    fn tables_are_checked() {
        let fails = |v: Value| Config::from_value(&v).unwrap_err().to_string();
        insta::assert_snapshot!(
            [json!(1), json!({"core": 1}), json!({"gpu": "x"}), json!({"disk": "strict"})]
                .map(fails).join("\n"),
            @r"
        verify must be a table or boolean
        verify.core: mode must be a string
        verify.gpu: unknown verify mode 'x'; use strict, allow-extra, allow-missing or ignore
        verify: unsupported resource type: disk; use default, hostname, core or gpu
        "
        );
    }
}
