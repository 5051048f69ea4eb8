//! Attaching to a job: its events, output, input and exit code.
//!
//! Three eventlogs are followed: the job's own, the one of its execution (where the shell says how
//! it is reached) and its output. The attachment ends when all three have; the exit code is that
//! of the job's wait status, or 1 if it never ran.

pub(crate) mod debugger;
mod render;
mod status;

use std::pin::Pin;
use std::time::{Duration, Instant};

use client::{Handle, Node, Rpc, RpcStream};
use formats::idset::Idset;
use formats::iodata::IoData;
use formats::job::WaitStatus;
use formats::taskmap::Taskmap;
use formats::{Event, JobId};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Sleep;
use wire::{Message, RpcError};

use crate::cmd::exec::{next_input, read_stdin};
use crate::error::{Failure, Outcome, rpc_text};
use render::Output;
use status::StatusLine;
use terminus::attach::{End, Manner};

/// A second interrupt within this time cancels the job.
const INTERRUPT: Duration = Duration::from_secs(2);
/// Pieces of input in flight: enough to keep a reader busy, few enough to bound memory.
const INPUT_WINDOW: usize = 16;
/// A shell that takes no input may just have ended; if nothing says so in this time, it is refused.
const REFUSAL: Duration = Duration::from_secs(1);

/// How to attach.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// The event of the job's log to stop at; `clean` if empty.
    pub(crate) wait_event: String,
    pub(crate) label_io: bool,
    pub(crate) show_events: bool,
    pub(crate) show_exec: bool,
    pub(crate) show_status: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
    /// Go on as if a debugger had looked at the job's processes.
    pub(crate) debug_emulate: bool,
    /// Neither input nor signals.
    pub(crate) read_only: bool,
    /// Ranks that get input; all without.
    pub(crate) stdin_ranks: Option<Idset>,
    /// Show only so many lines of what was written before.
    pub(crate) tail: Option<usize>,
}

/// SIGINT and SIGTERM as they arrive.
pub(crate) fn signals() -> std::io::Result<UnboundedReceiver<i32>> {
    let (tx, rx) = unbounded_channel();
    catch(SignalKind::interrupt(), &tx)?;
    catch(SignalKind::terminate(), &tx)?;
    Ok(rx)
}

/// Send a signal's number to `tx` whenever it arrives.
fn catch(kind: SignalKind, tx: &UnboundedSender<i32>) -> std::io::Result<()> {
    let mut stream = signal(kind)?;
    let tx = tx.clone();
    tokio::spawn(async move {
        while stream.recv().await.is_some() && tx.send(kind.as_raw_value()).is_ok() {}
    });
    Ok(())
}

/// Signals that are passed on to the job.
const FORWARDED: [i32; 5] = [
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGALRM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Follow an eventlog of a job through job-info.
pub(crate) fn watch_events(handle: &Handle, id: JobId, path: &str) -> RpcStream {
    watch_events_with(handle, id, path, 0)
}

/// Have an answer without payload mark the end of the events there were at first.
const INITIAL_SENTINEL: u32 = 2;

fn watch_events_with(handle: &Handle, id: JobId, path: &str, flags: u32) -> RpcStream {
    let request = json!({ "id": id, "path": path, "flags": flags });
    handle.stream("job-info.eventlog-watch", Node::Any, &request)
}

/// Stop following.
pub(crate) fn cancel_watch(stream: &RpcStream) {
    stream.cancel("job-info.eventlog-watch-cancel");
}

/// The events of one response.
pub(crate) fn decode_events(msg: &Message) -> Result<Vec<Event>, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        event: String,
    }
    let answer: Answer = msg.json()?;
    let lines = answer.event.lines().filter(|l| !l.is_empty());
    let events = lines.map(|l| Event::decode(l).map_err(|e| Failure::new(e.to_string())));
    events.collect()
}

pub(crate) async fn next(stream: &mut Option<RpcStream>) -> Option<Result<Message, RpcError>> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// An attachment to a job's terminal, and how it ends.
type Terminal<'a> = Pin<Box<dyn Future<Output = std::io::Result<End>> + 'a>>;

async fn enter(handle: &Handle, node: Node, topic: String) -> std::io::Result<End> {
    let manner = Manner {
        say_detached: true,
        ..Manner::default()
    };
    terminus::attach::attach(handle, node, &topic, manner, read_stdin).await
}

async fn entered(terminal: &mut Option<Terminal<'_>>) -> std::io::Result<End> {
    match terminal {
        Some(terminal) => terminal.await,
        None => std::future::pending().await,
    }
}

