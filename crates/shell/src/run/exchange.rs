//! PMI of the tasks: their lines, and the exchange among all shells.

use super::{Event, Running};
use crate::{
    Fatal,
    gather::Gift,
    log::Level,
    pmi::{Entries, Outcome},
    startup,
};
use client::Node;
use serde_json::Value;
use tokio::task::spawn_local;
use wire::{Message, RpcError};

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
                Outcome::Exchange(entries) if self.is_leader() => self.gather(Gift {
                    shell: self.shell.info.shell_rank,
                    round: self.gather.rounds(),
                    entries,
                    request: None,
                }),
                Outcome::Exchange(entries) => {
                    let shell = self.shell.info.shell_rank;
                    let request = Gift::payload(shell, self.exchanges, &entries);
                    self.exchanges += 1;
                    let answer = self.ask_leader("pmi-exchange", request);
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
    pub(super) fn gather(&mut self, gift: Gift) {
        let Some(all) = self.gather.add(gift) else {
            return;
        };
        for request in &all.requests {
            self.shell.handle.respond(request, &*all.entries);
        }
        if all.complete && !self.tasks.is_empty() {
            let entries = Entries::clone(&all.entries);
            let _ = self.events.send(Event::Exchanged(Some(entries)));
        }
    }

    /// Ask the leader's service, and again if it, or a broker on the way, is away for a while.
    pub(super) fn ask_leader(
        &self,
        method: &str,
        request: Value,
    ) -> impl Future<Output = Result<Message, RpcError>> + use<> {
        let (handle, patience) = (self.shell.handle.clone(), self.shell.patience.clone());
        let topic = format!("{}.{method}", self.shell.service);
        let leader = Node::Rank(self.shell.info.leader_rank());
        async move { patience.rpc(&handle, &topic, leader, &request).await }
    }
}
