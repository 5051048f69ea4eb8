//! A plugin of the pipeline in a process of its own: one JSON object a line in, one a line out, in the same order.
//!
//! The process is started with the first request and then stays. Several requests may be on their way to it. When it
//! ends, or does not answer in time, the requests it has are refused, and the next
//! one starts it anew. It is told to end by the end of its input.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use client::Handle;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use wire::RpcError;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a process may take to end when its input has.
const GRACE: Duration = Duration::from_secs(5);
/// Requests in one process: enough that it never waits for us between two of them.
const IN_FLIGHT: usize = 256;

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// For messages.
    pub(super) name: String,
    pub(super) argv: Vec<OsString>,
    /// Bytes that may wait to be read by it.
    pub(super) buffer_size: usize,
}

/// What it says to a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Answer {
    errnum: i32,
    #[serde(default)]
    errstr: Option<String>,
    /// The changed jobspec, of a frobnicator.
    #[serde(default)]
    pub(super) data: Option<Value>,
}

type Told = Result<Answer, RpcError>;

struct Ask {
    line: String,
    told: oneshot::Sender<Told>,
}

/// Access to it. The process ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    name: String,
    asks: mpsc::Sender<Ask>,
    pid: Arc<AtomicU32>,
}

impl Worker {
    pub(super) fn new(program: Program, handle: &Handle, tasks: &mut JoinSet<()>) -> Self {
        let (asks, queue) = mpsc::channel(1);
        let pid = Arc::new(AtomicU32::new(0));
        let name = program.name.clone();
        let server = Server {
            program,
            handle: handle.clone(),
            pid: Arc::clone(&pid),
        };
        tasks.spawn(server.serve(queue));
        Self { name, asks, pid }
    }

    /// The process, if it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Ask about a job; an answer that refuses it is an error.
    pub(super) async fn ask(&self, job: &Value) -> Result<Option<Value>, RpcError> {
        let (told, answer) = oneshot::channel();
        let gone = || RpcError::new(libc::ECANCELED, format!("{} is being stopped", self.name));
        let ask = Ask {
            line: format!("{job}\n"),
            told,
        };
        self.asks.send(ask).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())??.verdict()
    }
}

impl Answer {
    fn verdict(self) -> Result<Option<Value>, RpcError> {
        match self.errnum {
            0 => Ok(self.data),
            errnum => {
                let why = self.errstr.filter(|why| !why.is_empty());
                let why = why.unwrap_or_else(|| "refused without a reason".to_owned());
                Err(RpcError::new(errnum.clamp(1, 4095), why))
            }
        }
    }
}

/// The task that owns the process.
struct Server {
    program: Program,
    handle: Handle,
    pid: Arc<AtomicU32>,
}

/// Why a process is not used any more.
enum End {
    /// Nobody will ask any more.
    Unneeded,
    /// It has closed its output.
    Exited,
    /// It has not answered in time, or nothing that can be read.
    Faulty(String),
}

impl Server {
    async fn serve(self, mut queue: mpsc::Receiver<Ask>) {
        while let Some(first) = queue.recv().await {
            let uri = self.handle.getattr("local-uri").await.unwrap_or_default();
            let mut process = match Process::start(&self.program, &uri) {
                Ok(process) => process,
                Err(e) => {
                    let why = format!("{}: cannot be started: {e}", self.program.name);
                    // Who asked may have gone.
                    let _ = first.told.send(Err(RpcError::new(libc::ENOENT, why)));
                    continue;
                }
            };
            let pid = process.child.id().unwrap_or(0);
            self.pid.store(pid, Ordering::Relaxed);
            process.take(first);
            let end = process.work(&self, &mut queue).await;
            process.finish(&self, end).await;
            self.pid.store(0, Ordering::Relaxed);
        }
    }

    fn say(&self, severity: i32, text: &str) {
        let name = &self.program.name;
        // Severities of syslog are below 8.
        self.handle
            .say("job-ingest", severity as u8, &format!("{name}: {text}"));
    }
}

struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    /// `None` at its end.
    stderr: Option<Lines<BufReader<ChildStderr>>>,
    last_words: String,
    unsent: BytesMut,
    waiting: VecDeque<(oneshot::Sender<Told>, Instant)>,
}

