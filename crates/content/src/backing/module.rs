//! A store as a broker module: it serves `content-backing` and registers with `content` (RFC 10).
//!
//! Modules: `content-sqlite` and `content-files`, on rank 0. Files are in `statedir`; unless that is removed with the
//! instance (`statedir-cleanup`), an acknowledgement means that a crash takes nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::module::{Context, ModuleError};
use client::{Handle, Message, Node, RpcError};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};

use super::sqlite::Options;
use super::{Backing, BackingError, Durability, Files, Sqlite};
use crate::{BlobRef, HashAlg, batch};

impl From<BackingError> for RpcError {
    fn from(e: BackingError) -> Self {
        match &e {
            BackingError::Option { .. } => Self::explained(e.errno(), e),
            _ => Self::new(e.errno(), e.to_string()),
        }
    }
}

impl From<BackingError> for ModuleError {
    fn from(e: BackingError) -> Self {
        RpcError::from(e).into()
    }
}

/// Where files go, and whether they stay.
async fn place(handle: &Handle) -> Result<(PathBuf, Durability), ModuleError> {
    let Ok(dir) = handle.getattr("statedir").await else {
        return Ok((handle.getattr("rundir").await?.into(), Durability::Off));
    };
    let temporary = handle.getattr("statedir-cleanup").await.as_deref() == Ok("1");
    let durability = match temporary {
        true => Durability::Off,
        false => Durability::Full,
    };
    Ok((dir.into(), durability))
}

/// The module `content-sqlite`. Arguments, also in the table of its name: `truncate`, `journal_mode=`, `synchronous=`.
pub async fn sqlite(ctx: Context) -> Result<(), ModuleError> {
    let (dir, durability) = place(&ctx.handle).await?;
    let path = dir.join("content.sqlite");
    let mut options = Options::new(durability);
    let config: Value = match ctx.handle.call("config.get", Node::Any, &json!({})).await {
        Ok(config) => config,
        // Without the service there is no configuration.
        Err(e) if e.errno == libc::ENOSYS => Value::Null,
        Err(e) => return Err(e.into()),
    };
    let table = &config["content-sqlite"];
    if let Some(mode) = table["journal_mode"].as_str() {
        options.set_journal_mode(mode)?;
    }
    if let Some(mode) = table["synchronous"].as_str() {
        options.set_synchronous(mode)?;
    }
    for arg in &ctx.args {
        match arg.split_once('=') {
            None if arg == "truncate" => Sqlite::remove(&path)?,
            Some(("journal_mode", mode)) => options.set_journal_mode(mode)?,
            Some(("synchronous", mode)) => options.set_synchronous(mode)?,
            _ => return Err(ModuleError::unknown_argument(arg)),
        }
    }
    let store = Sqlite::open_with(&path, options).await?;
    let config = &store.describe()["config"];
    let word = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    let (journal, synchronous) = (word("journal_mode"), word("synchronous"));
    let text = format!(
        "{} ({} objects) journal_mode={journal} synchronous={synchronous}",
        path.display(),
        store.count().await?
    );
    ctx.handle.say(&ctx.name, libc::LOG_DEBUG as u8, &text);
    serve(ctx, store, true).await
}

/// The module `content-files`. Arguments: `truncate`; `testing`, not to register.
pub async fn files(ctx: Context) -> Result<(), ModuleError> {
    let (dir, durability) = place(&ctx.handle).await?;
    let path = dir.join("content.files");
    let mut register = true;
    for arg in &ctx.args {
        match arg.as_str() {
            "truncate" => Files::remove(&path)?,
            "testing" => register = false,
            _ => return Err(ModuleError::unknown_argument(arg)),
        }
    }
    let store = Files::open(&path, durability == Durability::Full)?;
    serve(ctx, store, register).await
}

/// How long something took.
#[derive(Default)]
struct Times {
    count: u64,
    total: Duration,
    least: Duration,
    most: Duration,
}

