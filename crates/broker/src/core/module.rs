//! `module.load`, `.remove`, `.status`, `.debug`, `.trace` (RFC 5).

use serde::Deserialize;
use serde_json::Value;
use wire::{Message, RpcError};

use crate::host::{Host, Surroundings};
use crate::router::{Input, RouterHandle};

/// Answered when the module runs.
pub(super) fn load(
    host: &mut Host,
    around: Surroundings<'_>,
    msg: &Message,
) -> Option<Result<Value, RpcError>> {
    let result = msg
        .require_owner()
        .and_then(|()| msg.json())
        .and_then(|request| host.load(request, Some(msg), around));
    result.err().map(Err)
}

/// Answered when the module has ended.
pub(super) fn remove(host: &mut Host, msg: &Message) -> Result<String, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        name: String,
        #[serde(default)]
        cancel: bool,
    }
    msg.require_owner()?;
    let Request { name, cancel } = msg.json()?;
    host.unload(&name, Some(msg.clone()), cancel)?;
    Ok(name)
}

/// What a module in a process reports of itself. From anybody else it means nothing.
pub(super) fn status(host: &mut Host, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        status: i32,
        #[serde(default)]
        errnum: i32,
    }
    msg.require_owner()?;
    let Request { status, errnum } = msg.json()?;
    if let Some(sender) = msg.sender() {
        host.report(sender, status, errnum);
    }
    Ok(Value::Null)
}

/// Keep a module's messages back, or let them go.
pub(super) fn debug(host: &Host, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        name: String,
        defer: Option<bool>,
    }
    msg.require_owner()?;
    let Request { name, defer } = msg.json()?;
    host.defer(&name, defer.unwrap_or(false))?;
    Ok(Value::Null)
}

/// The router answers, with what it sees.
pub(super) fn trace(router: &RouterHandle, msg: &Message) -> Option<Result<Value, RpcError>> {
    match msg.require_owner() {
        Ok(()) => {
            router.send(Input::Trace(msg.clone()));
            None
        }
        Err(e) => Some(Err(e)),
    }
}
