//! One cron entry and the runs of its command: what was asked, when it is due, how it went. No I/O.

use std::collections::VecDeque;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::RpcError;

use super::date::Pattern;

/// Payload of `cron.create`.
#[derive(Debug, Deserialize)]
pub(super) struct Create {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    pub(super) command: String,
    args: Value,
    environ: Option<Map<String, Value>>,
    cwd: Option<String>,
    #[serde(default)]
    repeat: u64,
    #[serde(default)]
    rank: u32,
    #[serde(rename = "task-history-count")]
    history: Option<usize>,
    #[serde(rename = "stop-on-failure", default)]
    stop_on_failure: u64,
    timeout: Option<f64>,
}

/// When an entry's command is run.
#[derive(Debug)]
pub(super) enum When {
    /// After some time, then regularly; seconds.
    Interval { interval: f64, after: f64 },
    /// On events.
    Event(OnEvent),
    /// At times.
    Datetime(Box<Pattern>),
}

/// On which events.
#[derive(Debug, Deserialize)]
pub(super) struct OnEvent {
    pub(super) topic: String,
    #[serde(default)]
    nth: i64,
    #[serde(default)]
    after: i64,
    /// Seconds between runs at least.
    #[serde(default)]
    min_interval: f64,
    #[serde(skip)]
    counter: i64,
}

impl OnEvent {
    /// Another event; whether the command is due.
    fn count(&mut self) -> bool {
        self.counter += 1;
        let since = self.counter - self.after;
        since >= 0 && (self.nth == 0 || since % self.nth == 0)
    }
}

/// One run.
#[derive(Debug, Clone)]
pub(super) struct Run {
    rank: u32,
    pub(super) pid: i32,
    created: f64,
    started: Option<f64>,
    running: Option<f64>,
    ended: Option<f64>,
    /// Wait status, once it has exited.
    status: Option<i32>,
    rexec_errno: i32,
    timed_out: bool,
}

impl Run {
    fn new(rank: u32, now: f64) -> Self {
        Self {
            rank,
            pid: 0,
            created: now,
            started: None,
            running: None,
            ended: None,
            status: None,
            rexec_errno: 0,
            timed_out: false,
        }
    }

    fn state(&self) -> &'static str {
        match self.status {
            _ if self.rexec_errno != 0 => "Rexec Failure",
            _ if self.started.is_none() => "Deferred",
            None => "Running",
            Some(_) if self.timed_out => "Timeout",
            Some(0) => "Exited",
            Some(_) => "Failed",
        }
    }

    fn to_json(&self) -> Value {
        let status = self.status.unwrap_or(0);
        let mut out = json!({
            "rank": self.rank, "pid": self.pid, "status": status, "state": self.state(),
            "create-time": self.created,
        });
        let mut set = |key: &str, value: Value| out[key] = value;
        if self.rexec_errno != 0 {
            set("rexec_errno", self.rexec_errno.into());
        }
        if self.timed_out {
            set("timedout", true.into());
        }
        if let Some(time) = self.started {
            set("start-time", time.into());
        }
        if let Some(time) = self.running {
            set("running-time", time.into());
        }
        if let Some(time) = self.ended {
            set("code", exit_code(status).into());
            set("end-time", time.into());
        }
        out
    }
}

/// A wait status as a shell shows it.
fn exit_code(status: i32) -> i32 {
    match status & 0x7f {
        0 => (status >> 8) & 0xff,
        signum => 128 + signum,
    }
}

#[derive(Debug, Default)]
struct Stats {
    created: f64,
    started: f64,
    last_run: f64,
    count: u64,
    failcount: u64,
    total: u64,
    success: u64,
    failure: u64,
    deferred: u64,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) command: String,
    kind: String,
    pub(super) when: When,
    pub(super) environ: Option<Map<String, Value>>,
    pub(super) cwd: Option<String>,
    repeat: u64,
    pub(super) rank: u32,
    history: usize,
    stop_on_failure: u64,
    /// Seconds a run may take.
    pub(super) timeout: Option<f64>,
    pub(super) stopped: bool,
    /// To be removed when the current run has ended.
    pub(super) deleted: bool,
    /// When it is due next, unless by events.
    pub(super) due: Option<f64>,
    pub(super) current: Option<Run>,
    finished: VecDeque<Run>,
    stats: Stats,
}

/// What a finished run means for the log and the entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Failed(String),
}

