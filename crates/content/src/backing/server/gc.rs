//! Garbage collection as a service: `gc-begin`, `gc-mark`, `gc-sweep` or `gc-abort`, and `gc-status`.
//!
//! One cycle after the other is driven from outside, by whoever knows what is referred to. Names are read and removals
//! are written a few at a time, so that loads and stores hardly wait.

use std::time::{Duration, Instant};

use client::{Message, RpcError};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Done, Server};
use crate::BlobRef;
use crate::backing::collector::{Figures, Over};
use crate::backing::writes::Write;
use crate::backing::{Backing, BackingError, Removed};
use crate::many;

type Names<'a> = BoxStream<'a, Result<Vec<BlobRef>, BackingError>>;

/// The request for a cycle that was begun.
#[derive(Deserialize)]
struct Cycle {
    cycle: u64,
}

/// A sweep under way.
pub(super) struct Sweep<'a> {
    request: Message,
    cycle: u64,
    at: At<'a>,
}

/// How far a sweep is.
enum At<'a> {
    /// These names have not been read.
    Names(Names<'a>),
    /// All names are read and all is removed that was to be.
    Removed,
    /// Something is under way that comes back as a [`Step`].
    Waiting,
}

/// What a step of a sweep has come to.
pub(super) enum Step<'a> {
    Names(Names<'a>, Option<Result<Vec<BlobRef>, BackingError>>),
    GivenBack(Result<bool, BackingError>),
    Used(Result<u64, BackingError>),
}

/// What a sweep has come to.
#[derive(Debug, Serialize)]
struct Swept {
    #[serde(flatten)]
    figures: Figures,
    /// Bytes that hold what is stored now.
    used: u64,
}

impl From<Over> for RpcError {
    fn from(e: Over) -> Self {
        Self::explained(libc::ESTALE, e)
    }
}

impl<'a, S: Backing> Server<'a, S> {
    pub(super) fn handle_gc_begin(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Begin {
            grace: f64,
            /// What was condemned before does not count.
            #[serde(default)]
            anew: bool,
        }
        let Begin { grace, anew } = msg.json()?;
        let grace = Duration::try_from_secs_f64(grace)
            .map_err(|e| RpcError::explained(libc::EINVAL, format!("grace {grace}: {e}")))?;
        self.end_sweep(&RpcError::explained(
            libc::ESTALE,
            "another garbage collection has begun",
        ));
        if anew {
            self.collector.forget();
        }
        let cycle = self.collector.begin(Instant::now(), grace);
        self.handle.respond(msg, &json!({ "cycle": cycle }));
        Ok(())
    }

    pub(super) fn handle_gc_mark(&mut self, msg: &Message) -> Result<(), RpcError> {
        let malformed = || RpcError::proto("content-backing.gc-mark: a digest is cut short");
        let payload = msg.payload().map_or(&[][..], |p| &p[..]);
        let (number, digests) = payload.split_first_chunk().ok_or_else(malformed)?;
        let blobs = many::decode_request(self.alg, digests).ok_or_else(malformed)?;
        self.collector.mark(u64::from_le_bytes(*number), &blobs)?;
        self.handle.respond_ok(msg);
        Ok(())
    }

    pub(super) fn handle_gc_abort(&mut self, msg: &Message) -> Result<(), RpcError> {
        let Cycle { cycle } = msg.json()?;
        self.collector.give_up(cycle);
        self.handle.respond_ok(msg);
        Ok(())
    }

    pub(super) fn handle_gc_sweep(&mut self, msg: &Message) -> Result<(), RpcError> {
        let Cycle { cycle } = msg.json()?;
        self.collector.examine(cycle, Vec::new())?;
        if self.sweep.is_some() {
            return Err(RpcError::explained(libc::EBUSY, "it is being swept"));
        }
        self.sweep = Some(Sweep {
            request: msg.clone(),
            cycle,
            at: At::Names(self.store.names()),
        });
        Ok(())
    }

    /// Does the next step of a sweep, unless removals or a step are under way.
    pub(super) fn step_sweep(&mut self) {
        let Some(sweep) = self.sweep.as_mut() else {
            return;
        };
        if self.writes.is_removing() {
            return;
        }
        let (store, cycle) = (self.store, sweep.cycle);
        match std::mem::replace(&mut sweep.at, At::Waiting) {
            At::Names(mut names) => self.work.push(Box::pin(async move {
                let some = names.next().await;
                Done::Sweep(cycle, Step::Names(names, some))
            })),
            At::Removed => self.work.push(Box::pin(async move {
                Done::Sweep(cycle, Step::GivenBack(store.give_back().await))
            })),
            At::Waiting => {}
        }
    }

    pub(super) fn handle_sweep_step(&mut self, cycle: u64, step: Step<'a>) {
        let Some(sweep) = self.sweep.as_mut().filter(|s| s.cycle == cycle) else {
            return;
        };
        let result = match step {
            Step::Names(names, Some(Ok(some))) => {
                let doomed = self.collector.examine(sweep.cycle, some);
                doomed.map_err(RpcError::from).map(|doomed| {
                    self.writes.add(Write::Remove(doomed));
                    sweep.at = At::Names(names);
                })
            }
            Step::Names(_, None) | Step::GivenBack(Ok(true)) => {
                sweep.at = At::Removed;
                Ok(())
            }
            Step::GivenBack(Ok(false)) => {
                let store = self.store;
                self.work.push(Box::pin(async move {
                    Done::Sweep(cycle, Step::Used(store.used().await))
                }));
                Ok(())
            }
            Step::Used(Ok(used)) => match self.collector.finish(sweep.cycle) {
                Ok(figures) => {
                    self.handle
                        .respond(&sweep.request, &Swept { figures, used });
                    self.sweep = None;
                    Ok(())
                }
                Err(e) => Err(e.into()),
            },
            Step::Names(_, Some(Err(e))) | Step::GivenBack(Err(e)) | Step::Used(Err(e)) => {
                Err(e.into())
            }
        };
        if let Err(e) = result {
            self.end_sweep(&e);
        }
    }

    pub(super) fn handle_removed(
        &mut self,
        blobs: &[BlobRef],
        result: Result<Removed, BackingError>,
    ) {
        self.writes.done();
        match result {
            Ok(removed) => self.collector.removed(blobs, removed),
            Err(e) => self.end_sweep(&e.into()),
        }
    }

    /// Ends a sweep that is under way with an error; what it has condemned stays so.
    pub(super) fn end_sweep(&mut self, e: &RpcError) {
        if let Some(sweep) = self.sweep.take() {
            self.collector.give_up(sweep.cycle);
            self.writes.forget_removals();
            self.handle.respond_error(&sweep.request, e);
        }
    }

    pub(super) fn handle_gc_status(&self, msg: &Message) {
        self.handle.respond(msg, &self.gc_status());
    }

    pub(super) fn gc_status(&self) -> Value {
        json!({
            "busy": self.collector.is_busy(),
            "condemned": self.collector.condemned(),
            "last": self.collector.last(),
        })
    }
}
