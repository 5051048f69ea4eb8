//! The broker module `kvs`, on every rank (RFC 11).
//!
//! Rank 0 holds the primary copy: all commits to a namespace that arrive while one root update is
//! in flight are merged in the next. A commit is answered when its objects and the new root are
//! stored. Other ranks pass commits to rank 0 and move their own root forward before they pass
//! the answer back, so a client reads what it wrote. Reads are local everywhere; objects are
//! faulted in through the content cache.
//!
//! One task owns all state. Work that lacks an object or a namespace is parked in `stalled` and
//! run again when what it needs has arrived.

mod commit;
pub(crate) mod lookup;
mod namespaces;
mod stall;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use client::module::{Context, ModuleError};
use client::services::event::Publish;
use client::{Handle, Inbox, Message, Node, RpcError};
use content::{BlobRef, HashAlg};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use serde_json::{Value, json};

use crate::namespace::{Namespace, Table};
use crate::store::{Need, Store};
use crate::treeobj::TreeObj;
use crate::{PRIMARY, namespace};
use stall::{Getting, Stalled};

/// Memory for decoded directories, and as much for value blobs.
const STORE_LIMIT: usize = 64 << 20;

/// What a finished call means.
enum Done {
    Loaded(Need, Result<Bytes, RpcError>),
    GotRoot(String, Result<RootInfo, RpcError>),
    /// Rank 0: the objects of the commit in flight in this namespace are stored, or not.
    Stored {
        namespace: String,
        root: BlobRef,
        results: Vec<Result<(), RpcError>>,
        stored: Result<(), RpcError>,
    },
    /// Rank 0: a checkpoint that these commits waited for.
    Synced(Vec<Message>, Value, Result<(), RpcError>),
    /// Other ranks: rank 0's answer to a commit.
    Committed {
        namespace: String,
        request: Message,
        answer: Result<Message, RpcError>,
    },
    Nothing,
}

/// What `kvs.getroot` answers.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct RootInfo {
    owner: i64,
    rootseq: i64,
    rootref: BlobRef,
    #[serde(default)]
    flags: i64,
    namespace: String,
}

#[derive(Default)]
struct Stats {
    faults: u64,
    commits: u64,
    ops: u64,
    updates: u64,
}

struct Module {
    handle: Handle,
    alg: HashAlg,
    empty_dir: BlobRef,
    store: Store,
    table: Table,
    stalled: HashMap<u64, Stalled>,
    next_stall: u64,
    /// Loads in flight, with what waits for each.
    loads: HashMap<Need, Vec<u64>>,
    /// Root requests in flight (not on rank 0), with what waits for each.
    getroots: HashMap<String, Getting>,
    /// Namespaces with commits waiting and none in flight (rank 0).
    ready: HashSet<String>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    stats: Stats,
}

