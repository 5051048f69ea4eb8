//! `attr.get`, `attr.set`, `attr.rm`.

use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::attrs::Attrs;
use crate::log::LogRing;

#[derive(Deserialize)]
struct Name {
    name: String,
}

pub(super) fn get(attrs: &Attrs, msg: &Message) -> Result<Value, RpcError> {
    let Name { name } = msg.json()?;
    let (value, flags) = attrs.lookup(&name)?;
    Ok(json!({ "value": value, "flags": flags }))
}

pub(super) fn set(attrs: &mut Attrs, log: &mut LogRing, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        name: String,
        value: String,
        #[serde(default)]
        force: bool,
    }
    msg.require_owner()?;
    let Request { name, value, force } = msg.json()?;
    attrs.check_update(&name, force)?;
    if name == "log-stderr-level" {
        log.set_stderr_level(&value)?;
    }
    attrs.update(&name, &value, force)?;
    Ok(Value::Null)
}

pub(super) fn rm(attrs: &mut Attrs, msg: &Message) -> Result<Value, RpcError> {
    msg.require_owner()?;
    let Name { name } = msg.json()?;
    attrs.remove(&name)?;
    Ok(Value::Null)
}
