//! Attaching to a job: its events, output, input and exit code.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// SIGINT and SIGTERM as they arrive.
pub(crate) fn signals() -> std::io::Result<UnboundedReceiver<i32>> {
    let (tx, rx) = unbounded_channel();
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut stream = signal(kind)?;
        let tx = tx.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && tx.send(kind.as_raw_value()).is_ok() {}
        });
    }
    Ok(rx)
}
