//! The `[resource]` table of the configuration.

use std::path::PathBuf;
use std::sync::Arc;

use formats::ResourceSet;
use formats::resource_set::verify;
use serde::Deserialize;
use serde_json::{Value, json};

/// The table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceConfig {
    /// File that holds R.
    pub path: Option<PathBuf>,
    /// File that holds the scheduler's part of R.
    pub scheduling: Option<PathBuf>,
    /// Resources written out.
    pub config: Option<Value>,
    /// Targets no scheduler may use.
    pub exclude: Option<String>,
    #[serde(default)]
    pub norestrict: bool,
    #[serde(default)]
    pub noverify: bool,
    pub verify: Option<Value>,
    /// Discover local resources also under an enclosing instance.
    #[serde(default)]
    pub rediscover: bool,
    #[serde(default, rename = "no-update-watch")]
    pub no_update_watch: bool,
    #[serde(rename = "journal-max")]
    pub journal_max: Option<usize>,
    pub history: Option<String>,
}

/// Why the table does not define resources.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration table [resource]: {0}")]
    Table(#[from] serde_json::Error),
    #[error("configuration key resource.{key}: {path}: {source}")]
    Read {
        key: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("configuration key resource.{key}: {path}: {source}")]
    Json {
        key: &'static str,
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("configuration key resource.path: {path}: {source}")]
    R {
        path: PathBuf,
        source: formats::resource_set::ResourceSetError,
    },
    #[error("configuration key {0}")]
    Config(#[from] formats::resource_set::config::ConfigError),
    #[error("configuration key resource.{0}")]
    Verify(verify::ConfigError),
    #[error("resource.scheduling requires resource.path or [[resource.config]]")]
    SchedulingAlone,
}

impl ResourceConfig {
    /// The table in a whole configuration; an absent one is empty.
    pub fn from_config(config: &Value) -> Result<ResourceConfig, ConfigError> {
        match config.get("resource") {
            Some(table) => Ok(serde_json::from_value(table.clone())?),
            None => Ok(ResourceConfig::default()),
        }
    }

    /// How ranks are compared with what is defined of them; nothing if they are not. Without a table more cores are no error,
    /// and GPUs are not looked at.
    pub fn verification(&self) -> Result<Option<verify::Config>, ConfigError> {
        if self.noverify {
            return Ok(None);
        }
        let usual = json!({ "default": "allow-extra", "gpu": "ignore", "hostname": "strict" });
        let table = self.verify.as_ref().unwrap_or(&usual);
        let config = verify::Config::from_value(table);
        config.map(Some).map_err(ConfigError::Verify)
    }

    /// The resource set the configuration defines, if it defines one.
    pub fn resources(&self) -> Result<Option<ResourceSet>, ConfigError> {
        let mut set = match (&self.config, &self.path) {
            (Some(entries), _) => ResourceSet::from_config(entries)?,
            (None, Some(path)) => {
                let value = read_json("path", path)?;
                ResourceSet::try_from(value).map_err(|source| ConfigError::R {
                    path: path.clone(),
                    source,
                })?
            }
            (None, None) if self.scheduling.is_some() => return Err(ConfigError::SchedulingAlone),
            (None, None) => return Ok(None),
        };
        if let Some(path) = &self.scheduling {
            set.scheduling = Some(Arc::new(read_json("scheduling", path)?));
        }
        Ok(Some(set))
    }
}

fn read_json(key: &'static str, path: &PathBuf) -> Result<Value, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        key,
        path: path.clone(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| ConfigError::Json {
        key,
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_become_a_resource_set() {
        let config = json!({"resource": {"noverify": true, "exclude": "0", "config": [
            {"hosts": "n[0-2]", "cores": "0-3"},
            {"hosts": "n[1-2]", "gpus": "0-1", "properties": ["big"]},
        ]}});
        let table = ResourceConfig::from_config(&config).unwrap();
        let set = table.resources().unwrap().unwrap();
        insta::assert_snapshot!(serde_json::to_string(&set).unwrap(), @r#"{"version":1,"execution":{"R_lite":[{"rank":"0","children":{"core":"0-3"}},{"rank":"1-2","children":{"core":"0-3","gpu":"0-1"}}],"starttime":0.0,"expiration":0.0,"nodelist":["n[0-2]"],"properties":{"big":"1-2"}}}"#);
        assert!(
            ResourceConfig::from_config(&json!({}))
                .unwrap()
                .resources()
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn mistakes_are_named() {
        let bad = |table: Value| {
            ResourceConfig::from_config(&json!({ "resource": table }))
                .and_then(|t| t.resources())
                .unwrap_err()
                .to_string()
        };
        assert!(bad(json!({"paht": "x"})).contains("unknown field `paht`"));
        assert!(bad(json!({"path": "/no/such/file"})).contains("resource.path: /no/such/file"));
        assert!(
            bad(json!({"config": [{"hosts": "a"}]})).contains("resource.config: a assigned no")
        );
        assert!(bad(json!({"scheduling": "x"})).contains("requires resource.path"));
    }
}
