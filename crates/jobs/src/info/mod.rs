//! The broker module `job-info`: what the KVS has of one job (RFC 16, 21).
//!
//! It reads keys of jobs and follows their eventlogs for users who cannot read the primary
//! namespace: everybody may see their own jobs. Each request is one future; it ends with its
//! response, when it is cancelled, or when its client goes away.

mod access;
mod lookup;
mod update;
mod watch;

use std::collections::HashMap;

use client::module::{Context, ModuleError};
use client::{Handle, Message, RpcError};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use wire::Text;

use access::Owners;

/// How an open request ends from outside.
enum Stop {
    /// Its client cancelled it and waits for the end.
    Cancel,
    /// Its client is gone.
    Disconnect,
}

/// What identifies an open request: who sent it, and its matchtag.
type RequestKey = (Option<Text>, u32);

fn key_of(msg: &Message, matchtag: u32) -> RequestKey {
    (msg.sender().cloned(), matchtag)
}

/// What request handlers share.
#[derive(Clone)]
struct Shared {
    handle: Handle,
    owners: Owners,
}

struct Module {
    shared: Shared,
    open: HashMap<RequestKey, oneshot::Sender<Stop>>,
    work: FuturesUnordered<BoxFuture<'static, Option<RequestKey>>>,
}

/// Runs the module until its inbox ends.
pub async fn main(ctx: Context) -> Result<(), ModuleError> {
    let mut inbox = ctx.inbox;
    let mut module = Module {
        shared: Shared {
            handle: ctx.handle,
            owners: Owners::default(),
        },
        open: HashMap::new(),
        work: FuturesUnordered::new(),
    };
    loop {
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => module.handle_message(msg),
                None => return Ok(()),
            },
            Some(ended) = module.work.next() => {
                if let Some(key) = ended {
                    module.open.remove(&key);
                }
            }
        }
    }
}

impl Module {
    fn handle_message(&mut self, msg: Message) {
        if !msg.is_request() {
            return;
        }
        let shared = self.shared.clone();
        match msg.topic().strip_prefix("job-info.").unwrap_or_default() {
            "lookup" => self.spawn(lookup::run(shared, msg)),
            "update-lookup" => self.spawn(lookup::run_update(shared, msg)),
            "eventlog-watch" => {
                let request = msg.clone();
                self.spawn_stream(msg, async move { watch::run(shared, &request).await });
            }
            "update-watch" => {
                let request = msg.clone();
                self.spawn_stream(msg, async move { update::run(shared, &request).await });
            }
            "eventlog-watch-cancel" | "update-watch-cancel" => self.handle_cancel(&msg),
            "disconnect" => {
                let gone: Vec<RequestKey> = self
                    .open
                    .keys()
                    .filter(|(sender, _)| sender.as_ref() == msg.sender())
                    .cloned()
                    .collect();
                for key in gone {
                    self.stop(&key, Stop::Disconnect);
                }
            }
            "stats-get" => {
                let answer = json!({"lookups": self.work.len() - self.open.len(),
                    "watchers": self.open.len(), "guest_watchers": 0, "update_watchers": 0});
                shared.handle.respond(&msg, &answer);
            }
            _ => shared.handle.respond_enosys(&msg),
        }
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.work.push(Box::pin(async move {
            work.await;
            None
        }));
    }

    /// Runs a stream of responses. It ends with the error `work` returns, ENODATA being the
    /// regular end.
    fn spawn_stream(
        &mut self,
        msg: Message,
        work: impl Future<Output = RpcError> + Send + 'static,
    ) {
        let handle = self.shared.handle.clone();
        if !msg.is_streaming() {
            let text = format!(
                "{} request rejected without streaming RPC flag",
                msg.topic()
            );
            handle.respond_error(&msg, &RpcError::proto(text));
            return;
        }
        let key = key_of(&msg, msg.matchtag());
        let (stop, stopped) = oneshot::channel();
        self.open.insert(key.clone(), stop);
        self.work.push(Box::pin(async move {
            tokio::select! {
                error = work => handle.respond_error(&msg, &error),
                // The sender lives as long as the request is open.
                Ok(stop) = stopped => match stop {
                    Stop::Cancel => handle.respond_error(&msg, &RpcError::errno(libc::ENODATA)),
                    Stop::Disconnect => {}
                },
            }
            Some(key)
        }));
    }

    fn handle_cancel(&mut self, msg: &Message) {
        #[derive(Deserialize)]
        struct Request {
            matchtag: u32,
        }
        // Cancel requests have no response; one that is malformed has no effect.
        if let Ok(req) = msg.json::<Request>() {
            self.stop(&key_of(msg, req.matchtag), Stop::Cancel);
        }
    }

    fn stop(&mut self, key: &RequestKey, how: Stop) {
        if let Some(stop) = self.open.remove(key) {
            // If it ended by itself this moment, all the better.
            let _ = stop.send(how);
        }
    }
}

/// Sets a member by dotted path, making objects on the way.
pub(crate) fn set_path(value: &mut Value, path: &str, new: Value) {
    let mut at = value;
    for key in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[key];
    }
    *at = new;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let mut v = json!({"a": {"b": 1}});
        set_path(&mut v, "a.b", json!(2));
        set_path(&mut v, "a.c.d", json!("x"));
        set_path(&mut v, "e", json!(null));
        assert_eq!(v, json!({"a": {"b": 2, "c": {"d": "x"}}, "e": null}));
    }
}
