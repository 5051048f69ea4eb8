//! What programs and other modules do with the key-value store.

use client::{Handle, Message, Node, RpcError, RpcStream};

pub use crate::calls::Root;
use crate::calls::{Commit, CreateNamespace, Found, GetRoot, Lookup, RemoveNamespace, WaitVersion};
use crate::treeobj::TreeObj;
use crate::txn::Txn;
use crate::{PRIMARY, flags};

/// The namespace named, or the one the environment names, or the primary one.
pub fn namespace_or_default(namespace: Option<&str>) -> String {
    match namespace {
        Some(name) => name.to_owned(),
        None => std::env::var("FLUX_KVS_NAMESPACE").unwrap_or_else(|_| PRIMARY.to_owned()),
    }
}

/// Commits a transaction. The request is sent at once, before the future is first polled, so
/// commits of one caller take effect in the order of calls.
pub fn commit(
    handle: &Handle,
    namespace: Option<&str>,
    txn: &Txn,
) -> impl Future<Output = Result<Root, RpcError>> + Send + use<> {
    commit_with(handle, namespace, txn, 0)
}

/// As [`commit`], with commit flags ([`flags::SYNC`], [`flags::NO_MERGE`]).
pub fn commit_with(
    handle: &Handle,
    namespace: Option<&str>,
    txn: &Txn,
    flags: u32,
) -> impl Future<Output = Result<Root, RpcError>> + Send + use<> {
    let namespace = namespace_or_default(namespace);
    let request = Commit {
        namespace: &namespace,
        flags,
        ops: txn,
    };
    handle.ask(Node::Any, &request)
}

/// Looks a key up, with lookup flags.
pub async fn lookup(
    handle: &Handle,
    namespace: Option<&str>,
    key: &str,
    flags: u32,
) -> Result<TreeObj, RpcError> {
    let namespace = &namespace_or_default(namespace);
    let request = Lookup {
        namespace,
        key,
        flags,
    };
    Ok(handle.ask(Node::Any, &request).await?.val)
}

/// The value of a key.
pub async fn get(handle: &Handle, namespace: Option<&str>, key: &str) -> Result<Vec<u8>, RpcError> {
    data_of(&lookup(handle, namespace, key, 0).await?)
}

/// The tree object stored at a key, unresolved.
pub async fn get_treeobj(
    handle: &Handle,
    namespace: Option<&str>,
    key: &str,
) -> Result<TreeObj, RpcError> {
    lookup(handle, namespace, key, flags::TREEOBJ).await
}

/// The root of a namespace, as this rank has it.
pub async fn getroot(handle: &Handle, namespace: Option<&str>) -> Result<Root, RpcError> {
    let namespace = &namespace_or_default(namespace);
    let request = GetRoot {
        namespace,
        flags: 0,
    };
    handle.ask(Node::Any, &request).await
}

/// Waits until this rank's root has reached a sequence number.
pub async fn wait_version(
    handle: &Handle,
    namespace: Option<&str>,
    rootseq: i64,
) -> Result<Root, RpcError> {
    let namespace = &namespace_or_default(namespace);
    let request = WaitVersion { namespace, rootseq };
    handle.ask(Node::Any, &request).await
}

/// Creates a namespace that starts with an empty root directory.
pub async fn namespace_create(handle: &Handle, name: &str, owner: u32) -> Result<(), RpcError> {
    let alg = match handle.getattr("content.hash").await {
        Ok(name) => name
            .parse()
            .map_err(|e| RpcError::new(libc::EINVAL, format!("{e}")))?,
        Err(_) => content::HashAlg::default(),
    };
    let rootref = alg.hash(&TreeObj::empty_dir().encode());
    namespace_create_at(handle, name, owner, rootref).await
}

/// Creates a namespace that starts with the root directory `rootref`.
pub async fn namespace_create_at(
    handle: &Handle,
    name: &str,
    owner: u32,
    rootref: content::BlobRef,
) -> Result<(), RpcError> {
    let request = CreateNamespace {
        namespace: name,
        rootref,
        owner,
        flags: 0,
    };
    handle.ask(Node::Rank(0), &request).await.map(drop)
}

/// Removes a namespace.
pub async fn namespace_remove(handle: &Handle, name: &str) -> Result<(), RpcError> {
    let request = RemoveNamespace { namespace: name };
    handle.ask(Node::Rank(0), &request).await.map(drop)
}

