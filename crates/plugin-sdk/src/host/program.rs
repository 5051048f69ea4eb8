//! A plugin that is a program: it is asked over its standard input and answers on its standard output, one JSON object a
//! line (docs/plugins.md).
//!
//! While one side waits for an answer it serves what the other asks meanwhile, so that calls nest as those of a shared
//! object do. A program that ends, says nonsense or keeps silent too long is *broken*: it is killed and not called again.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use wire::Glob;

use super::plugin::{LoadError, lock};
use super::services::{Failure, Services};
use crate::args::Args;

/// A line longer than this is nonsense: nothing that jobs are made of comes near it.
const LONGEST: usize = 64 << 20;
/// How long a program may take for an answer, if `program-timeout` of its configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a program may take to end once nobody talks to it.
const FAREWELL: Duration = Duration::from_millis(500);

/// One thing a program says.
#[derive(Debug, PartialEq)]
enum Said {
    /// The answer to the call it was given last.
    Return(i32, Map<String, Value>),
    Ask(String, Value),
    Log(i32, String),
}

impl Said {
    fn parse(line: &[u8]) -> Result<Self, String> {
        let shown = || String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        let mut map: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|e| format!("said what is not a JSON object ({e}): {}", shown()))?;
        let number = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok());
        if let Some(method) = map.get("ask").and_then(Value::as_str) {
            let method = method.to_owned();
            let params = map.remove("params").unwrap_or_else(|| json!({}));
            return Ok(Self::Ask(method, params));
        }
        if let Some(code) = map.get("return").and_then(number) {
            return match map.remove("out") {
                None | Some(Value::Null) => Ok(Self::Return(code, Map::new())),
                Some(Value::Object(out)) => Ok(Self::Return(code, out)),
                Some(_) => Err(format!(
                    "returned an `out` that is not an object: {}",
                    shown()
                )),
            };
        }
        match (map.get("log").and_then(number), map.get("text")) {
            (Some(severity), Some(Value::String(text))) => Ok(Self::Log(severity, text.clone())),
            _ => Err(format!("said nothing known: {}", shown())),
        }
    }
}

/// Lines out of a stream of bytes.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    whole: VecDeque<Vec<u8>>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        self.rest.extend(parts.next().unwrap_or_default());
        for part in parts {
            let line = std::mem::replace(&mut self.rest, part.to_vec());
            self.whole.push_back(line);
        }
    }

    /// The next line that is not empty.
    fn pop(&mut self) -> Option<Vec<u8>> {
        std::iter::from_fn(|| self.whole.pop_front()).find(|line| !line.is_empty())
    }
}

/// What a program is started with.
pub struct Start<'a> {
    /// The plugin, for people and for itself.
    pub path: &'a Path,
    /// What is run.
    pub command: Command,
    pub serial: u64,
    pub conf: Map<String, Value>,
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    serial: u64,
    name: Mutex<String>,
    globs: Mutex<Vec<(String, Glob)>>,
    changes: AtomicU64,
    socket: UnixStream,
    lines: Mutex<Lines>,
    child: Mutex<Child>,
    timeout: Duration,
    broken: Mutex<Option<String>>,
}

impl Program {
    /// Start a program and let it say what it handles.
    pub fn start(start: Start<'_>, services: &mut dyn Services) -> Result<Self, LoadError> {
        let Start {
            path,
            mut command,
            serial,
            conf,
        } = start;
        let failed = |e: io::Error| LoadError::Open(e.to_string());
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let input = OwnedFd::from(theirs.try_clone().map_err(failed)?);
        command
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn().map_err(failed)?;
        // Its ends of the socket are the program's alone from here on.
        drop(command);
        let seconds = conf.get("program-timeout").and_then(Value::as_f64);
        let timeout = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let program = Self {
            serial,
            name: Mutex::new(stem.into_owned()),
            globs: Mutex::default(),
            changes: AtomicU64::new(0),
            socket: ours,
            lines: Mutex::default(),
            child: Mutex::new(child),
            timeout: timeout.unwrap_or(TIMEOUT),
            broken: Mutex::default(),
        };
        let path: PathBuf = path.to_owned();
        let init = json!({ "path": path.to_string_lossy(), "conf": conf });
        let Value::Object(init) = init else {
            return Err(LoadError::NoEntry);
        };
        let mut args = Args::new(init);
        match program.exchange("init", &mut args, services) {
            0.. => Ok(program),
            _ => Err(LoadError::Refused(
                args.error().unwrap_or_default().to_owned(),
            )),
        }
    }

