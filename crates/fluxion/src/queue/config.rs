//! How a queue is set up.

use serde_json::Value;

/// A policy of queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// First come, first served.
    Fcfs,
    /// The first job that waits is not delayed.
    Easy,
    /// No job that waits is delayed.
    Conservative,
    /// The first so many jobs that wait are not delayed.
    Hybrid,
}

/// How far a queue looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depths {
    /// How many jobs a run looks at.
    pub queue: usize,
    /// How many reservations [`Policy::Hybrid`] makes.
    pub reservation: usize,
    /// How many reservations any policy makes at most.
    pub max_reservation: usize,
}

/// How a queue behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Who may pass whom.
    pub policy: Policy,
    /// How far it looks.
    pub depths: Depths,
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
#[allow(missing_docs)] // their messages say it
pub struct ConfigError {
    pub key: String,
    pub message: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            policy: Policy::Fcfs,
            depths: Depths {
                queue: 32,
                reservation: 64,
                max_reservation: 100_000,
            },
        }
    }
}

fn fault(key: &str, message: impl Into<String>) -> ConfigError {
    ConfigError {
        key: key.to_owned(),
        message: message.into(),
    }
}

/// A positive number, or a text of one.
fn positive(table: Option<&Value>, path: &str) -> Result<Option<usize>, ConfigError> {
    let key = path.rsplit('.').next().unwrap_or(path);
    let Some(value) = table.and_then(|t| t.get(key)) else {
        return Ok(None);
    };
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let number = number
        .filter(|n| *n > 0)
        .and_then(|n| usize::try_from(n).ok());
    let message = || format!("must be a positive number, found {value}");
    number.map(Some).ok_or_else(|| fault(path, message()))
}

impl Policy {
    /// The policy of a name.
    pub fn from_name(name: &str) -> Option<Policy> {
        Some(match name {
            "fcfs" => Policy::Fcfs,
            "easy" => Policy::Easy,
            "conservative" => Policy::Conservative,
            "hybrid" => Policy::Hybrid,
            _ => return None,
        })
    }
}

impl Settings {
    /// Reads a table with `queue-policy`, `queue-params` and `policy-params`.
    ///
    /// ```
    /// use fluxion::queue::{Policy, Settings};
    /// let table = serde_json::json!({"queue-policy": "hybrid", "policy-params": {"reservation-depth": 3}});
    /// let settings = Settings::from_value(&table)?;
    /// assert_eq!((settings.policy, settings.depths.reservation), (Policy::Hybrid, 3));
    /// # Ok::<(), fluxion::queue::ConfigError>(())
    /// ```
    pub fn from_value(table: &Value) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        if let Some(value) = table.get("queue-policy") {
            let policy = value.as_str().and_then(Policy::from_name);
            let message = || format!("must be fcfs, easy, conservative or hybrid, found {value}");
            settings.policy = policy.ok_or_else(|| fault("queue-policy", message()))?;
        }
        let (queue, policy) = (table.get("queue-params"), table.get("policy-params"));
        let depths = &mut settings.depths;
        let most = positive(queue, "queue-params.max-queue-depth")?.unwrap_or(1_000_000);
        depths.queue = positive(queue, "queue-params.queue-depth")?
            .unwrap_or(depths.queue)
            .min(most);
        if let Some(most) = positive(policy, "policy-params.max-reservation-depth")? {
            depths.max_reservation = most;
        }
        if let Some(depth) = positive(policy, "policy-params.reservation-depth")? {
            depths.reservation = depth;
        }
        Ok(settings)
    }

    /// How many jobs get a reservation before others may only start.
    pub fn reservations(&self) -> usize {
        let wanted = match self.policy {
            Policy::Fcfs => 0,
            Policy::Easy => 1,
            Policy::Conservative => usize::MAX,
            Policy::Hybrid => self.depths.reservation,
        };
        wanted.min(self.depths.max_reservation)
    }
}
