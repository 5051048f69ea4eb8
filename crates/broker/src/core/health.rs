//! What the broker knows of the tree: `overlay.health`, `overlay.topology`, `overlay.stats-get`.

use std::collections::BTreeSet;

use overlay::Topology;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::Setup;

/// Health of this broker's subtree, seen from here.
pub(super) fn health(setup: &Setup, online: &BTreeSet<u32>, children: &BTreeSet<u32>) -> Value {
    let kids = setup.topology.children(setup.rank);
    let status = |rank: &u32| {
        if children.contains(rank) || online.contains(rank) {
            "full"
        } else {
            "offline"
        }
    };
    let list: Vec<Value> = kids
        .iter()
        .map(|rank| json!({ "rank": rank, "status": status(rank), "duration": 0.0 }))
        .collect();
    let all = kids.iter().all(|r| status(r) == "full");
    json!({
        "rank": setup.rank,
        "status": if all { "full" } else { "partial" },
        "duration": 0.0,
        "children": list,
    })
}

/// The subtree below the asked rank: `{rank, size, children}`, nested.
pub(super) fn topology(topology: &Topology, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        rank: u32,
    }
    fn subtree(topology: &Topology, rank: u32) -> Value {
        let children: Vec<Value> = topology
            .children(rank)
            .into_iter()
            .map(|r| subtree(topology, r))
            .collect();
        json!({ "rank": rank, "size": topology.descendants(rank) + 1, "children": children })
    }
    let Request { rank } = msg.json()?;
    if rank >= topology.size() {
        return Err(RpcError::new(
            libc::ENOENT,
            format!("rank {rank} is not in this instance"),
        ));
    }
    Ok(subtree(topology, rank))
}

/// Counters of the overlay.
pub(super) fn stats(children: &BTreeSet<u32>) -> Value {
    json!({ "child-count": children.len(), "child-connected": children.len() })
}
