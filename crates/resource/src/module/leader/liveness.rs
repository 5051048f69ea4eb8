//! Which brokers are there, as the broker's own groups say (RFC 44: online, offline, torpid, lively).
//!
//! A rank announces itself before its broker joins `broker.online`, so only leaving that group makes it offline. In an
//! instance that is there to be mended none is online; with `monitor-force-up` all are.

use client::{Node, RpcStream};
use formats::idset::Idset;
use formats::resource_event::{ResourceEvent, Targets};
use serde::Deserialize;
use serde_json::{Map, json};

use super::{Done, Leader};

/// Groups of brokers that matter here.
#[derive(Clone, Copy)]
pub(super) enum Group {
    Online,
    Torpid,
}

/// Whether brokers are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    Watched,
    AllOnline,
    NoneOnline,
}

impl Leader {
    /// Follow the groups from now on; this broker is there.
    pub(super) fn watch_brokers(&mut self) {
        if self.liveness != Liveness::Watched {
            return;
        }
        self.add_online(&Idset::from(0));
        for (group, name) in [
            (Group::Online, "broker.online"),
            (Group::Torpid, "broker.torpid"),
        ] {
            let request = json!({ "name": name });
            let stream = self.handle.stream("groups.get", Node::Rank(0), &request);
            self.watch_group(group, stream);
        }
    }

    pub(super) fn watch_group(&mut self, group: Group, mut stream: RpcStream) {
        #[derive(Deserialize)]
        struct Answer {
            members: Idset,
        }
        self.work.push(Box::pin(async move {
            let next = match stream.next().await {
                Some(Ok(msg)) => msg.json::<Answer>().ok().map(|a| a.members),
                Some(Err(_)) | None => None,
            };
            Done::Group(group, stream, next)
        }));
    }

    pub(super) fn handle_group(&mut self, members: Idset) {
        let left = self.group.difference(&members);
        let online = self.inventory.online.union(&members).difference(&left);
        self.group = members;
        self.set_online(online);
    }

    pub(super) fn handle_torpid(&mut self, members: Idset) {
        let before = std::mem::replace(&mut self.inventory.torpid, members);
        let now = self.inventory.torpid.clone();
        self.note_targets(ResourceEvent::Torpid, now.difference(&before));
        self.note_targets(ResourceEvent::Lively, before.difference(&now));
        self.notify();
    }

    pub(super) fn add_online(&mut self, ranks: &Idset) {
        if self.liveness == Liveness::Watched {
            let online = self.inventory.online.union(ranks);
            self.set_online(online);
        }
    }

    pub(super) fn note_targets(&mut self, event: fn(Targets) -> ResourceEvent, idset: Idset) {
        if !idset.is_empty() {
            let extra = Map::new();
            self.log.note(&event(Targets { idset, extra }));
        }
    }

    pub(super) fn set_online(&mut self, online: Idset) {
        if online == self.inventory.online {
            return;
        }
        let (came, left) = self.inventory.set_online(online);
        self.note_targets(ResourceEvent::Online, came);
        self.note_targets(ResourceEvent::Offline, left);
        let up = self.inventory.online.len();
        let handle = &self.handle;
        self.waitups.retain(|(want, msg)| {
            if *want == up {
                handle.respond_ok(msg);
            }
            *want != up
        });
        self.notify();
    }
}