    pub fn name(&self) -> String {
        lock(&self.name).clone()
    }

    /// Counts changes of what it handles.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Whether it asked for a topic.
    pub fn handles(&self, topic: &str) -> bool {
        lock(&self.broken).is_none() && lock(&self.globs).iter().any(|(_, g)| g.matches(topic))
    }

    /// Why it is not called any more.
    pub fn broken(&self) -> Option<String> {
        lock(&self.broken).clone()
    }

    /// What becomes readable when it says something by itself; then [`Program::listen`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Call it, if it asked for the topic.
    pub fn call(&self, topic: &str, args: &mut Args, services: &mut dyn Services) -> Option<i32> {
        self.handles(topic)
            .then(|| self.exchange(topic, args, services))
    }

    /// Serve what it has said by itself.
    pub fn listen(&self, services: &mut dyn Services) {
        loop {
            let said = match self.next(None) {
                Ok(Some(said)) => said,
                Ok(None) => return,
                Err(why) => return self.give_up(why),
            };
            let served = match said {
                Said::Return(..) => Err("returned from a call that nobody made".to_owned()),
                said => self.serve(said, services),
            };
            if let Err(why) = served {
                return self.give_up(why);
            }
        }
    }

    fn exchange(&self, topic: &str, args: &mut Args, services: &mut dyn Services) -> i32 {
        match self.try_exchange(topic, args, services) {
            Ok(code) => code,
            Err(why) => {
                args.output.insert("errmsg".to_owned(), why.clone().into());
                self.give_up(why);
                -1
            }
        }
    }

    fn try_exchange(
        &self,
        topic: &str,
        args: &mut Args,
        services: &mut dyn Services,
    ) -> Result<i32, String> {
        let mut call = json!({ "call": topic, "args": args.input });
        if !args.output.is_empty() {
            call["out"] = Value::Object(args.output.clone());
        }
        self.say(&call)?;
        loop {
            let deadline = Instant::now() + self.timeout;
            let said = self.next(Some(deadline))?.ok_or_else(|| {
                let seconds = self.timeout.as_secs_f64();
                format!("did not answer to {topic} within {seconds} s")
            })?;
            match said {
                Said::Return(code, out) => {
                    args.set(true, false, out);
                    return Ok(code);
                }
                said => self.serve(said, services)?,
            }
        }
    }

    fn serve(&self, said: Said, services: &mut dyn Services) -> Result<(), String> {
        let (method, params) = match said {
            Said::Ask(method, params) => (method, params),
            Said::Log(severity, text) => {
                services.log(self.serial, severity, &text);
                return Ok(());
            }
            Said::Return(..) => return Ok(()),
        };
        let answer = match self.own(&method, &params) {
            Some(answer) => answer,
            None => services.ask(self.serial, &method, params),
        };
        self.say(&match answer {
            Ok(answer) => json!({ "answer": answer }),
            Err(Failure { errno, message }) => {
                json!({ "error": { "errno": errno, "message": message } })
            }
        })
    }

    /// What concerns the program itself.
    fn own(&self, method: &str, params: &Value) -> Option<Result<Value, Failure>> {
        let text = |key: &str| params.get(key).and_then(Value::as_str).map(str::to_owned);
        let missing = |key| Err(Failure::invalid(format!("{method}: no text {key:?}")));
        Some(match (method, text("topic"), text("name")) {
            ("handle", Some(topic), _) => {
                let glob = Glob::new(&topic);
                lock(&self.globs).push((topic, glob));
                self.changes.fetch_add(1, Ordering::Relaxed);
                Ok(Value::Null)
            }
            ("unhandle", Some(topic), _) => {
                lock(&self.globs).retain(|(text, _)| *text != topic);
                self.changes.fetch_add(1, Ordering::Relaxed);
                Ok(Value::Null)
            }
            ("name", _, Some(name)) => {
                *lock(&self.name) = name;
                Ok(Value::Null)
            }
            ("handle" | "unhandle", None, _) => missing("topic"),
            ("name", _, None) => missing("name"),
            _ => return None,
        })
    }

