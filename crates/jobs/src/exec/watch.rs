//! Following one shell through rexec, and finding it again when its broker comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Handle, Node, RpcStream};
use formats::jobid::JobId;
use formats::subprocess::{AttachRequest, ExecRequest, ExecResponse, Target};
use tokio::sync::mpsc::UnboundedSender;
use wire::RpcError;

use crate::rexec;

/// Between two attempts to find a shell again: as long as the first, then longer and longer up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// What is said of a broker, or its rexec, that is not there, or not there yet.
const AWAY: [i32; 4] = [
    libc::EHOSTUNREACH,
    libc::EAGAIN,
    libc::ENOSYS,
    libc::ECONNRESET,
];

/// What the shell on a rank reports.
pub(super) enum ShellEvent {
    /// It runs; also said when it was found again.
    Started(i32),
    Output(String),
    Exited(i32),
    /// It could not be started, or is out of reach.
    Failed(RpcError),
}

/// What a job's shells are called in rexec.
pub(super) fn label(id: JobId) -> String {
    format!("shell-{}", id.dec())
}

/// The way to one shell.
pub(super) struct Watch {
    pub(super) handle: Handle,
    pub(super) rank: u32,
    pub(super) id: JobId,
    /// How long its broker may be away.
    pub(super) patience: Duration,
    pub(super) events: UnboundedSender<(u32, ShellEvent)>,
}

impl Watch {
    /// Start a shell; the request is sent before the future is polled.
    pub(super) fn start(self, request: &Arc<ExecRequest>) -> impl Future<Output = ()> + use<> {
        let stream = self.exec(request);
        self.follow(stream, Some(request.clone()))
    }

    /// Find one that was started in an earlier life of this service.
    pub(super) fn find(self) -> impl Future<Output = ()> + use<> {
        let stream = self.attach();
        self.follow(stream, None)
    }

    fn exec(&self, request: &ExecRequest) -> RpcStream {
        let node = Node::Rank(self.rank);
        self.handle.stream("rexec.exec", node, request)
    }

    fn attach(&self) -> RpcStream {
        let request = AttachRequest {
            target: Target::label(label(self.id)),
            flags: rexec::OUTPUT,
        };
        self.handle
            .stream("rexec.attach", Node::Rank(self.rank), &request)
    }

    fn send(&self, event: ShellEvent) {
        // The receiver lives as long as the job's task; after it nobody wants to know.
        let _ = self.events.send((self.rank, event));
    }

    /// Report what becomes of the shell. `request` starts it, as long as it is not known to run.
    async fn follow(self, mut stream: RpcStream, mut request: Option<Arc<ExecRequest>>) {
        let mut status = None;
        let mut away: Option<(Instant, Duration)> = None;
        loop {
            let answer = match stream.next().await {
                Some(answer) => answer.and_then(|msg| msg.json()),
                None => match status {
                    Some(code) => return self.send(ShellEvent::Exited(code)),
                    None => Err(RpcError::errno(libc::ECONNRESET)),
                },
            };
            match answer {
                Ok(ExecResponse::Started { pid } | ExecResponse::Attached { pid, .. }) => {
                    (request, away) = (None, None);
                    self.send(ShellEvent::Started(pid));
                }
                Ok(ExecResponse::Output { io, .. }) if !io.data.is_empty() => {
                    let text = String::from_utf8_lossy(&io.data).into_owned();
                    self.send(ShellEvent::Output(text));
                }
                Ok(ExecResponse::Finished { status: code }) => status = Some(code),
                Ok(_) => {}
                // It was started before, by a broker or a life of this service that could not say so.
                Err(e) if e.errno == libc::EEXIST && request.is_some() => {
                    request = None;
                    stream = self.attach();
                }
                Err(e) if AWAY.contains(&e.errno) && !self.patience.is_zero() => {
                    let (since, pause) = away.unwrap_or((Instant::now(), PAUSES[0]));
                    if since.elapsed() > self.patience {
                        return self.send(ShellEvent::Failed(e));
                    }
                    tokio::time::sleep(pause).await;
                    away = Some((since, (pause * 2).min(PAUSES[1])));
                    stream = match &request {
                        Some(request) => self.exec(request),
                        None => self.attach(),
                    };
                }
                Err(e) => return self.send(ShellEvent::Failed(e)),
            }
        }
    }
}
