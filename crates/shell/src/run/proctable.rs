//! The table of the job's processes, for debuggers (MPIR): the leader gathers it from all shells when it is asked for.

use super::Running;
use client::Node;
use formats::proctable::{self, Process};
use serde_json::{Value, json};
use tokio::task::spawn_local;
use wire::{Message, RpcError};

impl Running {
    fn local_processes(&self) -> Vec<Process> {
        let info = &self.shell.info;
        let executable = info.jobspec.command().first().cloned().unwrap_or_default();
        let process = |task: &super::Task| Process {
            task: task.tag.rank,
            pid: task.pid.into(),
            host: self.shell.hostname.clone(),
            executable: executable.clone(),
            broker: info.here().broker_rank,
        };
        self.tasks.iter().map(process).collect()
    }

    /// Answers with the processes of this shell, or of all shells if this is their leader.
    pub(super) fn proctable(&self, request: Message) {
        let handle = self.shell.handle.clone();
        let own = self.local_processes();
        if !self.is_leader() {
            return handle.respond(&request, &proctable::encode(&own));
        }
        let topic = format!("{}.proctable", self.shell.service);
        let others = self.shell.info.places.iter().skip(1);
        let asked: Vec<_> = others
            .map(|place| handle.rpc(&topic, Node::Rank(place.broker_rank), &json!({})))
            .collect();
        spawn_local(async move {
            let mut all = vec![own];
            for answer in asked {
                let table = answer.await.and_then(|message| message.json::<Value>());
                match table.ok().and_then(|table| proctable::decode(&table).ok()) {
                    Some(processes) => all.push(processes),
                    // The shell has just ended, most likely.
                    None => {
                        return handle.respond_error(&request, &RpcError::errno(libc::ECANCELED));
                    }
                }
            }
            all.sort_by_key(|processes| processes.first().map(|process| process.task));
            handle.respond(&request, &proctable::encode(&all.concat()));
        });
    }
}
