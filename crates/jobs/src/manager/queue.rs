//! The anonymous queue (RFC 33): enabled or not, started or not; drain and idle.

use formats::job::JobState;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::Manager;

/// State of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    enabled: bool,
    disable_reason: Option<String>,
    started: bool,
    stop_reason: Option<String>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            enabled: true,
            disable_reason: None,
            started: true,
            stop_reason: None,
        }
    }
}

fn no_such(name: &str) -> RpcError {
    RpcError::new(libc::ENOENT, format!("queue {name:?} does not exist"))
}

impl Queue {
    /// Why no job can be submitted, if none can.
    pub(crate) fn refuses(&self) -> Option<String> {
        if self.enabled {
            return None;
        }
        let reason = self.disable_reason.as_deref().unwrap_or("no reason given");
        Some(format!("job submission is disabled: {reason}"))
    }

    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    pub(crate) fn status(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            name: Option<String>,
        }
        let Request { name } = msg.json()?;
        if let Some(name) = name {
            return Err(no_such(&name));
        }
        let mut status = json!({ "enable": self.enabled, "start": self.started });
        if let Some(reason) = self.disable_reason.as_ref().filter(|_| !self.enabled) {
            status["disable_reason"] = reason.clone().into();
        }
        if let Some(reason) = self.stop_reason.as_ref().filter(|_| !self.started) {
            status["stop_reason"] = reason.clone().into();
        }
        Ok(status)
    }
}

impl Manager {
    pub(super) fn queue_enable(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            name: Option<String>,
            enable: bool,
            reason: Option<String>,
        }
        msg.require_owner()?;
        let Request {
            name,
            enable,
            reason,
        } = msg.json()?;
        if let Some(name) = name {
            return Err(no_such(&name));
        }
        if !enable && reason.is_none() {
            return Err(RpcError::new(
                libc::EINVAL,
                "a reason is required to disable submission",
            ));
        }
        self.queue.enabled = enable;
        self.queue.disable_reason = reason;
        Ok(Value::Null)
    }

    pub(super) fn queue_start(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            name: Option<String>,
            start: bool,
            reason: Option<String>,
        }
        msg.require_owner()?;
        let Request {
            name,
            start,
            reason,
        } = msg.json()?;
        if let Some(name) = name {
            return Err(no_such(&name));
        }
        self.queue.started = start;
        self.queue.stop_reason = reason;
        self.schedule();
        Ok(Value::Null)
    }

    /// Jobs that `drain` (all active) or `idle` (those that run) waits for.
    fn busy(&self, running_only: bool) -> usize {
        let runs = |state| matches!(state, JobState::Run | JobState::Cleanup);
        self.jobs
            .values()
            .filter(|job| !running_only || runs(job.state))
            .count()
    }

    /// `drain` and `idle`: answered when nothing is left.
    pub(super) fn idle(
        &mut self,
        msg: &Message,
        running_only: bool,
    ) -> Result<Option<Value>, RpcError> {
        msg.require_owner()?;
        if self.busy(running_only) == 0 {
            return Ok(Some(self.idle_answer(running_only)));
        }
        self.idle_waiters.push(msg.clone());
        Ok(None)
    }

    fn idle_answer(&self, running_only: bool) -> Value {
        if running_only {
            json!({ "pending": self.busy(false) })
        } else {
            Value::Null
        }
    }

    /// Answer those who wait for the end of jobs.
    pub(super) fn check_idle(&mut self) {
        let waiters = std::mem::take(&mut self.idle_waiters);
        for msg in waiters {
            let running_only = msg.method() == "idle";
            if self.busy(running_only) > 0 {
                self.idle_waiters.push(msg);
                continue;
            }
            match self.idle_answer(running_only) {
                Value::Null => self.handle.respond_ok(&msg),
                answer => self.handle.respond(&msg, &answer),
            }
        }
    }
}
