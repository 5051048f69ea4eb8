//! Ends that are not left to the job: signals, and what follows when they are not enough.

use std::time::Instant;

use client::Node;
use formats::jobid::JobId;
use formats::shared_shell::Kill;
use formats::{fsd, signals};
use serde_json::json;

use super::super::ending::{Ending, Step};
use super::super::watch::Keeper;
use super::{Job, Shell, Start, shared};
use crate::shown;

/// Signals that a shell does not take for its own, but passes on.
const SHELLS_PASS_ON: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGALRM];

impl Job {
    /// Ask the job to end, and see to it that it does.
    pub(super) fn end(&mut self, signum: i32) {
        self.leader_gone = None;
        match SHELLS_PASS_ON.contains(&signum) {
            true => self.signal_all(signum),
            false => self.signal_tasks(signum),
        }
        let timing = &self.site.config.ending;
        self.ending
            .get_or_insert_with(|| Ending::begin(timing.clone(), Instant::now()));
    }

    /// Do what is due with a job that has not ended yet.
    pub(super) async fn escalate(&mut self, start: &Start) {
        let (now, id) = (Instant::now(), shown(start.id));
        let steps = self.ending.as_mut().map(|ending| ending.steps(now));
        for step in steps.unwrap_or_default() {
            match step {
                Step::KillTasks(signum) => {
                    self.log(&format!("sending {} to job {id}", signals::name(signum)));
                    self.signal_tasks(signum);
                }
                Step::KillShells(signum) => {
                    let name = signals::name(signum);
                    self.log(&format!("sending {name} to job shells of job {id}"));
                    self.signal_all(signum);
                }
                Step::GiveUp => {
                    let limit = match self.site.config.ending.max_kill_timeout {
                        Some(_) => "max-kill-timeout",
                        None => "max kill count",
                    };
                    let left = self.left();
                    self.log(&format!("job {id} exceeded {limit}: draining ranks {left}"));
                    let reason = format!("unkillable user processes for job {id}");
                    self.drain(&self.left(), &reason).await;
                    for rank in self.left().iter() {
                        self.gone(rank, libc::SIGKILL);
                    }
                    self.ending = None;
                }
            }
        }
    }

    /// Not all shells have come to the first barrier in time.
    pub(super) async fn barrier_expired(&mut self, id: JobId) {
        let missing = self.barrier.expire();
        let reason = format!("job {} start timeout: possible node hang", shown(id));
        self.drain(&missing, &reason).await;
        let note = format!(
            "start barrier timeout waiting for {}/{} nodes (rank{} {missing})",
            missing.len(),
            self.shells.len(),
            if missing.len() > 1 { "s" } else { "" },
        );
        self.fail("exec", &note);
    }

    /// The leader has ended, and others have not for too long.
    pub(super) async fn left_alone(&mut self) {
        self.leader_gone = None;
        let left = self.left();
        let timeout = self.site.config.shell_exit_timeout.unwrap_or_default();
        let note = format!(
            "job shells still active on {} (rank{} {left}) {} after leader shell exit",
            self.places.hosts(&left),
            if left.len() > 1 { "s" } else { "" },
            fsd::format(timeout.as_secs_f64()),
        );
        self.fail("exec", &note);
    }

    /// Have the shells send a signal to their tasks.
    pub(super) fn signal_tasks(&self, signum: i32) {
        let topic = format!("shell-{}.kill", self.report.id().dec());
        let handle = self.site.handle.clone();
        tokio::spawn(async move {
            // Should it be lost, it is done again.
            let _ = handle.publish(&topic, &json!({ "signum": signum })).await;
        });
    }

    pub(super) fn signal_all(&mut self, signum: i32) {
        self.signal = Some(signum);
        for (rank, shell) in &self.shells {
            if let Shell::Running(keeper) = shell {
                self.signal(*rank, *keeper, signum);
            }
        }
    }

    pub(super) fn signal(&self, rank: u32, keeper: Keeper, signum: i32) {
        let (handle, rank) = (&self.site.handle, Node::Rank(rank));
        match keeper {
            Keeper::Rexec(pid) => {
                let request = json!({ "pid": pid, "signum": signum });
                handle.notify("rexec.kill", rank, &request);
            }
            Keeper::Shared => {
                let id = self.report.id();
                handle.notify(&shared("kill"), rank, &Kill { id, signum });
            }
        }
    }
}