impl Entry {
    pub(super) fn new(id: u64, create: Create, now: f64) -> Result<Self, RpcError> {
        let bad = |text: String| RpcError::new(libc::EPROTO, format!("cron.create: args: {text}"));
        let when = match create.kind.as_str() {
            "interval" => {
                #[derive(Deserialize)]
                struct Interval {
                    interval: f64,
                    after: Option<f64>,
                }
                let Interval { interval, after } =
                    Interval::deserialize(&create.args).map_err(|e| bad(e.to_string()))?;
                if !(interval.is_finite() && interval >= 0.) {
                    return Err(bad(format!("interval: expected seconds, found {interval}")));
                }
                let after = after.filter(|t| *t >= 0.).unwrap_or(interval);
                When::Interval { interval, after }
            }
            "event" => {
                When::Event(OnEvent::deserialize(&create.args).map_err(|e| bad(e.to_string()))?)
            }
            "datetime" => {
                When::Datetime(Box::new(Pattern::from_json(&create.args).map_err(|e| {
                    RpcError::new(libc::EINVAL, format!("cron.create: args.{e}"))
                })?))
            }
            other => {
                let text = format!(
                    "cron.create: type: expected interval, event or datetime, found {other:?}"
                );
                return Err(RpcError::new(libc::ENOSYS, text));
            }
        };
        let mut entry = Self {
            id,
            name: create.name,
            command: create.command,
            kind: create.kind,
            when,
            environ: create.environ,
            cwd: create.cwd,
            repeat: create.repeat,
            rank: create.rank,
            history: create.history.unwrap_or(1),
            stop_on_failure: create.stop_on_failure,
            timeout: create.timeout.filter(|t| *t >= 0.),
            stopped: true,
            deleted: false,
            due: None,
            current: None,
            finished: VecDeque::new(),
            stats: Stats {
                created: now,
                ..Stats::default()
            },
        };
        entry.start(now)?;
        Ok(entry)
    }

    /// Let it run its command.
    pub(super) fn start(&mut self, now: f64) -> Result<(), RpcError> {
        if !self.stopped {
            let text = format!("cron-{} is not stopped", self.id);
            return Err(RpcError::new(libc::EINVAL, text));
        }
        self.stopped = false;
        (self.stats.started, self.stats.count, self.stats.failcount) = (now, 0, 0);
        match &mut self.when {
            When::Interval { after, .. } => self.due = Some(now + *after),
            When::Event(on) => on.counter = 0,
            When::Datetime(_) => self.plan(now),
        }
        Ok(())
    }

    /// Let it no longer.
    pub(super) fn stop(&mut self) -> Result<(), RpcError> {
        if self.stopped {
            let text = format!("cron-{} is stopped already", self.id);
            return Err(RpcError::new(libc::EINVAL, text));
        }
        self.stopped = true;
        self.due = None;
        Ok(())
    }

    fn plan(&mut self, now: f64) {
        self.due = match &self.when {
            When::Interval { interval, .. } => Some(now + interval),
            When::Event(_) => None,
            When::Datetime(pattern) => {
                let next = pattern.next(now, &TimeZone::system());
                if next.is_none() {
                    self.stopped = true;
                }
                next
            }
        };
    }

    /// An event with this topic came; whether the command is due now. It may become due later.
    pub(super) fn event(&mut self, topic: &str, now: f64) -> bool {
        if self.stopped {
            return false;
        }
        let When::Event(on) = &mut self.when else {
            return false;
        };
        // While it waits for its turn, events are counted only.
        if !topic.starts_with(on.topic.as_str()) || !on.count() || self.due.is_some() {
            return false;
        }
        let left = on.min_interval - (now - self.stats.last_run);
        if on.min_interval > 0. && left > 1e-5 {
            self.due = Some(now + left);
            return false;
        }
        true
    }

    /// It is due: plan the time after. Whether the command is to be run; not while it still runs.
    pub(super) fn schedule(&mut self, now: f64) -> bool {
        if self.stopped {
            return false;
        }
        self.plan(now);
        if self.current.is_some() {
            return false;
        }
        self.current = Some(Run::new(self.rank, now));
        self.stats.total += 1;
        self.stats.count += 1;
        if self.repeat > 0 && self.stats.count == self.repeat {
            self.stopped = true;
            self.due = None;
        }
        true
    }

    pub(super) fn deferred(&mut self) {
        self.stats.deferred += 1;
    }

    /// The command was asked for.
    pub(super) fn begun(&mut self, now: f64) {
        self.stats.last_run = now;
        if let Some(run) = &mut self.current {
            run.started = Some(now);
        }
    }

    /// It runs.
    pub(super) fn running(&mut self, pid: i32, now: f64) {
        if let Some(run) = &mut self.current {
            (run.pid, run.running) = (pid, Some(now));
        }
    }

    pub(super) fn timed_out(&mut self) {
        if let Some(run) = &mut self.current {
            run.timed_out = true;
        }
    }

