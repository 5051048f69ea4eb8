//! Pumps messages between a byte stream and a handle.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::{FrameDecoder, FrameError, Message, encode_frame};

const READ_CHUNK: usize = 16 * 1024;
const WRITE_BATCH: usize = 64;

/// Read messages from `io` into `sink` until end of stream. A malformed stream is an error.
pub async fn read_messages(
    io: &mut (impl AsyncRead + Unpin),
    mut sink: impl FnMut(Message),
) -> std::io::Result<()> {
    let mut decoder = FrameDecoder::default();
    let bad = |e: FrameError| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
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

/// Write messages from `queue` to `io` until the queue closes, many per system call.
pub async fn write_messages(
    io: &mut (impl AsyncWrite + Unpin),
    queue: &mut UnboundedReceiver<Message>,
) -> std::io::Result<()> {
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    let mut buf = BytesMut::new();
    while queue.recv_many(&mut batch, WRITE_BATCH).await > 0 {
        for msg in batch.drain(..) {
            encode_frame(&msg, &mut buf);
        }
        io.write_all(&buf).await?;
        buf.clear();
    }
    io.flush().await
}
