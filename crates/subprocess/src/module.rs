//! The broker's `rexec` service: a [`Server`] as a module.

use std::path::Path;
use std::time::Duration;

use client::module::{Context, ModuleError, ModuleResult};
use client::{Handle, Node};
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::server::Server;

/// Whether a request has come from another broker: the last hop is that broker's rank then.
fn is_remote(msg: &Message) -> bool {
    let hop = msg.routes().last();
    hop.is_some_and(|hop| hop.parse::<u32>().is_ok())
}

/// Whether guests may use the instance.
fn has_guests(config: &Value) -> bool {
    config["access"]["allow-guest-user"] == true
}

/// How long processes that are asked to end may take.
const GRACE: Duration = Duration::from_secs(5);

struct State {
    server: Server,
    handle: client::Handle,
    /// Rank 0 of an instance with guests: other brokers may not run anything here.
    local_only: bool,
}

/// Entry point of module `rexec`.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle, mut inbox, ..
    } = ctx;
    let uri = handle.getattr("local-uri").await?;
    let config: Value = handle.call("config.get", Node::Any, &json!({})).await?;
    let mut state = State {
        server: server(&handle, uri).await?,
        local_only: handle.rank() == 0 && has_guests(&config),
        handle,
    };
    loop {
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => state.message(&msg),
                None => break,
            },
            happening = state.server.next() => state.server.happened(happening),
        }
    }
    // What still runs must not outlive the broker.
    state.server.stop_gently();
    if tokio::time::timeout(GRACE, state.server.drained())
        .await
        .is_err()
    {
        state.server.stop(libc::SIGKILL);
        state.server.drained().await;
    }
    Ok(())
}

/// The server; where the run directory stays when the broker ends, with what the broker before has left.
async fn server(handle: &Handle, uri: String) -> Result<Server, ModuleError> {
    let mut server =
        Server::new(handle.clone(), uri).map_err(|e| ModuleError::new("signals", e))?;
    if handle.getattr("rundir-cleanup").await.as_deref() == Ok("0") {
        // Test instances have one run directory for all their brokers.
        let name = format!("rexec-{}", handle.rank());
        let dir = Path::new(&handle.getattr("rundir").await?).join(name);
        let failed = |e| ModuleError::new(&dir.to_string_lossy(), e);
        server.outlive(&dir).map_err(failed)?;
    }
    Ok(server)
}

impl State {
    fn message(&mut self, msg: &Message) {
        if !msg.is_request() {
            return;
        }
        match msg.method() {
            "config-reload" => {
                let outcome = self.reload(msg);
                self.handle.respond_result(msg, outcome.map(|()| json!({})));
            }
            "disconnect" => self.server.disconnect(msg),
            _ if self.local_only && is_remote(msg) => {
                let text = "rank 0 runs processes only for programs on its own node";
                let refused = RpcError::new(libc::EPERM, text);
                self.handle.respond_error(msg, &refused);
            }
            method => self.server.request(method, msg),
        }
    }

    fn reload(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        self.local_only = self.handle.rank() == 0 && has_guests(&msg.json()?);
        Ok(())
    }
}
