//! Modules in processes of their own: the program's side.
//!
//! A broker starts such a program with a connected socket, which `FLUX_MODULE_URI` names, and first sends it a request
//! `welcome`. [`serve`] takes it from there: the module's main is the same function a built-in module has.

use std::os::fd::{FromRawFd as _, RawFd};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc::unbounded_channel;
use wire::{Message, RpcError};

use crate::handle::{Handle, Node};
use crate::module::{Context, Meter, ModuleError, ModuleResult};
use crate::stream::{read_messages, write_messages};

/// The variable that names the socket: `fd://N`.
pub const URI_VARIABLE: &str = "FLUX_MODULE_URI";

/// What the broker tells a module first (RFC 5).
#[derive(Debug, Clone, Deserialize)]
pub struct Welcome {
    /// The name it is loaded under.
    pub name: String,
    /// Its identity in route stacks.
    pub uuid: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Broker attributes that never change.
    pub attrs: serde_json::Map<String, Value>,
    /// The instance's configuration.
    pub conf: Value,
}

fn broken(text: impl Into<String>) -> ModuleError {
    ModuleError {
        errno: libc::EPROTO,
        text: text.into(),
    }
}

/// Descriptor in a URI `fd://N`.
fn descriptor(uri: &str) -> Option<RawFd> {
    uri.strip_prefix("fd://")?.parse().ok()
}

/// Run this program as the module a broker has started it as; returns when that is asked to end, or ends itself.
///
/// ```no_run
/// use client::module::{Context, ModuleResult};
///
/// async fn echo(mut ctx: Context) -> ModuleResult {
///     while let Some(msg) = ctx.inbox.recv().await {
///         match msg.method() {
///             "echo" => ctx.handle.respond_raw(&msg, msg.payload().cloned()),
///             _ => ctx.handle.respond_enosys(&msg),
///         }
///     }
///     Ok(())
/// }
///
/// # async fn example() {
/// if let Err(e) = client::external::serve(echo).await {
///     eprintln!("{e}");
///     std::process::exit(1);
/// }
/// # }
/// ```
pub async fn serve<F>(main: impl FnOnce(Context) -> F) -> ModuleResult
where
    F: Future<Output = ModuleResult>,
{
    let uri = std::env::var(URI_VARIABLE).map_err(|_| {
        broken(format!(
            "{URI_VARIABLE} is not set: no broker started this program"
        ))
    })?;
    let fd =
        descriptor(&uri).ok_or_else(|| broken(format!("{URI_VARIABLE}: {uri:?} is not fd://N")))?;
    // SAFETY: the broker opened this descriptor for this program, and nothing else here uses it.
    let socket = unsafe { std::os::unix::net::UnixStream::from_raw_fd(fd) };
    let failed = |e: std::io::Error| broken(format!("{uri}: {e}"));
    socket.set_nonblocking(true).map_err(failed)?;
    let socket = UnixStream::from_std(socket).map_err(failed)?;
    run(socket, main).await
}

/// As [`serve`], over any socket.
async fn run<F>(socket: UnixStream, main: impl FnOnce(Context) -> F) -> ModuleResult
where
    F: Future<Output = ModuleResult>,
{
    let (mut reader, mut writer) = socket.into_split();
    let refused = reader.read_u8().await.map_err(|e| broken(e.to_string()))?;
    if refused != 0 {
        return Err(RpcError::errno(refused.into()).into());
    }
    let (out, mut queue) = unbounded_channel();
    let (handle, deliver) = Handle::with_sink(move |msg| out.send(msg).is_ok());
    let (first, welcome) = tokio::sync::oneshot::channel();
    tokio::spawn(async move { write_messages(&mut writer, &mut queue).await });
    tokio::spawn(async move {
        let mut first = Some(first);
        let mut stop = None;
        // Any failure to read is the end of the connection.
        let _ = read_messages(&mut reader, |msg| match first.take() {
            Some(first) => {
                let welcome: Result<Welcome, RpcError> = msg.json();
                stop = welcome
                    .as_ref()
                    .ok()
                    .map(|w| format!("{}.shutdown", w.name));
                // `run` waits for it.
                let _ = first.send(welcome);
            }
            None if stop.as_deref() == Some(msg.topic()) && msg.is_owner() => deliver.close_inbox(),
            None => deliver.deliver(msg),
        })
        .await;
        deliver.close();
    });
    let gone = |_| broken("the broker closed the connection before it said welcome");
    let welcome = welcome.await.map_err(gone)??;
    let number = |name: &str| {
        let value = welcome.attrs.get(name).and_then(Value::as_str);
        value.and_then(|text| text.parse().ok())
    };
    if let (Some(rank), Some(size)) = (number("rank"), number("size")) {
        handle.set_place(rank, size);
    }
    let meter = Arc::new(Meter::new(welcome.name.clone()));
    handle.set_meter(meter.clone());
    // Nobody else has had this handle.
    let inbox = handle.inbox().ok_or_else(|| broken("no inbox"))?;
    let context = Context {
        handle: handle.clone(),
        inbox,
        name: welcome.name,
        args: welcome.args.unwrap_or_default(),
    };
    let mut running = meter.running();
    let starter = handle.clone();
    let starting = tokio::spawn(async move {
        if running.wait_for(|on| *on).await.is_ok() {
            starter.notify("module.status", Node::Any, &json!({ "status": 1 }));
        }
    });
    let result = main(context).await;
    starting.abort();
    let errnum = result.as_ref().err().map_or(0, |e| e.errno);
    // Once the first is answered the broker sends nothing new; the answer to the second says that it was heard.
    // Without a broker there is nobody to tell.
    for status in [
        json!({ "status": 2 }),
        json!({ "status": 3, "errnum": errnum }),
    ] {
        let _ = handle.rpc("module.status", Node::Any, &status).await;
    }
    result
}

/// The first message to a module.
pub fn welcome(welcome: &Value) -> Message {
    // JSON values always encode.
    let payload = wire::json_payload(welcome).ok();
    Message::request("welcome", wire::NODEID_ANY, 0, 0, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        assert_eq!(descriptor("fd://7"), Some(7));
        assert_eq!(descriptor("local:///x"), None);
        assert_eq!(descriptor("fd://x"), None);
    }
}
