//! Matchtags: which call a response belongs to.
//!
//! A tag is used again only after the last response to its former call has come (RFC 6): a response with an
//! error or without the streaming flag. A call that is given up before that leaves its tag *retired*; the late
//! response frees it and reaches nobody. Invariant: a response is delivered to the call that sent its request, or
//! to none.

use std::collections::VecDeque;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use wire::Message;

/// Calls that can wait at one time. Each is a request the broker has to remember too; a program with more is not
/// waiting for its calls but losing them.
pub(crate) const MAX_TAGS: usize = 1 << 20;

/// Free tags that rest before one is used again, the longest at rest first. Programs name running calls by their tags
/// to services; one that does so a moment too late should name nobody, not another call.
const RESTING: usize = 1024;

/// What waits for responses.
pub(crate) enum Waiter {
    One(oneshot::Sender<Message>),
    Many(UnboundedSender<Message>),
}

enum Slot {
    Free,
    Waiting {
        /// Tells this call from others that have had the tag.
        call: u64,
        waiter: Waiter,
    },
    Retired,
}

/// A tag and the call it was given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) number: u32,
    call: u64,
}

/// All tags of one connection.
#[derive(Default)]
pub(crate) struct Tags {
    /// The slot of tag n is at n - 1: 0 means no tag.
    slots: Vec<Slot>,
    free: VecDeque<u32>,
    calls: u64,
}

impl Tags {
    /// A tag for a new call; `None` if all are in use.
    pub(crate) fn allocate(&mut self, waiter: Waiter) -> Option<Tag> {
        self.calls += 1;
        let call = self.calls;
        let slot = Slot::Waiting { call, waiter };
        let rested = self.free.len() > RESTING || self.slots.len() == MAX_TAGS;
        if rested && let Some(number) = self.free.pop_front() {
            self.slots[number as usize - 1] = slot;
            return Some(Tag { number, call });
        }
        if self.slots.len() == MAX_TAGS {
            return None;
        }
        self.slots.push(slot);
        let number = self.slots.len() as u32;
        Some(Tag { number, call })
    }

    /// Nobody waits for this call any more. Does nothing if it has ended.
    pub(crate) fn retire(&mut self, tag: Tag) {
        if let Some(slot) = self.slots.get_mut(tag.number as usize - 1)
            && matches!(slot, Slot::Waiting { call, .. } if *call == tag.call)
        {
            *slot = Slot::Retired;
        }
    }

    /// Whether this call may still be answered.
    pub(crate) fn is_open(&self, tag: Tag) -> bool {
        let slot = self.slots.get(tag.number as usize - 1);
        matches!(slot, Some(Slot::Waiting { call, .. }) if *call == tag.call)
    }

    /// The request never left: its tag can be used again at once.
    pub(crate) fn release(&mut self, tag: Tag) {
        self.retire(tag);
        self.end(tag.number);
    }

    /// Give a response to whoever waits for it.
    pub(crate) fn deliver(&mut self, msg: Message) {
        let number = msg.matchtag();
        let Some(slot) = (number as usize)
            .checked_sub(1)
            .and_then(|at| self.slots.get_mut(at))
        else {
            return;
        };
        let last = msg.is_final();
        match slot {
            Slot::Free => return,
            Slot::Retired => {}
            Slot::Waiting {
                waiter: Waiter::Many(tx),
                ..
            } => {
                if tx.send(msg).is_err() {
                    *slot = Slot::Retired;
                }
            }
            Slot::Waiting { .. } => {
                if let Slot::Waiting {
                    waiter: Waiter::One(tx),
                    ..
                } = std::mem::replace(slot, Slot::Retired)
                {
                    // Whoever asked may have stopped waiting.
                    let _ = tx.send(msg);
                }
            }
        }
        if last {
            self.end(number);
        }
    }

    fn end(&mut self, number: u32) {
        if let Some(slot) = self.slots.get_mut(number as usize - 1) {
            *slot = Slot::Free;
            self.free.push_back(number);
        }
    }

    /// Tags that cannot be given out: waited for, and retired.
    #[cfg(test)]
    fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use wire::{Flags, RpcError};

    fn request(number: u32, flags: u8) -> Message {
        Message::request("a.b", 0, number, flags, None)
    }

    fn one(tags: &mut Tags) -> (Tag, oneshot::Receiver<Message>) {
        let (tx, rx) = oneshot::channel();
        (tags.allocate(Waiter::One(tx)).unwrap(), rx)
    }

