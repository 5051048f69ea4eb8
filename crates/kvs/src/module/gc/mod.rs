//! `kvs.gc`: garbage collection of the content store (rank 0), on demand and when enough may be garbage.
//!
//! Tree objects never change, so what is referred to when a cycle begins is what can be reached from the roots there are
//! then: of the namespaces, of commits that are being stored, of checkpoints, and what transactions have named since the
//! cycle before. What is stored later the store keeps by itself, and it removes only what was out of reach for the whole
//! of the grace time ([`content::backing::collector`]). The grace time is for those who still hold a reference: readers
//! of an old root, programs between storing a blob and committing it.

mod cycle;
mod hold;
mod pace;
mod settings;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use client::{Message, RpcError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Done, Module};
use crate::mark;
use crate::store::Need;
use crate::txn::Op;
use cycle::{Cycle, Roots};
use hold::Holds;
use pace::Pace;
pub(super) use settings::Settings;

/// References of transactions that are remembered. With more, everything is innocent again.
const MOST_REFERENCES: usize = 1 << 20;

/// What a collection has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Swept {
    /// Blobs that are referred to.
    live: u64,
    /// Blobs that may be removed once the grace time is over.
    condemned: u64,
    /// Blobs that were removed, and bytes they held.
    removed: u64,
    freed: u64,
    /// Bytes that hold what is left.
    used: u64,
    /// Where it began: roots of namespaces other than the primary one, and checkpoints.
    #[serde(default)]
    namespaces: u64,
    #[serde(default)]
    checkpoints: u64,
}

/// A collection under way.
struct Run {
    started: Instant,
    grace: Duration,
    /// Who waits for it; nobody if it began by itself.
    requests: Vec<Message>,
    /// What its first cycle has come to, if it goes on to a second.
    first: Option<Swept>,
}

/// What it keeps in mind.
pub(super) struct State {
    settings: Settings,
    pace: Pace,
    /// What transactions have named since the last cycle began.
    referenced: HashSet<Need>,
    /// What they had named before that, until a cycle that marks it has come to its end.
    marking: HashSet<Need>,
    /// There was more than can be kept.
    overflow: bool,
    run: Option<Run>,
    holds: Holds,
    /// Requests for collections that begin when the one under way has ended, with their grace times.
    waiting: Vec<(Message, Duration)>,
    /// The store cannot collect garbage.
    is_unable: bool,
    cycles: u64,
    total: Swept,
    last: Option<Swept>,
    seconds: f64,
}

impl State {
    pub(super) fn new(settings: Settings) -> State {
        State {
            settings,
            pace: Pace::default(),
            referenced: HashSet::new(),
            marking: HashSet::new(),
            overflow: false,
            run: None,
            holds: Holds::default(),
            waiting: Vec::new(),
            is_unable: false,
            cycles: 0,
            total: Swept::default(),
            last: None,
            seconds: 0.,
        }
    }

    pub(super) fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// So many bytes are being stored.
    pub(super) fn store(&mut self, bytes: usize) {
        self.pace.store(bytes as u64);
    }

    /// A transaction names these.
    pub(super) fn refer(&mut self, needs: impl IntoIterator<Item = Need>) {
        self.referenced.extend(needs);
        if self.referenced.len() > MOST_REFERENCES {
            self.referenced.clear();
            self.marking.clear();
            self.overflow = true;
        }
    }

    /// A transaction names what these operations refer to.
    pub(super) fn refer_ops(&mut self, ops: &[Op]) {
        let objects = ops.iter().filter_map(|op| op.dirent.as_ref());
        self.refer(mark::references(objects));
    }

    /// When the next collection is due.
    pub(super) fn due(&self) -> Option<tokio::time::Instant> {
        if self.run.is_some() || self.is_unable {
            return None;
        }
        let due = self.pace.due(&self.settings, Instant::now());
        due.map(tokio::time::Instant::from_std)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "automatic": self.settings.automatic && !self.is_unable,
            "holds": self.holds.len(),
            "cycles": self.cycles,
            "removed": self.total.removed,
            "freed": self.total.freed,
            "last": self.last,
            "seconds": self.seconds,
        })
    }

    /// A client has gone.
    pub(super) fn disconnect(&mut self, msg: &Message) {
        self.holds.disconnect(msg);
    }

    /// Who waits for a collection.
    pub(super) fn take_waiting(&mut self) -> Vec<Message> {
        let requests = self
            .run
            .as_mut()
            .map(|run| std::mem::take(&mut run.requests));
        let later = self.waiting.drain(..).map(|(msg, _)| msg);
        requests.into_iter().flatten().chain(later).collect()
    }
}

