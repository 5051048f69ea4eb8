//! A launcher for the brokers of one test instance on this host.
//!
//! Every broker gets one end of a socket pair (PMI_FD) over which [`pmi::server::Server`] is
//! served; nothing else connects launcher and brokers. Invariants: no broker outlives the launcher
//! (the kernel kills them with it), and the run directory is removed after the last broker.

mod control;

use std::ffi::OsString;
use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use formats::idset::Idset;
use formats::taskmap::Taskmap;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use pmi::server::{Action, Program, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use control::{Answer, Control, Order, Request};
use serde_json::json;
use wire::RpcError;

use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};

/// Whose end makes the launcher give the others `exit_timeout`, and whose code counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExitMode {
    /// Any broker's; the highest code counts.
    Any,
    /// Rank 0's.
    Leader,
}

/// What to launch.
pub(crate) struct Launch {
    /// The words of each rank's broker.
    pub(crate) brokers: Vec<Vec<OsString>>,
    /// How many of them are started.
    pub(crate) start: u32,
    /// `PMI_process_mapping`, if brokers are to know it.
    pub(crate) mapping: Option<String>,
    pub(crate) exit_timeout: f64,
    pub(crate) exit_mode: ExitMode,
    /// Say who comes and goes at the launcher's own service.
    pub(crate) verbose: bool,
    /// Show PMI traffic.
    pub(crate) trace: bool,
    pub(crate) rundir: RunDir,
}

/// The instance's run directory, perhaps ours to remove.
pub(crate) struct RunDir {
    path: PathBuf,
    remove: bool,
}

impl RunDir {
    /// A new directory below TMPDIR.
    pub(crate) fn temporary() -> Result<Self, Failure> {
        let base = std::env::temp_dir();
        let path = nix::unistd::mkdtemp(&base.join("flux-XXXXXX"))
            .map_err(std::io::Error::from)
            .context(format!("cannot make a run directory in {}", base.display()))?;
        Ok(Self { path, remove: true })
    }

    pub(crate) fn existing(path: PathBuf, remove: bool) -> Self {
        Self { path, remove }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.remove {
            // What a killed broker left open may resist; there is nobody to tell.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A duration option.
pub(crate) fn parse_duration(text: &str) -> Result<f64, String> {
    formats::fsd::parse(text).map_err(|e| e.to_string())
}

/// Words as one line for people.
pub(crate) fn shown(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
    words.join(" ")
}

/// `PMI_process_mapping` for `--test-pmi-clique=MODE`.
pub(crate) fn process_mapping(mode: Option<&str>, size: u32) -> Result<Option<String>, Failure> {
    match mode.unwrap_or("single") {
        "none" => Ok(None),
        "single" => Ok(Some(format!("(vector,(0,1,{size}))"))),
        "per-broker" => Ok(Some(format!("(vector,(0,{size},1))"))),
        text => {
            let map: Taskmap = text
                .parse()
                .map_err(|e| Failure::new(format!("--test-pmi-clique: {e}")))?;
            Ok(Some(map.to_pmi()))
        }
    }
}

/// A line from a broker's PMI connection; `None` when it closed.
type FromClient = (u32, Option<String>);

/// A broker's end.
type End = (u32, std::io::Result<ExitStatus>);

struct Broker {
    words: Vec<OsString>,
    /// Of the process that runs, or ran last.
    pid: Option<i32>,
    pmi: Option<OwnedWriteHalf>,
    running: bool,
    /// Its last exit code.
    code: Option<u8>,
    waiters: Vec<Answer>,
}

struct Session {
    brokers: Vec<Broker>,
    server: Server,
    ends: FuturesUnordered<BoxFuture<'static, End>>,
    lines: UnboundedSender<FromClient>,
    uri: String,
    trace: bool,
}

/// Run the brokers to their end; the result is the instance's exit code.
pub(crate) fn run(launch: Launch) -> Outcome {
    block_on(session(launch))
}

fn spawn(
    words: &[OsString],
    uri: &str,
    rank: u32,
    size: u32,
    fd: OwnedFd,
) -> std::io::Result<tokio::process::Child> {
    let mut cmd = Command::new(&words[0]);
    cmd.args(&words[1..]);
    // A test instance has no parent.
    for name in formats::job::VARIABLES.iter().chain(&["FLUX_URI"]) {
        cmd.env_remove(name);
    }
    cmd.env("PMI_FD", fd.as_raw_fd().to_string());
    cmd.env("PMI_RANK", rank.to_string());
    cmd.env("PMI_SIZE", size.to_string());
    cmd.env("FLUX_START_URI", uri);
    if rank > 0 {
        // Only rank 0's program uses the terminal; its keyboard signals are not for the others.
        cmd.stdin(Stdio::null()).process_group(0);
    }
    let launcher = std::process::id() as i32;
    // SAFETY: only async-signal-safe calls on values made before the fork.
    unsafe {
        cmd.pre_exec(move || {
            if libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) < 0
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0
            {
                return Err(std::io::Error::last_os_error());
            }
            // The launcher may have died before the request was in place.
            if libc::getppid() != launcher {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    cmd.spawn()
}

/// Pass a client's lines on until it closes.
fn read_lines(rank: u32, half: tokio::net::unix::OwnedReadHalf, to: UnboundedSender<FromClient>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(half).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if to.send((rank, Some(line))).is_err() {
                return;
            }
        }
        let _ = to.send((rank, None));
    });
}

/// Signals that are passed on to rank 0's broker.
fn signals() -> std::io::Result<UnboundedReceiver<i32>> {
    use std::io::IsTerminal as _;
    let (tx, rx) = unbounded_channel();
    // Keyboard signals reach rank 0's broker from the terminal itself.
    let keyboard = std::io::stdin().is_terminal();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ] {
        let mut stream = signal(kind)?;
        let tx = tx.clone();
        let number = kind.as_raw_value();
        let pass = !keyboard || !matches!(number, libc::SIGINT | libc::SIGQUIT);
        let number = if number == libc::SIGHUP {
            libc::SIGTERM
        } else {
            number
        };
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if pass && tx.send(number).is_err() {
                    return;
                }
            }
        });
    }
    Ok(rx)
}