async fn refusal(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

/// The job's shell, once it has said how it is reached.
struct Shell {
    service: String,
    leader: u32,
}

struct Attachment<'a> {
    handle: &'a Handle,
    id: JobId,
    name: String,
    options: &'a Options,
    main: Option<RpcStream>,
    exec: Option<RpcStream>,
    output: Option<RpcStream>,
    render: Output,
    status: StatusLine,
    shell: Option<Shell>,
    /// The attachment to the job's terminal, if it has one for us.
    terminal: Option<Terminal<'a>>,
    stdin: Option<Receiver<Vec<u8>>>,
    stdin_ranks: String,
    stdin_sent: bool,
    writes: FuturesUnordered<Rpc>,
    /// Input was refused: when that becomes a failure.
    refused: Option<Pin<Box<Sleep>>>,
    output_started: bool,
    finished: bool,
    fatal: bool,
    code: u8,
}

/// Attach to a job until its end; the job's exit code.
pub(crate) async fn attach(handle: &Handle, id: JobId, options: &Options) -> Outcome {
    let name = crate::jobid::shown(id);
    let mut a = Attachment {
        handle,
        id,
        options,
        main: Some(watch_events(handle, id, "eventlog")),
        exec: None,
        output: None,
        render: Output::new(options),
        status: StatusLine::new(&name, options),
        name,
        shell: None,
        terminal: None,
        stdin: None,
        stdin_ranks: "all".into(),
        stdin_sent: false,
        writes: FuturesUnordered::new(),
        refused: None,
        output_started: false,
        finished: false,
        fatal: false,
        code: 1,
    };
    if debugger::is_there() {
        debugger::check(handle, id, &a.name).await?;
    }
    let (signal_tx, mut signals) = unbounded_channel();
    if !options.read_only {
        catch(SignalKind::interrupt(), &signal_tx)?;
        for number in FORWARDED {
            catch(SignalKind::from_raw(number), &signal_tx)?;
        }
    }
    let mut interrupted: Option<Instant> = None;
    while a.main.is_some() || a.exec.is_some() || a.output.is_some() || a.terminal.is_some() {
        tokio::select! {
            answer = next(&mut a.main) => a.main_answer(answer)?,
            answer = next(&mut a.exec) => a.exec_answer(answer)?,
            answer = next(&mut a.output) => a.output_answer(answer)?,
            end = entered(&mut a.terminal) => if let Some(outcome) = a.terminal_ended(end) {
                return outcome;
            },
            data = next_input(&mut a.stdin), if a.writes.len() < INPUT_WINDOW => a.input(data),
            Some(answer) = a.writes.next(), if !a.writes.is_empty() => a.written(answer)?,
            () = a.status.tick() => {}
            () = refusal(&mut a.refused) => {
                return Err(Failure::new("stdin not accepted by job"));
            }
            Some(signum) = signals.recv() => {
                let recent = interrupted.is_some_and(|at| at.elapsed() <= INTERRUPT);
                match signum {
                    libc::SIGINT if recent => a.cancel(),
                    libc::SIGINT => {
                        if interrupted.is_none() {
                            // From now on ctrl-Z may mean to detach.
                            catch(SignalKind::from_raw(libc::SIGTSTP), &signal_tx)?;
                        }
                        interrupted = Some(Instant::now());
                        eprintln!(
                            "flux-job: one more ctrl-C within 2s to cancel or ctrl-Z to detach"
                        );
                    }
                    libc::SIGTSTP if recent => {
                        eprintln!("flux-job: detaching...");
                        break;
                    }
                    libc::SIGTSTP => {
                        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP)
                            .map_err(std::io::Error::from)?;
                    }
                    signum => a.kill(signum),
                }
            }
        }
    }
    if a.fatal && a.code == 0 {
        a.code = 1;
    }
    Ok(a.code)
}