/// Removes a namespace, which nobody waits for.
pub fn namespace_forget(handle: &Handle, name: &str) {
    let request = RemoveNamespace { namespace: name };
    handle.notify("kvs.namespace-remove", Node::Rank(0), &request);
}

/// Keeps garbage from being collected, from when it is granted until it is dropped: for who stores blobs and commits
/// later what refers to them.
pub struct GcHold(RpcStream);

impl GcHold {
    /// Waits for the hold. Errors: EPERM for guests.
    pub async fn acquire(handle: &Handle) -> Result<GcHold, RpcError> {
        let request = serde_json::json!({});
        let mut stream = handle.stream("kvs.gc-hold", Node::Rank(0), &request);
        match stream.next().await {
            Some(granted) => granted.map(|_| GcHold(stream)),
            None => Err(RpcError::errno(libc::ENODATA)),
        }
    }
}

impl Drop for GcHold {
    fn drop(&mut self) {
        self.0.cancel("kvs.gc-hold-cancel");
    }
}

/// A watch on a key: each item is what the flags ask for. Dropping it ends the watch.
pub struct Watch {
    stream: RpcStream,
    ended: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel();
        }
    }
}

/// What a watch brings.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchItem {
    Object(TreeObj),
    /// With [`flags::WATCH_INITIAL_SENTINEL`]: the data that was there at first has come.
    Sentinel,
}

/// Watches a key with these flags; [`flags::WATCH`] is added.
pub fn watch(handle: &Handle, namespace: Option<&str>, key: &str, flags: u32) -> Watch {
    start_watch(handle, namespace, key, flags | flags::WATCH)
}

/// Reads the blobs of a value one by one, as it is now.
pub fn read_blobs(handle: &Handle, namespace: Option<&str>, key: &str) -> Watch {
    start_watch(handle, namespace, key, flags::STREAM)
}

fn start_watch(handle: &Handle, namespace: Option<&str>, key: &str, flags: u32) -> Watch {
    let request = Lookup {
        namespace: &namespace_or_default(namespace),
        key,
        flags,
    };
    Watch {
        ended: false,
        stream: handle.stream("kvs-watch.lookup", Node::Any, &request),
    }
}

/// Watches what is appended to a value, from its beginning. With `wait`, the key need not exist
/// yet.
pub fn watch_append(handle: &Handle, namespace: Option<&str>, key: &str, wait: bool) -> Watch {
    let wait = if wait { flags::WAITCREATE } else { 0 };
    watch(handle, namespace, key, flags::WATCH_APPEND | wait)
}

impl Watch {
    /// The next item; `None` after the watch was cancelled or the value was read. Once the
    /// namespace is removed the last item is the error ENOTSUP.
    pub async fn next_item(&mut self) -> Option<Result<WatchItem, RpcError>> {
        match self.stream.next().await {
            Some(Ok(msg)) if msg.payload().is_none() => Some(Ok(WatchItem::Sentinel)),
            Some(Ok(msg)) => Some(value_of(&msg).map(WatchItem::Object)),
            end => {
                self.ended = true;
                end.map(|r| r.map(|_| WatchItem::Sentinel))
            }
        }
    }

    /// The next tree object; sentinels are passed over.
    pub async fn next_treeobj(&mut self) -> Option<Result<TreeObj, RpcError>> {
        loop {
            match self.next_item().await? {
                Ok(WatchItem::Object(obj)) => return Some(Ok(obj)),
                Ok(WatchItem::Sentinel) => {}
                Err(e) => return Some(Err(e)),
            }
        }
    }

    /// The next value's bytes.
    pub async fn next(&mut self) -> Option<Result<Vec<u8>, RpcError>> {
        let obj = self.next_treeobj().await?;
        Some(obj.and_then(|obj| data_of(&obj)))
    }

    /// Ends the watch; what is under way still arrives, then `None`.
    pub fn cancel(&self) {
        self.stream.cancel("kvs-watch.cancel");
    }
}

fn value_of(msg: &Message) -> Result<TreeObj, RpcError> {
    Ok(msg.json::<Found>()?.val)
}

fn data_of(obj: &TreeObj) -> Result<Vec<u8>, RpcError> {
    obj.data().ok_or_else(|| {
        RpcError::proto(format!(
            "expected a value in base64, got a {}",
            obj.type_name()
        ))
    })
}