async fn session(launch: Launch) -> Outcome {
    let size = launch.brokers.len() as u32;
    let mut server = Server::new(Program {
        kvsname: "flux".into(),
        appnum: 0,
        size,
        local_size: size,
    });
    if let Some(mapping) = &launch.mapping {
        server.preput("PMI_process_mapping", mapping);
    }
    let mut signals = signals()?;
    let (lines_tx, mut lines) = unbounded_channel();
    let rundir = launch.rundir.path();
    let mut control = Control::listen(rundir, launch.verbose).context(rundir.display())?;
    let idle = |words| Broker {
        words,
        pid: None,
        pmi: None,
        running: false,
        code: None,
        waiters: Vec::new(),
    };
    let mut session = Session {
        brokers: launch.brokers.into_iter().map(idle).collect(),
        server,
        ends: FuturesUnordered::new(),
        lines: lines_tx,
        uri: control.uri(),
        trace: launch.trace,
    };
    for rank in 0..launch.start {
        session.start(rank).inspect_err(|_| {
            session.kill(libc::SIGKILL);
        })?;
    }
    let mut code = 0;
    let mut deadline: Option<std::pin::Pin<Box<tokio::time::Sleep>>> = None;
    while !session.ends.is_empty() {
        tokio::select! {
            Some((rank, line)) = lines.recv() => session.pmi(rank, line).await,
            request = control.next() => session.order(request),
            Some((rank, status)) = session.ends.next() => {
                let ended = session.ended(rank, status?);
                match launch.exit_mode {
                    ExitMode::Any => code = code.max(ended),
                    ExitMode::Leader if rank == 0 => code = ended,
                    ExitMode::Leader => {}
                }
                if deadline.is_none() && (launch.exit_mode == ExitMode::Any || rank == 0) {
                    let left = Duration::try_from_secs_f64(launch.exit_timeout);
                    // A timeout beyond what a clock counts never comes.
                    deadline = left.ok().map(|t| Box::pin(tokio::time::sleep(t)));
                }
            }
            Some(signum) = signals.recv() => session.signal(signum),
            () = optional(deadline.as_mut()), if deadline.is_some() => {
                deadline = None;
                let killed = session.kill(libc::SIGKILL);
                eprintln!("flux-start: exit timeout: killed rank {killed}");
            }
        }
    }
    drop((control, launch.rundir));
    Ok(code)
}