/// Runs the module until its inbox ends. Argument `initial-rootref=REF` (rank 0) starts from
/// that root instead of the last one stored.
pub async fn main(ctx: Context) -> Result<(), ModuleError> {
    let mut inbox = ctx.inbox;
    let period = checkpoint_period(&ctx.handle).await?;
    let mut module = Module::start(ctx.handle, &ctx.args).await?;
    let mut timer = period.map(|p| tokio::time::interval_at(tokio::time::Instant::now() + p, p));
    loop {
        let tick = async {
            match &mut timer {
                Some(t) => drop(t.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => module.drain(msg, &mut inbox),
                None => break,
            },
            Some(done) = module.work.next() => module.handle_done(done),
            () = tick => module.checkpoint(),
        }
        module.start_commits();
    }
    module.finish().await;
    Ok(())
}

impl Module {
    async fn start(handle: Handle, args: &[String]) -> Result<Module, ModuleError> {
        let alg = match handle.getattr("content.hash").await {
            Ok(name) => name
                .parse()
                .map_err(|e| ModuleError::new("attribute content.hash", e))?,
            Err(_) => HashAlg::default(),
        };
        let empty = TreeObj::empty_dir().encode();
        let empty_dir = alg.hash(&empty);
        let mut module = Module {
            handle,
            alg,
            empty_dir,
            store: Store::new(STORE_LIMIT),
            table: Table::default(),
            stalled: HashMap::new(),
            next_stall: 0,
            loads: HashMap::new(),
            getroots: HashMap::new(),
            ready: HashSet::new(),
            work: FuturesUnordered::new(),
            stats: Stats::default(),
        };
        module.store.insert_dir(empty_dir, Default::default());
        if module.handle.rank() == 0 {
            module.start_primary(args, empty.into()).await?;
        }
        Ok(module)
    }

    /// Rank 0: finds the root to start from.
    async fn start_primary(&mut self, args: &[String], empty: Bytes) -> Result<(), ModuleError> {
        let stored = self
            .handle
            .rpc_raw("content.store", Node::Any, Some(empty))
            .await?;
        if stored.payload().map(|p| &p[..]) != Some(self.empty_dir.raw()) {
            return Err(ModuleError::invalid(
                "content and kvs do not use the same hash",
            ));
        }
        let arg = args.iter().find_map(|a| a.strip_prefix("initial-rootref="));
        let (root, seq) = match arg {
            Some(text) => {
                let root = text
                    .parse()
                    .map_err(|e| ModuleError::new("initial-rootref", e))?;
                (root, 0)
            }
            None => last_root(&self.handle)
                .await?
                .unwrap_or((self.empty_dir, 0)),
        };
        let mut primary = Namespace::new(PRIMARY, own_userid(), 0, root, seq);
        primary.checkpointed = Some(seq);
        self.table.map.insert(PRIMARY.to_owned(), primary);
        Ok(())
    }

    /// Handles a message and all that are there already, so that their commits merge.
    fn drain(&mut self, msg: Message, inbox: &mut Inbox) {
        self.handle_message(msg);
        while let Some(msg) = inbox.try_recv() {
            self.handle_message(msg);
        }
    }

    fn handle_message(&mut self, msg: Message) {
        if msg.is_event() {
            self.handle_event(&msg);
        } else if msg.is_request()
            && let Err(e) = self.handle_request(&msg)
        {
            self.handle.respond_error(&msg, &e);
        }
    }

    fn handle_request(&mut self, msg: &Message) -> Result<(), RpcError> {
        match msg.topic().strip_prefix("kvs.").unwrap_or_default() {
            "lookup" => self.handle_lookup(msg, lookup::Answer::Value),
            "lookup-plus" => self.handle_lookup(msg, lookup::Answer::Plus),
            "lookup-appended" => self.handle_lookup_appended(msg),
            "commit" => self.handle_commit(msg),
            "getroot" => self.handle_getroot(msg),
            "wait-version" => self.handle_wait_version(msg),
            "namespace-create" => self.handle_namespace_create(msg),
            "namespace-remove" => self.handle_namespace_remove(msg),
            "namespace-list" => self.handle_namespace_list(msg),
            "setroot-pause" => self.handle_pause(msg, true),
            "setroot-unpause" => self.handle_pause(msg, false),
            "disconnect" => {
                for ns in self.table.map.values_mut() {
                    ns.waiters.retain(|(_, w)| w.sender() != msg.sender());
                }
                Ok(())
            }
            "dropcache" => {
                msg.require_owner()?;
                self.store.clear();
                self.handle.respond_ok(msg);
                Ok(())
            }
            "stats-get" => {
                self.handle.respond(msg, &self.stats_object());
                Ok(())
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        }
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Loaded(need, result) => self.handle_loaded(need, result),
            Done::GotRoot(name, result) => self.handle_got_root(name, result),
            Done::Stored {
                namespace,
                root,
                results,
                stored,
            } => {
                self.handle_stored(&namespace, root, results, stored);
            }
            Done::Synced(requests, answer, result) => {
                for msg in requests {
                    match &result {
                        Ok(()) => self.handle.respond(&msg, &answer),
                        Err(e) => self.handle.respond_error(&msg, e),
                    }
                }
            }
            Done::Committed {
                namespace,
                request,
                answer,
            } => {
                self.handle_committed(&namespace, &request, answer);
            }
            Done::Nothing => {}
        }
    }

    /// The namespace, if this rank knows it and the sender may use it.
    fn namespace(&self, name: &str, msg: &Message) -> Result<Option<&Namespace>, RpcError> {
        match self.table.map.get(name) {
            Some(ns) => ns.check_user(msg).map(|()| Some(ns)),
            None if self.handle.rank() == 0 => Err(namespace::unknown(name)),
            None => Ok(None),
        }
    }

    /// Publishes an event that only the instance owner sees. Events leave in the order of calls.
    fn publish(&self, topic: &str, payload: &impl Serialize) {
        // Our own structs encode as JSON; if one did not, there would be nothing to publish.
        let Ok(payload) = wire::json_payload(payload) else {
            return;
        };
        let request = Publish::new(topic, Some(&payload), true);
        drop(self.handle.ask(Node::Rank(0), &request));
    }

    /// Writes a checkpoint if the primary root has moved since the last one.
    fn checkpoint(&mut self) {
        if let Some(rpc) = self.start_checkpoint() {
            self.work.push(Box::pin(async move {
                // The next period tries again.
                let _ = rpc.await;
                Done::Nothing
            }));
        }
    }

    fn start_checkpoint(&mut self) -> Option<client::Rpc> {
        let ns = self.table.map.get_mut(PRIMARY)?;
        if self.handle.rank() != 0 || ns.checkpointed == Some(ns.seq) {
            return None;
        }
        ns.checkpointed = Some(ns.seq);
        let value = checkpoint_value(ns.root, ns.seq);
        let request = json!({ "value": value });
        Some(
            self.handle
                .rpc("content.checkpoint-put", Node::Any, &request),
        )
    }

    /// Shutdown: commits under way are finished, then the root is kept.
    async fn finish(&mut self) {
        self.start_commits();
        while self.table.map.values().any(|ns| !ns.in_flight.is_empty()) {
            let Some(done) = self.work.next().await else {
                break;
            };
            self.handle_done(done);
            self.start_commits();
        }
        if let Some(rpc) = self.start_checkpoint() {
            // Without it, the root stored with the last commit is used.
            let _ = rpc.await;
        }
    }

    fn stats_object(&self) -> Value {
        let (objects, bytes) = self.store.stats();
        let namespaces: serde_json::Map<String, Value> = self
            .table
            .map
            .values()
            .map(|ns| {
                let value = json!({
                    "#versionwaiters": ns.waiters.len(),
                    "#no-op stores": 0,
                    "#transactions": ns.queue.len() + ns.in_flight.len(),
                    "#readytransactions": ns.queue.len(),
                    "store revision": ns.seq,
                });
                (ns.name.clone(), value)
            })
            .collect();
        let mean = self.stats.ops as f64 / self.stats.commits.max(1) as f64;
        json!({
            "cache": {
                "obj size total (MiB)": bytes as f64 / 1048576.0,
                "obj size (KiB)": {
                    "count": objects, "min": 0, "max": 0, "stddev": 0.0,
                    "mean": bytes as f64 / 1024.0 / objects.max(1) as f64,
                },
                "#obj dirty": 0,
                "#obj incomplete": self.loads.len(),
                "#faults": self.stats.faults,
            },
            "namespace": namespaces,
            "transaction-opcount": {
                "commit": {
                    "count": self.stats.commits, "min": 0, "max": 0, "stddev": 0.0, "mean": mean,
                },
            },
            "root-updates": self.stats.updates,
            "pending_requests": self.stalled.len(),
        })
    }
}

async fn last_root(handle: &Handle) -> Result<Option<(BlobRef, i64)>, ModuleError> {
    #[derive(serde::Deserialize)]
    struct Checkpoint {
        rootref: BlobRef,
        #[serde(default)]
        sequence: i64,
    }
    #[derive(serde::Deserialize)]
    struct Answer {
        value: Vec<Checkpoint>,
    }
    match handle
        .call::<Answer>("content.checkpoint-get", Node::Any, &json!({}))
        .await
    {
        Ok(answer) => Ok(answer.value.first().map(|c| (c.rootref, c.sequence))),
        // Nothing was kept, or nothing keeps anything.
        Err(e) if matches!(e.errno, libc::ENOENT | libc::ENOSYS) => Ok(None),
        Err(e) => Err(ModuleError::new("reading the KVS checkpoint", e)),
    }
}

/// Configuration key `kvs.checkpoint-period`, in effect on rank 0.
async fn checkpoint_period(handle: &Handle) -> Result<Option<Duration>, ModuleError> {
    if handle.rank() != 0 {
        return Ok(None);
    }
    let Ok(config) = handle
        .call::<Value>("config.get", Node::Any, &json!({}))
        .await
    else {
        return Ok(None);
    };
    let Some(text) = config["kvs"]["checkpoint-period"].as_str() else {
        return Ok(None);
    };
    let seconds = formats::fsd::parse(text)
        .map_err(|e| ModuleError::new("configuration key kvs.checkpoint-period", e))?;
    Ok(Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|d| !d.is_zero()))
}

/// The value of a checkpoint (upstream's version 1).
fn checkpoint_value(root: BlobRef, seq: i64) -> Value {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    json!({
        "version": 1,
        "rootref": root,
        "sequence": seq,
        "timestamp": now.as_secs_f64(),
    })
}

fn own_userid() -> u32 {
    // SAFETY: getuid has no preconditions and cannot fail.
    unsafe { libc::getuid() }
}
