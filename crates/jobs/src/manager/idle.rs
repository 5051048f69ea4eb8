//! `drain` and `idle`: answered when no job is left, or none runs.

use formats::job::JobState;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::Manager;

impl Manager {
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