async fn optional(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl Session {
    /// Start a rank's broker.
    fn start(&mut self, rank: u32) -> Result<(), Failure> {
        let size = self.brokers.len() as u32;
        let broker = &mut self.brokers[rank as usize];
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let program = Path::new(&broker.words[0]).display().to_string();
        let mut child = spawn(&broker.words, &self.uri, rank, size, theirs.into())
            .map_err(|e| crate::exec_path::spawn_failure(&program, &e))?;
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        read_lines(rank, read, self.lines.clone());
        broker.pid = child.id().map(|pid| pid as i32);
        broker.pmi = Some(write);
        broker.running = true;
        let end = async move { (rank, child.wait().await) };
        self.ends.push(Box::pin(end));
        Ok(())
    }

    /// Carry out what a program asks for.
    fn order(&mut self, Request { order, answer }: Request) {
        let rank = match order {
            Order::Status => return answer.give(Ok(self.status())),
            Order::Run(rank) | Order::Kill(rank, _) | Order::Wait(rank) => rank,
        };
        let Some(broker) = self.brokers.get_mut(rank as usize) else {
            let text = format!("rank {rank} is not in this instance");
            return answer.give(Err(RpcError::new(libc::EINVAL, text)));
        };
        let result = match order {
            Order::Run(_) if broker.running => Err(RpcError::new(
                libc::EEXIST,
                format!("the broker of rank {rank} runs already"),
            )),
            Order::Run(rank) => {
                let started = self.start(rank).map(|()| json!(null));
                started.map_err(|e| RpcError::new(libc::EIO, e.message))
            }
            Order::Kill(_, signum) => match broker.pid.filter(|_| broker.running) {
                Some(pid) => {
                    send_signal(pid, signum);
                    Ok(json!(null))
                }
                None => Err(RpcError::errno(libc::ESRCH)),
            },
            _ => match (broker.running, broker.code) {
                (true, _) => return broker.waiters.push(answer),
                (false, Some(code)) => Ok(json!({ "exit_rc": code })),
                (false, None) => Err(RpcError::errno(libc::ESRCH)),
            },
        };
        answer.give(result);
    }

    fn status(&self) -> serde_json::Value {
        let shown = |(rank, broker): (usize, &Broker)| {
            let pid = broker.pid.filter(|_| broker.running).unwrap_or(-1);
            json!({ "rank": rank, "pid": pid })
        };
        let procs: Vec<_> = self.brokers.iter().enumerate().map(shown).collect();
        json!({ "procs": procs })
    }

    /// Handle a client's line.
    async fn pmi(&mut self, rank: u32, line: Option<String>) {
        let Some(line) = line else {
            self.brokers[rank as usize].pmi = None;
            return;
        };
        if self.trace {
            eprintln!("{rank}: C: {line}");
        }
        for action in self.server.request(rank, &line) {
            match action {
                Action::Reply { client, line } => self.reply(client, &line).await,
                // All clients are local, so the server ends barriers itself.
                Action::Barrier { pending } => {
                    for action in self.server.barrier_complete(Some(pending)) {
                        if let Action::Reply { client, line } = action {
                            self.reply(client, &line).await;
                        }
                    }
                }
                Action::Abort {
                    client, message, ..
                } => {
                    eprintln!("flux-start: rank {client} aborted the start: {message}");
                    self.kill(libc::SIGKILL);
                }
                Action::Finalized { client } => self.brokers[client as usize].pmi = None,
                Action::Violation { client, line } => {
                    eprintln!("flux-start: rank {client}: not a PMI-1 request: {line:?}");
                    self.brokers[client as usize].pmi = None;
                }
            }
        }
    }

    async fn reply(&mut self, rank: u32, line: &str) {
        if self.trace {
            eprint!("{rank}: S: {line}");
        }
        let broker = &mut self.brokers[rank as usize];
        if let Some(pmi) = &mut broker.pmi
            && pmi.write_all(line.as_bytes()).await.is_err()
        {
            broker.pmi = None;
        }
    }

    /// Note a broker's end; its exit code as a shell would have it.
    fn ended(&mut self, rank: u32, status: ExitStatus) -> u8 {
        let broker = &mut self.brokers[rank as usize];
        broker.running = false;
        let pid = broker.pid.unwrap_or_default();
        let code = match (status.signal(), status.code()) {
            (Some(signum), _) => {
                let how = formats::signals::describe(signum);
                eprintln!("flux-start: {rank} (pid {pid}) {how}");
                (128 + signum) as u8
            }
            (None, code) => code.unwrap_or(1) as u8,
        };
        if code != 0 && status.signal().is_none() {
            eprintln!("flux-start: {rank} (pid {pid}) exited with rc={code}");
        }
        broker.code = Some(code);
        for answer in std::mem::take(&mut broker.waiters) {
            answer.give(Ok(json!({ "exit_rc": code })));
        }
        code
    }

    /// Pass a signal on to rank 0, or to all that are left once it is gone.
    fn signal(&self, signum: i32) {
        let leader = self.brokers.first().filter(|b| b.running);
        match leader {
            Some(broker) => broker.signal(signum),
            None => drop(self.kill(signum)),
        }
    }

    /// Signal all running brokers; which they were.
    fn kill(&self, signum: i32) -> Idset {
        let running = self.brokers.iter().enumerate().filter(|(_, b)| b.running);
        running
            .map(|(rank, broker)| {
                broker.signal(signum);
                rank as u32
            })
            .collect()
    }
}

impl Broker {
    fn signal(&self, signum: i32) {
        if let Some(pid) = self.pid {
            send_signal(pid, signum);
        }
    }
}

fn send_signal(pid: i32, signum: i32) {
    // SAFETY: plain system call; brokers marked running have not been reaped.
    unsafe { libc::kill(pid, signum) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings() {
        let map = |mode| process_mapping(mode, 4).unwrap();
        assert_eq!(map(None).unwrap(), "(vector,(0,1,4))");
        assert_eq!(map(Some("per-broker")).unwrap(), "(vector,(0,4,1))");
        assert_eq!(map(Some("none")), None);
        assert_eq!(map(Some("[[0,2,2,1]]")).unwrap(), "(vector,(0,2,2))");
        assert!(process_mapping(Some("x"), 4).is_err());
    }
}
