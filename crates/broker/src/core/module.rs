//! `module.load` and `module.remove` (RFC 5).

use serde::Deserialize;
use serde_json::Value;
use wire::{Message, RpcError};

use crate::host::Host;

pub(super) fn load(host: &mut Host, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        path: String,
        name: Option<String>,
        #[serde(default)]
        args: Vec<String>,
    }
    msg.require_owner()?;
    let Request { path, name, args } = msg.json()?;
    host.load(name.as_deref(), &path, args)?;
    Ok(Value::Null)
}

/// Answered when the module has ended.
pub(super) fn remove(host: &mut Host, msg: &Message) -> Option<Result<Value, RpcError>> {
    #[derive(Deserialize)]
    struct Request {
        name: String,
    }
    let result = msg
        .require_owner()
        .and_then(|()| msg.json::<Request>())
        .and_then(|req| host.unload(&req.name, Some(msg.clone())));
    result.err().map(Err)
}
