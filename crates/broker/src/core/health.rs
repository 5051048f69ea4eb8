//! What the broker knows of the tree: the methods of `overlay` (flux-overlay(1)).
//!
//! A mirror of what the overlay reports, with the time of each change, and those who watch it.

use std::collections::BTreeMap;
use std::time::Instant;

use client::Handle;
use overlay::{Control, Incoming, Peer, Status, Topology};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

/// A child as its parent sees it.
struct Child {
    status: Status,
    since: Instant,
    /// Why it is not there.
    error: String,
    torpid: bool,
}

/// This broker's part of the tree.
pub(super) struct Health {
    rank: u32,
    topology: Topology,
    children: BTreeMap<u32, Child>,
    status: Status,
    since: Instant,
    watchers: Vec<Message>,
    monitors: Vec<Message>,
}

#[derive(Deserialize)]
struct Rank {
    rank: u32,
}

impl Health {
    pub(super) fn new(rank: u32, topology: &Topology) -> Self {
        let since = Instant::now();
        let child = |rank: &u32| {
            let child = Child {
                status: Status::Offline,
                since,
                error: String::new(),
                torpid: false,
            };
            (*rank, child)
        };
        let children: BTreeMap<u32, Child> = topology.children(rank).iter().map(child).collect();
        Self {
            rank,
            topology: topology.clone(),
            status: Status::of(children.values().map(|c| c.status)),
            children,
            since,
            watchers: Vec::new(),
            monitors: Vec::new(),
        }
    }

    /// Children that take part, or did not take their leave.
    pub(super) fn online(&self) -> Vec<u32> {
        let online = self.children.iter().filter(|(_, c)| c.status.is_online());
        online.map(|(rank, _)| *rank).collect()
    }

    /// Children whose leave is worth waiting for: they show signs of life.
    pub(super) fn awaited(&self) -> Vec<u32> {
        let online = |c: &Child| c.status.is_online() && !c.torpid;
        let awaited = self.children.iter().filter(|(_, c)| online(c));
        awaited.map(|(rank, _)| *rank).collect()
    }

    /// Note what the overlay reports and tell those who watch.
    pub(super) fn update(&mut self, incoming: &Incoming, handle: &Handle) {
        let rank = match *incoming {
            Incoming::Child(rank, status) => {
                self.set(rank, status, "");
                rank
            }
            Incoming::Gone {
                peer: Peer::Child(rank),
                status,
                ref why,
            } => {
                self.set(rank, status, why);
                rank
            }
            Incoming::Torpid { rank, torpid, .. } => {
                if let Some(child) = self.children.get_mut(&rank) {
                    child.torpid = torpid;
                }
                rank
            }
            Incoming::Rejected { rank, ref why, .. } => {
                if let Some(child) = self.children.get_mut(&rank)
                    && !child.status.is_online()
                {
                    child.error.clone_from(why);
                }
                return;
            }
            Incoming::Own(status) => {
                self.status = status;
                self.since = Instant::now();
                self.tell(handle);
                return;
            }
            _ => return,
        };
        self.tell(handle);
        for request in &self.monitors {
            if let Some(view) = self.monitor_view(rank) {
                handle.respond(request, &view);
            }
        }
    }

    fn set(&mut self, rank: u32, status: Status, error: &str) {
        let Some(child) = self.children.get_mut(&rank) else {
            return;
        };
        if child.status != status {
            child.since = Instant::now();
        }
        child.status = status;
        error.clone_into(&mut child.error);
        if !status.is_online() {
            child.torpid = false;
        }
    }

    fn tell(&self, handle: &Handle) {
        for request in &self.watchers {
            handle.respond(request, &self.view());
        }
    }

    fn view(&self) -> Value {
        let child = |(rank, child): (&u32, &Child)| {
            let mut view = json!({
                "rank": rank,
                "status": child.status.name(),
                "duration": child.since.elapsed().as_secs_f64(),
            });
            if !child.status.is_online() && !child.error.is_empty() {
                view["error"] = child.error.clone().into();
            }
            view
        };
        json!({
            "rank": self.rank,
            "status": self.status.name(),
            "duration": self.since.elapsed().as_secs_f64(),
            "children": self.children.iter().map(child).collect::<Vec<_>>(),
        })
    }

    fn monitor_view(&self, rank: u32) -> Option<Value> {
        let child = self.children.get(&rank)?;
        Some(json!({
            "rank": rank,
            "status": child.status.name(),
            "torpid": child.torpid,
        }))
    }

    /// `overlay.health`: now, and (streaming) after every change.
    pub(super) fn health(&mut self, msg: &Message) -> Value {
        if msg.is_streaming() {
            self.watchers.push(msg.clone());
        }
        self.view()
    }

    /// `overlay.monitor`: a response for each child that is not simply offline, then one for each
    /// change.
    pub(super) fn monitor(&mut self, msg: &Message, handle: &Handle) -> Result<(), RpcError> {
        msg.require_streaming()?;
        for (rank, child) in &self.children {
            if (child.status != Status::Offline || child.torpid)
                && let Some(view) = self.monitor_view(*rank)
            {
                handle.respond(msg, &view);
            }
        }
        self.monitors.push(msg.clone());
        Ok(())
    }

    /// `overlay.disconnect`: a client watches no more.
    pub(super) fn forget(&mut self, notice: &Message) {
        for requests in [&mut self.watchers, &mut self.monitors] {
            requests.retain(|req| !req.is_same_rpc(notice, None));
        }
    }

    /// `overlay.topology`: the subtree of this broker or one of its children, nested.
    pub(super) fn topology(&self, msg: &Message) -> Result<Value, RpcError> {
        fn subtree(topology: &Topology, rank: u32) -> Value {
            let children = topology.children(rank).iter();
            let children: Vec<Value> = children.map(|r| subtree(topology, *r)).collect();
            json!({ "rank": rank, "size": topology.descendants(rank) + 1, "children": children })
        }
        let Rank { rank } = msg.json()?;
        if rank != self.rank && !self.children.contains_key(&rank) {
            let text = format!(
                "rank {rank} is neither rank {} nor a child of it",
                self.rank
            );
            return Err(RpcError::new(libc::ENOENT, text));
        }
        Ok(subtree(&self.topology, rank))
    }

    /// `overlay.disconnect-subtree`: what to tell the overlay.
    pub(super) fn disconnect_subtree(&self, msg: &Message) -> Result<Control, RpcError> {
        msg.require_owner()?;
        let Rank { rank } = msg.json()?;
        let Some(child) = self.children.get(&rank) else {
            let text = format!("rank {rank} is not a child of rank {}", self.rank);
            return Err(RpcError::new(libc::ENOENT, text));
        };
        if !child.status.is_online() {
            let text = format!("rank {rank} is already {}", child.status.name());
            return Err(RpcError::new(libc::EINVAL, text));
        }
        let why = "administrative disconnect".to_owned();
        Ok(Control::Disconnect { rank, why })
    }

    /// `overlay.stats-get`, without what only the router knows.
    pub(super) fn stats(&self) -> Value {
        json!({
            "child-count": self.children.len(),
            "child-connected": self.online().len(),
            "parent-count": u32::from(self.rank != 0),
            // What passes between router and overlay is counted in bytes, per peer.
            "interthread": { "sendq": 0, "recvq": 0 },
        })
    }
}

/// `overlay.disconnect-parent`: what to tell the overlay.
pub(super) fn disconnect_parent(msg: &Message) -> Result<Control, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        reason: String,
    }
    msg.require_owner()?;
    let Request { reason } = msg.json()?;
    Ok(Control::Leave(reason))
}
