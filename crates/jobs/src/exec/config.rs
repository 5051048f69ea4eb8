//! The table `exec` of the configuration (flux-config-exec(5)), and the module's arguments, which go before it.

use std::time::{Duration, Instant};

use formats::{fsd, signals};
use serde_json::{Value, json};

use super::ending::Step;
use super::sharing::Policy;

/// How jobs are started and ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Another job shell than the one that comes with this.
    pub(super) job_shell: Option<String>,
    /// For how long the first barrier may be waited for; `None` for ever.
    pub(super) barrier_timeout: Option<Duration>,
    /// How long other shells may run when the leader has ended well; `None` for ever.
    pub(super) shell_exit_timeout: Option<Duration>,
    /// The largest delay, in percent of a job's duration, that goes at the job's cost.
    pub(super) max_start_delay: f64,
    /// How long jobs wait for a broker that is away, and job shells for theirs. Without it, as long as the instance is
    /// kept when it ends.
    pub(super) broker_timeout: Option<Duration>,
    /// Guests may have jobs that only pretend to run.
    pub(super) mocks_for_guests: bool,
    pub(super) shared_shells: Policy,
    pub(super) ending: Ending,
}

/// How a job is made to end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ending {
    pub(super) term_signal: i32,
    pub(super) kill_signal: i32,
    /// From one signal to the next.
    pub(super) kill_timeout: Duration,
    /// How often shells are killed before their nodes are drained.
    pub(super) max_kill_count: u32,
    /// Or when that is done, whatever the number.
    pub(super) max_kill_timeout: Option<Duration>,
}

impl Ending {
    /// How long it takes until a job is given up.
    pub(super) fn limit(&self) -> Duration {
        self.max_kill_timeout.unwrap_or_else(|| {
            let start = Instant::now();
            let mut ending = super::ending::Ending::begin(self.clone(), start);
            loop {
                let due = ending.due();
                if ending.steps(due).contains(&Step::GiveUp) {
                    return due - start;
                }
            }
        })
    }
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            term_signal: libc::SIGTERM,
            kill_signal: libc::SIGKILL,
            kill_timeout: Duration::from_secs(5),
            max_kill_count: 8,
            max_kill_timeout: None,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            job_shell: None,
            barrier_timeout: Some(Duration::from_secs(30 * 60)),
            shell_exit_timeout: Some(Duration::from_secs(30)),
            max_start_delay: 25.0,
            broker_timeout: None,
            mocks_for_guests: false,
            shared_shells: Policy::default(),
            ending: Ending::default(),
        }
    }
}

/// What may be said, each by key; arguments are `key=value`.
struct Table<'a> {
    table: &'a Value,
    args: &'a [String],
}

impl Table<'_> {
    fn get(&self, key: &str) -> Option<Value> {
        let given = |arg: &'_ String| {
            let (name, value) = arg.split_once('=')?;
            (name == key).then(|| Value::from(value))
        };
        let arg = self.args.iter().rev().find_map(given);
        arg.or_else(|| self.table.get(key).cloned())
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("exec.{key} must be a string, found {other}")),
        }
    }

    /// A duration; zero means what its caller says.
    fn duration(&self, key: &str) -> Result<Option<Duration>, String> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let seconds = fsd::parse(&text).map_err(|e| format!("invalid exec.{key}: {e}"))?;
        Ok(Some(
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        ))
    }

    fn positive(&self, key: &str) -> Result<Option<Duration>, String> {
        match self.duration(key)? {
            Some(Duration::ZERO) => Err(format!("invalid exec.{key}: 0: must be more")),
            other => Ok(other),
        }
    }

    fn signal(&self, key: &str) -> Result<Option<i32>, String> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let signal = signals::parse(&text);
        let unknown = || format!("invalid exec.{key}: {text}: no signal of this name");
        signal.map(Some).ok_or_else(unknown)
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        let value = match self.get(key) {
            None => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_f64(),
        };
        let wrong = || format!("exec.{key} must be a number");
        value.map(Some).ok_or_else(wrong)
    }
}

/// Zero means that something is not done at all.
fn unless_zero(duration: Duration) -> Option<Duration> {
    Some(duration).filter(|d| !d.is_zero())
}

