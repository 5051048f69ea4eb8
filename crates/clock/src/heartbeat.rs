//! Module `heartbeat`: rank 0 publishes the event `heartbeat.pulse` at regular times.
//!
//! Others synchronise background work to it, so that a job is disturbed by all brokers at the same moment. On other
//! ranks the module watches for pulses: it warns when they are overdue, and after `heartbeat.timeout` asks the overlay
//! to give the parent up. Configuration: table `heartbeat` with `period`, `timeout` (durations) and `warn_thresh`
//! (periods).

use client::module::{Context, ModuleError, ModuleResult};
use client::{Handle, Message, Node};
use formats::fsd;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use wire::RpcError;

use crate::seconds;

const TOPIC: &str = "heartbeat.pulse";

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Settings {
    /// Seconds.
    period: f64,
    /// Seconds; infinite if the parent is never given up.
    timeout: f64,
    warn_thresh: u32,
}

const DEFAULT: Settings = Settings {
    period: 2.,
    timeout: 300.,
    warn_thresh: 3,
};

impl Settings {
    fn from_config(config: &Value) -> Result<Self, RpcError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            period: Option<String>,
            timeout: Option<String>,
            warn_thresh: Option<i64>,
        }
        let bad = |text: String| RpcError::new(libc::EINVAL, text);
        let Some(table) = config.get("heartbeat") else {
            return Ok(DEFAULT);
        };
        let table = Table::deserialize(table)
            .map_err(|e| bad(format!("error reading [heartbeat] config table: {e}")))?;
        let duration = |key: &str, text: Option<String>, or: f64| match text {
            None => Ok(or),
            Some(text) => fsd::parse(&text)
                .map_err(|e| bad(format!("heartbeat.{key}: {text:?} is not a duration: {e}"))),
        };
        let period = duration("period", table.period, DEFAULT.period)?;
        if period <= 0. {
            return Err(bad("heartbeat.period: must be positive".to_owned()));
        }
        let mut timeout = duration("timeout", table.timeout, DEFAULT.timeout)?;
        if timeout == 0. {
            timeout = f64::INFINITY;
        }
        if timeout < 2. * period {
            let text = format!(
                "heartbeat.timeout: must be at least twice the period ({period}s), infinity or 0, found {timeout}s"
            );
            return Err(bad(text));
        }
        let thresh = table.warn_thresh.unwrap_or(DEFAULT.warn_thresh.into());
        let warn_thresh = u32::try_from(thresh)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| {
                bad(format!(
                    "heartbeat.warn_thresh: must be positive, found {thresh}"
                ))
            })?;
        Ok(Self {
            period,
            timeout,
            warn_thresh,
        })
    }
}

struct Heartbeat {
    handle: Handle,
    settings: Settings,
    count: u64,
    /// When the last pulse was published or came.
    last: Instant,
    warned: bool,
    given_up: bool,
    stopped: bool,
}

/// Entry point of module `heartbeat`.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle,
        mut inbox,
        args,
        ..
    } = ctx;
    let config: Value = handle.call("config.get", Node::Any, &json!({})).await?;
    let mut settings = Settings::from_config(&config)?;
    for arg in &args {
        let Some(text) = arg.strip_prefix("period=") else {
            return Err(ModuleError::unknown_argument(arg));
        };
        settings.period = fsd::parse(text).map_err(|e| ModuleError::new("period", e))?;
    }
    if handle.rank() > 0 {
        handle.subscribe(TOPIC).await?;
    }
    let mut state = Heartbeat {
        handle,
        settings,
        count: 0,
        last: Instant::now(),
        warned: false,
        given_up: false,
        stopped: false,
    };
    if state.leads() {
        state.pulse();
    }
    loop {
        let next = state.next();
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => state.message(&msg),
                None => return Ok(()),
            },
            () = sleep_until(next), if !state.stopped => state.due(),
        }
    }
}

impl Heartbeat {
    fn leads(&self) -> bool {
        self.handle.rank() == 0
    }

    /// When there is something to do.
    fn next(&self) -> Instant {
        let Settings {
            period,
            timeout,
            warn_thresh,
        } = self.settings;
        let after = match () {
            () if self.leads() => period,
            () if !self.warned => period * f64::from(warn_thresh),
            () => timeout,
        };
        self.last + seconds(after)
    }

    fn due(&mut self) {
        if self.leads() {
            self.pulse();
        } else if !self.warned {
            self.warned = true;
            self.handle
                .say("heartbeat", libc::LOG_WARNING as u8, "heartbeat overdue");
        } else {
            self.stopped = true;
            if !self.given_up && self.settings.timeout.is_finite() {
                self.given_up = true;
                let reason = format!("no heartbeat for {}", fsd::format(self.settings.timeout));
                let request = json!({ "reason": reason });
                self.handle
                    .notify("overlay.disconnect-parent", Node::Any, &request);
            }
        }
    }

    fn pulse(&mut self) {
        self.count += 1;
        self.last = Instant::now();
        self.handle.notify(
            "event.publish",
            Node::Rank(0),
            &json!({ "topic": TOPIC, "flags": 0 }),
        );
    }

    fn message(&mut self, msg: &Message) {
        if msg.is_event() {
            self.count += 1;
            self.last = Instant::now();
            if self.warned {
                self.handle
                    .say("heartbeat", libc::LOG_WARNING as u8, "heartbeat received");
            }
            (self.warned, self.given_up, self.stopped) = (false, false, false);
            return;
        }
        let Settings {
            period,
            timeout,
            warn_thresh,
        } = self.settings;
        let result = match msg.method() {
            "stats-get" => msg.require_owner().map(|()| {
                let timeout = if timeout.is_finite() { timeout } else { -1. };
                json!({
                    "period": period, "timeout": timeout, "count": self.count,
                    "warn_thresh": warn_thresh,
                })
            }),
            "config-reload" => msg
                .require_owner()
                .and_then(|()| msg.json::<Value>())
                .and_then(|config| Settings::from_config(&config))
                .map(|settings| {
                    self.settings = settings;
                    self.stopped = false;
                    Value::Null
                }),
            "disconnect" => return,
            _ => return self.handle.respond_enosys(msg),
        };
        match result {
            Ok(Value::Null) => self.handle.respond_ok(msg),
            result => self.handle.respond_result(msg, result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let read = |table: Value| {
            Settings::from_config(&json!({ "heartbeat": table })).map_err(|e| e.to_string())
        };
        assert_eq!(Settings::from_config(&json!({})), Ok(DEFAULT));
        let some = read(json!({"period": "1m", "timeout": "infinity", "warn_thresh": 5}));
        assert_eq!(
            some,
            Ok(Settings {
                period: 60.,
                timeout: f64::INFINITY,
                warn_thresh: 5
            })
        );
        for (table, key) in [
            (json!({"period": "x"}), "heartbeat.period"),
            (json!({"period": "0s"}), "heartbeat.period"),
            (json!({"timeout": "3s"}), "heartbeat.timeout"),
            (json!({"warn_thresh": 0}), "heartbeat.warn_thresh"),
            (json!({"x": 0}), "[heartbeat]"),
        ] {
            let e = read(table).unwrap_err();
            assert!(e.contains(key), "{e}");
        }
    }
}
