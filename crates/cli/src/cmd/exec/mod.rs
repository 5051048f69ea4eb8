//! `flux exec`: run a command on brokers through their `rexec` service (RFC 42).
//!
//! One streaming request per rank. Input is read only while every running process has credit for
//! it, so that a slow process bounds what is in flight. The exit code is the highest of all.

mod target;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::time::{Duration, Instant};

use clap::Parser;
use client::{Handle, Node, RpcStream};
use formats::Idset;
use formats::iodata::IoData;
use formats::job::WaitStatus;
use formats::subprocess::{ExecResponse, FLAG_CREDIT, FLAG_STDERR, FLAG_STDOUT, FLAG_WAITABLE};
use futures::StreamExt as _;
use futures::stream::SelectAll;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, channel};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome, rpc_text};
use crate::output;
use target::{Job, among};

/// Keyboard interrupts closer together than this end the command.
const INTERRUPT: Duration = Duration::from_secs(1);
/// Input read at once.
const CHUNK: usize = 4096;

/// Run a command on brokers.
#[derive(Parser)]
struct Options {
    /// Ranks to run on
    #[arg(
        short,
        long,
        alias = "ranks",
        value_name = "IDSET",
        default_value = "all"
    )]
    rank: String,
    /// Ranks to leave out
    #[arg(short = 'x', long, value_name = "IDSET")]
    exclude: Option<String>,
    /// Start the processes, print their ids and leave
    #[arg(long)]
    bg: bool,
    /// With --bg: keep the exit status for `flux sproc wait`
    #[arg(long, requires = "bg")]
    waitable: bool,
    /// Attach to a background process; the argument is its id or label
    #[arg(long, conflicts_with_all = ["bg", "waitable", "label"])]
    attach: bool,
    /// Name the processes
    #[arg(long, value_name = "LABEL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    label: Option<String>,
    /// Set an option of the processes, such as stdin_BUFSIZE
    #[arg(long, value_name = "NAME=VALUE")]
    setopt: Vec<String>,
    /// Run the command with the IMP that the configuration names
    #[arg(long, conflicts_with = "attach")]
    with_imp: bool,
    /// Working directory ("none": the brokers')
    #[arg(short, long, value_name = "PATH")]
    dir: Option<String>,
    /// Put the rank before each line of output
    #[arg(short, long)]
    label_io: bool,
    /// No standard input
    #[arg(short, long)]
    noinput: bool,
    /// Say what is done
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Do not list failed ranks at the end
    #[arg(short, long)]
    quiet: bool,
    /// The service, instead of rexec
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Run in a job: on its nodes, which --rank and --exclude count from 0
    #[arg(short, long, value_name = "JOBID")]
    jobid: Option<String>,
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// A process somewhere.
#[derive(Default)]
struct Process {
    tag: u32,
    pid: Option<i32>,
    /// Bytes it can take; a server that announces no credit takes any number.
    credit: Option<i64>,
    /// Unfinished lines of stdout and stderr, when lines are labelled.
    partial: [Vec<u8>; 2],
}

/// Everything that runs.
struct Session<'a> {
    handle: &'a Handle,
    options: &'a Options,
    service: String,
    running: BTreeMap<u32, Process>,
    /// Ranks by how they failed.
    failed: BTreeMap<String, Idset>,
    code: u8,
    start: Instant,
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(exec(options))
}

/// The IMP of the configuration.
async fn imp(handle: &Handle) -> Result<String, Failure> {
    let config: Value = handle.call("config.get", Node::Any, &json!({})).await?;
    let path = config["exec"]["imp"].as_str();
    path.map(str::to_owned)
        .ok_or_else(|| Failure::new("--with-imp: exec.imp path not found in config"))
}

