//! What brokers say to each other: one byte of kind, then its body.
//!
//! Messages are numbered per direction and life; a keepalive repeats the number of the last one.
//! That is how a peer notices that a connection broke and came back with something lost in between:
//! bytes a socket has taken are no bytes that arrived.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wire::Message;

use crate::handshake::{Hello, Verdict};
use crate::transport::Status;

/// Unit of what peers exchange.
#[derive(Debug, Clone)]
pub enum Frame {
    /// A child wants to join.
    Hello(Hello),
    /// The parent's answer.
    Verdict(Verdict),
    /// A message with its number, from 1.
    Message(u64, Message),
    /// Still here, and this many messages were sent so far.
    Keepalive(u64),
    /// Answer with a pong, at once.
    Ping,
    /// The answer.
    Pong,
    /// The child's subtree has this status now.
    Status(Status),
    /// The child leaves.
    Goodbye,
    /// The parent has seen it leave.
    Farewell,
    /// The parent has given this child up, for this reason; it must not go on.
    Disconnect(String),
}

/// Bytes that are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Nothing at all.
    #[error("empty frame")]
    Empty,
    /// A kind we do not know: from a later minor version, perhaps.
    #[error("frame of unknown kind {0:#04x}")]
    Unknown(u8),
    /// A known kind with a body that is not one.
    #[error("malformed frame of kind {0:?}")]
    Malformed(char),
    /// A frame around a malformed message.
    #[error(transparent)]
    Message(#[from] wire::DecodeError),
}

fn json(buf: &mut BytesMut, value: &impl serde::Serialize) {
    // Hello and Verdict are plain data of ours.
    buf.put_slice(&serde_json::to_vec(value).expect("plain data encodes as JSON"));
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => b'H',
            Self::Verdict(_) => b'V',
            Self::Message(..) => b'M',
            Self::Keepalive(_) => b'K',
            Self::Ping => b'P',
            Self::Pong => b'Q',
            Self::Status(_) => b'S',
            Self::Goodbye => b'G',
            Self::Farewell => b'F',
            Self::Disconnect(_) => b'D',
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> BytesMut {
        let mut buf = BytesMut::with_capacity(256);
        buf.put_u8(self.kind());
        match self {
            Self::Hello(hello) => json(&mut buf, hello),
            Self::Verdict(verdict) => json(&mut buf, verdict),
            Self::Message(number, msg) => {
                buf.put_u64(*number);
                msg.encode(&mut buf);
            }
            Self::Keepalive(number) => buf.put_u64(*number),
            Self::Status(status) => buf.put_u8(*status as u8),
            Self::Disconnect(why) => buf.put_slice(why.as_bytes()),
            Self::Ping | Self::Pong | Self::Goodbye | Self::Farewell => {}
        }
        buf
    }

    /// The frame these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (&kind, mut rest) = bytes.split_first().ok_or(FrameError::Empty)?;
        let malformed = || FrameError::Malformed(char::from(kind));
        let mut number = || match rest.len() >= 8 {
            true => Ok(rest.get_u64()),
            false => Err(malformed()),
        };
        Ok(match kind {
            b'H' => Self::Hello(serde_json::from_slice(rest).map_err(|_| malformed())?),
            b'V' => Self::Verdict(serde_json::from_slice(rest).map_err(|_| malformed())?),
            b'M' => {
                let number = number()?;
                Self::Message(number, Message::decode(&Bytes::copy_from_slice(rest))?)
            }
            b'K' => Self::Keepalive(number()?),
            b'P' => Self::Ping,
            b'Q' => Self::Pong,
            b'S' => {
                let status = rest.first().and_then(|n| Status::try_from(*n).ok());
                Self::Status(status.ok_or_else(malformed)?)
            }
            b'G' => Self::Goodbye,
            b'F' => Self::Farewell,
            b'D' => Self::Disconnect(String::from_utf8_lossy(rest).into_owned()),
            _ => return Err(FrameError::Unknown(kind)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::PROTOCOL;
    use proptest::prelude::*;

    fn frames() -> Vec<Frame> {
        let hello = Hello {
            protocol: PROTOCOL,
            version: "0.1".into(),
            rank: 3,
            size: 9,
            parent: 1,
            hostname: "h".into(),
            status: 0,
        };
        let welcome = Verdict::Welcome {
            minor: 1,
            session: "ab".into(),
        };
        vec![
            Frame::Hello(hello),
            Frame::Verdict(welcome),
            Frame::Verdict(Verdict::Refused("no".into())),
            Frame::Message(7, Message::request("a.b", 1, 2, 0, None)),
            Frame::Keepalive(u64::MAX),
            Frame::Ping,
            Frame::Pong,
            Frame::Status(Status::Degraded),
            Frame::Goodbye,
            Frame::Farewell,
            Frame::Disconnect("why".into()),
        ]
    }

    #[test]
    fn round_trip() {
        for frame in frames() {
            let back = Frame::decode(&frame.encode()).unwrap();
            assert_eq!(format!("{back:?}"), format!("{frame:?}"));
        }
    }

    #[test]
    fn truncated_frames_are_refused() {
        for frame in frames() {
            let bytes = frame.encode();
            // The text of a disconnect may end anywhere.
            if !matches!(frame, Frame::Disconnect(_)) && bytes.len() > 1 {
                assert!(
                    Frame::decode(&bytes[..bytes.len() - 1]).is_err(),
                    "{frame:?}"
                );
            }
        }
        assert!(matches!(Frame::decode(&[]), Err(FrameError::Empty)));
        assert!(matches!(
            Frame::decode(b"?"),
            Err(FrameError::Unknown(b'?'))
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes: Vec<u8>) {
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(frame.encode()[0], bytes[0]);
            }
        }
    }
}
