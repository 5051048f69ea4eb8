//! PMIx of the tasks, with option `pmi=pmix`: what libpmix asks, and the exchange among all shells.
//!
//! Fences go through the leader as the barriers of PMI-1 do, with data in base64. What a task wants of a task of another
//! shell before there has been a fence is asked of that shell.

use super::{Event, Running};
use crate::{
    Fatal,
    environment::{Environment, show_id},
    gather::{Gather, Gift},
    log::Level,
    pmi::Entries,
    startup,
};
use client::Node;
use formats::iodata::{base64_decode, base64_encode};
use pmi::pmix::{Job, Reply, Request, Server};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use tokio::task::spawn_local;
use wire::{Message, RpcError};

/// What happens to PMIx beside the loop.
pub(super) enum Happening {
    Asked(Request),
    /// All shells have come to the fence; nothing if that failed.
    Fenced(Option<Entries>),
    /// A task's data is there for the shell that has asked.
    Found(Message, Option<Vec<u8>>),
}

/// The server, and fences that are under way.
pub(super) struct Pmix {
    server: Server,
    gather: Gather,
    /// Others than the leader: fences that were begun.
    begun: u64,
    /// Local fences wait here for the other shells.
    fences: VecDeque<Reply>,
}

/// The data of all shells, in the order of their ranks.
fn join(entries: &Entries) -> Option<Vec<u8>> {
    let mut parts = entries
        .iter()
        .map(|(rank, data)| Some((rank.parse::<u32>().ok()?, base64_decode(data)?)))
        .collect::<Option<Vec<_>>>()?;
    parts.sort();
    Some(parts.into_iter().flat_map(|(_, data)| data).collect())
}

impl Running {
    /// Starts the server, if the job wants it.
    pub(super) fn start_pmix(&mut self) -> Result<(), Fatal> {
        let info = &self.shell.info;
        if !self.shell.options.pmi.pmix {
            return Ok(());
        }
        let of_node = |node| info.taskmap.task_ids(node).iter().collect();
        let job = Job {
            nspace: info.id.f58_ascii(),
            node: info.shell_rank,
            hosts: info.places.iter().map(|place| place.host.clone()).collect(),
            tasks: (0..info.size()).map(of_node).collect(),
            tmpdir: self.shell.tmpdir.path().to_string_lossy().into_owned(),
        };
        let events = self.events.clone();
        let server = Server::start(&job, move |request| {
            let _ = events.send(Event::Pmix(Happening::Asked(request)));
        });
        self.pmix = Some(Pmix {
            server: server.map_err(|e| Fatal::new(format!("pmi=pmix: {e}")))?,
            gather: Gather::new(info),
            begun: 0,
            fences: VecDeque::new(),
        });
        Ok(())
    }

    /// Lets a task that is about to start connect to the server.
    pub(super) fn admit_to_pmix(&self, rank: u32, env: &mut Environment) -> Result<(), Fatal> {
        if let Some(pmix) = &self.pmix {
            let needed = pmix.server.admit(rank);
            env.extend(needed.map_err(|e| Fatal::new(format!("pmi=pmix: task {rank}: {e}")))?);
        }
        Ok(())
    }

    pub(super) fn stop_pmix(&mut self) {
        if let Some(pmix) = self.pmix.take() {
            pmix.server.stop();
        }
    }

    pub(super) async fn pmix_happening(&mut self, happening: Happening) -> Result<(), Fatal> {
        match happening {
            Happening::Asked(request) => self.pmix_asked(request).await,
            Happening::Fenced(entries) => {
                let data = entries.as_ref().and_then(join);
                let fence = self.pmix.as_mut().and_then(|pmix| pmix.fences.pop_front());
                if let Some((fence, data)) = fence.zip(data) {
                    fence.answer(data);
                }
                Ok(())
            }
            Happening::Found(message, data) => {
                let handle = &self.shell.handle;
                match data {
                    Some(data) => handle.respond(&message, &json!({"data": base64_encode(&data)})),
                    None => handle.respond_error(&message, &RpcError::errno(libc::ENOENT)),
                }
                Ok(())
            }
        }
    }

