//! Framing on a stream socket: magic (4 bytes, host order), length (4 bytes, network order), message.
//!
//! It is what upstream's local connector speaks after the server's one-byte welcome. (RFC 3 says that the length
//! counts the frame header; programs of both sides count the message only, and so does this.)

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::codec::{DecodeError, MAX_MESSAGE};
use crate::message::Message;

const MAGIC: u32 = 0xffee_0012;
/// Bytes before each message.
pub const FRAME_HEADER: usize = 8;
/// Payloads from this size are written from where they are; smaller ones are cheaper to copy.
const SHARED_PAYLOAD: usize = 8 * 1024;
/// Messages up to this size are copied out of the read buffer, so that one that is kept for long does not
/// keep a whole buffer. Larger ones share it.
const SMALL_MESSAGE: usize = 2 * 1024;
/// How much room a peer that announces a long message gets before it has sent any of it.
const FIRST_GROWTH: usize = 64 * 1024;

/// Why a stream is not a sequence of framed messages. The connection cannot go on after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer does not speak this protocol.
    #[error("stream is out of step: frame starts with {0:#010x}")]
    Magic(u32),
    /// Larger than [`MAX_MESSAGE`].
    #[error("frame of {0} bytes is over the limit of {MAX_MESSAGE}")]
    TooLarge(usize),
    /// The frame holds no valid message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Framed messages on their way to a stream.
///
/// As a [`Buf`] it gives what to write, in several slices if there are large payloads: those are not copied.
///
/// ```
/// use bytes::Buf;
/// use wire::{FrameDecoder, FrameQueue, Message};
///
/// let mut queue = FrameQueue::default();
/// queue.push(&Message::event("hello", 0, None))?;
/// let mut decoder = FrameDecoder::default();
/// while queue.has_remaining() {
///     let chunk = queue.chunk();
///     decoder.buffer().extend_from_slice(chunk);
///     queue.advance(chunk.len());
/// }
/// assert_eq!(decoder.next_message()?.unwrap().topic(), "hello");
/// # Ok::<(), wire::FrameError>(())
/// ```
#[derive(Debug, Default)]
pub struct FrameQueue {
    /// Complete, to be written first.
    ready: VecDeque<Bytes>,
    ready_len: usize,
    /// What comes after `ready`.
    open: BytesMut,
}

impl FrameQueue {
    /// Add a message.
    pub fn push(&mut self, msg: &Message) -> Result<(), FrameError> {
        let len = msg.encoded_len();
        if len > MAX_MESSAGE {
            return Err(FrameError::TooLarge(len));
        }
        self.open.put_slice(&MAGIC.to_ne_bytes());
        self.open.put_u32(len as u32);
        match msg.payload().filter(|p| p.len() >= SHARED_PAYLOAD) {
            Some(payload) => {
                msg.encode_head(&mut self.open);
                let head = self.open.split().freeze();
                self.ready_len += head.len() + payload.len();
                self.ready.extend([head, payload.clone()]);
                msg.encode_tail(&mut self.open);
            }
            None => msg.encode(&mut self.open),
        }
        Ok(())
    }
}

impl Buf for FrameQueue {
    fn remaining(&self) -> usize {
        self.ready_len + self.open.len()
    }

    fn chunk(&self) -> &[u8] {
        self.ready.front().map_or(&self.open, |bytes| bytes)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.ready.iter().map(|bytes| &bytes[..]);
        let open = Some(&self.open[..]).filter(|open| !open.is_empty());
        let mut n = 0;
        for (slot, chunk) in dst.iter_mut().zip(chunks.chain(open)) {
            *slot = IoSlice::new(chunk);
            n += 1;
        }
        n
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "advanced past what there is");
        while let Some(front) = self.ready.front_mut() {
            let step = count.min(front.len());
            front.advance(step);
            self.ready_len -= step;
            count -= step;
            if !front.is_empty() {
                return;
            }
            self.ready.pop_front();
        }
        self.open.advance(count);
    }
}

/// Cuts messages from a growing buffer.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buf: BytesMut,
}

