//! Ranks other than 0: announce, join what children announce, pass the rest on.

use std::time::Duration;

use client::module::{Context, ModuleError};
use client::{Handle, Message, Node, RpcError};
use formats::Idset;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::{Reduce, ReduceAnswer, answer_topology, look, relay};
use crate::discover::Local;

/// Waits between attempts to reach a parent whose resource module is not there yet.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

enum Done {
    Reduced(Reduce, Vec<Message>, Result<ReduceAnswer, RpcError>),
    Looked(Result<Local, ModuleError>),
    Retry,
    Nothing,
}

struct Follower {
    handle: Handle,
    /// What goes up next, and who waits for its answer.
    pending: Reduce,
    waiting: Vec<Message>,
    in_flight: bool,
    retry: Duration,
    /// This rank was asked to look.
    looking: bool,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
}

pub(super) async fn run(mut ctx: Context) -> Result<(), ModuleError> {
    let rank = ctx.handle.rank();
    let mut follower = Follower {
        handle: ctx.handle,
        pending: Reduce {
            online: Idset::from(rank),
            resources: None,
        },
        waiting: Vec::new(),
        in_flight: false,
        retry: RETRY,
        looking: false,
        work: FuturesUnordered::new(),
    };
    follower.send();
    loop {
        tokio::select! {
            msg = ctx.inbox.recv() => match msg {
                Some(msg) => follower.handle_message(msg),
                None => return Ok(()),
            },
            Some(done) = follower.work.next() => follower.handle_done(done)?,
        }
    }
}

impl Follower {
    fn handle_message(&mut self, msg: Message) {
        if !msg.is_request() {
            return;
        }
        let handle = self.handle.clone();
        match msg.topic().strip_prefix("resource.").unwrap_or_default() {
            "reduce" => match msg.require_owner().and_then(|()| msg.json()) {
                Ok(reduce) => {
                    self.pending.join(reduce);
                    self.waiting.push(msg);
                    self.send();
                }
                Err(e) => handle.respond_error(&msg, &e),
            },
            "topo-get" => self.spawn(answer_topology(handle, msg)),
            "get" => self.spawn(relay(handle, msg, Node::Upstream)),
            "disconnect" => {}
            "expiration-update" => {
                let text = "resource.expiration-update is only available on rank 0";
                handle.respond_error(&msg, &RpcError::proto(text));
            }
            "status" | "sched-status" | "monitor-waitup" => {
                let text = format!("{}: this only works on rank 0", msg.topic());
                handle.respond_error(&msg, &RpcError::proto(text));
            }
            _ => handle.respond_enosys(&msg),
        }
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.work.push(Box::pin(async move {
            work.await;
            Done::Nothing
        }));
    }

    /// Sends what is pending, one message at a time: what arrives meanwhile goes together.
    fn send(&mut self) {
        if self.in_flight || self.pending.online.is_empty() {
            return;
        }
        self.in_flight = true;
        let reduce = std::mem::take(&mut self.pending);
        let waiting = std::mem::take(&mut self.waiting);
        let rpc = self.handle.rpc("resource.reduce", Node::Upstream, &reduce);
        self.work.push(Box::pin(async move {
            let answer = rpc.await.and_then(|msg| msg.json());
            Done::Reduced(reduce, waiting, answer)
        }));
    }

    fn handle_done(&mut self, done: Done) -> Result<(), ModuleError> {
        match done {
            Done::Reduced(reduce, waiting, Ok(answer)) => {
                self.in_flight = false;
                self.retry = RETRY;
                for msg in waiting {
                    self.handle.respond(&msg, &answer);
                }
                if answer.discover && !self.looking && reduce.online.contains(self.handle.rank()) {
                    self.looking = true;
                    self.work
                        .push(Box::pin(async { Done::Looked(look().await) }));
                }
                self.send();
            }
            Done::Reduced(reduce, waiting, Err(_)) => {
                // The parent is not up yet, or was replaced: try again, with patience.
                // Until then nothing else goes up.
                self.pending.join(reduce);
                self.waiting.extend(waiting);
                let delay = self.retry;
                self.retry = (self.retry * 2).min(RETRY_MAX);
                self.work.push(Box::pin(async move {
                    tokio::time::sleep(delay).await;
                    Done::Retry
                }));
            }
            Done::Looked(local) => {
                let rank = self.handle.rank();
                let resources = Some(local?.as_target(rank));
                self.pending.join(Reduce {
                    online: Idset::from(rank),
                    resources,
                });
                self.send();
            }
            Done::Retry => {
                self.in_flight = false;
                self.send();
            }
            Done::Nothing => {}
        }
        Ok(())
    }
}
