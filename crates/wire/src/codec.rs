//! RFC 3 binary encoding: parts, each with its length, the 20-byte header last.
//!
//! A part's length is one byte below 255, otherwise 0xff and four bytes (network order). Decoding
//! shares the payload with the input buffer.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::{Credentials, Flags, Kind, Message};

const MAGIC: u8 = 0x8e;
const VERSION: u8 = 1;
const HEADER: usize = 20;
const MAX_ROUTES: usize = 256;

/// Why bytes are not a Flux message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A part says it is longer than what is left.
    #[error("message part {part} is cut off: {want} bytes announced, {have} left")]
    Truncated {
        /// Index of the part.
        part: usize,
        /// Bytes announced.
        want: usize,
        /// Bytes present.
        have: usize,
    },
    /// The header part is not 20 bytes.
    #[error("message header has {0} bytes, not 20")]
    HeaderSize(usize),
    /// Wrong magic byte or version.
    #[error("message header starts with {0:#04x} {1:#04x}, not 0x8e 0x01")]
    Magic(u8, u8),
    /// Unknown message type.
    #[error("message type {0:#04x} is not one of request, response, event, control")]
    Type(u8),
    /// The flags announce parts that are not there, or parts are there that no flag announces.
    #[error("message has {have} parts but its flags ({flags:#04x}) call for {want}")]
    Parts {
        /// Parts present.
        have: usize,
        /// Parts the flags call for.
        want: usize,
        /// Header flags.
        flags: u8,
    },
    /// The route delimiter is missing.
    #[error("message route stack has no delimiter")]
    Delimiter,
    /// A hop without a name: only a terminating NUL.
    #[error("message route stack has a hop without a name")]
    EmptyRoute,
    /// Topic or route is not UTF-8.
    #[error("message {0} is not valid UTF-8")]
    Utf8(&'static str),
    /// Topic missing where the type requires it.
    #[error("message of this type requires a topic")]
    Topic,
    /// More hops than any tree has.
    #[error("message route stack has more than {MAX_ROUTES} hops")]
    Routes,
}

fn put_part(buf: &mut BytesMut, part: &[u8]) {
    if part.len() < 0xff {
        buf.put_u8(part.len() as u8);
    } else {
        buf.put_u8(0xff);
        buf.put_u32(part.len() as u32);
    }
    buf.put_slice(part);
}

fn part_size(len: usize) -> usize {
    if len < 0xff { len + 1 } else { len + 5 }
}

impl Message {
    /// Bytes [`Message::encode`] will append.
    pub fn encoded_len(&self) -> usize {
        let mut n = part_size(HEADER);
        if self.flags.has(Flags::ROUTE) {
            n += self
                .routes
                .iter()
                .map(|r| part_size(r.len()))
                .sum::<usize>()
                + 1;
        }
        n += self.topic.as_deref().map_or(0, |t| part_size(t.len()));
        n + self.payload.as_deref().map_or(0, |p| part_size(p.len()))
    }

    /// Append the RFC 3 encoding to `buf`.
    pub fn encode(&self, buf: &mut BytesMut) {
        buf.reserve(self.encoded_len());
        if self.flags.has(Flags::ROUTE) {
            for route in self.routes.iter().rev() {
                put_part(buf, route.as_bytes());
            }
            put_part(buf, &[]);
        }
        if let Some(topic) = &self.topic {
            put_part(buf, topic.as_bytes());
        }
        if let Some(payload) = &self.payload {
            put_part(buf, payload);
        }
        let (kind, aux1, aux2) = match self.kind {
            Kind::Request { nodeid, matchtag } => (1, nodeid, matchtag),
            Kind::Response { errnum, matchtag } => (2, errnum, matchtag),
            Kind::Event { sequence } => (4, sequence, 0),
            Kind::Control { kind, status } => (8, kind, status),
        };
        buf.put_u8(HEADER as u8);
        buf.put_slice(&[MAGIC, VERSION, kind, self.flags.0]);
        for word in [self.cred.userid, self.cred.rolemask, aux1, aux2] {
            buf.put_u32(word);
        }
    }

    /// Decode one message that fills `buf` exactly.
    pub fn decode(buf: &Bytes) -> Result<Self, DecodeError> {
        let mut parts: Vec<(usize, usize)> = Vec::with_capacity(8);
        let mut pos = 0;
        while pos < buf.len() {
            let mut want = buf[pos] as usize;
            pos += 1;
            if want == 0xff {
                let have = buf.len() - pos;
                let word: [u8; 4] = buf
                    .get(pos..pos + 4)
                    .and_then(|s| s.try_into().ok())
                    .ok_or(DecodeError::Truncated {
                        part: parts.len(),
                        want: 4,
                        have,
                    })?;
                want = u32::from_be_bytes(word) as usize;
                pos += 4;
            }
            let have = buf.len() - pos;
            if want > have {
                return Err(DecodeError::Truncated {
                    part: parts.len(),
                    want,
                    have,
                });
            }
            parts.push((pos, pos + want));
            pos += want;
        }
        Self::from_parts(buf, &parts)
    }

