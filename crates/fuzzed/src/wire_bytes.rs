//! Messages, their frames and topics.

use std::collections::BTreeSet;
use std::ffi::CString;

use bytes::{Buf, Bytes, BytesMut};
use wire::{FrameDecoder, FrameQueue, Glob, Message, Subscriptions};

pub(crate) fn message(data: &[u8]) {
    if let Ok(message) = Message::decode(&Bytes::copy_from_slice(data)) {
        let mut buffer = BytesMut::new();
        message.encode(&mut buffer);
        assert_eq!(buffer.len(), message.encoded_len());
        assert_eq!(Message::decode(&buffer.freeze()), Ok(message));
    }
}

pub(crate) fn frame(data: &[u8]) {
    // The first byte says where the stream is cut in two.
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let whole = decode(&[stream]);
    let cut = usize::from(cut).min(stream.len());
    let halves = decode(&[&stream[..cut], &stream[cut..]]);
    assert_eq!(whole, halves);
    // What was read can be written and read again.
    let mut queue = FrameQueue::default();
    for message in &whole.0 {
        queue.push(message).expect("a message that was read fits");
    }
    let written = queue.copy_to_bytes(queue.remaining());
    assert_eq!(decode(&[&written]), (whole.0, false));
}

/// The messages of a stream that comes in parts, and whether it went wrong.
fn decode(parts: &[&[u8]]) -> (Vec<Message>, bool) {
    let mut decoder = FrameDecoder::default();
    let mut messages = Vec::new();
    for part in parts {
        decoder.buffer().extend_from_slice(part);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

pub(crate) fn glob(data: &[u8]) {
    // Pattern, zero byte, topic; the C library is the judge.
    let mut parts = data.splitn(2, |b| *b == 0);
    let (pattern, topic) = (parts.next().unwrap_or(&[]), parts.next().unwrap_or(&[]));
    let (Ok(pattern), Ok(topic)) = (std::str::from_utf8(pattern), std::str::from_utf8(topic))
    else {
        return;
    };
    // Collating symbols and equivalence classes depend on a locale; topics have none.
    let local = pattern.contains("[=") || pattern.contains("[.");
    // A class as the end of a range: where such a set ends depends, in the C library, on which of its
    // members fits.
    let unclear = pattern.contains("-[:");
    let special = pattern.contains(['*', '?', '[']) && pattern != "*" && !local && !unclear;
    let ours = Glob::new(pattern).matches(topic);
    if special && pattern.is_ascii() && topic.is_ascii() {
        let (Ok(p), Ok(t)) = (CString::new(pattern), CString::new(topic)) else {
            return;
        };
        // SAFETY: both are NUL-terminated and live during the call.
        let theirs = unsafe { libc::fnmatch(p.as_ptr(), t.as_ptr(), 0) } == 0;
        assert_eq!(ours, theirs, "{pattern:?} {topic:?}");
    }
}

pub(crate) fn subscriptions(data: &[u8]) {
    // Lines: +KEYPREFIX subscribes, -KEYPREFIX ends it, anything else is a topic.
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut set = Subscriptions::default();
    let mut naive: Vec<(char, String)> = Vec::new();
    for line in text.lines() {
        let mut chars = line.chars();
        match (chars.next(), chars.next()) {
            (Some('+'), Some(key)) => {
                set.add(chars.as_str(), key);
                naive.push((key, chars.as_str().to_owned()));
            }
            (Some('-'), Some(key)) => {
                set.remove(chars.as_str(), &key);
                let at = naive
                    .iter()
                    .position(|(k, p)| *k == key && p == chars.as_str());
                at.map(|at| naive.swap_remove(at));
            }
            _ => {
                let ours: BTreeSet<char> = set.subscribers(line).into_iter().collect();
                let hit = naive
                    .iter()
                    .filter(|(_, prefix)| line.starts_with(prefix.as_str()));
                assert_eq!(ours, hit.map(|(key, _)| *key).collect(), "{line:?}");
            }
        }
    }
}