impl Config {
    /// The whole configuration of the instance, and the arguments the module was loaded with.
    pub(super) fn parse(config: &Value, args: &[String]) -> Result<Self, String> {
        let table = config.get("exec").unwrap_or(&Value::Null);
        if !table.is_null() && !table.is_object() {
            return Err("exec must be a table".to_owned());
        }
        let table = Table { table, args };
        let default = Self::default();
        if let Some(service) = table.text("service")?.filter(|s| s != "rexec") {
            return Err(format!(
                "exec.service: {service} is not there: jobs run by rexec"
            ));
        }
        let shell_exit_timeout = match table.text("shell-exit-timeout")?.as_deref() {
            Some("none") => None,
            Some(_) => table.duration("shell-exit-timeout")?.and_then(unless_zero),
            None => default.shell_exit_timeout,
        };
        let barrier_timeout = match table.duration("barrier-timeout")? {
            Some(timeout) => unless_zero(timeout),
            None => default.barrier_timeout,
        };
        let ending = default.ending;
        let max_kill_count = match table.number("max-kill-count")? {
            None => ending.max_kill_count,
            Some(count) if count >= 1.0 => count as u32,
            Some(count) => return Err(format!("invalid exec.max-kill-count: {count}")),
        };
        Ok(Self {
            job_shell: table.text("job-shell")?,
            barrier_timeout,
            shell_exit_timeout,
            max_start_delay: table
                .number("max-start-delay-percent")?
                .unwrap_or(default.max_start_delay),
            broker_timeout: table.duration("broker-timeout")?,
            mocks_for_guests: match table.table.pointer("/testexec/allow-guests") {
                None => false,
                Some(Value::Bool(allow)) => *allow,
                Some(_) => return Err("exec.testexec.allow-guests must be true or false".into()),
            },
            shared_shells: match table.text("shared-shells")? {
                None => default.shared_shells,
                Some(name) => Policy::named(&name).ok_or_else(|| {
                    format!("invalid exec.shared-shells: {name}: must be auto, always or never")
                })?,
            },
            ending: Ending {
                term_signal: table.signal("term-signal")?.unwrap_or(ending.term_signal),
                kill_signal: table.signal("kill-signal")?.unwrap_or(ending.kill_signal),
                kill_timeout: table
                    .positive("kill-timeout")?
                    .unwrap_or(ending.kill_timeout),
                max_kill_count,
                max_kill_timeout: table.positive("max-kill-timeout")?,
            },
        })
    }

    /// For `flux module stats`, by upstream's names; `patience` is how long brokers may be away.
    pub(super) fn describe(&self, shell: &str, patience: Duration) -> Value {
        let seconds = |d: Option<Duration>| d.map_or(0.0, |d| d.as_secs_f64());
        let ending = &self.ending;
        json!({
            "method": "bulk-exec",
            "kill-timeout": ending.kill_timeout.as_secs_f64(),
            "term-signal": signals::name(ending.term_signal),
            "kill-signal": signals::name(ending.kill_signal),
            "max-kill-count": ending.max_kill_count,
            "max-kill-timeout": seconds(ending.max_kill_timeout),
            "effective-max-kill-timeout": ending.limit().as_secs_f64(),
            "broker-timeout": patience.as_secs_f64(),
            "config": {
                "default_job_shell": self.job_shell.as_deref().unwrap_or(shell),
                "exec_service": "rexec",
                "default_barrier_timeout": seconds(self.barrier_timeout),
                "shell_exit_timeout": seconds(self.shell_exit_timeout),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let parse = |table: Value| Config::parse(&json!({ "exec": table }), &[]);
        assert_eq!(parse(json!({})), Ok(Config::default()));
        assert_eq!(Config::parse(&json!({}), &[]), Ok(Config::default()));
        let config = parse(json!({
            "job-shell": "/s", "kill-timeout": "0.5s", "term-signal": "SIGUSR1",
            "kill-signal": "INT", "max-kill-count": 3, "max-kill-timeout": "1m",
            "barrier-timeout": "0", "shell-exit-timeout": "none", "broker-timeout": "0",
            "max-start-delay-percent": 50, "shared-shells": "never", "imp": "/imp", "testexec": {},
        }));
        let config = config.unwrap();
        assert_eq!(config.ending.kill_timeout, Duration::from_millis(500));
        assert_eq!(
            (config.ending.term_signal, config.ending.kill_signal),
            (10, 2)
        );
        assert_eq!(
            (config.barrier_timeout, config.shell_exit_timeout),
            (None, None)
        );
        assert_eq!(config.broker_timeout, Some(Duration::ZERO));
        assert_eq!(config.shared_shells, Policy::Never);
        let args = ["kill-timeout=2s", "max-kill-count=1"].map(str::to_owned);
        let table = json!({"exec": {"kill-timeout": "1s"}});
        let config = Config::parse(&table, &args).unwrap();
        assert_eq!(config.ending.kill_timeout, Duration::from_secs(2));
        assert_eq!(config.ending.max_kill_count, 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut said = String::new();
        for table in [
            json!({"kill-timeout": "0"}),
            json!({"kill-timeout": 5}),
            json!({"max-kill-timeout": "soon"}),
            json!({"term-signal": "SIGNOTHING"}),
            json!({"max-kill-count": 0}),
            json!({"max-kill-count": []}),
            json!({"shared-shells": "sometimes"}),
            json!({"service": "sdexec"}),
            json!({"testexec": {"allow-guests": 1}}),
            json!(7),
        ] {
            let e = Config::parse(&json!({ "exec": table }), &[]).unwrap_err();
            said = said + &e + "\n";
        }
        insta::assert_snapshot!(said, @r"
        invalid exec.kill-timeout: 0: must be more
        exec.kill-timeout must be a string, found 5
        invalid exec.max-kill-timeout: 'soon' is not a duration; give a number with an optional unit ms, s, m, h or d, or infinity
        invalid exec.term-signal: SIGNOTHING: no signal of this name
        invalid exec.max-kill-count: 0
        exec.max-kill-count must be a number
        invalid exec.shared-shells: sometimes: must be auto, always or never
        exec.service: sdexec is not there: jobs run by rexec
        exec.testexec.allow-guests must be true or false
        exec must be a table
        ");
    }
}
