//! The ends of tasks: what is recorded of them, and what they mean for the others.

use super::{Event, Running};
use crate::{Fatal, log::Level};
use formats::{fsd, job::WaitStatus};
use futures::FutureExt as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::spawn_local;

/// The first failure of the job, on the leader.
pub(super) struct FirstExit {
    pub(super) what: &'static str,
    pub(super) rank: u32,
    pub(super) host: String,
    pub(super) status: Option<i32>,
}

impl Running {
    pub(super) async fn task_done(&mut self, index: usize, status: i32) -> Result<(), Fatal> {
        let task = &mut self.tasks[index];
        task.status = Some(status);
        self.terminals.server.exited(task.tag.rank, status);
        let wait = WaitStatus(status);
        let ended = format!("task {} complete status={status}", task.tag.rank);
        let report = json!({
            "localid": task.tag.index,
            "rank": task.tag.rank,
            "state": "Exited",
            "pid": task.pid,
            "wait_status": status,
            "signaled": wait.signal().unwrap_or(0),
            "exitcode": wait.exit_code(),
        });
        self.shell.logger.log(Level::Debug, &ended).await;
        self.call_about("task.exit", &self.tasks[index]).await?;
        if !self.exit_reported {
            if self.is_leader() {
                self.first_task_exit(report).await?;
            } else {
                self.exit_reported = true;
                // When the leader is gone the job is over anyway.
                spawn_local(self.ask_leader("doom", report).map(drop));
            }
        }
        if self.tasks.iter().all(|task| task.status.is_some()) {
            self.tasks_complete().await?;
        }
        Ok(())
    }

    /// The tasks of this shell have ended.
    pub(super) async fn tasks_complete(&mut self) -> Result<(), Fatal> {
        self.shell.plugins.run("shell.finish").await?;
        let info = &self.shell.info;
        if info.is_leader() {
            return self.shell_complete(0).await;
        }
        // What plugins have to say at the end is for the leader, which must be there then.
        if !self.shell.plugins.handles("shell.exit") {
            self.tell_leader_of_completion().await;
        }
        Ok(())
    }

    /// The leader waits for this before it ends.
    pub(super) async fn tell_leader_of_completion(&self) {
        let request = json!({"shell_rank": self.shell.info.shell_rank});
        // When the leader is gone the job is over anyway.
        let _ = self.ask_leader("tasks-complete", request).await;
    }

    /// The leader: the tasks of a shell have ended.
    pub(super) async fn shell_complete(&mut self, rank: u32) -> Result<(), Fatal> {
        let was_active = !self.active_shells.is_empty();
        self.active_shells.remove(rank);
        match was_active && self.active_shells.is_empty() {
            true => self.shell.plugins.run("shell.tasks-complete").await,
            false => Ok(()),
        }
    }

    /// Records the first exit of a task in the whole job, and what follows from it.
    pub(super) async fn first_task_exit(&mut self, report: Value) -> Result<(), Fatal> {
        if self.exit_reported {
            return Ok(());
        }
        self.exit_reported = true;
        let number = |key: &str| report.get(key).and_then(Value::as_i64);
        let rank = number("rank").unwrap_or(0) as u32;
        let status = number("wait_status").map(|s| s as i32);
        if let Some(log) = &self.shell.log {
            log.append("exec.eventlog", "shell.task-exit", report.clone())
                .await;
        }
        let info = &self.shell.info;
        let node = info.taskmap.node_of(rank);
        let host = node
            .and_then(|n| info.places.get(n as usize))
            .map(|p| p.host.clone());
        let host = host.unwrap_or_else(|| "unknown".into());
        self.check_exit(FirstExit {
            what: "task",
            rank,
            host,
            status,
        })
    }

    pub(super) fn check_exit(&mut self, exit: FirstExit) -> Result<(), Fatal> {
        let failed = exit.status != Some(0);
        if failed && self.shell.options.exit_on_error {
            return Err(self.exit_failure(&exit, "failed", "exit-on-error is set"));
        }
        if let Some(seconds) = self.shell.options.exit_timeout
            && let Ok(timeout) = Duration::try_from_secs_f64(seconds)
        {
            let events = self.events.clone();
            spawn_local(async move {
                tokio::time::sleep(timeout).await;
                let _ = events.send(Event::Doom);
            });
        }
        self.first_exit = Some(exit);
        Ok(())
    }

    fn exit_failure(&self, exit: &FirstExit, did: &str, why: &str) -> Fatal {
        let name = self
            .shell
            .info
            .jobspec
            .command()
            .first()
            .map_or("", String::as_str);
        let name = name.rsplit('/').next().unwrap_or(name);
        let how = exit
            .status
            .map_or(String::new(), |s| format!(" ({})", describe_exit(s)));
        let FirstExit {
            what, rank, host, ..
        } = exit;
        Fatal {
            code: exit.status.map_or(1, |s| WaitStatus(s).exit_code()),
            message: format!("{what} {rank} of {name} on {host} {did}{how}; job ended, as {why}"),
            wait_status: exit.status,
        }
    }

    pub(super) fn doom_timeout(&self) -> Result<(), Fatal> {
        let Some(exit) = &self.first_exit else {
            return Ok(());
        };
        let limit = fsd::format(self.shell.options.exit_timeout.unwrap_or(0.));
        Err(self.exit_failure(exit, "exited", &format!("exit-timeout={limit} has expired")))
    }
}

/// How a task ended: the signal's name, or `Exit N`.
fn describe_exit(status: i32) -> String {
    match WaitStatus(status).signal() {
        Some(signal) => formats::signals::describe(signal),
        None => format!("Exit {}", WaitStatus(status).exit_code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits() {
        assert_eq!(describe_exit(512), "Exit 2");
        assert_eq!(describe_exit(139), "Segmentation fault");
    }
}