    /// It has ended with a wait status, or could not be run.
    pub(super) fn ended(&mut self, result: Result<i32, &RpcError>, now: f64) -> Verdict {
        let Some(mut run) = self.current.take() else {
            return Verdict::Good;
        };
        run.ended = Some(now);
        let verdict = match result {
            Ok(status) => {
                run.status = Some(status);
                match (status, exit_code(status)) {
                    (0, _) => Verdict::Good,
                    (_, code) if code > 128 && status & 0x7f != 0 => Verdict::Failed(format!(
                        "\"{}\": Failed: signal {}",
                        self.command,
                        code - 128
                    )),
                    (_, code) => {
                        Verdict::Failed(format!("\"{}\": Failed: Exit {code}", self.command))
                    }
                }
            }
            Err(e) => {
                run.rexec_errno = e.errno;
                Verdict::Failed(format!("failure running {}: {e}", self.command))
            }
        };
        match &verdict {
            Verdict::Good => self.stats.success += 1,
            Verdict::Failed(_) => {
                self.stats.failure += 1;
                self.stats.failcount += 1;
            }
        }
        self.finished.push_front(run);
        self.finished.truncate(self.history);
        verdict
    }

    /// Whether it has failed too often; it is stopped then.
    pub(super) fn gives_up(&mut self) -> bool {
        let over = self.stop_on_failure > 0 && self.stats.failcount >= self.stop_on_failure;
        over && self.stop().is_ok()
    }

    pub(super) fn failure_limit(&self) -> u64 {
        self.stop_on_failure
    }

    pub(super) fn to_json(&self) -> Value {
        let s = &self.stats;
        let typedata = match &self.when {
            When::Interval { interval, after } => json!({
                "interval": interval, "after": after, "next_wakeup": self.due.unwrap_or(0.),
            }),
            When::Event(on) => json!({
                "topic": on.topic, "nth": on.nth, "after": on.after, "counter": on.counter,
                "min_interval": on.min_interval,
            }),
            When::Datetime(pattern) => {
                let mut data = pattern.to_json();
                data.insert("next_wakeup".into(), self.due.unwrap_or(0.).into());
                data.into()
            }
        };
        let runs = self.current.iter().chain(&self.finished);
        let mut out = json!({
            "id": self.id, "rank": self.rank, "name": self.name, "command": self.command,
            "repeat": self.repeat, "stopped": self.stopped, "type": self.kind,
            "stats": {
                "ctime": s.created, "starttime": s.started, "lastrun": s.last_run,
                "count": s.count, "failcount": s.failcount, "total": s.total,
                "success": s.success, "failure": s.failure, "deferred": s.deferred,
            },
            "typedata": typedata,
            "tasks": runs.map(Run::to_json).collect::<Vec<_>>(),
        });
        if let Some(timeout) = self.timeout {
            out["timeout"] = timeout.into();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(create: Value) -> Entry {
        let mut all = json!({"name": "n", "command": "true"});
        let members = create.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(members);
        Entry::new(1, serde_json::from_value(all).unwrap(), 100.).unwrap()
    }

    #[test]
    fn intervals_repeat_until_they_have_run_often_enough() {
        let mut e =
            entry(json!({"type": "interval", "args": {"interval": 5., "after": 1.}, "repeat": 2}));
        assert_eq!(e.due, Some(101.));
        assert!(e.schedule(101.));
        assert_eq!(e.due, Some(106.));
        assert!(!e.schedule(106.), "still running");
        e.begun(101.);
        e.running(7, 101.);
        assert_eq!(e.ended(Ok(0), 102.), Verdict::Good);
        assert!(e.schedule(111.));
        assert!(e.stopped && e.due.is_none());
        let e = e.to_json();
        assert_eq!(
            (&e["stats"]["count"], &e["tasks"][0]["state"]),
            (&json!(2), &json!("Deferred"))
        );
        assert_eq!(e["tasks"][1]["state"], "Exited");
    }

    #[test]
    fn events_are_counted() {
        let args = json!({"topic": "t.", "nth": 2, "after": 3});
        let mut e = entry(json!({"type": "event", "args": args}));
        let due: Vec<bool> = (0..7).map(|_| e.event("t.x", 100.)).collect();
        assert_eq!(due, [false, false, true, false, true, false, true]);
        assert!(!e.event("u", 100.));
        let mut e = entry(json!({"type": "event", "args": {"topic": "t", "min_interval": 10.}}));
        assert!(e.event("t", 100.));
        e.schedule(100.);
        e.begun(100.);
        e.ended(Ok(0), 100.);
        assert!(!e.event("t", 104.));
        assert_eq!(e.due, Some(110.));
    }

    #[test]
    fn failures_are_counted_and_may_end_it() {
        let mut e = entry(json!({
            "type": "interval", "args": {"interval": 1.}, "stop-on-failure": 2, "task-history-count": 5,
        }));
        for (status, last) in [(256, false), (9, true)] {
            e.schedule(101.);
            assert!(matches!(e.ended(Ok(status), 101.), Verdict::Failed(_)));
            assert_eq!(e.gives_up(), last);
        }
        assert!(e.stopped && e.stop().is_err());
        e.start(102.).unwrap();
        let tasks = &e.to_json()["tasks"];
        assert_eq!(
            (&tasks[0]["code"], &tasks[1]["code"]),
            (&json!(137), &json!(1))
        );
    }
}
