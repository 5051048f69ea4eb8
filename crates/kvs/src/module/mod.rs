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

mod checkpoint;
mod commit;
mod gc;
pub(crate) mod lookup;
mod namespaces;
mod options;
mod stall;
mod stats;
mod tally;

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use client::module::{Context, ModuleError};
use client::services::event::Publish;
use client::{Call as _, Handle, Inbox, Message, Node, RpcError};
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
use checkpoint::{Checkpoint, Timer};
use options::Options;
use stall::{Getting, Stalled};
use stats::Stats;

/// Memory for decoded directories, and as much for value blobs.
const STORE_LIMIT: usize = 64 << 20;

/// What a finished call means.
enum Done {
    Loaded(Need, Result<Bytes, RpcError>),
    GotRoot(String, Result<RootInfo, RpcError>),
    /// Rank 0: whoever makes this namespace has been asked.
    Provided(String),
    /// Rank 0: the objects of the commit in flight in this namespace are stored, or not.
    Stored {
        namespace: String,
        root: BlobRef,
        results: Vec<Result<(), RpcError>>,
        stored: Result<(), RpcError>,
    },
    /// Rank 0: a namespace that somebody has asked for is stored.
    Created(String, Message, Result<(), RpcError>),
    /// Rank 0: the checkpoint of a period.
    Checkpointed(i64, Result<(), RpcError>),
    /// Rank 0: a checkpoint that these commits waited for.
    Synced(Vec<Message>, Value, i64, Result<(), RpcError>),
    /// Rank 0: a cycle of garbage collection has begun.
    GcBegun(Result<u64, RpcError>),
    /// Rank 0: it has ended.
    GcEnded(Result<gc::Swept, RpcError>),
    /// Other ranks: rank 0's answer to a commit.
    Committed {
        namespace: String,
        request: Message,
        answer: Result<Message, RpcError>,
    },
    /// Other ranks: a request that rank 0 has answered.
    Relayed,
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
    ready: BTreeSet<String>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    stats: Stats,
    /// Commits are merged.
    merge: bool,
    timer: Timer,
    /// Sequence number of the last root that was kept (rank 0).
    checkpointed: i64,
    /// Requests that rank 0 has not answered yet (other ranks).
    relayed: usize,
    /// Commits that wait for a checkpoint (rank 0).
    syncing: usize,
    gc: gc::State,
}

/// Runs the module until its inbox ends.
pub async fn main(ctx: Context) -> Result<(), ModuleError> {
    let mut inbox = ctx.inbox;
    let options = Options::parse(&ctx.args)?;
    let mut module = Module::start(ctx.handle, &options).await?;
    loop {
        let due = module.gc.due();
        tokio::select! {
            // What happens is a function of what arrives. There is no more work than there are requests.
            biased;
            Some(done) = module.work.next() => module.handle_done(done),
            msg = inbox.recv() => match msg {
                Some(msg) => module.drain(msg, &mut inbox),
                None => break,
            },
            () = module.timer.tick() => module.checkpoint(),
            () = gc::at(due) => module.collect_garbage(),
        }
        module.start_commits();
    }
    module.finish().await;
    Ok(())
}

