//! RFC 3 binary encoding: parts, each with its length, the 20-byte header last.
//!
//! A part's length is one byte below 255, otherwise 0xff and four bytes (network order). Decoding shares
//! topic, hops and payload with the input and allocates nothing for messages with few hops.
//!
//! What is accepted is what upstream's decoder accepts: parts that no flag announces are ignored, and types
//! may have parts RFC 3 does not give them. Refused beyond it: text that is not UTF-8, hops without a name,
//! and more hops than any tree has.

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::{Flags, Kind, Message};
use crate::{Credentials, Routes, Text};

const MAGIC: u8 = 0x8e;
const VERSION: u8 = 1;
const HEADER: usize = 20;
/// Most hops a message may have: far more than any tree is deep, so that hops of one byte cannot fill memory.
pub const MAX_ROUTES: usize = 256;
/// The longest a message may be, encoded: 1 GiB, so that a bad length cannot exhaust memory.
pub const MAX_MESSAGE: usize = 1 << 30;

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
    /// The flags announce a part that is not there.
    #[error("message has no {0}, though its flags announce one")]
    Missing(&'static str),
    /// Topic or route is not UTF-8.
    #[error("message {0} is not valid UTF-8")]
    Utf8(&'static str),
    /// A hop is the empty string, which would encode as the delimiter.
    #[error("message route stack has a hop without a name")]
    EmptyHop,
    /// More hops than any tree has.
    #[error("message route stack has more than {MAX_ROUTES} hops")]
    Routes,
}

fn put_len(buf: &mut BytesMut, len: usize) {
    if len < 0xff {
        buf.put_u8(len as u8);
    } else {
        buf.put_u8(0xff);
        buf.put_u32(len as u32);
    }
}

fn put_part(buf: &mut BytesMut, part: &[u8]) {
    put_len(buf, part.len());
    buf.put_slice(part);
}

fn part_size(len: usize) -> usize {
    if len < 0xff { len + 1 } else { len + 5 }
}

/// The parts of an encoded message, one after the other.
struct Parts<'a> {
    buf: &'a [u8],
    pos: usize,
    index: usize,
}

impl Iterator for Parts<'_> {
    type Item = Result<(usize, usize), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.buf.get(self.pos..)?;
        let (&short, rest) = rest.split_first()?;
        let cut = |want, have| {
            Some(Err(DecodeError::Truncated {
                part: self.index,
                want,
                have,
            }))
        };
        let (want, header) = match (short, rest.first_chunk::<4>()) {
            (0xff, Some(long)) => (u32::from_be_bytes(*long) as usize, 5),
            (0xff, None) => return cut(4, rest.len()),
            (short, _) => (usize::from(short), 1),
        };
        let start = self.pos + header;
        if want > self.buf.len() - start {
            return cut(want, self.buf.len() - start);
        }
        self.pos = start + want;
        self.index += 1;
        Some(Ok((start, self.pos)))
    }
}

/// Text up to its first NUL, as C programs read it.
fn text(
    buf: &Bytes,
    (start, end): (usize, usize),
    what: &'static str,
) -> Result<Text, DecodeError> {
    let len = buf[start..end]
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(end - start);
    Text::from_utf8(buf.slice(start..start + len)).map_err(|_| DecodeError::Utf8(what))
}

impl Message {
    /// Bytes [`Message::encode`] will append.
    pub fn encoded_len(&self) -> usize {
        let payload = self.payload.as_deref().map_or(0, |p| part_size(p.len()));
        self.head_len() + payload + part_size(HEADER)
    }

    fn head_len(&self) -> usize {
        let mut n = 0;
        if self.flags.has(Flags::ROUTE) {
            let hops = self.routes().iter().map(|r| part_size(r.len()));
            n += hops.sum::<usize>() + 1;
        }
        n + self.topic.as_deref().map_or(0, |t| part_size(t.len()))
    }

    /// Append the RFC 3 encoding to `buf`.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use wire::Message;
    ///
    /// let mut buf = BytesMut::new();
    /// let event = Message::event("hello", 0, None);
    /// event.encode(&mut buf);
    /// assert_eq!(Message::decode(&buf.freeze())?, event);
    /// # Ok::<(), wire::DecodeError>(())
    /// ```
    pub fn encode(&self, buf: &mut BytesMut) {
        buf.reserve(self.encoded_len());
        self.encode_head(buf);
        if let Some(payload) = &self.payload {
            buf.put_slice(payload);
        }
        self.encode_tail(buf);
    }

    /// What comes before the bytes of the payload: hops, topic and the payload's length.
    pub fn encode_head(&self, buf: &mut BytesMut) {
        if self.flags.has(Flags::ROUTE) {
            for route in self.routes().iter().rev() {
                put_part(buf, route.as_bytes());
            }
            put_part(buf, &[]);
        }
        if let Some(topic) = &self.topic {
            put_part(buf, topic.as_bytes());
        }
        if let Some(payload) = &self.payload {
            put_len(buf, payload.len());
        }
    }

    /// What comes after the bytes of the payload: the header.
    pub fn encode_tail(&self, buf: &mut BytesMut) {
        buf.put_u8(HEADER as u8);
        buf.put_slice(&self.header());
    }

    fn header(&self) -> [u8; HEADER] {
        let (aux1, aux2) = match self.kind {
            Kind::Request { nodeid, matchtag } => (nodeid, matchtag),
            Kind::Response { errnum, matchtag } => (errnum, matchtag),
            Kind::Event { sequence } => (sequence, 0),
            Kind::Control { kind, status } => (kind, status),
        };
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&[MAGIC, VERSION, self.kind.bit(), self.flags.0]);
        let words = [self.cred.userid, self.cred.rolemask, aux1, aux2];
        for (to, word) in header[4..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        header
    }

