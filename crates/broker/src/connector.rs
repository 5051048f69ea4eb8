//! The local connector: a UNIX socket that lets programs on this host speak to the broker.
//!
//! The kernel tells who connects; the instance owner is let in, others are turned away with EPERM
//! in the one-byte welcome. Messages then flow framed as in [`wire::encode_frame`].

use std::path::Path;

use client::stream::{read_messages, write_messages};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::unbounded_channel;
use wire::Credentials;

use crate::router::{Input, RouterHandle, Sink, new_id};

/// Listen on `path` and serve connections until the task is dropped.
pub(crate) fn listen(path: &Path, owner: u32, router: RouterHandle) -> std::io::Result<()> {
    let listener = UnixListener::bind(path)?;
    tokio::spawn(async move {
        // Accept fails for want of descriptors or a peer gone already: neither ends the service,
        // and yielding keeps a persistent failure from starving everything else.
        loop {
            match listener.accept().await {
                Ok((io, _)) => drop(tokio::spawn(serve(io, owner, router.clone()))),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    Ok(())
}

async fn serve(mut io: UnixStream, owner: u32, router: RouterHandle) {
    let Ok(peer) = io.peer_cred() else { return };
    if peer.uid() != owner {
        let _ = io.write_u8(libc::EPERM as u8).await;
        return;
    }
    if io.write_u8(0).await.is_err() {
        return;
    }
    let cred = Credentials::owner(peer.uid());
    let (mut reader, mut writer) = io.into_split();
    let (tx, mut queue) = unbounded_channel();
    let id = new_id();
    let sink = Sink::Client(tx);
    router.send(Input::Attach {
        id: id.clone(),
        cred,
        sink,
        services: Vec::new(),
    });
    tokio::spawn(async move { write_messages(&mut writer, &mut queue).await });
    // Whatever ends reading, the client is gone.
    let _ = read_messages(&mut reader, |msg| {
        router.send(Input::FromEndpoint(id.clone(), msg));
    })
    .await;
    router.send(Input::Detach(id));
}