impl Times {
    fn add(&mut self, time: Duration) {
        self.least = match self.count {
            0 => time,
            _ => self.least.min(time),
        };
        self.most = self.most.max(time);
        self.count += 1;
        self.total += time;
    }

    /// Milliseconds.
    fn to_json(&self) -> Value {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "count": self.count,
            "min": ms(self.least),
            "max": ms(self.most),
            "mean": ms(self.total) / (self.count.max(1) as f64),
        })
    }
}

/// What a request has come to.
enum Done {
    Loaded(Message, Duration, Result<Bytes, RpcError>),
    Stored(Message, Duration, Result<Option<Bytes>, RpcError>),
    Answered(Message, Result<Value, RpcError>),
}

struct Server<'a, S> {
    handle: Handle,
    alg: HashAlg,
    store: &'a S,
    load_time: Times,
    store_time: Times,
    work: FuturesUnordered<BoxFuture<'a, Done>>,
}

/// Serves `store` until the module ends.
async fn serve(mut ctx: Context, store: impl Backing, register: bool) -> Result<(), ModuleError> {
    let handle = ctx.handle.clone();
    let hash = handle.getattr("content.hash").await;
    let hash = hash.map_or_else(|_| Ok(HashAlg::default()), |name| name.parse());
    let mut server = Server {
        handle: handle.clone(),
        alg: hash.map_err(|e| ModuleError::new("attribute content.hash", e))?,
        store: &store,
        load_time: Times::default(),
        store_time: Times::default(),
        work: FuturesUnordered::new(),
    };
    let mut requests = handle.register("content-backing").await?;
    if register {
        let offer = json!({
            "name": ctx.name,
            "durable": store.is_durable(),
            "batches": true,
        });
        handle
            .call::<client::Empty>("content.register-backing", Node::Any, &offer)
            .await?;
    }
    let mut open = true;
    while open || !server.work.is_empty() {
        tokio::select! {
            msg = requests.recv(), if open => match msg {
                Some(msg) => server.handle_message(msg),
                None => open = false,
            },
            msg = ctx.inbox.recv(), if open => match msg {
                Some(msg) => server.handle_message(msg),
                None => open = false,
            },
            Some(done) = server.work.next() => server.handle_done(done),
        }
    }
    if register {
        // It may have gone before.
        let _ = handle
            .rpc("content.unregister-backing", Node::Any, &json!({}))
            .await;
    }
    drop(server);
    store.close().await;
    Ok(())
}

impl<'a, S: Backing> Server<'a, S> {
    fn handle_message(&mut self, msg: Message) {
        if !msg.is_request() || msg.method() == "disconnect" {
            return;
        }
        let work = self.handle_request(&msg);
        match work {
            Ok(work) => self.work.push(work),
            Err(e) => self.handle.respond_error(&msg, &e),
        }
    }

    fn digest(&self, msg: &Message) -> Result<BlobRef, RpcError> {
        let raw = msg.payload().map_or(&[][..], |p| &p[..]);
        BlobRef::from_raw(self.alg, raw).map_err(|e| RpcError::explained(libc::EPROTO, e))
    }

