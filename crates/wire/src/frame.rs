//! Framing on a stream socket: magic (4 bytes, host order), length (4 bytes, network order), message.
//!
//! It is what upstream's local connector speaks after the server's one-byte welcome.

use bytes::{Buf, BufMut, BytesMut};

use crate::codec::DecodeError;
use crate::message::Message;

const MAGIC: u32 = 0xffee_0012;
/// Bytes before each message.
pub const FRAME_HEADER: usize = 8;
/// Largest message accepted from a peer: 1 GiB, so that a bad length cannot exhaust memory.
pub const MAX_FRAME: usize = 1 << 30;

/// Why a stream is not a sequence of framed messages. The connection cannot go on after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The peer does not speak this protocol.
    #[error("stream is out of step: frame starts with {0:#010x}")]
    Magic(u32),
    /// Larger than [`MAX_FRAME`].
    #[error("frame of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLarge(usize),
    /// The frame holds no valid message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Append `msg` with its frame header to `buf`.
pub fn encode_frame(msg: &Message, buf: &mut BytesMut) {
    let len = msg.encoded_len();
    buf.reserve(FRAME_HEADER + len);
    buf.put_slice(&MAGIC.to_ne_bytes());
    buf.put_u32(len as u32);
    msg.encode(buf);
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
        if self.buf.len() < FRAME_HEADER {
            return Ok(None);
        }
        let magic = u32::from_ne_bytes([self.buf[0], self.buf[1], self.buf[2], self.buf[3]]);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let len = u32::from_be_bytes([self.buf[4], self.buf[5], self.buf[6], self.buf[7]]) as usize;
        if len > MAX_FRAME {
            return Err(FrameError::TooLarge(len));
        }
        if self.buf.len() < FRAME_HEADER + len {
            self.buf.reserve(FRAME_HEADER + len - self.buf.len());
            return Ok(None);
        }
        self.buf.advance(FRAME_HEADER);
        Ok(Some(Message::decode(&self.buf.split_to(len).freeze())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_at_every_byte() {
        let a = Message::request("x.y", 1, 2, 0, None);
        let b = Message::event("e.f", 0, None);
        let mut bytes = BytesMut::new();
        encode_frame(&a, &mut bytes);
        encode_frame(&b, &mut bytes);
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
