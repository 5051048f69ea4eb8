//! PMI of the tasks: their lines, and the exchange among all shells.

use super::{Event, Running};
use crate::{
    Fatal,
    log::Level,
    pmi::{Entries, Outcome, to_payload},
    startup,
};
use client::Node;
use tokio::task::spawn_local;
use wire::Message;

impl Running {
    pub(super) async fn pmi_line(&mut self, rank: u32, line: &str) -> Result<(), Fatal> {
        let Some(pmi) = &mut self.pmi else {
            return Ok(());
        };
        if !self.pmi_informed {
            self.pmi_informed = true;
            let handle = &self.shell.handle;
            let (level, hint) = futures::join!(
                handle.getattr("instance-level"),
                handle.getattr("tbon.interface-hint")
            );
            pmi.set_instance(level.as_deref().ok(), hint.as_deref().ok());
        }
        if self.shell.logger.is_on(Level::Trace) {
            self.shell
                .logger
                .log(Level::Trace, &format!("{rank}: C: {line}"))
                .await;
        }
        let outcomes = pmi.line(rank, line).await;
        self.pmi_outcomes(outcomes).await
    }

    pub(super) async fn pmi_outcomes(&mut self, outcomes: Vec<Outcome>) -> Result<(), Fatal> {
        for outcome in outcomes {
            match outcome {
                Outcome::Exchange(entries) if self.is_leader() => self.gather(entries, None),
                Outcome::Exchange(entries) => {
                    let topic = format!("{}.pmi-exchange", self.shell.service);
                    let leader = Node::Rank(self.shell.info.leader_rank());
                    let answer = self.shell.handle.rpc(&topic, leader, &to_payload(&entries));
                    let events = self.events.clone();
                    spawn_local(async move {
                        let entries = answer.await.and_then(|m| m.json()).ok();
                        let _ = events.send(Event::Exchanged(entries));
                    });
                }
                Outcome::Abort { message, .. } => {
                    // The job goes on until job-exec ends it, so that output is not lost.
                    self.aborted = true;
                    let note = format!("PMI_Abort: {message}");
                    let (handle, id) = (&self.shell.handle, self.shell.info.id);
                    if let Err(e) = startup::raise(handle, id, &note, None).await {
                        let text = format!("failed to raise job exception: {e}");
                        self.shell.logger.log(Level::Error, &text).await;
                    }
                }
                Outcome::Violation { rank, line } if !self.aborted => {
                    let text = format!("task {rank}: PMI-1 wire protocol error: {line:?}");
                    return Err(Fatal::new(text));
                }
                Outcome::Violation { .. } => {}
            }
        }
        Ok(())
    }

    /// The leader: one more shell has arrived at the PMI barrier.
    pub(super) fn gather(&mut self, entries: Entries, request: Option<Message>) {
        let Some(all) = self.gather.add(entries, request) else {
            return;
        };
        let payload = to_payload(&all.entries);
        for request in &all.requests {
            self.shell.handle.respond(request, &payload);
        }
        if !self.tasks.is_empty() {
            let _ = self.events.send(Event::Exchanged(Some(all.entries)));
        }
    }
}