async fn exec(options: Options) -> Outcome {
    let handle = Handle::open(None).await?;
    let (_, size) = handle.locate().await?;
    let job = match &options.jobid {
        Some(jobid) => Some(Job::find(&handle, jobid).await?),
        None => None,
    };
    let ranks = match &job {
        Some(job) => job.targets(&options)?,
        None => among(&options.rank, options.exclude.as_deref(), size)?,
    };
    let service = options.service.clone();
    let service = service.or(job.map(|job| job.service));
    let service = service.unwrap_or_else(|| "rexec".into());
    let mut env: HashMap<String, String> = std::env::vars().collect();
    env.remove("FLUX_PROXY_REMOTE");
    let mut cmdline = options.command.clone();
    if options.with_imp {
        cmdline.splice(0..0, [imp(&handle).await?, "run".to_owned()]);
    }
    let mut cmd = json!({
        "cmdline": cmdline,
        "env": env,
        "opts": {},
        "channels": [],
    });
    match options.dir.as_deref() {
        Some("none") => {}
        Some(dir) => cmd["cwd"] = dir.into(),
        None => cmd["cwd"] = std::env::current_dir()?.to_string_lossy().into(),
    }
    for option in &options.setopt {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("--setopt: '{option}' is not NAME=VALUE")))?;
        cmd["opts"][name] = value.into();
    }
    if let Some(label) = &options.label {
        cmd["label"] = label.as_str().into();
    }
    let input = !options.noinput && !options.bg && !options.attach;
    let mut flags = FLAG_STDOUT | FLAG_STDERR;
    if input {
        flags |= FLAG_CREDIT;
    }
    let method = if options.attach { "attach" } else { "exec" };
    let topic = format!("{service}.{method}");
    let mut session = Session {
        handle: &handle,
        options: &options,
        service,
        running: BTreeMap::new(),
        failed: BTreeMap::new(),
        code: 0,
        start: Instant::now(),
    };
    if options.verbose > 0 {
        let ids: Idset = ranks.iter().copied().collect();
        session.say(&format!("Starting {} on {ids}", options.command[0]));
    }
    if options.bg {
        let flags = if options.waitable { FLAG_WAITABLE } else { 0 };
        let request = json!({ "cmd": cmd, "flags": flags });
        return background(&handle, &topic, &ranks, &request).await;
    }
    let request = match options.attach {
        false => json!({ "cmd": cmd, "flags": flags }),
        true => {
            let [name] = &options.command[..] else {
                return Err(Failure::new(
                    "--attach takes a single pid or label argument",
                ));
            };
            let mut request = super::sproc::target(name);
            if request.get("label").is_none() && ranks.len() > 1 {
                let text = "--attach by pid requires a single target rank (use --rank)";
                return Err(Failure::new(text));
            }
            request["flags"] = flags.into();
            request
        }
    };
    let mut streams = SelectAll::new();
    for rank in ranks {
        let stream = handle.stream(&topic, Node::Rank(rank), &request);
        let process = Process {
            tag: stream.matchtag(),
            ..Process::default()
        };
        session.running.insert(rank, process);
        streams.push(answers(rank, stream).boxed());
    }
    if options.verbose > 0 {
        session.say("Sent all requests");
    }
    if !input && !options.attach {
        session.write(b"", true);
    }
    let total = session.running.len();
    let mut stdin = input.then(read_stdin);
    let mut signals = crate::attach::signals()?;
    let mut interrupts: Vec<Instant> = Vec::new();
    while !session.running.is_empty() {
        let credit = session.credit();
        tokio::select! {
            Some((rank, answer)) = streams.next() => session.answer(rank, answer)?,
            data = next_input(&mut stdin), if stdin.is_some() && credit >= CHUNK as i64 => {
                match data {
                    Some(data) => session.write(&data, false),
                    None => {
                        session.write(b"", true);
                        stdin = None;
                    }
                }
            }
            Some(signum) = signals.recv() => {
                if signum == libc::SIGINT && options.attach {
                    let name = &options.command[0];
                    eprintln!("flux-exec: detached from {name}; to end it: flux sproc kill 15 {name}");
                    return Ok(session.code);
                }
                if signum == libc::SIGINT {
                    interrupts.push(Instant::now());
                    if let [.., a, b] = interrupts[..] && interrupts.len() > 2 && b - a < INTERRUPT {
                        let ids: Idset = session.running.keys().copied().collect();
                        eprintln!("{}: command still running at exit", ids.to_string_brackets());
                        return Ok(1);
                    }
                    if interrupts.len() > 1 {
                        eprintln!("interrupt (Ctrl+C) one more time within 1 sec to exit");
                    }
                }
                session.kill(signum);
            }
        }
    }
    if options.verbose > 0 {
        session.say(&format!(
            "{total} tasks complete with code {}",
            session.code
        ));
    }
    if !options.quiet {
        for (how, ranks) in &session.failed {
            eprintln!("{}: {how}", ranks.to_string_brackets());
        }
    }
    Ok(session.code)
}