impl FrameDecoder {
    /// Where the reader appends what it has read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    /// The next whole message, `None` if more bytes are needed.
    pub fn next_message(&mut self) -> Result<Option<Message>, FrameError> {
        let Some(header) = self.buf.first_chunk::<FRAME_HEADER>() else {
            return Ok(None);
        };
        let [m0, m1, m2, m3, l0, l1, l2, l3] = *header;
        let magic = u32::from_ne_bytes([m0, m1, m2, m3]);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if len > MAX_MESSAGE {
            return Err(FrameError::TooLarge(len));
        }
        let have = self.buf.len() - FRAME_HEADER;
        if have < len {
            // Room grows with what arrives, not with what is announced.
            self.buf.reserve((len - have).min(have.max(FIRST_GROWTH)));
            return Ok(None);
        }
        self.buf.advance(FRAME_HEADER);
        let frame = if len <= SMALL_MESSAGE {
            let frame = Bytes::copy_from_slice(&self.buf[..len]);
            self.buf.advance(len);
            frame
        } else {
            self.buf.split_to(len).freeze()
        };
        Ok(Some(Message::decode(&frame)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a queue writes, taken in as many slices as it offers.
    fn framed(messages: &[Message]) -> Vec<u8> {
        let mut queue = FrameQueue::default();
        for msg in messages {
            queue.push(msg).unwrap();
        }
        let mut out = Vec::new();
        while queue.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 3];
            let n = queue.chunks_vectored(&mut slices);
            // As a socket does: not all of it at once.
            let taken: Vec<u8> = slices[..n].iter().flat_map(|s| s.to_vec()).collect();
            let step = taken.len().div_ceil(2);
            out.extend_from_slice(&taken[..step]);
            queue.advance(step);
        }
        out
    }

    fn with_payload(len: usize) -> Message {
        Message::request("x.y", 1, 2, 0, Some(Bytes::from(vec![b'p'; len])))
    }

    #[test]
    fn large_payloads_are_not_copied() {
        let msg = with_payload(SHARED_PAYLOAD);
        let mut queue = FrameQueue::default();
        queue.push(&msg).unwrap();
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(queue.chunks_vectored(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), msg.payload().unwrap().as_ptr());
    }

    #[test]
    fn a_small_message_does_not_keep_the_buffer() {
        for (len, shares) in [(10, false), (SMALL_MESSAGE, true)] {
            let mut d = FrameDecoder::default();
            d.buffer().extend_from_slice(&framed(&[with_payload(len)]));
            let range = d.buffer().as_ptr_range();
            let msg = d.next_message().unwrap().unwrap();
            assert_eq!(range.contains(&msg.payload().unwrap().as_ptr()), shares);
        }
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut d = FrameDecoder::default();
        d.buffer().extend_from_slice(&MAGIC.to_ne_bytes());
        d.buffer()
            .extend_from_slice(&(MAX_MESSAGE as u32).to_be_bytes());
        assert!(d.next_message().unwrap().is_none());
        assert!(d.buffer().capacity() < 4 * FIRST_GROWTH);
    }

    proptest! {
        #[test]
        fn any_cut_of_any_messages(
            sizes in proptest::collection::vec(
                prop_oneof![0usize..40, SMALL_MESSAGE - 60..SMALL_MESSAGE + 60, SHARED_PAYLOAD - 2..SHARED_PAYLOAD + 2],
                1..5,
            ),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let messages: Vec<Message> = sizes.into_iter().map(with_payload).collect();
            let bytes = framed(&messages);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut d = FrameDecoder::default();
            let mut got = Vec::new();
            for pair in cuts.windows(2) {
                d.buffer().extend_from_slice(&bytes[pair[0]..pair[1]]);
                while let Some(msg) = d.next_message().unwrap() {
                    got.push(msg);
                }
            }
            prop_assert_eq!(got, messages);
        }
    }

    #[test]
    fn split_at_every_byte() {
        let a = Message::request("x.y", 1, 2, 0, None);
        let b = Message::event("e.f", 0, None);
        let bytes = framed(&[a.clone(), b.clone()]);
        for cut in 0..bytes.len() {
            let mut d = FrameDecoder::default();
            let mut got = Vec::new();
            for piece in [&bytes[..cut], &bytes[cut..]] {
                d.buffer().extend_from_slice(piece);
                while let Some(m) = d.next_message().unwrap() {
                    got.push(m);
                }
            }
            assert_eq!(got, [a.clone(), b.clone()]);
        }
    }

    #[test]
    fn bad_streams() {
        let mut d = FrameDecoder::default();
        d.buffer().extend_from_slice(b"GET / HTTP/1.0\r\n");
        assert!(matches!(d.next_message(), Err(FrameError::Magic(_))));
        let mut d = FrameDecoder::default();
        d.buffer().extend_from_slice(&MAGIC.to_ne_bytes());
        d.buffer().extend_from_slice(&[0xff; 4]);
        assert!(matches!(d.next_message(), Err(FrameError::TooLarge(_))));
    }
}