async fn next_line(stderr: &mut Option<Lines<BufReader<ChildStderr>>>) -> Option<String> {
    match stderr {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

impl Process {
    fn start(program: &Program, uri: &str) -> std::io::Result<Self> {
        let [path, args @ ..] = program.argv.as_slice() else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let mut command = Command::new(path);
        command.args(args).kill_on_drop(true).process_group(0);
        command.env_clear().envs(crate::rexec::environment());
        command.env("FLUX_URI", uri);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let missing = || std::io::Error::other("a pipe is missing");
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            stdout: BufReader::new(stdout).lines(),
            stderr: Some(BufReader::new(stderr).lines()),
            last_words: String::new(),
            unsent: BytesMut::new(),
            waiting: VecDeque::new(),
        })
    }

    fn take(&mut self, ask: Ask) {
        self.unsent.extend_from_slice(ask.line.as_bytes());
        self.waiting
            .push_back((ask.told, Instant::now() + PATIENCE));
    }

    /// Pass requests and answers on until the process is not used any more.
    async fn work(&mut self, server: &Server, queue: &mut mpsc::Receiver<Ask>) -> End {
        loop {
            let has_room =
                self.waiting.len() < IN_FLIGHT && self.unsent.len() < server.program.buffer_size;
            let deadline = self.waiting.front().map(|(_, until)| *until);
            let write = async {
                match &mut self.stdin {
                    Some(stdin) if !self.unsent.is_empty() => stdin.write(&self.unsent).await,
                    _ => std::future::pending().await,
                }
            };
            let overdue = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ask = queue.recv(), if has_room => match ask {
                    Some(ask) => self.take(ask),
                    None => return End::Unneeded,
                },
                written = write => match written {
                    Ok(n) => self.unsent.advance(n),
                    // It does not read any more. What it has said still counts.
                    Err(_) => self.stdin = None,
                },
                line = self.stdout.next_line() => match line {
                    Ok(Some(line)) => {
                        if let Err(end) = self.answer(server, &line) {
                            return end;
                        }
                    }
                    Ok(None) => return End::Exited,
                    Err(e) => return End::Faulty(format!("gave no text: {e}")),
                },
                line = next_line(&mut self.stderr) => self.hear(server, line),
                () = overdue => {
                    let why = format!("gave no answer for {} s", PATIENCE.as_secs());
                    return End::Faulty(why);
                }
            }
        }
    }

    fn answer(&mut self, server: &Server, line: &str) -> Result<(), End> {
        let Some((told, _)) = self.waiting.pop_front() else {
            server.say(libc::LOG_ERR, &format!("answer to nothing: {line}"));
            return Ok(());
        };
        match serde_json::from_str(line) {
            // Who asked may have gone.
            Ok(answer) => {
                let _ = told.send(Ok(answer));
                Ok(())
            }
            // Later answers could be anybody's.
            Err(e) => {
                let until = Instant::now();
                self.waiting.push_front((told, until));
                Err(End::Faulty(format!("gave no answer but {line:?}: {e}")))
            }
        }
    }

    fn hear(&mut self, server: &Server, line: Option<String>) {
        match line {
            Some(line) => {
                server.say(libc::LOG_DEBUG, &line);
                self.last_words = line;
            }
            None => self.stderr = None,
        }
    }

    /// See the process off, and refuse what it has not answered.
    async fn finish(mut self, server: &Server, end: End) {
        self.stdin = None;
        let why = match end {
            End::Unneeded => {
                self.exit(server).await;
                return;
            }
            End::Exited => {
                let status = self.exit(server).await;
                let status = status.map_or_else(String::new, |status| format!(" ({status})"));
                format!("unexpectedly exited{status}")
            }
            End::Faulty(why) => {
                self.kill().await;
                why
            }
        };
        let words = match self.last_words.is_empty() {
            true => String::new(),
            false => format!(": {}", self.last_words),
        };
        server.say(libc::LOG_ERR, &format!("{why}{words}"));
        let error = RpcError::new(
            libc::EPROTO,
            format!("{}: {why}{words}", server.program.name),
        );
        for (told, _) in self.waiting {
            // Who asked may have gone.
            let _ = told.send(Err(error.clone()));
        }
    }

    /// How the process ended, after its last words; it is killed if it does not end.
    async fn exit(&mut self, server: &Server) -> Option<ExitStatus> {
        let ends = async {
            while self.stderr.is_some() {
                let line = next_line(&mut self.stderr).await;
                self.hear(server, line);
            }
            self.child.wait().await
        };
        match timeout(GRACE, ends).await {
            Ok(status) => status.ok(),
            Err(_) => {
                server.say(libc::LOG_ERR, "does not end: killing it");
                self.kill().await;
                None
            }
        }
    }

    /// With all it has started.
    async fn kill(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // SAFETY: kill(2) touches no memory; the process is the leader of its group and not reaped yet.
            unsafe { libc::kill(-pid, libc::SIGKILL) };
        }
        // It was killed, so it ends.
        let _ = self.child.wait().await;
    }
}