    fn from_parts(buf: &Bytes, parts: &[(usize, usize)]) -> Result<Self, DecodeError> {
        let Some((&(start, end), rest)) = parts.split_last() else {
            return Err(DecodeError::HeaderSize(0));
        };
        let header = &buf[start..end];
        if header.len() != HEADER {
            return Err(DecodeError::HeaderSize(header.len()));
        }
        if header[0] != MAGIC || header[1] != VERSION {
            return Err(DecodeError::Magic(header[0], header[1]));
        }
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (aux1, aux2) = (word(12), word(16));
        let kind = match header[2] {
            1 => Kind::Request {
                nodeid: aux1,
                matchtag: aux2,
            },
            2 => Kind::Response {
                errnum: aux1,
                matchtag: aux2,
            },
            4 => Kind::Event { sequence: aux1 },
            8 => Kind::Control {
                kind: aux1,
                status: aux2,
            },
            other => return Err(DecodeError::Type(other)),
        };
        let flags = Flags(header[3]);
        let text = |&(a, b): &(usize, usize), what| {
            std::str::from_utf8(&buf[a..b])
                .map(|s| Arc::<str>::from(s.trim_end_matches('\0')))
                .map_err(|_| DecodeError::Utf8(what))
        };
        let mut rest = rest;
        let mut routes = Vec::new();
        if flags.has(Flags::ROUTE) {
            let n = rest
                .iter()
                .position(|(a, b)| a == b)
                .ok_or(DecodeError::Delimiter)?;
            if n > MAX_ROUTES {
                return Err(DecodeError::Routes);
            }
            for part in rest[..n].iter().rev() {
                let route = text(part, "route")?;
                if route.is_empty() {
                    return Err(DecodeError::EmptyRoute);
                }
                routes.push(route);
            }
            rest = &rest[n + 1..];
        }
        let want = flags.has(Flags::TOPIC) as usize + flags.has(Flags::PAYLOAD) as usize;
        if rest.len() != want {
            return Err(DecodeError::Parts {
                have: rest.len(),
                want,
                flags: flags.0,
            });
        }
        let mut parts = rest.iter();
        let topic = match flags.has(Flags::TOPIC).then(|| parts.next()).flatten() {
            Some(part) => Some(text(part, "topic")?),
            None => None,
        };
        let payload = parts.next().map(|&(a, b)| buf.slice(a..b));
        if topic.is_none() && !matches!(kind, Kind::Control { .. }) {
            return Err(DecodeError::Topic);
        }
        let cred = Credentials {
            userid: word(4),
            rolemask: word(8),
        };
        Ok(Self {
            kind,
            flags,
            cred,
            routes,
            topic,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(msg: &Message) -> Bytes {
        let mut buf = BytesMut::new();
        msg.encode(&mut buf);
        assert_eq!(buf.len(), msg.encoded_len());
        buf.freeze()
    }

    #[test]
    fn request_bytes_match_rfc3() {
        let mut msg = Message::request("a.b", 7, 9, 0, Some(Bytes::from_static(b"{}\0")));
        msg.push_route("x".into());
        msg.push_route("yy".into());
        msg.set_credentials(Credentials {
            userid: 1000,
            rolemask: 1,
        });
        let want = b"\x02yy\x01x\x00\x03a.b\x03{}\0\x14\x8e\x01\x01\x0b\0\0\x03\xe8\0\0\0\x01\0\0\0\x07\0\0\0\x09";
        assert_eq!(&encoded(&msg)[..], &want[..]);
    }

    #[test]
    fn refused() {
        for bytes in [
            &b""[..],
            b"\x05ab",
            b"\x02ab",
            b"\xff\0\0",
            b"\xff\xff\xff\xff\xff",
        ] {
            assert!(
                Message::decode(&Bytes::copy_from_slice(bytes)).is_err(),
                "{bytes:?}"
            );
        }
        let good = encoded(&Message::event("e", 0, None));
        for at in [1, 4, 5, 6, 7] {
            let mut bad = good.to_vec();
            bad[at] ^= 0x55;
            assert!(
                Message::decode(&Bytes::from(bad)).is_err() || at == 1,
                "byte {at}"
            );
        }
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let kind = prop_oneof![
            (any::<u32>(), any::<u32>())
                .prop_map(|(nodeid, matchtag)| Kind::Request { nodeid, matchtag }),
            (any::<u32>(), any::<u32>())
                .prop_map(|(errnum, matchtag)| Kind::Response { errnum, matchtag }),
            any::<u32>().prop_map(|sequence| Kind::Event { sequence }),
        ];
        let routes = proptest::collection::vec("[a-z0-9-]{1,40}", 0..5);
        let payload = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..600));
        (
            kind,
            routes,
            "[a-z.]{0,300}",
            payload,
            any::<u8>(),
            any::<u32>(),
            any::<u32>(),
        )
            .prop_map(|(kind, routes, topic, payload, flags, userid, rolemask)| {
                let flags = flags | Flags::ROUTE;
                let topic: Arc<str> = format!("t{topic}").into();
                let mut m = Message::new(kind, flags, Some(topic), payload.map(Bytes::from));
                routes.into_iter().for_each(|r| m.push_route(r.into()));
                m.set_credentials(Credentials { userid, rolemask });
                m
            })
    }

    proptest! {
        #[test]
        fn round_trip(msg in any_message()) {
            prop_assert_eq!(Message::decode(&encoded(&msg)).unwrap(), msg);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&Bytes::from(bytes));
        }

        #[test]
        fn damaged_never_panics(msg in any_message(), at in any::<prop::sample::Index>(), x in any::<u8>()) {
            let mut bytes = encoded(&msg).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= x;
            let _ = Message::decode(&Bytes::from(bytes));
        }
    }
}
