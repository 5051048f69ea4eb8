//! The broker module `resource`, on every rank (RFC 28, 44).
//!
//! Each rank announces itself to its parent with `resource.reduce`; ranks in between join what
//! arrives while a message is on its way up. An announcement makes the rank an online target.
//! Rank 0 decides where the resource set comes from: configuration, the KVS of an earlier life,
//! the enclosing job, or what the ranks discover; only then are they asked to look.
//!
//! Ranks whose resources are defined elsewhere look, too, unless that is not to be verified.
//!
//! Arguments: `monitor-force-up` treats all targets of the set as online (for made-up sets), `noverify` takes it that they
//! have what the set says; `notruncate` is taken for compatibility: no event is ever cut off.

mod follower;
mod leader;
mod reload;
mod reslog;
mod source;

use client::module::{Context, ModuleError};
use client::{Handle, Message, Node, RpcError};
use formats::{Idset, ResourceSet};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::ResourceConfig;
use crate::discover::{self, Local};

/// Runs the module until its inbox ends.
pub async fn main(ctx: Context) -> Result<(), ModuleError> {
    if ctx.handle.rank() == 0 {
        leader::run(ctx).await
    } else {
        Arguments::parse(&ctx.args)?;
        follower::run(ctx).await
    }
}

/// What the module is told when it is loaded.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    force_up: bool,
    noverify: bool,
}

impl Arguments {
    fn parse(args: &[String]) -> Result<Arguments, ModuleError> {
        let mut parsed = Arguments::default();
        for arg in args {
            match arg.as_str() {
                "monitor-force-up" => parsed.force_up = true,
                "noverify" => parsed.noverify = true,
                "notruncate" => {}
                _ => return Err(ModuleError::unknown_argument(arg)),
            }
        }
        Ok(parsed)
    }
}

/// Whether a configuration could be used at the next start.
fn check_config(config: &Value) -> Result<(), RpcError> {
    let checked = ResourceConfig::from_config(config).and_then(|config| config.verification());
    let checked = checked.map_err(|e| RpcError::new(libc::EINVAL, e.to_string()));
    checked.map(drop)
}

/// Payload of `resource.reduce`: these ranks are online, and have these resources, if they
/// were asked to look.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Reduce {
    online: Idset,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<ResourceSet>,
}

/// Answer to it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ReduceAnswer {
    /// The ranks shall look what they have, and tell.
    discover: bool,
}

impl Reduce {
    fn join(&mut self, other: Reduce) {
        self.online = self.online.union(&other.online);
        if let Some(more) = other.resources {
            self.resources.get_or_insert_default().merge(&more);
        }
    }
}

/// Looks at the node on a thread that may block.
async fn look() -> Result<Local, ModuleError> {
    tokio::task::spawn_blocking(discover::local)
        .await
        .map_err(|e| ModuleError::new("discovering resources", e))?
        .map_err(|e| ModuleError::new("discovering resources", e))
}

/// `resource.topo-get`: the payload is the bare XML text, as upstream's is.
async fn answer_topology(handle: Handle, msg: Message) {
    let text = tokio::task::spawn_blocking(discover::xml).await;
    match text {
        Ok(Ok(text)) => handle.respond_raw(&msg, Some(wire::string_payload(&text))),
        Ok(Err(e)) => handle.respond_error(&msg, &RpcError::new(libc::EIO, e.to_string())),
        Err(e) => handle.respond_error(&msg, &RpcError::new(libc::EIO, e.to_string())),
    }
}

/// Passes a request on and its answer back.
async fn relay(handle: Handle, msg: Message, node: Node) {
    match handle
        .rpc_raw(msg.topic(), node, msg.payload().cloned())
        .await
    {
        Ok(answer) => handle.respond_raw(&msg, answer.payload().cloned()),
        Err(e) => handle.respond_error(&msg, &e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments() {
        let parse = |args: &[&str]| {
            Arguments::parse(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let both = parse(&["noverify", "monitor-force-up", "notruncate"]).unwrap();
        assert!(both.noverify && both.force_up);
        assert_eq!(parse(&[]).unwrap(), Arguments::default());
        assert!(parse(&["badoption"]).is_err());
    }

    #[test]
    fn configurations_are_checked() {
        let why = |table: Value| {
            let checked = check_config(&json!({ "resource": table }));
            checked.map_err(|e| e.to_string())
        };
        assert_eq!(why(json!({"verify": {"core": "strict"}})), Ok(()));
        assert_eq!(check_config(&json!({})), Ok(()));
        assert!(
            why(json!({"verify": {"cores": "strict"}}))
                .unwrap_err()
                .contains("cores")
        );
        assert!(
            why(json!({"verify": 1}))
                .unwrap_err()
                .contains("must be a table")
        );
        assert!(why(json!({"foo": 1})).unwrap_err().contains("foo"));
    }
}