impl Attachment<'_> {
    fn main_answer(&mut self, answer: Option<Result<Message, RpcError>>) -> Result<(), Failure> {
        let msg = match answer {
            None => {
                self.main = None;
                return Ok(());
            }
            Some(Err(e)) => {
                let why = match e.errno {
                    libc::ENOENT => "No such job".to_owned(),
                    libc::EPERM => "that is not your job".to_owned(),
                    _ => rpc_text(&e),
                };
                return Err(Failure::new(format!(
                    "Failed to attach to {}: {why}",
                    self.name
                )));
            }
            Some(Ok(msg)) => msg,
        };
        for event in decode_events(&msg)? {
            self.main_event(&event);
            if event.name == self.options.wait_event
                && let Some(stream) = self.main.take()
            {
                cancel_watch(&stream);
            }
        }
        Ok(())
    }

    fn main_event(&mut self, event: &Event) {
        self.render.start(event.timestamp);
        match event.name.as_str() {
            "exception" => {
                let severity = event.get("severity").and_then(Value::as_i64).unwrap_or(0);
                let text = |key| event.get(key).and_then(Value::as_str).unwrap_or("");
                self.status.clear();
                eprintln!(
                    "{}: job.exception {} type={} severity={severity} {}",
                    self.render.time(event.timestamp),
                    self.name,
                    text("type"),
                    text("note")
                );
                if severity == 0 {
                    self.fatal = true;
                    self.end_input();
                }
            }
            "submit" => self.exec = Some(watch_events(self.handle, self.id, "guest.exec.eventlog")),
            "finish" => {
                let status = event.get("status").and_then(Value::as_i64).unwrap_or(0);
                let status = WaitStatus(status as i32);
                self.code = status.exit_code() as u8;
                if let Some(text) = failure_text(status) {
                    eprintln!("flux-job: {text}");
                }
                self.finished = true;
                self.end_input();
            }
            _ => {}
        }
        if self.options.show_events && event.name != "exception" {
            self.render.event("job", event);
        }
        self.status.event(event);
    }

    fn exec_answer(&mut self, answer: Option<Result<Message, RpcError>>) -> Result<(), Failure> {
        let msg = match answer {
            // A job that never ran has no such log.
            None
            | Some(Err(RpcError {
                errno: libc::ENOENT,
                ..
            })) => {
                self.exec = None;
                return Ok(());
            }
            Some(answer) => answer?,
        };
        for event in decode_events(&msg)? {
            match event.name.as_str() {
                "shell.init" => {
                    let service = event.get("service").and_then(Value::as_str);
                    let leader = event.get("leader-rank").and_then(Value::as_u64);
                    let (Some(service), Some(leader)) = (service, leader) else {
                        return Err(Failure::new("shell.init event without service and rank"));
                    };
                    let (service, leader) = (service.to_owned(), leader as u32);
                    let pty = event.get("pty").and_then(Value::as_str);
                    if let Some(pty) = pty.filter(|_| !self.finished) {
                        if self.options.read_only {
                            let text = "Cannot connect to pty in readonly mode";
                            return Err(Failure::new(text));
                        }
                        self.render.enter_terminal(event.get("capture").is_some());
                        self.terminal = Some(Box::pin(enter(
                            self.handle,
                            Node::Rank(leader),
                            format!("{service}.{pty}"),
                        )));
                    }
                    self.shell = Some(Shell { service, leader });
                    self.start_output();
                    if self.terminal.is_none() {
                        self.choose_input();
                    }
                }
                "shell.start" => {
                    if debugger::is_there() {
                        let is_stopped = event.get("sync") == Some(&Value::Bool(true));
                        self.introduce_to_debugger(is_stopped);
                    }
                    self.choose_stdin_ranks(&event)?;
                }
                "log" => self.render.exec_log(&event),
                "shell.task-exit" | "shell-exit" => self.refused = None,
                // A shell that failed early may have written output without an init event.
                "complete" => {
                    self.refused = None;
                    self.start_output();
                }
                _ => {}
            }
            if self.options.show_exec && event.name != "log" {
                self.render.event("exec", &event);
            }
        }
        Ok(())
    }

    /// Gives a debugger the job's processes. The job is followed meanwhile.
    fn introduce_to_debugger(&self, is_stopped: bool) {
        let Some(shell) = &self.shell else { return };
        let stopped = is_stopped || self.options.debug_emulate;
        let (handle, service) = (self.handle.clone(), shell.service.clone());
        debugger::introduce(handle, self.id, service, shell.leader, stopped);
    }

    /// Read standard input, unless only some tasks get it, which the shell has to name first.
    fn choose_input(&mut self) {
        if self.options.stdin_ranks.is_none() {
            self.start_stdin();
        }
    }

    /// The job's terminal has been left, or it could not be entered: it may just have gone.
    fn terminal_ended(&mut self, end: std::io::Result<End>) -> Option<Outcome> {
        self.terminal = None;
        self.render.leave_terminal();
        match end {
            Err(e) => Some(Err(e.into())),
            Ok(End::Refused(_)) => {
                self.choose_input();
                None
            }
            Ok(End::Exited(status)) => Some(Ok(u8::from(status != 0))),
            Ok(End::Lost(why)) => Some(Err(Failure::new(why))),
        }
    }

    fn start_output(&mut self) {
        if !self.output_started {
            self.output_started = true;
            // Only who wants the last lines need know which those are.
            let flags = self.options.tail.map_or(0, |_| INITIAL_SENTINEL);
            let output = watch_events_with(self.handle, self.id, "guest.output", flags);
            self.output = Some(output);
        }
    }

    fn output_answer(&mut self, answer: Option<Result<Message, RpcError>>) -> Result<(), Failure> {
        match answer {
            None => {
                self.render.flush();
                self.output = None;
            }
            Some(Err(e)) if e.errno == libc::ENOENT => {
                eprintln!("flux-job: No job output found");
                self.output = None;
            }
            Some(Ok(msg)) if msg.payload().is_none() => self.render.flush(),
            Some(answer) => {
                for event in decode_events(&answer?)? {
                    self.render.output(&event)?;
                }
            }
        }
        Ok(())
    }

    fn end_input(&mut self) {
        self.stdin = None;
        self.refused = None;
    }

    fn start_stdin(&mut self) {
        if !self.options.read_only && !self.finished && !self.fatal {
            self.stdin = Some(read_stdin());
        }
    }

    /// With `--stdin-ranks`: close the input of all others, then read.
    fn choose_stdin_ranks(&mut self, event: &Event) -> Result<(), Failure> {
        let Some(wanted) = &self.options.stdin_ranks else {
            return Ok(());
        };
        let map = event.get("taskmap").map(Taskmap::from_value);
        let Some(Ok(map)) = map else {
            return Err(Failure::new("shell.start event without a task map"));
        };
        let all = Idset::from_range(0, map.ntasks().saturating_sub(1));
        let open = wanted.intersection(&all);
        if open != *wanted {
            eprintln!("flux-job: warning: adjusting --stdin-ranks from {wanted} to {open}");
        }
        let closed = all.difference(&open);
        if !closed.is_empty() {
            self.send(closed.to_string(), Vec::new(), true);
        }
        self.stdin_ranks = open.to_string();
        self.start_stdin();
        Ok(())
    }

    fn input(&mut self, data: Option<Vec<u8>>) {
        let ranks = self.stdin_ranks.clone();
        match data {
            Some(data) => {
                self.stdin_sent = true;
                self.send(ranks, data, false);
            }
            None => {
                self.stdin = None;
                self.send(ranks, Vec::new(), true);
            }
        }
    }

    fn send(&mut self, rank: String, data: Vec<u8>, eof: bool) {
        let Some(shell) = &self.shell else { return };
        let io = IoData {
            stream: "stdin".into(),
            rank,
            data,
            eof,
        };
        let topic = format!("{}.stdin", shell.service);
        self.writes.push(
            self.handle
                .rpc(&topic, Node::Rank(shell.leader), &io.to_context()),
        );
    }

    fn written(&mut self, answer: Result<Message, RpcError>) -> Result<(), Failure> {
        match answer {
            Ok(_) => Ok(()),
            // The shell is gone, or has gone before the answer was sent.
            Err(_) if self.finished || self.fatal => Ok(()),
            // A job with input from a file takes none; that matters only if there was some.
            Err(e) if e.errno == libc::ENOSYS && !self.stdin_sent => Ok(()),
            Err(e) if e.errno == libc::ENOSYS => {
                self.stdin = None;
                let timer = || Box::pin(tokio::time::sleep(REFUSAL));
                self.refused.get_or_insert_with(timer);
                Ok(())
            }
            Err(e) => Err(Failure::new(format!("stdin: {}", rpc_text(&e)))),
        }
    }

    fn cancel(&self) {
        let request = json!({
            "id": self.id,
            "severity": 0,
            "type": "cancel",
            "note": "interrupted by ctrl-C",
        });
        self.ask(
            "cancel",
            self.handle.rpc("job-manager.raise", Node::Any, &request),
        );
    }

    fn kill(&self, signum: i32) {
        let request = json!({ "id": self.id, "signum": signum });
        self.ask(
            "kill",
            self.handle.rpc("job-manager.kill", Node::Any, &request),
        );
    }

    /// Report a request's failure when it comes.
    fn ask(&self, what: &'static str, rpc: Rpc) {
        tokio::spawn(async move {
            if let Err(e) = rpc.await {
                eprintln!("flux-job: {what}: {}", rpc_text(&e));
            }
        });
    }
}

/// What a wait status says about a job that failed.
pub(crate) fn failure_text(status: WaitStatus) -> Option<String> {
    if let Some(signum) = status.signal() {
        return Some(format!("job shell {}", formats::signals::describe(signum)));
    }
    match status.exit_code() {
        0 => None,
        code @ 129..=192 => Some(format!(
            "task(s) {}",
            formats::signals::describe(code - 128)
        )),
        code => Some(format!("task(s) exited with exit code {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures() {
        let text = |status| failure_text(WaitStatus(status)).unwrap_or_default();
        assert_eq!(text(0), "");
        assert_eq!(text(256), "task(s) exited with exit code 1");
        assert_eq!(text((128 + 9) << 8), "task(s) Killed");
        assert_eq!(text(9), "job shell Killed");
    }
}
