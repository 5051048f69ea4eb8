//! The launcher's own service: a socket in the run directory over which programs of a test instance start, signal and
//! wait for its brokers. FLUX_START_URI names it; it speaks as a broker's socket does.

use std::path::{Path, PathBuf};

use client::Handle;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wire::{Credentials, Message, RpcError};

/// What a program asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `start.status`: all brokers.
    Status,
    /// `start.run`: start one.
    Run(u32),
    /// `start.kill`: signal one.
    Kill(u32, i32),
    /// `start.wait`: how one ends.
    Wait(u32),
}

impl Order {
    fn parse(msg: &Message) -> Result<Self, RpcError> {
        #[derive(Deserialize)]
        struct Rank {
            rank: u32,
        }
        #[derive(Deserialize)]
        struct Kill {
            rank: u32,
            signum: i32,
        }
        match msg.topic() {
            "start.status" => Ok(Self::Status),
            "start.run" => Ok(Self::Run(msg.json::<Rank>()?.rank)),
            "start.wait" => Ok(Self::Wait(msg.json::<Rank>()?.rank)),
            "start.kill" => {
                let Kill { rank, signum } = msg.json()?;
                Ok(Self::Kill(rank, signum))
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        }
    }
}

/// An order, and whom to answer.
pub(super) struct Request {
    pub(super) order: Order,
    pub(super) answer: Answer,
}

/// A request that waits for its answer.
pub(super) struct Answer {
    handle: Handle,
    msg: Message,
}

impl Answer {
    pub(super) fn give(self, result: Result<Value, RpcError>) {
        let mut response = match result {
            Ok(Value::Null) => self.msg.response(0, None),
            Ok(value) => {
                // A JSON value encodes as itself.
                let payload = wire::json_payload(&value).expect("plain data encodes as JSON");
                self.msg.response(0, Some(payload))
            }
            Err(e) => self.msg.error_response(&e),
        };
        // Clients take only what says whose it is.
        response.set_credentials(Credentials::owner(nix::unistd::getuid().as_raw()));
        // Who is gone needs no answer.
        let _ = self.handle.send(response);
    }
}

/// The listening socket; it goes with this value.
pub(super) struct Control {
    path: PathBuf,
    requests: UnboundedReceiver<Request>,
}

impl Control {
    /// Listen in the run directory.
    pub(super) fn listen(rundir: &Path, verbose: bool) -> std::io::Result<Self> {
        let path = rundir.join("start");
        let listener = UnixListener::bind(&path)?;
        let (tx, requests) = unbounded_channel();
        tokio::spawn(async move {
            let mut number = 0;
            // Without descriptors there is no new client, and those that are here go on.
            loop {
                match listener.accept().await {
                    Ok((io, _)) => {
                        number += 1;
                        tokio::spawn(serve(io, number, tx.clone(), verbose));
                    }
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        });
        Ok(Self { path, requests })
    }

    pub(super) fn uri(&self) -> String {
        format!("local://{}", self.path.display())
    }

    /// The next request, whenever it comes.
    pub(super) async fn next(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It goes with the run directory at the latest.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(mut io: UnixStream, number: u32, to: UnboundedSender<Request>, verbose: bool) {
    let own = nix::unistd::getuid().as_raw();
    if io.peer_cred().map_or(true, |peer| peer.uid() != own) {
        let _ = io.write_u8(libc::EPERM as u8).await;
        return;
    }
    if io.write_u8(0).await.is_err() {
        return;
    }
    if verbose {
        eprintln!("flux-start: client {number} says hi");
    }
    let (reader, writer) = io.into_split();
    let handle = client::serve_stream(reader, writer);
    // A fresh handle has its inbox.
    let mut inbox = handle.inbox().expect("inbox was not taken yet");
    while let Some(msg) = inbox.recv().await {
        if !msg.is_request() || msg.no_response() {
            continue;
        }
        let order = Order::parse(&msg);
        let handle = handle.clone();
        let answer = Answer { handle, msg };
        match order {
            // The launcher is gone when nobody takes orders any more.
            Ok(order) => drop(to.send(Request { order, answer })),
            Err(e) => answer.give(Err(e)),
        }
    }
    if verbose {
        eprintln!("flux-start: disconnect from client {number}: bye");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        let parse = |topic: &str, payload: &str| {
            let payload = wire::string_payload(payload);
            let msg = Message::request(topic, wire::NODEID_ANY, 1, 0, Some(payload));
            Order::parse(&msg).map_err(|e| e.errno)
        };
        assert_eq!(parse("start.status", "{}"), Ok(Order::Status));
        assert_eq!(parse("start.run", r#"{"rank":3}"#), Ok(Order::Run(3)));
        assert_eq!(
            parse("start.kill", r#"{"rank":1,"signum":9}"#),
            Ok(Order::Kill(1, 9))
        );
        assert_eq!(parse("start.wait", "{}"), Err(libc::EPROTO));
        assert_eq!(parse("start.stop", "{}"), Err(libc::ENOSYS));
    }
}
