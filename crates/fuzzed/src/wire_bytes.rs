//! Messages and their frames.

use bytes::{Bytes, BytesMut};
use wire::{FrameDecoder, Message};

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
