//! What runs beside the modules: programs that commit, read and watch, and tell the model what they saw.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use client::{Handle, Node};
use futures::channel::oneshot;
use kvs::calls::{Found, Root};
use kvs::{TreeObj, Txn, client as kv, flags};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use wire::RpcError;

use super::model::{Model, line};

const PRIMARY: Option<&str> = Some(kvs::PRIMARY);
/// Appended to by all writers.
const LOG: &str = "deep.down.log";

/// What a program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Writer,
    Reader,
    LogWatcher,
    ValueWatcher,
    Namespaces,
}

pub(super) const KINDS: [Kind; 5] = [
    Kind::Writer,
    Kind::Reader,
    Kind::LogWatcher,
    Kind::ValueWatcher,
    Kind::Namespaces,
];

/// One program, over all the lives of its rank.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) kind: Kind,
    pub(super) number: u32,
    pub(super) rank: u32,
}

/// What all programs share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) model: Model,
    /// Who wants to be woken, and after how long.
    pub(super) sleepers: Vec<(Duration, oneshot::Sender<()>)>,
    /// Rounds that programs have to do yet.
    pub(super) left: BTreeMap<(u32, u32), u32>,
    next: u64,
}

/// What one life of a program has.
pub(super) struct Life {
    pub(super) shared: Rc<RefCell<Shared>>,
    pub(super) handle: Handle,
    pub(super) rng: StdRng,
    pub(super) program: Program,
    pub(super) writers: u32,
}

/// A request that somebody waits for, until this goes away.
struct Waiting(Rc<RefCell<Shared>>, u64);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.borrow_mut().model.waiting.remove(&self.1);
    }
}

fn number(data: Result<TreeObj, RpcError>) -> Result<u64, RpcError> {
    match data {
        Ok(object) => {
            let text = object.data().unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            text.parse()
                .map_err(|e| RpcError::explained(libc::EPROTO, e))
        }
        Err(e) if e.errno == libc::ENOENT => Ok(0),
        Err(e) => Err(e),
    }
}

impl Life {
    fn model<T>(&self, tell: impl FnOnce(&mut Model) -> T) -> T {
        tell(&mut self.shared.borrow_mut().model)
    }

    fn fresh(&self) -> u64 {
        let mut shared = self.shared.borrow_mut();
        shared.next += 1;
        shared.next
    }

