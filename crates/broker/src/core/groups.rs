//! Groups of brokers (`groups.join`, `leave`, `get`): named sets of ranks, kept on rank 0.
//!
//! Invariants: every change takes the way of its rank up the tree, so that what a parent says about
//! a lost child comes after all that child said, and before what its next life says; a rank whose
//! broker is gone is in no group. Names with `broker.` in front are the broker's own.

use std::collections::{BTreeMap, BTreeSet};

use client::Handle;
use formats::idset::Idset;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::{Message, ROLE_LOCAL, RpcError};

/// Brokers that take part.
pub(super) const ONLINE: &str = "broker.online";
/// Brokers that are silent.
pub(super) const TORPID: &str = "broker.torpid";

/// A change of membership, on its way to rank 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    /// These ranks are in the group now.
    Join(String, String),
    /// These are not any more.
    Leave(String, String),
    /// These have gone and are in no group.
    Gone(String),
}

/// Members of the groups (rank 0) and the joins of local clients (all ranks).
#[derive(Default)]
pub(super) struct Groups {
    members: BTreeMap<String, BTreeSet<u32>>,
    joined: BTreeMap<String, Message>,
    watchers: Vec<(String, Message)>,
}

fn text(ranks: impl IntoIterator<Item = u32>) -> String {
    ranks.into_iter().collect::<Idset>().to_string()
}

fn ranks(text: &str) -> Result<Idset, RpcError> {
    text.parse()
        .map_err(|e| RpcError::proto(format!("groups.update: {e}")))
}

impl Change {
    pub(super) fn join(group: &str, rank: u32) -> Self {
        Self::Join(group.to_owned(), text([rank]))
    }

    pub(super) fn leave(group: &str, rank: u32) -> Self {
        Self::Leave(group.to_owned(), text([rank]))
    }

    pub(super) fn gone(ranks: Vec<u32>) -> Self {
        Self::Gone(text(ranks))
    }
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

fn local_name(msg: &Message) -> Result<String, RpcError> {
    msg.require_owner()?;
    let Name { name } = msg.json()?;
    if msg.rolemask() & ROLE_LOCAL == 0 {
        let text = format!("{} is restricted to the local broker", msg.topic());
        return Err(RpcError::proto(text));
    }
    if name.starts_with("broker.") {
        let text = format!("group {name}: names with \"broker.\" in front are the broker's own");
        return Err(RpcError::new(libc::EPERM, text));
    }
    Ok(name)
}

impl Groups {
    /// Members of a group, as a set.
    pub(super) fn members(&self, group: &str) -> String {
        text(self.members.get(group).into_iter().flatten().copied())
    }

    /// Members of a group, if it ever had some.
    pub(super) fn set(&self, group: &str) -> Option<&BTreeSet<u32>> {
        self.members.get(group)
    }

    /// Members of a group that a change takes out of it because they have gone.
    pub(super) fn losses(&self, group: &str, change: &Change) -> Idset {
        let (Change::Gone(set), Some(members)) = (change, self.members.get(group)) else {
            return Idset::default();
        };
        let gone = ranks(set).unwrap_or_default();
        gone.iter().filter(|r| members.contains(r)).collect()
    }

    /// Apply a change on rank 0 and tell who watches.
    pub(super) fn apply(&mut self, change: &Change, handle: &Handle) -> Result<(), RpcError> {
        let mut changed = BTreeSet::new();
        match change {
            Change::Join(group, set) => {
                let members = self.members.entry(group.clone()).or_default();
                let added = ranks(set)?.iter().filter(|r| members.insert(*r)).count();
                if added > 0 {
                    changed.insert(group.clone());
                }
            }
            Change::Leave(group, set) => {
                if let Some(members) = self.members.get_mut(group)
                    && ranks(set)?.iter().filter(|r| members.remove(r)).count() > 0
                {
                    changed.insert(group.clone());
                }
            }
            Change::Gone(set) => {
                let gone = ranks(set)?;
                for (group, members) in &mut self.members {
                    if gone.iter().filter(|r| members.remove(r)).count() > 0 {
                        changed.insert(group.clone());
                    }
                }
            }
        }
        for (group, request) in &self.watchers {
            if changed.contains(group) {
                handle.respond(request, &json!({ "members": self.members(group) }));
            }
        }
        Ok(())
    }