/// Waits for a time that may never come.
pub(super) async fn at(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Module {
    pub(super) fn handle_gc(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            grace: f64,
        }
        msg.require_owner()?;
        if self.handle.rank() != 0 {
            self.relay_to_root(msg);
            return Ok(());
        }
        let Request { grace } = msg.json()?;
        let grace = Duration::try_from_secs_f64(grace)
            .map_err(|e| RpcError::explained(libc::EINVAL, format!("grace {grace}: {e}")))?;
        match self.gc.run {
            Some(_) => self.gc.waiting.push((msg.clone(), grace)),
            None => self.collect(grace, vec![msg.clone()]),
        }
        Ok(())
    }

    pub(super) fn handle_gc_hold(&mut self, msg: &Message) -> Result<(), RpcError> {
        if self.handle.rank() != 0 {
            let text = "garbage is collected on rank 0: ask there";
            return Err(RpcError::new(libc::EINVAL, text));
        }
        self.gc.holds.grant(&self.handle, msg)
    }

    pub(super) fn handle_gc_hold_cancel(&mut self, msg: &Message) {
        self.gc.holds.cancel(&self.handle, msg);
    }

    /// A collection is due.
    pub(super) fn collect_garbage(&mut self) {
        if self.gc.run.is_none() {
            self.collect(self.gc.settings.grace, Vec::new());
        }
    }

    fn collect(&mut self, grace: Duration, requests: Vec<Message>) {
        self.gc.run = Some(Run {
            started: Instant::now(),
            grace,
            requests,
            first: None,
        });
        self.begin_cycle(Duration::ZERO);
    }

    fn begin_cycle(&mut self, after: Duration) {
        let Some(run) = &self.gc.run else { return };
        let (handle, grace) = (self.handle.clone(), run.grace.as_secs_f64());
        let anew = std::mem::take(&mut self.gc.overflow);
        let released = self.gc.holds.released();
        self.work.push(Box::pin(async move {
            tokio::time::sleep(after).await;
            released.await;
            Done::GcBegun(Cycle::begin(&handle, grace, anew).await)
        }));
    }

    /// The store keeps what comes from now on: the roots there are now are those to mark.
    pub(super) fn handle_gc_begun(&mut self, begun: Result<u64, RpcError>) {
        let number = match begun {
            Ok(number) => number,
            Err(e) => {
                // If it was to forget what was condemned, it still is.
                self.gc.overflow = true;
                return self.handle_swept(Err(e));
            }
        };
        self.gc.pace.begin(Instant::now());
        let gc = &mut self.gc;
        gc.marking.extend(gc.referenced.drain());
        let mut roots = Roots {
            namespaces: self.table.map.len() as u64 - 1,
            // New namespaces begin with it.
            complete: vec![Need::Dir(self.empty_dir)],
            partial: gc.marking.iter().copied().collect(),
        };
        for ns in self.table.map.values() {
            roots.complete.push(Need::Dir(ns.root));
            roots.partial.extend(ns.storing.map(Need::Dir));
        }
        let cycle = Cycle {
            handle: self.handle.clone(),
            alg: self.alg,
            number,
        };
        self.work.push(Box::pin(async move {
            // A task of its own, so that commits go on meanwhile; it ends with the module.
            let mut task = JoinSet::new();
            task.spawn(cycle.run(roots));
            let swept = task.join_next().await.expect("a task was spawned");
            Done::GcEnded(swept.unwrap_or_else(|e| Err(RpcError::new(libc::EIO, e.to_string()))))
        }));
    }

    pub(super) fn handle_swept(&mut self, swept: Result<Swept, RpcError>) {
        let Some(run) = &mut self.gc.run else { return };
        self.gc.pace.end(Instant::now(), swept.as_ref().ok());
        if let Ok(swept) = &swept {
            self.gc.marking.clear();
            self.gc.cycles += 1;
            self.gc.total.removed += swept.removed;
            self.gc.total.freed += swept.freed;
            // Who asks for it wants to see garbage go, and waits.
            if !run.requests.is_empty() && run.first.is_none() && swept.condemned > 0 {
                run.first = Some(*swept);
                let grace = run.grace;
                return self.begin_cycle(grace);
            }
        }
        let Some(run) = self.gc.run.take() else {
            return;
        };
        let before = run.first.unwrap_or_default();
        let swept = swept.map(|swept| Swept {
            removed: before.removed + swept.removed,
            freed: before.freed + swept.freed,
            ..swept
        });
        self.report(&run, &swept);
        for (msg, grace) in std::mem::take(&mut self.gc.waiting) {
            match &mut self.gc.run {
                Some(run) => {
                    run.grace = run.grace.max(grace);
                    run.requests.push(msg);
                }
                None => self.collect(grace, vec![msg]),
            }
        }
    }

    fn report(&mut self, run: &Run, swept: &Result<Swept, RpcError>) {
        let seconds = run.started.elapsed().as_secs_f64();
        match swept {
            Ok(swept) => {
                self.gc.last = Some(*swept);
                self.gc.seconds = seconds;
                let Swept {
                    live,
                    condemned,
                    removed,
                    freed,
                    ..
                } = swept;
                let text = format!(
                    "garbage collection: {live} objects live, {condemned} condemned, \
                     {removed} with {freed} bytes removed in {seconds:.2}s"
                );
                self.handle.say("kvs", libc::LOG_DEBUG as u8, &text);
            }
            // A store of others, or none.
            Err(e) if matches!(e.errno, libc::ENOSYS | libc::EHOSTUNREACH) => {
                self.gc.is_unable = run.requests.is_empty();
            }
            Err(e) => {
                let text = format!("garbage collection failed: {e}");
                self.handle.say("kvs", libc::LOG_ERR as u8, &text);
            }
        }
        for msg in &run.requests {
            let answer = swept.as_ref().map_err(RpcError::clone).map(|swept| {
                let mut answer = json!(swept);
                answer["seconds"] = seconds.into();
                answer
            });
            self.handle.respond_result(msg, answer);
        }
    }
}