    /// Waits for an answer that has to come.
    async fn wait<T>(
        &self,
        what: &str,
        answer: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<T, RpcError> {
        let id = self.fresh();
        let what = format!("{what} by {:?}", self.program);
        self.model(|m| m.waiting.insert(id, what));
        let _waiting = Waiting(self.shared.clone(), id);
        answer.await
    }

    /// Something failed that cannot.
    fn unexpected(&self, what: &str, e: &RpcError) {
        let program = &self.program;
        self.model(|m| m.fail(format!("{program:?}: {what}: {e}")));
    }

    async fn sleep(&mut self) {
        let time = Duration::from_micros(self.rng.random_range(0..20_000));
        let (wake, woken) = oneshot::channel();
        self.shared.borrow_mut().sleepers.push((time, wake));
        // The world wakes all sleepers; if it ends, so do we.
        let _ = woken.await;
    }

    /// Whether there is another round to do.
    fn round(&self) -> bool {
        let key = (self.program.kind as u32, self.program.number);
        let mut shared = self.shared.borrow_mut();
        let left = shared.left.entry(key).or_default();
        let more = *left > 0;
        *left = left.saturating_sub(1);
        more
    }

    pub(super) async fn run(mut self) {
        match self.program.kind {
            Kind::Writer => {
                while self.round() {
                    self.sleep().await;
                    self.write().await;
                }
            }
            Kind::Reader => {
                let mut last = -1;
                while self.round() {
                    self.sleep().await;
                    if let Err(e) = self.read(&mut last).await {
                        self.unexpected("reading", &e);
                    }
                }
            }
            Kind::LogWatcher => self.watch_log().await,
            Kind::ValueWatcher => self.watch_value().await,
            Kind::Namespaces => {
                while self.round() {
                    self.sleep().await;
                    if let Err(e) = self.namespace().await {
                        self.unexpected("a namespace of one's own", &e);
                    }
                }
            }
        }
    }

    async fn write(&mut self) {
        let writer = self.program.number;
        let number = self.model(|m| m.begin(writer));
        let appends = self.rng.random_range(0..3) == 0;
        let mut txn = Txn::new();
        // Long enough to be a blob of its own now and then.
        let text = format!("{number:0width$}", width = self.rng.random_range(1..90));
        for dir in 0..3 {
            txn.put(&key(dir, writer), &text);
        }
        if appends {
            txn.append(LOG, line(writer, number).as_bytes());
        }
        let commit_flags = match self.rng.random_range(0..6) {
            0 => flags::NO_MERGE,
            1 => flags::SYNC,
            _ => 0,
        };
        let commit = kv::commit_with(&self.handle, PRIMARY, &txn, commit_flags);
        // If this life ends before the answer nobody knows.
        self.model(|m| m.lost += 1);
        match self.wait("a commit", commit).await {
            Ok(root) => {
                self.model(|m| {
                    m.lost -= 1;
                    m.acknowledge(writer, number, root.rootseq, appends);
                    m.root(root.rootseq, root.rootref);
                });
                if let Err(e) = self.own(writer, number, root.rootseq).await {
                    self.unexpected("reading what was written", &e);
                }
            }
            // With SYNC the commit counts, and its checkpoint failed.
            Err(e) if e.errno == libc::ENOSPC && commit_flags == flags::SYNC => {}
            Err(e) if e.errno == libc::ENOSPC => self.model(|m| m.refuse(writer, number)),
            Err(e) => self.unexpected("a commit", &e),
        }
    }

    async fn root(&self) -> Result<Root, RpcError> {
        let root = self
            .wait("getroot", kv::getroot(&self.handle, PRIMARY))
            .await?;
        self.model(|m| m.root(root.rootseq, root.rootref));
        Ok(root)
    }

    async fn at(&self, root: Root, key: &str) -> Result<TreeObj, RpcError> {
        let request = json!({
            "key": key, "flags": 0, "rootdir": TreeObj::DirRef(root.rootref), "rootseq": root.rootseq,
        });
        let found = self.handle.call::<Found>("kvs.lookup", Node::Any, &request);
        Ok(self.wait("a lookup", found).await?.val)
    }

    /// A writer's keys under one root.
    async fn values(&self, root: Root, writer: u32) -> Result<u64, RpcError> {
        let mut values = [0; 3];
        for dir in [2, 0, 1] {
            values[dir as usize] = number(self.at(root, &key(dir, writer)).await)?;
        }
        self.model(|m| m.read(writer, root.rootseq, &values));
        Ok(values[0])
    }

    /// What was just written is there for who wrote it.
    async fn own(&self, writer: u32, number: u64, seq: i64) -> Result<(), RpcError> {
        let root = self.root().await?;
        if root.rootseq < seq {
            let at = root.rootseq;
            self.model(|m| {
                m.fail(format!(
                    "writer {writer}: commit {number} made version {seq}, then its rank is at {at}"
                ))
            });
        }
        self.values(root, writer).await.map(drop)
    }

    async fn read(&mut self, last: &mut i64) -> Result<(), RpcError> {
        let writer = self.rng.random_range(0..self.writers);
        let newest = self.model(|m| m.newest());
        let mut least = *last;
        if self.rng.random_bool(0.3) {
            let reached = kv::wait_version(&self.handle, PRIMARY, newest);
            let reached = self.wait("wait-version", reached).await?;
            least = least.max(newest).max(reached.rootseq);
        }
        let root = self.root().await?;
        if root.rootseq < least {
            let (seq, rank) = (root.rootseq, self.program.rank);
            self.model(|m| {
                m.fail(format!(
                    "rank {rank} went back from version {least} to {seq}"
                ))
            });
        }
        *last = root.rootseq;
        match self.rng.random_bool(0.3) {
            true => self.log(root).await.map(drop),
            false => self.values(root, writer).await.map(drop),
        }
    }

    async fn log(&self, root: Root) -> Result<Vec<String>, RpcError> {
        let text = match self.at(root, LOG).await {
            Ok(object) => object.data().unwrap_or_default(),
            Err(e) if e.errno == libc::ENOENT => Vec::new(),
            Err(e) => return Err(e),
        };
        let lines = split(&text);
        self.model(|m| m.log(root.rootseq, &lines));
        Ok(lines)
    }

    async fn watch_log(&mut self) {
        self.sleep().await;
        let id = self.fresh();
        self.model(|m| m.logs.insert(id, Vec::new()));
        let _forget = Forget(self.shared.clone(), id);
        let mut watch = kv::watch_append(&self.handle, PRIMARY, LOG, true);
        while let Some(data) = watch.next().await {
            match data {
                Ok(data) => self.model(|m| {
                    m.seen += 1;
                    if let Some(lines) = m.logs.get_mut(&id) {
                        lines.extend(split(&data));
                    }
                }),
                Err(e) => return self.unexpected("watching the log", &e),
            }
        }
    }

    async fn watch_value(&mut self) {
        self.sleep().await;
        let (id, writer) = (self.fresh(), self.rng.random_range(0..self.writers));
        self.model(|m| m.values.insert(id, (writer, Vec::new())));
        let _forget = Forget(self.shared.clone(), id);
        let key = key(self.rng.random_range(0..3), writer);
        let how = [0, flags::WATCH_UNIQ, flags::WATCH_FULL][self.rng.random_range(0..3)];
        let mut watch = kv::watch(&self.handle, PRIMARY, &key, how | flags::WAITCREATE);
        while let Some(object) = watch.next_treeobj().await {
            match object.and_then(|object| number(Ok(object))) {
                Ok(value) => self.model(|m| m.told(id, value)),
                Err(e) => return self.unexpected("watching a value", &e),
            }
        }
    }

    /// Makes a namespace, commits, reads and watches there, and removes it.
    async fn namespace(&mut self) -> Result<(), RpcError> {
        let name = &format!("side-{}", self.program.number);
        let handle = self.handle.clone();
        let create = kv::namespace_create(&handle, name, 1000);
        match self.wait("namespace-create", create).await {
            // An earlier life of ours has left it.
            Err(e) if e.errno == libc::EEXIST => {}
            // What cannot be kept is not there.
            Err(e) if e.errno == libc::ENOSPC => return Ok(()),
            created => created?,
        }
        let mut watch = kv::watch(&handle, Some(name), "key", flags::WAITCREATE);
        let mut last = -1;
        for number in 0..self.rng.random_range(1..4) {
            let mut txn = Txn::new();
            txn.put("key", &format!("{number}"));
            let commit = kv::commit(&handle, Some(name), &txn);
            let root = match self.wait("a commit in a namespace", commit).await {
                Err(e) if e.errno == libc::ENOSPC => continue,
                root => root?,
            };
            let here = self
                .wait("getroot", kv::getroot(&handle, Some(name)))
                .await?;
            let found = self
                .wait("a lookup", kv::get(&handle, Some(name), "key"))
                .await?;
            if root.rootseq <= last || here.rootseq < root.rootseq {
                let text = format!(
                    "{name}: version {} after {last}, then {}",
                    root.rootseq, here.rootseq
                );
                self.model(|m| m.fail(text));
            }
            if found != format!("{number}").as_bytes() {
                self.model(|m| m.fail(format!("{name}: {number} was written, {found:?} is there")));
            }
            last = root.rootseq;
        }
        self.wait("namespace-remove", kv::namespace_remove(&handle, name))
            .await?;
        let end = async {
            while let Some(next) = watch.next().await {
                if let Err(e) = next {
                    return Ok(e.errno);
                }
            }
            Ok(0)
        };
        let ended = self.wait("the end of a watch", end).await?;
        let asked = json!({ "namespace": name });
        let root = handle.rpc("kvs.getroot", Node::Rank(0), &asked);
        let gone = self
            .wait("getroot", root)
            .await
            .map_or_else(|e| e.errno, |_| 0);
        if (ended, gone) != (libc::ENOTSUP, libc::ENOTSUP) {
            let text = format!(
                "{name} was removed: its watch ended with {ended}, it is asked for with {gone}"
            );
            self.model(|m| m.fail(text));
        }
        Ok(())
    }

    /// Looks at everything once more: versions are the same everywhere by now.
    pub(super) async fn close(self, settles: bool) -> Result<i64, RpcError> {
        let root = self.root().await?;
        let mut values = BTreeMap::new();
        for writer in 0..self.writers {
            let value = self.values(root, writer).await?;
            if value > 0 {
                values.insert(writer, value);
            }
        }
        let log = self.log(root).await?;
        if settles {
            self.model(|m| m.settle(&log, &values));
        }
        Ok(root.rootseq)
    }
}

/// A watcher that is gone is not expected to have seen all.
struct Forget(Rc<RefCell<Shared>>, u64);

impl Drop for Forget {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.model.logs.remove(&self.1);
        shared.model.values.remove(&self.1);
    }
}

fn key(dir: u32, writer: u32) -> String {
    format!("dir{dir}.sub.w{writer}")
}

fn split(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(data);
    text.split_inclusive('\n').map(str::to_owned).collect()
}