    /// `groups.get`: the members now, and (streaming) whenever they change.
    pub(super) fn get(&mut self, msg: &Message, rank: u32) -> Result<Value, RpcError> {
        let Name { name } = msg.json()?;
        if rank != 0 {
            let text = "groups.get is only available on rank 0";
            return Err(RpcError::proto(text));
        }
        if msg.is_streaming() {
            self.watchers.push((name.clone(), msg.clone()));
        }
        Ok(json!({ "members": self.members(&name) }))
    }

    /// `groups.join` of a client of this broker.
    pub(super) fn join(&mut self, msg: &Message, rank: u32) -> Result<Change, RpcError> {
        let name = local_name(msg)?;
        if self.joined.contains_key(&name) {
            let text = format!("rank {rank} is already a member of {name}");
            return Err(RpcError::new(libc::EEXIST, text));
        }
        self.joined.insert(name.clone(), msg.clone());
        Ok(Change::join(&name, rank))
    }

    /// `groups.leave` of a client of this broker.
    pub(super) fn leave(&mut self, msg: &Message, rank: u32) -> Result<Change, RpcError> {
        let name = local_name(msg)?;
        if self.joined.remove(&name).is_none() {
            let text = format!("rank {rank} is not a member of {name}");
            return Err(RpcError::new(libc::ENOENT, text));
        }
        Ok(Change::leave(&name, rank))
    }

    /// A client has gone: it watches no more, and leaves the groups it joined.
    pub(super) fn disconnect(&mut self, notice: &Message, rank: u32) -> Vec<Change> {
        self.watchers
            .retain(|(_, req)| !req.is_same_rpc(notice, None));
        let theirs = |req: &Message| req.is_same_rpc(notice, None);
        let left = self.joined.extract_if(.., |_, req| theirs(req));
        left.map(|(name, _)| Change::leave(&name, rank)).collect()
    }

    /// `groups.stats-get`.
    pub(super) fn stats(&self) -> Value {
        let groups = self
            .members
            .keys()
            .map(|g| (g.clone(), self.members(g).into()));
        json!({ "subtree": Value::Object(groups.collect()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle() -> Handle {
        Handle::with_sink(|_| true).0
    }

    #[test]
    fn changes() {
        let mut groups = Groups::default();
        let handle = handle();
        let mut apply = |change: &Change| groups.apply(change, &handle).unwrap();
        for rank in [0, 1, 2, 5] {
            apply(&Change::join(ONLINE, rank));
        }
        apply(&Change::join(TORPID, 2));
        apply(&Change::join(TORPID, 5));
        apply(&Change::leave(TORPID, 5));
        assert_eq!(
            (groups.members(ONLINE), groups.members(TORPID)),
            ("0-2,5".into(), "2".into())
        );
        let gone = Change::gone(vec![2, 5, 6]);
        assert_eq!(groups.losses(ONLINE, &gone).to_string(), "2,5");
        assert!(groups.losses(ONLINE, &Change::join(ONLINE, 7)).is_empty());
        groups.apply(&gone, &handle).unwrap();
        assert_eq!(
            (groups.members(ONLINE), groups.members(TORPID)),
            ("0-1".into(), String::new())
        );
        assert!(groups.apply(&Change::Gone("x".into()), &handle).is_err());
        assert_eq!(groups.members("none"), "");
    }

    #[test]
    fn clients_join_and_leave() {
        let mut groups = Groups::default();
        let request = |name: &str, cred| {
            let payload = wire::json_payload(&json!({ "name": name })).ok();
            let mut msg = Message::request("groups.join", 0, 1, 0, payload);
            msg.set_credentials(cred);
            msg.push_route("client".into());
            msg
        };
        let owner = wire::Credentials::owner(1);
        let foo = request("foo", owner);
        assert_eq!(groups.join(&foo, 3).unwrap(), Change::join("foo", 3));
        assert_eq!(groups.join(&foo, 3).unwrap_err().errno, libc::EEXIST);
        assert_eq!(groups.leave(&foo, 3).unwrap(), Change::leave("foo", 3));
        assert_eq!(groups.leave(&foo, 3).unwrap_err().errno, libc::ENOENT);
        let far = request("foo", owner.from_afar());
        assert_eq!(groups.join(&far, 3).unwrap_err().errno, libc::EPROTO);
        let ours = request("broker.online", owner);
        assert_eq!(groups.join(&ours, 3).unwrap_err().errno, libc::EPERM);
        groups.join(&foo, 3).unwrap();
        let notice = foo.disconnect_notice();
        assert_eq!(groups.disconnect(&notice, 3), [Change::leave("foo", 3)]);
        assert!(groups.disconnect(&notice, 3).is_empty());
    }
}