    fn say(&self, what: &Value) -> Result<(), String> {
        let mut line = what.to_string().into_bytes();
        line.push(b'\n');
        let deadline = Instant::now() + self.timeout;
        let mut rest = &line[..];
        while !rest.is_empty() {
            match (&self.socket).write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // It may be writing to us itself.
                    self.take_in()?;
                    if !self.wait(libc::POLLOUT | libc::POLLIN, deadline)? {
                        return Err("does not read what it is asked".to_owned());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.ended(&e.to_string())),
            }
        }
        Ok(())
    }

    /// The next thing it says; none if there is nothing, or until the deadline.
    fn next(&self, deadline: Option<Instant>) -> Result<Option<Said>, String> {
        loop {
            let line = lock(&self.lines).pop();
            if let Some(line) = line {
                return Said::parse(&line).map(Some);
            }
            if self.take_in()? {
                continue;
            }
            match deadline {
                Some(deadline) if self.wait(libc::POLLIN, deadline)? => {}
                _ => return Ok(None),
            }
        }
    }

    /// Read what there is, without waiting; whether there was something.
    fn take_in(&self) -> Result<bool, String> {
        let mut buffer = [0; 16 << 10];
        loop {
            match io::Read::read(&mut &self.socket, &mut buffer) {
                Ok(0) => return Err(self.ended("closed its output")),
                Ok(n) => {
                    let mut lines = lock(&self.lines);
                    lines.push(&buffer[..n]);
                    if lines.rest.len() > LONGEST {
                        return Err("said a line without end".to_owned());
                    }
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.ended(&e.to_string())),
            }
        }
    }

    fn wait(&self, events: i16, deadline: Instant) -> Result<bool, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.as_millis().min(i32::MAX as u128) as i32;
        let mut poll = libc::pollfd {
            fd: self.socket.as_raw_fd(),
            events,
            revents: 0,
        };
        // SAFETY: one descriptor, which is open.
        match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
            0 => Ok(false),
            1.. => Ok(true),
            _ => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => Ok(true),
                e => Err(e.to_string()),
            },
        }
    }

    /// How it ended, if it has, or is about to.
    fn ended(&self, otherwise: &str) -> String {
        match await_end(&mut lock(&self.child)) {
            Some(status) => format!("ended: {status}"),
            None => otherwise.to_owned(),
        }
    }

    fn give_up(&self, why: String) {
        lock(&self.broken).get_or_insert(why);
        self.changes.fetch_add(1, Ordering::Relaxed);
        let mut child = lock(&self.child);
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Program {
    /// The end of its input tells it to end; it may clean up first, but not for long.
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if await_end(child).is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How a program ended that has no more to say; none if it takes longer than that may take.
fn await_end(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + FAREWELL;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_programs_say() {
        let parse = |text: &str| Said::parse(text.as_bytes());
        let out: Map<String, Value> = serde_json::from_str(r#"{"priority":1}"#).unwrap();
        assert_eq!(
            parse(r#"{"return":-1,"out":{"priority":1}}"#),
            Ok(Said::Return(-1, out))
        );
        assert_eq!(parse(r#"{"return":0}"#), Ok(Said::Return(0, Map::new())));
        assert_eq!(
            parse(r#"{"ask":"x"}"#),
            Ok(Said::Ask("x".to_owned(), json!({})))
        );
        assert_eq!(
            parse(r#"{"log":3,"text":"a"}"#),
            Ok(Said::Log(3, "a".to_owned()))
        );
        for bad in [
            "",
            "1",
            "[]",
            "{}",
            r#"{"return":"0"}"#,
            r#"{"return":0,"out":1}"#,
            r#"{"log":3}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_said_is_too_odd(line: Vec<u8>) {
            let _ = Said::parse(&line);
        }

        #[test]
        fn lines_are_the_same_however_they_come(text in "[ab\n]{0,40}", at in 0usize..40) {
            let at = at.min(text.len());
            let (mut cut, mut whole) = (Lines::default(), Lines::default());
            cut.push(&text.as_bytes()[..at]);
            cut.push(&text.as_bytes()[at..]);
            whole.push(text.as_bytes());
            loop {
                let (a, b) = (cut.pop(), whole.pop());
                prop_assert_eq!(&a, &b);
                if a.is_none() { break; }
            }
        }
    }
}
