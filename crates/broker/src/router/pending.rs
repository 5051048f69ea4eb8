//! Requests that came from a peer or went to one and have no final response yet.
//!
//! Invariants: a request is here from the moment it is sent on or delivered until its final
//! response passes, its client disconnects, or a peer on its way is lost; a response from a peer
//! that fits no entry is nobody's, for its request has been answered already. Requests that want no
//! response, or have no matchtag, cannot be followed. What is kept of a request is its head.

use std::collections::{HashMap, HashSet};

use overlay::Peer;
use wire::{Flags, Kind, Message, Routes, Text};

/// The way a request came, with its matchtag, is unique among those without final response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tag: u32,
    routes: Routes,
}

impl Key {
    fn of(msg: &Message) -> Self {
        Self {
            tag: msg.matchtag(),
            routes: msg.route_stack().clone(),
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Entry {
    /// Without payload.
    pub(super) request: Message,
    pub(super) from: Option<Peer>,
    pub(super) to: Option<Peer>,
    /// Place in the order of requests.
    number: u64,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: HashMap<Key, Entry>,
    /// Requests so far.
    count: u64,
    /// By the client that asked.
    clients: HashMap<Text, HashSet<Key>>,
}

/// The request without payload, in memory of its own.
fn head(msg: &Message) -> Message {
    let mut head = Message::build(msg.kind(), msg.flags().0, Some(msg.topic()), None);
    head.set_credentials(msg.credentials());
    for hop in msg.routes() {
        head.push_route(hop.detached());
    }
    head
}

/// Whether a disconnect notice ends a request: it is of the same client, for the same service and place.
pub(super) fn is_ended_by(request: &Message, notice: &Message) -> bool {
    request.sender() == notice.sender()
        && request.service() == notice.service()
        && place(request) == place(notice)
}

/// Where a request goes: clients say goodbye to each place they asked.
fn place(msg: &Message) -> (Option<u32>, bool) {
    let nodeid = match msg.kind() {
        Kind::Request { nodeid, .. } => Some(nodeid),
        _ => None,
    };
    (nodeid, msg.flags().has(Flags::UPSTREAM))
}

fn can_follow(msg: &Message) -> bool {
    msg.matchtag() != 0 && !msg.no_response()
}

impl Pending {
    /// All requests under way.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Requests that went to peers `is` likes.
    pub(super) fn count(&self, is: impl Fn(Peer) -> bool) -> usize {
        let to = self.entries.values().filter_map(|e| e.to);
        to.filter(|peer| is(*peer)).count()
    }

    /// Follow a request that came from a peer, goes to one, or both.
    pub(super) fn add(&mut self, msg: &Message, from: Option<Peer>, to: Option<Peer>) {
        if !can_follow(msg) {
            return;
        }
        let request = head(msg);
        let key = Key::of(&request);
        if let Some(client) = request.sender() {
            let keys = self.clients.entry(client.clone()).or_default();
            keys.insert(key.clone());
        }
        self.count += 1;
        let number = self.count;
        let entry = Entry {
            request,
            from,
            to,
            number,
        };
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        if let Some(client) = entry.request.sender()
            && let Some(keys) = self.clients.get_mut(client)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.clients.remove(client);
            }
        }
        Some(entry)
    }

    /// A response, before its last hop is taken off: whether its request is still under way towards
    /// `from`. A final one ends that.
    pub(super) fn response(&mut self, msg: &Message, from: Option<Peer>) -> bool {
        if msg.matchtag() == 0 {
            return true;
        }
        let key = Key::of(msg);
        let Some(entry) = self.entries.get(&key) else {
            return false;
        };
        if from.is_some() && entry.to != from {
            return false;
        }
        let failed = matches!(msg.kind(), Kind::Response { errnum, .. } if errnum != 0);
        if failed || !entry.request.is_streaming() {
            self.remove(&key);
        }
        true
    }

    /// A client has told a service that it is gone: its requests there get no answer any more.
    pub(super) fn disconnected(&mut self, notice: &Message) {
        let Some(keys) = notice.sender().and_then(|c| self.clients.get(c)) else {
            return;
        };
        let asked = |k: &&Key| {
            let entry = self.entries.get(*k);
            entry.is_some_and(|e| is_ended_by(&e.request, notice))
        };
        let keys: Vec<Key> = keys.iter().filter(asked).cloned().collect();
        for key in keys {
            self.remove(&key);
        }
    }

    /// A peer is lost: what went to it, and what came from it, each in the order of asking.
    pub(super) fn lose(&mut self, peer: Peer) -> (Vec<Entry>, Vec<Entry>) {
        let touches = |e: &Entry| e.from == Some(peer) || e.to == Some(peer);
        let keys = self.entries.iter().filter(|(_, e)| touches(e));
        let keys: Vec<Key> = keys.map(|(k, _)| k.clone()).collect();
        let mut lost: Vec<Entry> = keys.iter().filter_map(|k| self.remove(k)).collect();
        lost.sort_unstable_by_key(|e| e.number);
        lost.into_iter().partition(|e| e.to == Some(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Option<Peer> = Some(Peer::Parent);
    const DOWN: Option<Peer> = Some(Peer::Child(3));

    fn request(client: &str, topic: &str, tag: u32, flags: u8) -> Message {
        let mut msg = Message::request(topic, 0, tag, flags, Some("payload".into()));
        msg.push_route(client.into());
        msg
    }

    #[test]
    fn final_responses_end_requests() {
        let mut pending = Pending::default();
        let once = request("a", "x.y", 1, 0);
        let stream = request("a", "x.y", 2, Flags::STREAMING);
        pending.add(&once, None, UP);
        pending.add(&stream, DOWN, UP);
        assert_eq!(
            (pending.entries.len(), pending.count(|p| p == Peer::Parent)),
            (2, 2)
        );
        assert!(
            !pending.response(&once.response(0, None), DOWN),
            "from where it never went"
        );
        assert!(pending.response(&once.response(0, None), UP));
        assert!(
            !pending.response(&once.response(0, None), UP),
            "a second answer"
        );
        assert!(pending.response(&stream.response(0, None), UP));
        assert!(pending.response(&stream.response(61, None), UP));
        assert!(!pending.response(&stream.response(61, None), UP));
        assert!(pending.clients.is_empty());
        assert!(pending.response(&request("a", "x.y", 0, 0).response(0, None), UP));
    }

    #[test]
    fn some_requests_cannot_be_followed() {
        let mut pending = Pending::default();
        pending.add(&request("a", "x.y", 0, 0), None, UP);
        pending.add(&request("a", "x.y", 1, Flags::NORESPONSE), None, UP);
        assert_eq!(pending.entries.len(), 0);
    }

    #[test]
    fn a_disconnect_ends_the_requests_of_its_client_and_service() {
        let mut pending = Pending::default();
        for (client, topic, tag) in [("a", "x.y", 1), ("a", "z.y", 2), ("b", "x.y", 1)] {
            pending.add(&request(client, topic, tag, 0), None, UP);
        }
        pending.disconnected(&request("a", "x.y", 1, 0).disconnect_notice());
        assert_eq!(pending.entries.len(), 2);
    }

    #[test]
    fn a_lost_peer_takes_its_requests_with_it() {
        let mut pending = Pending::default();
        pending.add(&request("a", "x.y", 1, 0), None, UP);
        pending.add(&request("a", "x.y", 2, 0), DOWN, None);
        pending.add(&request("a", "x.y", 3, 0), DOWN, UP);
        let (to, from) = pending.lose(Peer::Child(3));
        assert!(to.is_empty());
        assert_eq!(from.len(), 2);
        assert!(from.iter().all(|e| e.request.payload().is_none()));
        let (to, from) = pending.lose(Peer::Parent);
        assert_eq!((to.len(), from.len(), pending.entries.len()), (1, 0, 0));
    }
}
