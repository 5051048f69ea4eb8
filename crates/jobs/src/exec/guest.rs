//! A job's guest namespace: made before the shells start, moved under the job's record at the end.
//!
//! The namespace of a short job is not made as long as nobody asks for it ([`kvs::namespace::provider`]): a shell in the process of the
//! shared ones keeps what it has to store for a moment, and when the job has ended by then, all of it goes straight into the
//! job's record, in one commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use client::Handle;
use formats::eventlog::{self, Event};
use formats::job_schema::{EXEC_EVENTLOG, JobKey};
use formats::jobid::JobId;
use futures::future::{BoxFuture, FutureExt as _};
use kvs::calls::Root;
use kvs::{TreeObj, Txn};
use serde_json::{Map, Value};
use wire::RpcError;

/// Whether somebody who asks for the namespace of a job has to wait until its task makes it.
#[derive(Clone, Default)]
pub(super) struct Promise(Arc<AtomicBool>);

impl Promise {
    pub(super) fn is_given(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, given: bool) {
        self.0.store(given, Ordering::Release);
    }
}

/// Text that belongs at the end of a key of the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addition {
    pub(super) key: String,
    pub(super) text: String,
}

/// What the exec eventlog begins with.
pub(super) const BEGINNING: [(&str, Value); 2] = [("init", Value::Null), ("starting", Value::Null)];

/// The guest namespace of a job.
pub(super) struct Guest {
    handle: Handle,
    id: JobId,
    name: String,
    userid: u32,
    /// The namespace is not made yet: what the exec eventlog begins with.
    unmade: Option<String>,
    promise: Promise,
}

impl Guest {
    /// Of a job of `userid`.
    pub(super) fn new(handle: Handle, id: JobId, userid: u32, promise: Promise) -> Self {
        Self {
            handle,
            id,
            name: id.namespace(),
            userid,
            unmade: None,
            promise,
        }
    }

    /// Name of the namespace.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is there.
    pub(super) fn is_made(&self) -> bool {
        self.unmade.is_none()
    }

    /// Do not make it, for the first life of the job, before somebody asks for it.
    pub(super) fn defer(&mut self) {
        self.unmade = Some(String::new());
        self.promise.set(true);
    }

    /// Somebody asks for it: it is there, with what there is to say, when this is done.
    pub(super) async fn make(&mut self) -> Result<(), RpcError> {
        let Some(begun) = self.unmade.clone() else {
            return Ok(());
        };
        self.make_with(&begun).await?;
        self.unmade = None;
        self.promise.set(false);
        self.link().await
    }

    /// Make it with an exec eventlog that begins so: whoever sees the namespace sees that, too. It is put into the job's
    /// record first, as what was kept would be.
    async fn make_with(&self, begun: &str) -> Result<(), RpcError> {
        let mut txn = Txn::new();
        txn.put(&self.id.key(JobKey::InGuest(EXEC_EVENTLOG)), begun);
        kvs::client::commit(&self.handle, Some(kvs::PRIMARY), &txn).await?;
        let key = self.id.key(JobKey::Guest);
        match kvs::client::get_treeobj(&self.handle, Some(kvs::PRIMARY), &key).await? {
            TreeObj::DirRef(root) => {
                kvs::client::namespace_create_at(&self.handle, &self.name, self.userid, root).await
            }
            other => {
                let what = format!("{key} is a {}, not a directory", other.type_name());
                Err(RpcError::new(libc::EEXIST, what))
            }
        }
    }

    /// Make it. Should it have been made before, an earlier life of this service had begun to start the job, or even ended
    /// it: returns the shells that have exited since. [`Guest::link`] is left to do.
    pub(super) async fn create(&self) -> Result<Vec<(u32, i32)>, RpcError> {
        let key = self.id.key(JobKey::Guest);
        let (kept, created) = futures::join!(
            kvs::client::get_treeobj(&self.handle, Some(kvs::PRIMARY), &key),
            kvs::client::namespace_create(&self.handle, &self.name, self.userid),
        );
        let is_kept = match kept {
            Ok(TreeObj::DirRef(_)) => Ok(true),
            Err(e) if e.errno != libc::ENOENT => Err(e),
            _ => Ok(false),
        };
        if !matches!(is_kept, Ok(false)) && created.is_ok() {
            // It is not to begin empty, or not at all.
            kvs::client::namespace_remove(&self.handle, &self.name).await?;
        }
        if is_kept? {
            return self.take_up().await;
        }
        match created {
            Ok(()) => Ok(Vec::new()),
            Err(e) if e.errno == libc::EEXIST => self.exited().await,
            Err(e) => Err(e),
        }
    }