    async fn pmix_asked(&mut self, request: Request) -> Result<(), Fatal> {
        let logger = self.shell.logger.clone();
        match request {
            Request::Fence { data, reply } => {
                let text = format!("pmix: fence with {} bytes", data.len());
                logger.log(Level::Trace, &text).await;
                self.pmix_fence(&data, reply);
            }
            Request::Modex { rank, reply } => self.pmix_ask_other(rank, reply),
            Request::Finalized { rank } => {
                logger
                    .log(Level::Trace, &format!("pmix: task {rank} is done"))
                    .await;
            }
            Request::Refused { rank, what } => {
                let who = rank.map_or("tasks".to_owned(), |rank| format!("task {rank}"));
                let text = format!("pmix: {who}: {what} is not supported");
                logger.log(Level::Warning, &text).await;
            }
            Request::Abort {
                rank,
                status,
                message,
                done,
            } => {
                self.aborted = true;
                let id = show_id(&self.shell.info);
                let note = format!("{id}.{rank} called PMIx_Abort (status={status}): {message}");
                let (handle, id) = (&self.shell.handle, self.shell.info.id);
                if let Err(e) = startup::raise(handle, id, &note, None).await {
                    let text = format!("failed to raise job exception: {e}");
                    logger.log(Level::Error, &text).await;
                }
                drop(done);
            }
        }
        Ok(())
    }

    /// The local tasks have come to a fence.
    fn pmix_fence(&mut self, data: &[u8], reply: Reply) {
        let Some(pmix) = &mut self.pmix else { return };
        pmix.fences.push_back(reply);
        let info = &self.shell.info;
        let entries = Entries::from([(info.shell_rank.to_string(), base64_encode(data))]);
        if info.is_leader() {
            let gift = Gift {
                shell: info.shell_rank,
                round: pmix.gather.rounds(),
                entries,
                request: None,
            };
            return self.pmix_gather(gift);
        }
        let request = Gift::payload(info.shell_rank, pmix.begun, &entries);
        pmix.begun += 1;
        let answer = self.ask_leader("pmix-exchange", request);
        let events = self.events.clone();
        spawn_local(async move {
            let entries = answer.await.and_then(|m| m.json()).ok();
            let _ = events.send(Event::Pmix(Happening::Fenced(entries)));
        });
    }

    /// The leader: another shell has come to the fence.
    pub(super) fn pmix_exchange(&mut self, payload: &Map<String, Value>, request: Message) {
        let gift = Gift::from_request(payload, request.clone());
        match gift.filter(|_| self.pmix.is_some()) {
            Some(gift) => self.pmix_gather(gift),
            None => self.shell.handle.respond_enosys(&request),
        }
    }

    fn pmix_gather(&mut self, gift: Gift) {
        let Some(pmix) = &mut self.pmix else { return };
        let Some(all) = pmix.gather.add(gift) else {
            return;
        };
        for request in &all.requests {
            self.shell.handle.respond(request, &*all.entries);
        }
        if all.complete && !self.tasks.is_empty() {
            let fenced = Happening::Fenced(Some(Entries::clone(&all.entries)));
            let _ = self.events.send(Event::Pmix(fenced));
        }
    }

    /// Asks the shell that has a task for what the task has put.
    fn pmix_ask_other(&self, rank: u32, reply: Reply) {
        let info = &self.shell.info;
        let node = info.taskmap.node_of(rank);
        let Some(place) = node.and_then(|node| info.places.get(node as usize)) else {
            return;
        };
        let topic = format!("{}.pmix-modex", self.shell.service);
        let node = Node::Rank(place.broker_rank);
        let answer = self.shell.handle.rpc(&topic, node, &json!({"rank": rank}));
        spawn_local(async move {
            let answer: Option<Value> = answer.await.and_then(|m| m.json()).ok();
            let data = answer.as_ref().and_then(|answer| answer.get("data"));
            if let Some(data) = data.and_then(Value::as_str).and_then(base64_decode) {
                reply.answer(data);
            }
        });
    }

    /// Another shell asks for what a local task has put.
    pub(super) fn pmix_modex(&self, payload: &Map<String, Value>, request: Message) {
        let rank = payload.get("rank").and_then(Value::as_u64);
        let rank = rank.and_then(|rank| u32::try_from(rank).ok());
        let Some((pmix, rank)) = self.pmix.as_ref().zip(rank) else {
            return self.shell.handle.respond_enosys(&request);
        };
        let events = self.events.clone();
        pmix.server.look_up(rank, move |data| {
            let _ = events.send(Event::Pmix(Happening::Found(request, data)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_shells_is_joined_in_their_order() {
        let entry = |rank: &str, data: &str| (rank.to_owned(), base64_encode(data.as_bytes()));
        let entries = Entries::from([entry("10", "c"), entry("2", "b"), entry("0", "a")]);
        assert_eq!(join(&entries).as_deref(), Some(&b"abc"[..]));
        assert_eq!(join(&Entries::from([("0".into(), "?".into())])), None);
    }
}