    fn many(tags: &mut Tags) -> (Tag, UnboundedReceiver<Message>) {
        let (tx, rx) = unbounded_channel();
        (tags.allocate(Waiter::Many(tx)).unwrap(), rx)
    }

    #[test]
    fn a_late_response_does_not_reach_a_new_call() {
        let mut tags = Tags::default();
        let (old, rx) = one(&mut tags);
        drop(rx);
        tags.retire(old);
        let (new, mut rx) = one(&mut tags);
        assert_ne!(old.number, new.number, "the old call may still be answered");
        tags.deliver(request(old.number, 0).response(0, None));
        assert!(rx.try_recv().is_err());
        let reused = std::iter::repeat_with(|| {
            let (tag, _rx) = one(&mut tags);
            tags.release(tag);
            tag
        })
        .find(|tag| tag.number == old.number);
        assert!(reused.is_some(), "once it has rested");
        // Giving up the first call again must not disturb the one that has its tag now.
        tags.retire(old);
        assert_eq!(tags.in_use(), 1);
        tags.deliver(request(new.number, 0).response(0, None));
        assert!(rx.try_recv().is_ok());
    }

    #[test]
    fn a_retired_stream_is_freed_by_its_end_only() {
        let mut tags = Tags::default();
        let (tag, rx) = many(&mut tags);
        let request = request(tag.number, Flags::STREAMING);
        drop(rx);
        tags.deliver(request.response(0, None));
        tags.deliver(request.response(0, None));
        assert_eq!(tags.in_use(), 1);
        tags.deliver(request.error_response(&RpcError::errno(libc::ENODATA)));
        assert_eq!(tags.in_use(), 0);
        tags.deliver(request.error_response(&RpcError::errno(libc::ENODATA)));
        assert_eq!(tags.in_use(), 0, "a second end is nothing");
    }

    #[test]
    fn a_stream_that_answers_a_plain_call_keeps_its_tag() {
        let mut tags = Tags::default();
        let (tag, mut rx) = one(&mut tags);
        let request = request(tag.number, Flags::STREAMING);
        tags.deliver(request.response(0, None));
        assert!(rx.try_recv().is_ok());
        assert_eq!(tags.in_use(), 1);
        tags.deliver(request.error_response(&RpcError::errno(libc::EPERM)));
        assert_eq!(tags.in_use(), 0);
    }

    #[test]
    fn tags_are_bounded() {
        let mut tags = Tags::default();
        let first = one(&mut tags);
        let rest: Vec<_> = (1..MAX_TAGS).map(|_| one(&mut tags)).collect();
        assert_eq!(rest.last().unwrap().0.number, MAX_TAGS as u32);
        let (tx, _rx) = oneshot::channel();
        assert!(tags.allocate(Waiter::One(tx)).is_none());
        tags.release(first.0);
        assert_eq!(one(&mut tags).0.number, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any order of calls, give-ups and (also late) answers: each call gets its own answer or none.
        #[test]
        fn responses_find_their_call(steps in proptest::collection::vec((0u8..3, any::<prop::sample::Index>()), 0..6000)) {
            let mut tags = Tags::default();
            let mut unanswered: Vec<(Tag, String)> = Vec::new();
            let mut waiting: HashMap<u64, (oneshot::Receiver<Message>, String)> = HashMap::new();
            for (serial, (what, pick)) in steps.into_iter().enumerate() {
                match what {
                    0 => {
                        let (tag, rx) = one(&mut tags);
                        prop_assert!(unanswered.iter().all(|(t, _)| t.number != tag.number));
                        unanswered.push((tag, serial.to_string()));
                        waiting.insert(tag.call, (rx, serial.to_string()));
                    }
                    1 if !unanswered.is_empty() => {
                        let (tag, _) = &unanswered[pick.index(unanswered.len())];
                        tags.retire(*tag);
                        waiting.remove(&tag.call);
                    }
                    2 if !unanswered.is_empty() => {
                        let (tag, text) = unanswered.swap_remove(pick.index(unanswered.len()));
                        let payload = wire::string_payload(&text);
                        tags.deliver(request(tag.number, 0).response(0, Some(payload)));
                        if let Some((mut rx, want)) = waiting.remove(&tag.call) {
                            let got = rx.try_recv().unwrap();
                            prop_assert_eq!(got.text(), Some(want.as_str()));
                        }
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(tags.in_use(), unanswered.len());
            for (rx, _) in waiting.values_mut() {
                prop_assert!(rx.try_recv().is_err());
            }
        }
    }
}
