//! Pumps messages between a byte stream and a handle.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::{FrameDecoder, FrameError, FrameQueue, Message};

const READ_CHUNK: usize = 16 * 1024;
const WRITE_BATCH: usize = 64;

fn bad(e: FrameError) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, e)
}

/// Read messages from `io` into `sink` until end of stream. A malformed stream is an error.
pub async fn read_messages(
    io: &mut (impl AsyncRead + Unpin),
    mut sink: impl FnMut(Message),
) -> std::io::Result<()> {
    let mut decoder = FrameDecoder::default();
    loop {
        while let Some(msg) = decoder.next_message().map_err(bad)? {
            sink(msg);
        }
        decoder.buffer().reserve(READ_CHUNK);
        if io.read_buf(decoder.buffer()).await? == 0 {
            return Ok(());
        }
    }
}

/// Write messages from `queue` to `io` until the queue closes, many per system call. Large payloads are written from
/// where they are.
pub async fn write_messages(
    io: &mut (impl AsyncWrite + Unpin),
    queue: &mut UnboundedReceiver<Message>,
) -> std::io::Result<()> {
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    let mut frames = FrameQueue::default();
    while queue.recv_many(&mut batch, WRITE_BATCH).await > 0 {
        for msg in batch.drain(..) {
            frames.push(&msg).map_err(bad)?;
        }
        io.write_all_buf(&mut frames).await?;
    }
    io.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tokio::sync::mpsc::unbounded_channel;

    #[tokio::test]
    async fn what_is_written_is_read() {
        // A pipe smaller than a message: writing and reading take turns.
        let (mut near, mut far) = tokio::io::duplex(100);
        let (tx, mut queue) = unbounded_channel();
        let sizes = [0, 10, 70_000, 3, 9000];
        for size in sizes {
            let payload = Bytes::from(vec![7; size]);
            tx.send(Message::event("e", 0, Some(payload))).unwrap();
        }
        drop(tx);
        let write = async {
            write_messages(&mut near, &mut queue).await.unwrap();
            drop(near);
        };
        let mut got = Vec::new();
        let read = read_messages(&mut far, |msg| got.push(msg.payload().unwrap().len()));
        let ((), read) = tokio::join!(write, read);
        read.unwrap();
        assert_eq!(got, sizes);
    }

    #[tokio::test]
    async fn noise_is_an_error() {
        let mut noise = &b"GET / HTTP/1.1\r\n"[..];
        let result = read_messages(&mut noise, |_| {}).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    }
}
