//! Following one shell, in rexec or in the process of its node's shared shells, and finding it again when its broker comes
//! back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Handle, Node, RpcStream};
use formats::jobid::JobId;
use formats::shared_shell::{self, Of};
use formats::subprocess::{AttachRequest, ExecRequest, ExecResponse, Target};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use wire::RpcError;

use super::guest::Addition;
use super::sharing::{Ending, Sharing};
use crate::rexec;

/// Between two attempts to find a shell again: as long as the first, then longer and longer up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// By then a process or client that has ended is known to have.
const SETTLED: Duration = Duration::from_secs(1);

/// What is said of a broker, or its rexec, that is not there, or not there yet.
const AWAY: [i32; 4] = [
    libc::EHOSTUNREACH,
    libc::EAGAIN,
    libc::ENOSYS,
    libc::ECONNRESET,
];

/// Attempts to find again what a broker that is away has.
pub(super) struct Search {
    /// How long it may be away.
    patience: Duration,
    /// Since when it is, and how long to wait before the next attempt.
    away: Option<(Instant, Duration)>,
}

impl Search {
    pub(super) fn new(patience: Duration) -> Self {
        let away = None;
        Self { patience, away }
    }

    /// It was found.
    pub(super) fn over(&mut self) {
        self.away = None;
    }

    /// Whether to try again after this error; after a pause, if so.
    pub(super) async fn goes_on_after(&mut self, e: &RpcError) -> bool {
        let limit = match e.errno {
            // Whoever had it, such as this service in its life before, is not known to have gone yet.
            libc::EBUSY => SETTLED,
            away if AWAY.contains(&away) => self.patience,
            _ => return false,
        };
        let (since, pause) = self.away.unwrap_or((Instant::now(), PAUSES[0]));
        if limit.is_zero() || since.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(pause).await;
        self.away = Some((since, (pause * 2).min(PAUSES[1])));
        true
    }
}

/// What the shell on a rank reports.
pub(super) enum ShellEvent {
    /// It runs; also said when it was found again.
    Started(Keeper),
    Output(String),
    /// It has not stored this itself.
    Unstored(Addition),
    Exited(i32),
    /// It could not be started, or is out of reach.
    Failed(RpcError),
}

/// Who has a shell that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeper {
    /// It is a process of this id.
    Rexec(i32),
    /// It is in the process of the shared shells.
    Shared,
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
    pub(super) sharing: Arc<Sharing>,
    /// The shell is, or will be, in the process of the shared shells, which may end in this way.
    pub(super) shared: Option<Ending>,
    /// What the job was allocated.
    pub(super) r: Arc<Value>,
}

impl Watch {
    /// Start a shell; the request is sent before the future is polled.
    pub(super) fn start(self, request: &Arc<ExecRequest>) -> impl Future<Output = ()> + use<> {
        let stream = self.exec(request);
        self.follow(stream, Some(request.clone()), None)
    }

    /// Find one that was started in an earlier life of this service.
    pub(super) fn find(self) -> impl Future<Output = ()> + use<> {
        let stream = self.attach();
        self.follow(stream, None, None)
    }

    /// Find one that may have been started in an earlier life of this service, or else start it.
    pub(super) fn find_or_start(
        self,
        request: &Arc<ExecRequest>,
    ) -> impl Future<Output = ()> + use<> {
        let stream = self.attach();
        self.follow(stream, None, Some(request.clone()))
    }

    /// Ask the process of the shared shells.
    fn ask_shared(&self, method: &str, request: &impl Serialize) -> RpcStream {
        let topic = format!("{}.{method}", shared_shell::NAME);
        self.handle.stream(&topic, Node::Rank(self.rank), request)
    }

    fn exec(&self, request: &ExecRequest) -> RpcStream {
        match self.shared {
            Some(_) => self.ask_shared("exec", &json!({ "id": self.id, "R": &*self.r })),
            None => {
                let node = Node::Rank(self.rank);
                self.handle.stream("rexec.exec", node, request)
            }
        }
    }

