//! What the configuration says to the job manager: the queues and their policy (RFC 33), and the table `job-manager`.

use formats::queues::Queues;
use serde::Deserialize;
use serde_json::Value;
use wire::{Message, RpcError};

use super::{Manager, housekeeping, perilog, purge};

/// The table `job-manager` (flux-config-job-manager(5)); keys of plugins are passed over.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Table {
    /// Started queues are stopped after a restart.
    #[serde(default)]
    pub(super) stop_queues_on_restart: bool,
    #[serde(flatten)]
    pub(super) purge: purge::Limits,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Config {
    pub(super) queues: Queues,
    pub(super) table: Table,
    pub(super) perilogs: perilog::Config,
    pub(super) housekeeping: Option<housekeeping::Config>,
    /// Guests learn of their own jobs alone (flux-config-access(5)).
    pub(super) is_private: bool,
}

impl Config {
    pub(super) fn parse(config: &Value) -> Result<Self, String> {
        let queues = Queues::from_config(config).map_err(|e| e.to_string())?;
        let table = match config.get("job-manager") {
            Some(table) => Table::deserialize(table).map_err(|e| format!("job-manager: {e}"))?,
            None => Table::default(),
        };
        let perilogs = perilog::parse(config)?;
        Ok(Self {
            queues,
            table,
            perilogs,
            housekeeping: housekeeping::parse(config)?,
            is_private: config["access"]["private-mode"].as_bool().unwrap_or(false),
        })
    }
}

impl Manager {
    /// `config-reload`: all is taken over, or nothing.
    pub(super) fn reload(&mut self, msg: &Message) -> Result<Value, RpcError> {
        msg.require_owner()?;
        let raw: Value = msg.json()?;
        let config = Config::parse(&raw).map_err(|why| RpcError::new(libc::EINVAL, why))?;
        self.configure_plugins(raw)?;
        self.queues.configure(config.queues);
        self.follow_queues();
        self.purge.limits = config.table.purge;
        self.keep_limits();
        self.perilogs.config = config.perilogs;
        self.housekeeping.config = config.housekeeping;
        self.is_private = config.is_private;
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables() {
        let config = json!({"queues": {"batch": {}}, "job-manager": {"stop-queues-on-restart": true, "other": 1}});
        let config = Config::parse(&config).unwrap();
        assert!(config.table.stop_queues_on_restart);
        assert_eq!(config.queues.named.len(), 1);
        assert_eq!(Config::parse(&json!({})), Ok(Config::default()));
    }

    #[test]
    fn faults_name_their_table() {
        for (config, want) in [
            (json!({"queues": 1}), "queues: must be a table"),
            (
                json!({"job-manager": {"stop-queues-on-restart": 1}}),
                "job-manager: invalid type: integer `1`, expected a boolean",
            ),
        ] {
            assert_eq!(Config::parse(&config).unwrap_err(), want);
        }
    }
}