    /// Let `guest` in the job's record lead to it, if it is there. The request is sent before the future is polled.
    pub(super) fn link(&self) -> BoxFuture<'static, Result<(), RpcError>> {
        if !self.is_made() {
            return futures::future::ready(Ok(())).boxed();
        }
        let mut txn = Txn::new();
        txn.symlink(&self.id.key(JobKey::Guest), Some(&self.name), ".");
        let commit = kvs::client::commit(&self.handle, Some(kvs::PRIMARY), &txn);
        async { commit.await.map(drop) }.boxed()
    }

    /// Have it again, as it is, as it was kept, or empty if it was not made in an earlier life of this service; returns the
    /// shells that have exited since.
    pub(super) async fn take_up(&self) -> Result<Vec<(u32, i32)>, RpcError> {
        let key = self.id.key(JobKey::Guest);
        let made = match kvs::client::get_treeobj(&self.handle, Some(kvs::PRIMARY), &key).await {
            Ok(TreeObj::DirRef(root)) => {
                kvs::client::namespace_create_at(&self.handle, &self.name, self.userid, root).await
            }
            Err(e) if e.errno == libc::ENOENT => self.make_with(&encode(&BEGINNING)).await,
            Err(e) => return Err(e),
            Ok(_) => {
                let created = kvs::client::namespace_create(&self.handle, &self.name, self.userid);
                match created.await {
                    Ok(()) => self.append_text(EXEC_EVENTLOG, &encode(&BEGINNING)).await,
                    created => created,
                }
            }
        };
        match made {
            Err(e) if e.errno != libc::EEXIST => Err(e),
            _ => self.exited().await,
        }
    }

    /// Append events to the exec eventlog. The request is sent before the future is polled.
    pub(super) fn append(
        &mut self,
        events: &[(&str, Value)],
    ) -> BoxFuture<'static, Result<(), RpcError>> {
        let text = encode(events);
        match &mut self.unmade {
            Some(begun) => {
                begun.push_str(&text);
                futures::future::ready(Ok(())).boxed()
            }
            None => self.append_text(EXEC_EVENTLOG, &text).boxed(),
        }
    }

    fn append_text(
        &self,
        key: &str,
        text: &str,
    ) -> impl Future<Output = Result<(), RpcError>> + Send + use<> {
        let mut txn = Txn::new();
        txn.append(key, text.as_bytes());
        let commit = kvs::client::commit(&self.handle, Some(&self.name), &txn);
        async { commit.await.map(drop) }
    }

    /// What there is to store, by key, if the namespace was not made: these additions, and the exec eventlog with these events
    /// after them.
    pub(super) fn record(
        &mut self,
        additions: &[Addition],
        events: &[(&str, Value)],
    ) -> Option<Map<String, Value>> {
        let mut log = self.unmade.take()?;
        let mut record = Map::new();
        for Addition { key, text } in additions {
            let value = match &**key {
                EXEC_EVENTLOG => &mut log,
                key => match record.entry(key).or_insert_with(|| String::new().into()) {
                    Value::String(value) => value,
                    // Only texts are put there.
                    _ => continue,
                },
            };
            value.push_str(text);
        }
        log.push_str(&encode(events));
        record.insert(EXEC_EVENTLOG.to_owned(), log.into());
        Some(record)
    }

    /// The record is stored: whoever looks for the namespace from now on finds that instead.
    pub(super) fn recorded(&self) {
        self.promise.set(false);
    }

    /// Store these additions, and these events after them, link the namespace's content into the job's record and drop the
    /// namespace. The first request is sent before the future is polled.
    pub(super) fn finish(
        &self,
        additions: Vec<Addition>,
        events: &[(&str, Value)],
    ) -> impl Future<Output = Result<(), RpcError>> + Send + use<> {
        let mut txn = Txn::new();
        for Addition { key, text } in additions {
            txn.append(&key, text.as_bytes());
        }
        txn.append(EXEC_EVENTLOG, encode(events).as_bytes());
        let commit = kvs::client::commit(&self.handle, Some(&self.name), &txn);
        let (handle, key, name) = (
            self.handle.clone(),
            self.id.key(JobKey::Guest),
            self.name.clone(),
        );
        async move {
            graft(&handle, &key, commit.await?).await?;
            // Nothing waits for it to be gone.
            kvs::client::namespace_forget(&handle, &name);
            Ok(())
        }
    }

    /// Ranks whose shells had exited before, with their wait statuses, as the exec eventlog says.
    async fn exited(&self) -> Result<Vec<(u32, i32)>, RpcError> {
        let log = kvs::client::get(&self.handle, Some(&self.name), EXEC_EVENTLOG).await;
        let log = match log {
            // Nothing had begun.
            Err(e) if e.errno == libc::ENOENT => return Ok(Vec::new()),
            log => log?,
        };
        let events = eventlog::decode(&String::from_utf8_lossy(&log))
            .map_err(|e| RpcError::proto(format!("{EXEC_EVENTLOG}: {e}")))?;
        let exits = events.iter().filter(|event| event.name == "shell-exit");
        let number = |event: &Event, key| event.get(key).and_then(Value::as_i64);
        Ok(exits
            .filter_map(|exit| {
                let rank = u32::try_from(number(exit, "rank")?).ok()?;
                Some((rank, number(exit, "wait_status")? as i32))
            })
            .collect())
    }
}

/// Keep what the namespace of a job holds now in the job's record: the namespace may go with the instance.
pub(super) async fn keep(handle: &Handle, id: JobId) -> Result<(), RpcError> {
    let root = kvs::client::getroot(handle, Some(&id.namespace())).await?;
    graft(handle, &id.key(JobKey::Guest), root).await
}

/// Have this root at a key of the primary namespace.
async fn graft(handle: &Handle, key: &str, root: Root) -> Result<(), RpcError> {
    let mut txn = Txn::new();
    txn.put_treeobj(key, TreeObj::DirRef(root.rootref));
    let commit = kvs::client::commit(handle, Some(kvs::PRIMARY), &txn);
    commit.await.map(drop)
}

/// Events that happen now, as eventlog text.
pub(super) fn encode(events: &[(&str, Value)]) -> String {
    let now = eventlog::timestamp(SystemTime::now());
    let mut text = String::new();
    for (name, context) in events {
        let mut event = Event::new(now, *name);
        if !context.is_null() {
            event = event.with_context(context.clone());
        }
        event.encode_to(&mut text);
    }
    text
}