    /// Decode one message that fills `buf` exactly. Topic, hops and payload share `buf`.
    pub fn decode(buf: &Bytes) -> Result<Self, DecodeError> {
        let parts = || Parts {
            buf,
            pos: 0,
            index: 0,
        };
        // The flags that say what the parts are come last.
        let mut last = None;
        let mut count = 0;
        for part in parts() {
            last = Some(part?);
            count += 1;
        }
        let (start, end) = last.ok_or(DecodeError::HeaderSize(0))?;
        let header: &[u8; HEADER] = buf[start..end]
            .try_into()
            .map_err(|_| DecodeError::HeaderSize(end - start))?;
        let (kind, flags, cred) = decode_header(header)?;
        let mut rest = parts().take(count - 1).map_while(Result::ok);
        let mut routes = Routes::default();
        if flags.has(Flags::ROUTE) {
            let mut hops = 0;
            loop {
                let part = rest.next().ok_or(DecodeError::Missing("route delimiter"))?;
                if part.0 == part.1 {
                    break;
                }
                hops += 1;
                if hops > MAX_ROUTES {
                    return Err(DecodeError::Routes);
                }
                let hop = text(buf, part, "route")?;
                if hop.is_empty() {
                    return Err(DecodeError::EmptyHop);
                }
                routes.push(hop);
            }
            routes.reverse();
        }
        let mut next = |flag, what| match flags.has(flag) {
            true => rest.next().map(Some).ok_or(DecodeError::Missing(what)),
            false => Ok(None),
        };
        let topic = next(Flags::TOPIC, "topic")?;
        let payload = next(Flags::PAYLOAD, "payload")?;
        let topic = topic.map(|part| text(buf, part, "topic")).transpose()?;
        let payload = payload.map(|(start, end)| buf.slice(start..end));
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

fn decode_header(header: &[u8; HEADER]) -> Result<(Kind, Flags, Credentials), DecodeError> {
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
    let cred = Credentials {
        userid: word(4),
        rolemask: word(8),
    };
    Ok((kind, Flags(header[3]), cred))
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
        for at in [3, 4, 5, 6] {
            let mut bad = good.to_vec();
            bad[at] ^= 0x55;
            assert!(Message::decode(&Bytes::from(bad)).is_err(), "byte {at}");
        }
    }

    /// `parts` with a header of this type and flags.
    fn raw(kind: u8, flags: u8, parts: &[&[u8]]) -> Bytes {
        let mut buf = BytesMut::new();
        for part in parts {
            put_part(&mut buf, part);
        }
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&[MAGIC, VERSION, kind, flags]);
        put_part(&mut buf, &header);
        buf.freeze()
    }

    #[test]
    fn parts_and_flags() {
        let decode = |flags, parts: &[&[u8]]| Message::decode(&raw(1, flags, parts));
        let all = Flags::ROUTE | Flags::TOPIC | Flags::PAYLOAD;
        let msg = decode(all, &[b"new", b"old", b"", b"a.b\0x", b"pay", b"surplus"]).unwrap();
        assert_eq!(
            (msg.topic(), &msg.payload().unwrap()[..]),
            ("a.b", &b"pay"[..])
        );
        assert_eq!(msg.routes(), ["old", "new"]);
        assert_eq!(
            decode(all, &[b"", b"", b""])
                .unwrap()
                .payload()
                .unwrap()
                .len(),
            0
        );
        assert!(!decode(0, &[]).unwrap().has_topic());
        for (flags, parts, want) in [
            (all, &[][..], DecodeError::Missing("route delimiter")),
            (all, &[&b""[..]], DecodeError::Missing("topic")),
            (all, &[&b""[..], b"t"], DecodeError::Missing("payload")),
            (all, &[&b"\0"[..], b""], DecodeError::EmptyHop),
            (
                Flags::ROUTE,
                &[&b"\xff"[..], b""],
                DecodeError::Utf8("route"),
            ),
            (Flags::TOPIC, &[&b"\xff"[..]], DecodeError::Utf8("topic")),
        ] {
            assert_eq!(decode(flags, parts), Err(want));
        }
        let many: Vec<&[u8]> = vec![b"x"; MAX_ROUTES + 1];
        assert_eq!(
            decode(Flags::ROUTE, &[&many[..], &[b""]].concat()),
            Err(DecodeError::Routes)
        );
    }

    #[test]
    fn decoding_shares_the_buffer() {
        let mut msg = Message::request("a.b", 7, 9, 0, Some(Bytes::from(vec![1; 300])));
        msg.push_route("hop".into());
        let buf = encoded(&msg);
        let got = Message::decode(&buf).unwrap();
        let inside = buf.as_ptr_range();
        assert!(inside.contains(&got.topic().as_ptr()));
        assert!(inside.contains(&got.payload().unwrap().as_ptr()));
        assert!(inside.contains(&got.routes()[0].as_ptr()));
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let kind = prop_oneof![
            (any::<u32>(), any::<u32>())
                .prop_map(|(nodeid, matchtag)| Kind::Request { nodeid, matchtag }),
            (any::<u32>(), any::<u32>())
                .prop_map(|(errnum, matchtag)| Kind::Response { errnum, matchtag }),
            any::<u32>().prop_map(|sequence| Kind::Event { sequence }),
            (any::<u32>(), any::<u32>()).prop_map(|(kind, status)| Kind::Control { kind, status }),
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
                let topic: Text = format!("t{topic}").into();
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