/// Start processes that outlive the command; they are ended by their server.
async fn background(
    handle: &Handle,
    topic: &str,
    ranks: &BTreeSet<u32>,
    request: &Value,
) -> Outcome {
    #[derive(Deserialize)]
    struct Started {
        pid: i32,
    }
    let calls = ranks.iter().map(|rank| {
        let call = handle.call::<Started>(topic, Node::Rank(*rank), request);
        async move { (*rank, call.await) }
    });
    let mut code = 0;
    for (rank, answer) in futures::future::join_all(calls).await {
        match answer {
            Ok(Started { pid }) => output::outln!("{rank}: {pid}"),
            Err(e) => {
                eprintln!("flux-exec: Error: rank {rank}: {}", rpc_text(&e));
                code = 1;
            }
        }
    }
    Ok(code)
}

type Answer = Option<Result<wire::Message, wire::RpcError>>;

/// The responses of one rank; `None` is their end.
fn answers(rank: u32, stream: RpcStream) -> impl futures::Stream<Item = (u32, Answer)> {
    futures::stream::unfold(Some(stream), move |stream| async move {
        let mut stream = stream?;
        let answer = stream.next().await;
        let more = matches!(answer, Some(Ok(_)));
        Some(((rank, answer), more.then_some(stream)))
    })
}