    fn attach(&self) -> RpcStream {
        if self.shared.is_some() {
            return self.ask_shared("attach", &Of { id: self.id });
        }
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

    /// What comes next of the stream; the end of the process of the shared shells is the end of all of them.
    async fn next(
        &mut self,
        stream: &mut RpcStream,
        status: Option<i32>,
    ) -> Result<ExecResponse, RpcError> {
        let Some(ending) = &mut self.shared else {
            return understand(stream.next().await, status);
        };
        tokio::select! {
            biased;
            answer = stream.next() => understand(answer, status),
            status = ending.status() => Ok(ExecResponse::Finished { status }),
        }
    }

    /// Report what becomes of the shell. `request` starts it, as long as it is not known to run; `otherwise` does where it is
    /// not found.
    async fn follow(
        mut self,
        mut stream: RpcStream,
        mut request: Option<Arc<ExecRequest>>,
        mut otherwise: Option<Arc<ExecRequest>>,
    ) {
        let mut status = None;
        let mut search = Search::new(self.patience);
        loop {
            match self.next(&mut stream, status).await {
                Ok(ExecResponse::Started { pid } | ExecResponse::Attached { pid, .. }) => {
                    (request, otherwise) = (None, None);
                    search.over();
                    let keeper = match self.shared {
                        Some(_) => Keeper::Shared,
                        None => Keeper::Rexec(pid),
                    };
                    self.send(ShellEvent::Started(keeper));
                }
                Ok(ExecResponse::Output { io, .. }) if !io.data.is_empty() => {
                    let text = String::from_utf8_lossy(&io.data).into_owned();
                    self.send(match shared_shell::key_of(&io.stream) {
                        Some(key) if self.shared.is_some() => {
                            let key = key.to_owned();
                            ShellEvent::Unstored(Addition { key, text })
                        }
                        _ => ShellEvent::Output(text),
                    });
                }
                // In a process that has ended, nothing else follows.
                Ok(ExecResponse::Finished { status: code }) if self.has_ended() => {
                    return self.send(ShellEvent::Exited(code));
                }
                Ok(ExecResponse::Finished { status: code }) => status = Some(code),
                Ok(_) => {}
                Err(e) if e.errno == libc::ENODATA => {
                    return self.send(ShellEvent::Exited(status.unwrap_or_default()));
                }
                // It was started before, by a broker or a life of this service that could not say so.
                Err(e) if e.errno == libc::EEXIST && request.is_some() => {
                    request = None;
                    stream = self.attach();
                }
                // It cannot be among the shared shells, or they are not there yet: nobody has begun to start it.
                Err(e) if self.is_turned_away(&e, search.away.is_some()) && request.is_some() => {
                    self.shared = None;
                    self.sharing.turned_away(self.rank);
                    // Checked above.
                    if let Some(request) = &request {
                        stream = self.exec(request);
                    }
                }
                // One that was found in no process of its own may be among the shared ones.
                Err(e) if e.errno == libc::ENOENT && request.is_none() && self.shared.is_none() => {
                    self.shared = self.sharing.find(self.rank).await;
                    match (&self.shared, otherwise.take()) {
                        (Some(_), unless_found) => {
                            otherwise = unless_found;
                            stream = self.attach();
                        }
                        (None, Some(start)) => {
                            stream = self.exec(&start);
                            request = Some(start);
                        }
                        (None, None) => return self.send(ShellEvent::Failed(e)),
                    }
                }
                // It was in neither.
                Err(e) if e.errno == libc::ENOENT && otherwise.is_some() => {
                    self.shared = None;
                    request = otherwise.take();
                    // Checked above.
                    if let Some(start) = &request {
                        stream = self.exec(start);
                    }
                }
                Err(e) => {
                    if AWAY.contains(&e.errno)
                        && let Some(status) = self.end_of_process().await
                    {
                        return self.send(ShellEvent::Exited(status));
                    }
                    if !search.goes_on_after(&e).await {
                        return self.send(ShellEvent::Failed(e));
                    }
                    stream = match &request {
                        Some(request) => self.exec(request),
                        None => self.attach(),
                    };
                }
            }
        }
    }

    /// How the process of the shared shells has ended, if it has: that is said a moment after it answers no more.
    async fn end_of_process(&mut self) -> Option<i32> {
        let ending = self.shared.as_mut()?;
        tokio::time::timeout(SETTLED, ending.status()).await.ok()
    }

    fn has_ended(&self) -> bool {
        self.shared.as_ref().is_some_and(Ending::has_come)
    }

    /// Whether the shared shells have not taken the job, for good. Once a broker was `away` that is not known.
    fn is_turned_away(&self, e: &RpcError, away: bool) -> bool {
        let refused = e.errno == libc::ENOTSUP || e.errno == libc::ENOSYS && !away;
        self.shared.is_some() && refused
    }
}

/// An answer of a stream, the end of which is ENODATA if the status is known by then.
pub(super) fn understand(
    answer: Option<Result<wire::Message, RpcError>>,
    status: Option<i32>,
) -> Result<ExecResponse, RpcError> {
    match answer {
        Some(answer) => answer.and_then(|msg| msg.json()),
        None if status.is_some() => Err(RpcError::errno(libc::ENODATA)),
        None => Err(RpcError::errno(libc::ECONNRESET)),
    }
}