    fn handle_request(&self, msg: &Message) -> Result<BoxFuture<'a, Done>, RpcError> {
        let (store, start, request) = (self.store, Instant::now(), msg.clone());
        if msg.method() == "stats-get" {
            let (load, put) = (self.load_time.to_json(), self.store_time.to_json());
            return Ok(Box::pin(async move {
                let stats = stats(store, load, put).await;
                Done::Answered(request, stats.map_err(RpcError::from))
            }));
        }
        msg.require_owner()?;
        match msg.method() {
            "load" => {
                let blobref = self.digest(msg)?;
                Ok(Box::pin(async move {
                    let missing = || {
                        let text = format!("content {blobref} is not stored");
                        RpcError::new(libc::ENOENT, text)
                    };
                    let found = store.load(blobref).await.map_err(RpcError::from);
                    let found = found.and_then(|data| data.ok_or_else(missing));
                    Done::Loaded(request, start.elapsed(), found)
                }))
            }
            "validate" => {
                let blobref = self.digest(msg)?;
                Ok(Box::pin(async move {
                    let found = match store.contains(blobref).await {
                        Ok(true) => Ok(Value::Null),
                        Ok(false) => Err(RpcError::errno(libc::ENOENT)),
                        Err(e) => Err(e.into()),
                    };
                    Done::Answered(request, found)
                }))
            }
            "store" => {
                let data = msg.payload().cloned().unwrap_or_default();
                let blobref = self.alg.hash(&data);
                Ok(Box::pin(async move {
                    let stored = store.store_batch(vec![(blobref, data)], None).await;
                    let digest = Bytes::copy_from_slice(blobref.raw());
                    let stored = stored.map(|()| Some(digest)).map_err(RpcError::from);
                    Done::Stored(request, start.elapsed(), stored)
                }))
            }
            "store-batch" => {
                let payload = msg.payload().cloned().unwrap_or_default();
                let (root, blobs) = batch::decode(payload).ok_or_else(|| {
                    RpcError::proto("content-backing.store-batch: a blob is cut short")
                })?;
                let root = match root.is_empty() {
                    true => None,
                    false => Some(serde_json::from_slice(&root)?),
                };
                let alg = self.alg;
                let blobs = blobs
                    .into_iter()
                    .map(|data| (alg.hash(&data), data))
                    .collect();
                Ok(Box::pin(async move {
                    let stored = store.store_batch(blobs, root).await;
                    let stored = stored.map(|()| None).map_err(RpcError::from);
                    Done::Stored(request, start.elapsed(), stored)
                }))
            }
            "checkpoint-get" => Ok(Box::pin(async move {
                let found = match store.checkpoints().await {
                    Ok(list) if list.is_empty() => Err(RpcError::errno(libc::ENOENT)),
                    Ok(list) => Ok(json!({ "value": list })),
                    Err(e) => Err(e.into()),
                };
                Done::Answered(request, found)
            })),
            "checkpoint-put" => {
                #[derive(serde::Deserialize)]
                struct Put {
                    value: serde_json::Map<String, Value>,
                }
                let Put { value } = msg.json()?;
                Ok(Box::pin(async move {
                    let put = store.checkpoint_put(value.into()).await;
                    Done::Answered(request, put.map(|()| Value::Null).map_err(RpcError::from))
                }))
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        }
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Loaded(msg, time, result) => {
                self.load_time.add(time);
                match result {
                    Ok(data) => {
                        let data = Some(data).filter(|d| !d.is_empty());
                        self.handle.respond_raw(&msg, data);
                    }
                    Err(e) => self.handle.respond_error(&msg, &e),
                }
            }
            Done::Stored(msg, time, result) => {
                self.store_time.add(time);
                match result {
                    Ok(digest) => self.handle.respond_raw(&msg, digest),
                    Err(e) => self.handle.respond_error(&msg, &e),
                }
            }
            Done::Answered(msg, Ok(Value::Null)) => self.handle.respond_ok(&msg),
            Done::Answered(msg, Ok(value)) => self.handle.respond(&msg, &value),
            Done::Answered(msg, Err(e)) => self.handle.respond_error(&msg, &e),
        }
    }
}

async fn stats(store: &impl Backing, load: Value, put: Value) -> Result<Value, BackingError> {
    let mut stats = store.describe();
    stats["object_count"] = store.count().await?.into();
    stats["load_time"] = load;
    stats["store_time"] = put;
    stats["checkpoints"] = match store.checkpoints().await? {
        list if list.is_empty() => json!([]),
        list => list.into(),
    };
    Ok(stats)
}