/// Reads standard input in a thread of its own: a terminal cannot be polled without side effects.
pub(crate) fn read_stdin() -> Receiver<Vec<u8>> {
    // One chunk ahead keeps the reader no further than the credit allows.
    let (tx, rx) = channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        // An error reads like the end.
        while let Ok(n @ 1..) = stdin.read(&mut buffer) {
            if tx.blocking_send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    rx
}

pub(crate) async fn next_input(stdin: &mut Option<Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match stdin {
        Some(rx) => rx.recv().await,
        None => std::future::pending().await,
    }
}

impl Session<'_> {
    fn say(&self, text: &str) {
        eprintln!(
            "{:.3}ms: {text}",
            self.start.elapsed().as_secs_f64() * 1000.
        );
    }

    /// Bytes that every running process can take.
    fn credit(&self) -> i64 {
        let credit = |p: &Process| match (p.pid, p.credit) {
            (_, Some(credit)) => credit,
            (Some(_), None) => i64::MAX,
            (None, None) => 0,
        };
        self.running.values().map(credit).min().unwrap_or(0)
    }

    fn write(&mut self, data: &[u8], eof: bool) {
        let topic = format!("{}.write", self.service);
        for (rank, process) in &mut self.running {
            if let Some(credit) = &mut process.credit {
                *credit -= data.len() as i64;
            }
            let io = IoData {
                stream: "stdin".into(),
                rank: rank.to_string(),
                data: data.to_vec(),
                eof,
            };
            let request = json!({ "matchtag": process.tag, "io": io });
            self.handle.notify(&topic, Node::Rank(*rank), &request);
        }
    }

    fn kill(&self, signum: i32) {
        let topic = format!("{}.kill", self.service);
        if self.options.verbose > 0 {
            let n = self.running.len();
            eprintln!("sending signal {signum} to {n} running processes");
        }
        for (rank, process) in &self.running {
            if let Some(pid) = process.pid {
                let request = json!({ "pid": pid, "signum": signum });
                // A process that is gone already needs no signal.
                drop(self.handle.rpc(&topic, Node::Rank(*rank), &request));
            }
        }
    }

    fn answer(&mut self, rank: u32, answer: Answer) -> Result<(), Failure> {
        match answer {
            None => {
                if let Some(process) = self.running.remove(&rank) {
                    for (which, rest) in process.partial.iter().enumerate() {
                        if !rest.is_empty() {
                            print(which, rest);
                        }
                    }
                }
            }
            Some(Err(e)) => {
                self.running.remove(&rank);
                let program = &self.options.command[0];
                let (code, what) = match e.errno {
                    libc::ENOENT => (127, format!("{program}: error launching process: ")),
                    libc::EACCES | libc::EPERM => {
                        (126, format!("{program}: error launching process: "))
                    }
                    libc::EHOSTUNREACH => (68, format!("{program}: ")),
                    _ => (1, format!("{program}: ")),
                };
                let why = match self.options.attach {
                    true => rpc_text(&e),
                    false => crate::error::strerror(e.errno),
                };
                eprintln!("flux-exec: Error: rank {rank}: {what}{why}");
                self.code = self.code.max(code);
            }
            Some(Ok(msg)) => {
                let response = msg.json()?;
                self.response(rank, response)?;
            }
        }
        Ok(())
    }

    fn response(&mut self, rank: u32, response: ExecResponse) -> Result<(), Failure> {
        let Some(process) = self.running.get_mut(&rank) else {
            return Ok(());
        };
        match response {
            ExecResponse::Started { pid } => process.pid = Some(pid),
            ExecResponse::Attached { pid, .. } => {
                process.pid = Some(pid);
                if self.options.verbose > 0 {
                    self.say(&format!("attached to pid {pid} on rank {rank}"));
                }
            }
            ExecResponse::Stopped | ExecResponse::Other => {}
            ExecResponse::AddCredit { channels } => {
                let more = channels.get("stdin").copied().unwrap_or(0);
                process.credit = Some(process.credit.unwrap_or(0) + more);
            }
            ExecResponse::Output { io, .. } => {
                let which = usize::from(io.stream == "stderr");
                let bytes = io.data;
                if !self.options.label_io {
                    print(which, &bytes);
                    return Ok(());
                }
                let partial = &mut process.partial[which];
                partial.extend(bytes);
                while let Some(at) = partial.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = partial.drain(..=at).collect();
                    print_line(which, rank, &line);
                }
                if io.eof && !partial.is_empty() {
                    print_line(which, rank, &std::mem::take(partial));
                }
            }
            ExecResponse::Finished { status } => {
                let status = WaitStatus(status);
                let code = status.exit_code() as u8;
                self.code = self.code.max(code);
                if code > 0 {
                    let how = match status.signal() {
                        Some(signum) => formats::signals::describe(signum),
                        None => format!("Exit {code}"),
                    };
                    self.failed.entry(how).or_default().insert(rank);
                }
            }
        }
        Ok(())
    }
}

fn print_line(which: usize, rank: u32, line: &[u8]) {
    let mut text = format!("{rank}: ").into_bytes();
    text.extend_from_slice(line);
    print(which, &text);
}

fn print(which: usize, bytes: &[u8]) {
    output::write_to(["stdout", "stderr"][which], bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        let r: ExecResponse =
            serde_json::from_str(r#"{"type":"add-credit","channels":{"stdin":9}}"#).unwrap();
        assert!(matches!(r, ExecResponse::AddCredit { channels } if channels["stdin"] == 9));
        let io: IoData = serde_json::from_str(
            r#"{"stream":"stdout","rank":"0","data":"aGk=","encoding":"base64"}"#,
        )
        .unwrap();
        assert_eq!(io.data, b"hi");
    }
}
