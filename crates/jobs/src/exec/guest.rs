//! A job's guest namespace: made before the shells start, moved under the job's record at the end.

use std::time::SystemTime;

use client::Handle;
use formats::eventlog::{self, Event};
use formats::job_schema::{EXEC_EVENTLOG, JobKey};
use formats::jobid::JobId;
use kvs::calls::Root;
use kvs::{TreeObj, Txn};
use serde_json::Value;
use wire::RpcError;

/// The guest namespace of a job.
#[derive(Clone)]
pub(super) struct Guest {
    handle: Handle,
    id: JobId,
    name: String,
}

impl Guest {
    pub(super) fn new(handle: Handle, id: JobId) -> Self {
        Self {
            handle,
            id,
            name: id.namespace(),
        }
    }

    /// Name of the namespace.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Make it for `userid`. Should it have been made before, an earlier life of this service had begun to start the job, or
    /// even ended it: returns the shells that have exited since. [`Guest::link`] is left to do.
    pub(super) async fn create(&self, userid: u32) -> Result<Vec<(u32, i32)>, RpcError> {
        let key = self.id.key(JobKey::Guest);
        let (kept, created) = futures::join!(
            kvs::client::get_treeobj(&self.handle, Some(kvs::PRIMARY), &key),
            kvs::client::namespace_create(&self.handle, &self.name, userid),
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
            return self.take_up(userid).await;
        }
        match created {
            Ok(()) => Ok(Vec::new()),
            Err(e) if e.errno == libc::EEXIST => self.exited().await,
            Err(e) => Err(e),
        }
    }

    /// Let `guest` in the job's record lead to it. The request is sent before the future is polled.
    pub(super) fn link(&self) -> impl Future<Output = Result<Root, RpcError>> + Send + use<> {
        let mut txn = Txn::new();
        txn.symlink(&self.id.key(JobKey::Guest), Some(&self.name), ".");
        kvs::client::commit(&self.handle, Some(kvs::PRIMARY), &txn)
    }

    /// Keep what it holds now in the job's record: the namespace may go with the instance.
    pub(super) async fn keep(&self) -> Result<(), RpcError> {
        let root = kvs::client::getroot(&self.handle, Some(&self.name)).await?;
        self.graft(root).await
    }

    /// Have this root in the job's record.
    async fn graft(&self, root: Root) -> Result<(), RpcError> {
        let mut txn = Txn::new();
        let key = self.id.key(JobKey::Guest);
        txn.put_treeobj(&key, TreeObj::DirRef(root.rootref));
        let commit = kvs::client::commit(&self.handle, Some(kvs::PRIMARY), &txn);
        commit.await.map(drop)
    }

    /// Take it up again, as [`Guest::restore`] does; returns the shells that have exited since.
    pub(super) async fn take_up(&self, userid: u32) -> Result<Vec<(u32, i32)>, RpcError> {
        self.restore(userid).await?;
        self.exited().await
    }

    /// Have it again, or make it from what was kept. Errors: ENOTSUP if nothing was.
    async fn restore(&self, userid: u32) -> Result<(), RpcError> {
        let known = kvs::client::getroot(&self.handle, Some(&self.name)).await;
        if let Err(gone) = known {
            let key = self.id.key(JobKey::Guest);
            let kept = kvs::client::get_treeobj(&self.handle, Some(kvs::PRIMARY), &key).await?;
            let TreeObj::DirRef(root) = kept else {
                return Err(gone);
            };
            kvs::client::namespace_create_at(&self.handle, &self.name, userid, root).await?;
        }
        Ok(())
    }

    /// Append events to the exec eventlog. The request is sent before the future is polled.
    pub(super) fn append(
        &self,
        events: &[(&str, Value)],
    ) -> impl Future<Output = Result<Root, RpcError>> + Send + use<> {
        let mut txn = Txn::new();
        txn.append(EXEC_EVENTLOG, encode(events).as_bytes());
        kvs::client::commit(&self.handle, Some(&self.name), &txn)
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

    /// Link the namespace's content, which ends with this root, into the job's record and drop the namespace.
    pub(super) async fn finish(&self, last: Root) -> Result<(), RpcError> {
        self.graft(last).await?;
        // Nothing waits for it to be gone.
        kvs::client::namespace_forget(&self.handle, &self.name);
        Ok(())
    }
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