impl Module {
    async fn start(handle: Handle, options: &Options) -> Result<Module, ModuleError> {
        let alg = match handle.getattr("content.hash").await {
            Ok(name) => name
                .parse()
                .map_err(|e| ModuleError::new("attribute content.hash", e))?,
            Err(_) => HashAlg::default(),
        };
        let config = handle.call("config.get", Node::Any, &json!({})).await;
        // Without the service there is no configuration.
        let config = config.unwrap_or(Value::Null);
        let period = checkpoint::period(&config)?;
        let settings = gc::Settings::parse(&config)?;
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
            ready: BTreeSet::new(),
            work: FuturesUnordered::new(),
            stats: Stats::default(),
            merge: options.merge,
            timer: Timer::default(),
            checkpointed: 0,
            relayed: 0,
            syncing: 0,
            gc: gc::State::new(settings),
        };
        module.timer.set(period);
        module.store.insert_dir(empty_dir, Default::default());
        if module.handle.rank() == 0 {
            module.start_primary(options, empty.into()).await?;
        }
        Ok(module)
    }

    /// Rank 0: finds the root to start from.
    async fn start_primary(&mut self, options: &Options, empty: Bytes) -> Result<(), ModuleError> {
        let stored = self
            .handle
            .rpc_raw("content.store", Node::Any, Some(empty))
            .await;
        match stored {
            Ok(msg) if msg.payload().map(|p| &p[..]) == Some(self.empty_dir.raw()) => {}
            Ok(_) => {
                return Err(ModuleError::invalid(
                    "content and kvs do not use the same hash",
                ));
            }
            // What is there can still be read.
            Err(e) if is_full(&e) => {
                let text = format!("nothing can be committed for now: {e}");
                self.handle.say("kvs", 4, &text);
            }
            Err(e) => return Err(e.into()),
        }
        let (root, seq) = match options.initial_rootref {
            Some(root) => (root, 0),
            None => match Checkpoint::last(&self.handle).await? {
                Some(checkpoint) => {
                    self.handle.say("kvs", 6, &checkpoint.describe());
                    (checkpoint.rootref, checkpoint.sequence)
                }
                None => (self.empty_dir, 0),
            },
        };
        if options.initial_rootref.is_none() {
            let others = checkpoint::namespaces(&self.handle).await?;
            let named = others.into_iter().map(|ns| (ns.name.clone(), ns));
            self.table.map.extend(named);
        }
        let primary = Namespace::new(PRIMARY, own_userid(), 0, root, seq);
        self.checkpointed = seq;
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
            "gc" => self.handle_gc(msg),
            "gc-hold" => self.handle_gc_hold(msg),
            "gc-hold-cancel" => {
                self.handle_gc_hold_cancel(msg);
                Ok(())
            }
            "namespace-create" => self.handle_namespace_create(msg),
            "namespace-remove" => self.handle_namespace_remove(msg),
            "namespace-list" => self.handle_namespace_list(msg),
            "setroot-pause" => self.handle_pause(msg, true),
            "setroot-unpause" => self.handle_pause(msg, false),
            "config-reload" => self.handle_config_reload(msg),
            "disconnect" => {
                self.gc.disconnect(msg);
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
            Done::Provided(name) => self.handle_provided(&name),
            Done::Stored {
                namespace,
                root,
                results,
                stored,
            } => {
                self.handle_stored(&namespace, root, results, stored);
            }
            Done::Created(name, msg, stored) => self.handle_created(&name, &msg, stored),
            Done::Checkpointed(seq, result) => self.handle_checkpointed(seq, &result),
            Done::Synced(requests, answer, seq, result) => {
                self.handle_synced(&requests, &answer, seq, result);
            }
            Done::GcBegun(result) => self.handle_gc_begun(result),
            Done::GcEnded(result) => self.handle_swept(result),
            Done::Committed {
                namespace,
                request,
                answer,
            } => {
                self.handle_committed(&namespace, &request, answer);
            }
            Done::Relayed => self.relayed -= 1,
            Done::Nothing => {}
        }
    }

    /// The namespace, if this rank knows it and the sender may use it. One that may come has to be waited for.
    fn namespace(&self, name: &str, msg: &Message) -> Result<Option<&Namespace>, RpcError> {
        match self.table.map.get(name) {
            Some(ns) => ns.check_user(msg).map(|()| Some(ns)),
            None if self.may_come(name) => Ok(None),
            None => Err(namespace::unknown(name)),
        }
    }

    /// Whether somebody else can be asked for a namespace that is not known here.
    fn may_come(&self, name: &str) -> bool {
        self.handle.rank() != 0 || namespace::provider(name).is_some()
    }

    /// Publishes an event that only the instance owner sees. Events leave in the order of calls.
    fn publish(&self, topic: &str, payload: &impl Serialize) {
        // Our own structs encode as JSON; if one did not, there would be nothing to publish.
        let Ok(payload) = wire::json_payload(payload) else {
            return;
        };
        let request = Publish::new(topic, Some(&payload), true);
        self.handle.notify(Publish::TOPIC, Node::Rank(0), &request);
    }

    /// Shutdown: commits under way are finished, then the root is kept. Who waits for something else is told that there
    /// is no service any more.
    async fn finish(&mut self) {
        self.start_commits();
        while self.syncing > 0 || self.table.map.values().any(|ns| !ns.in_flight.is_empty()) {
            let Some(done) = self.work.next().await else {
                break;
            };
            self.handle_done(done);
            self.start_commits();
        }
        let versions = self
            .table
            .map
            .values_mut()
            .flat_map(|ns| ns.waiters.drain(..));
        let waiting: Vec<Message> = versions.map(|(_, msg)| msg).collect();
        let waiting = waiting.into_iter().chain(self.gc.take_waiting());
        for msg in waiting.chain(self.take_parked()) {
            self.handle
                .respond_error(&msg, &RpcError::errno(libc::ENOSYS));
        }
        if let Some((_, rpc)) = self.start_checkpoint() {
            // Without it, the root stored with the last commit is used.
            let _ = rpc.await;
        }
    }
}

/// Whether a store takes nothing, but may again.
fn is_full(e: &RpcError) -> bool {
    matches!(e.errno, libc::ENOSPC | libc::EDQUOT | libc::EROFS)
}

fn own_userid() -> u32 {
    // SAFETY: getuid has no preconditions and cannot fail.
    unsafe { libc::getuid() }
}
