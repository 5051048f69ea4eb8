//! Standard output and error of the tasks, RFC 24.
//!
//! Each stream of each task has a [`Sink`]. The leader's sinks append to the `output` eventlog
//! or write files; the other shells send what their tasks print to the leader's `write` method,
//! unless the path of a file differs by node or task: then every shell writes its own.
//! A write is done when the sink has taken the data, which makes a fast task wait for a slow
//! sink instead of filling memory.

use crate::{
    Fatal,
    kvslog::KvsLog,
    options::{Options, StreamOptions},
    remote::Remote,
    seat::Dir,
    template::{Scope, TaskTag},
};
use formats::IoData;
use serde_json::{Map, Value, json};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    rc::Rc,
};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The name of an output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    pub fn from_name(name: &str) -> Option<Stream> {
        match name {
            "stdout" => Some(Stream::Stdout),
            "stderr" => Some(Stream::Stderr),
            _ => None,
        }
    }
}

/// A line longer than this is passed on in pieces.
const LINE_MAX: usize = 64 << 10;

/// Cuts a byte stream into lines.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes a chunk and returns the lines that it completes, newlines included.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in chunk.split_inclusive(|c| *c == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                lines.push(std::mem::take(&mut self.partial));
            }
        }
        lines
    }

    /// What is left without a newline at the end of the stream.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then(|| std::mem::take(&mut self.partial))
    }
}

/// Counts the bytes of a stream against the limit of the KVS.
#[derive(Debug)]
pub struct Limit {
    max: u64,
    seen: Cell<u64>,
}

impl Limit {
    pub fn new(max: u64) -> Limit {
        Limit {
            max,
            seen: Cell::new(0),
        }
    }

    /// Whether `len` more bytes fit; and whether these are the first that do not.
    fn take(&self, len: usize) -> (bool, bool) {
        let before = self.seen.get();
        let after = before + len as u64;
        self.seen.set(after);
        (after <= self.max, before <= self.max && after > self.max)
    }

    /// How much of the stream was cut off, and its whole length.
    pub fn excess(&self) -> Option<(u64, u64)> {
        let seen = self.seen.get();
        (seen > self.max).then(|| (seen - self.max, seen))
    }
}

/// An open output file. Tasks that render to the same path share it.
#[derive(Debug)]
pub struct OutputFile {
    file: RefCell<File>,
    label: bool,
}

impl OutputFile {
    fn write(&self, rank: &str, data: &[u8]) -> std::io::Result<()> {
        let mut file = self.file.borrow_mut();
        if !self.label {
            return file.write_all(data);
        }
        // One write for label and data, so that appending shells do not interleave.
        let mut text = format!("{rank}: ").into_bytes();
        text.extend_from_slice(data);
        file.write_all(&text)
    }

    /// Writes a line that is not a task's.
    pub fn write_line(&self, line: &str) {
        // There is no other place left to report to when the log itself cannot be written.
        let _ = self
            .file
            .borrow_mut()
            .write_all(format!("{line}\n").as_bytes());
    }
}

/// Where data of a stream goes.
#[derive(Clone)]
pub enum Sink {
    Kvs { log: KvsLog, limit: Rc<Limit> },
    File(Rc<OutputFile>),
    Leader(Remote),
}

impl Sink {
    /// Passes data on. Returns a complaint for the log, if there is one.
    pub async fn write(&self, io: IoData) -> Option<String> {
        match self {
            Sink::Kvs { log, limit } => {
                let (fits, first) = limit.take(io.data.len());
                if fits || io.eof {
                    log.append("output", "data", Value::Object(io.to_context()))
                        .await;
                }
                first.then(|| format!("{} will be truncated, limit exceeded", io.stream))
            }
            Sink::File(file) => {
                let written = file.write(&io.rank, &io.data);
                written
                    .err()
                    .map(|e| format!("writing {} of task {}: {e}", io.stream, io.rank))
            }
            Sink::Leader(remote) => {
                remote.send("data", io.to_context()).await;
                None
            }
        }
    }

    /// Passes a log entry on to the leader; sinks of the leader itself have other ways.
    pub async fn send_log(&self, context: Map<String, Value>) {
        if let Sink::Leader(remote) = self {
            remote.send("log", context).await;
            remote.flush().await;
        }
    }

    /// Waits until another shell has what was written.
    async fn deliver(&self) {
        if let Sink::Leader(remote) = self {
            remote.flush().await;
        }
    }
}

/// All sinks of this shell.
pub struct Output {
    sinks: HashMap<(Stream, u32), Sink>,
    /// Where the data of other shells goes.
    shared: HashMap<Stream, Sink>,
    pub limits: Vec<(Stream, Rc<Limit>)>,
}

/// How the sinks that are not files work.
pub enum Route {
    Leader(KvsLog),
    Remote(Sink),
}

impl Output {
    /// Opens the files and makes a sink for each stream of each task.
    pub fn open(
        options: &Options,
        dir: &Dir,
        scope: Scope,
        tasks: &[TaskTag],
        route: &Route,
        default_limit: u64,
    ) -> Result<Output, Fatal> {
        let mut files: HashMap<String, Rc<OutputFile>> = HashMap::new();
        let mut out = Output {
            sinks: HashMap::new(),
            shared: HashMap::new(),
            limits: Vec::new(),
        };
        for (stream, conf) in [
            (Stream::Stdout, &options.output.stdout),
            (Stream::Stderr, &options.output.stderr),
        ] {
            let max = options.output.limit.unwrap_or(default_limit);
            let limit = Rc::new(Limit::new(max));
            out.limits.push((stream, limit.clone()));
            for (i, task) in tasks.iter().enumerate() {
                let sink = match (&conf.path, route) {
                    (Some(path), Route::Leader(_)) => {
                        Sink::File(open_file(&mut files, dir, conf, path, scope, *task)?)
                    }
                    (Some(path), Route::Remote(_)) if conf.per_shell => {
                        Sink::File(open_file(&mut files, dir, conf, path, scope, *task)?)
                    }
                    (_, Route::Leader(log)) => Sink::Kvs {
                        log: log.clone(),
                        limit: limit.clone(),
                    },
                    (_, Route::Remote(sink)) => sink.clone(),
                };
                if i == 0 {
                    out.shared.insert(stream, sink.clone());
                }
                out.sinks.insert((stream, task.rank), sink);
            }
        }
        Ok(out)
    }

    pub fn sink(&self, stream: Stream, task: u32) -> Option<Sink> {
        self.sinks.get(&(stream, task)).cloned()
    }

    /// The sink for data and messages that are not of a local task.
    pub fn shared(&self, stream: Stream) -> Option<Sink> {
        self.shared.get(&stream).cloned()
    }
}

fn open_file(
    files: &mut HashMap<String, Rc<OutputFile>>,
    dir: &Dir,
    conf: &StreamOptions,
    template: &str,
    scope: Scope,
    task: TaskTag,
) -> Result<Rc<OutputFile>, Fatal> {
    let path = Scope {
        task: Some(task),
        ..scope
    }
    .render(template);
    if let Some(file) = files.get(&path) {
        return Ok(file.clone());
    }
    let mut options = OpenOptions::new();
    options.create(true).write(true).mode(0o644);
    if conf.append {
        options.append(true);
    } else {
        options.truncate(true);
    }
    let file = options.open(dir.path(&path)).map_err(|e| {
        Fatal::new(format!(
            "error opening output file '{path}': {}",
            crate::log::os_error(&e)
        ))
    })?;
    let file = Rc::new(OutputFile {
        file: RefCell::new(file),
        label: conf.label,
    });
    files.insert(path, file.clone());
    Ok(file)
}

/// The events that open the `output` log.
pub fn opening_events(options: &Options, scope: Scope) -> Vec<(&'static str, Value)> {
    let ntasks = scope.info.ntasks;
    let header = json!({
        "version": 1,
        "encoding": {"stdout": "UTF-8", "stderr": "UTF-8"},
        "count": {"stdout": ntasks, "stderr": ntasks},
        "options": {},
    });
    let mut events = vec![("header", header)];
    for (stream, conf) in [
        ("stdout", &options.output.stdout),
        ("stderr", &options.output.stderr),
    ] {
        if let Some(path) = &conf.path {
            // Tags of single nodes or tasks stay unrendered: the event speaks for all.
            let path = Scope {
                shell_rank: u32::MAX,
                task: None,
                ..scope
            }
            .render(path);
            let rank = formats::Idset::from_range(0, ntasks - 1).to_string_brackets();
            events.push((
                "redirect",
                json!({"stream": stream, "rank": rank, "path": path}),
            ));
        }
    }
    events
}

/// Copies a stream of a task to its sink until its end.
pub async fn pump(
    mut source: impl AsyncRead + Unpin,
    stream: Stream,
    rank: u32,
    line_buffered: bool,
    sink: Sink,
    complain: impl Fn(String),
) {
    let rank = rank.to_string();
    let data = |data: Vec<u8>, eof| IoData {
        stream: stream.name().to_owned(),
        rank: rank.clone(),
        data,
        eof,
    };
    let mut lines = Lines::default();
    let mut chunk = vec![0; LINE_MAX];
    loop {
        let n = match source.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let pieces = if line_buffered {
            lines.push(&chunk[..n])
        } else {
            vec![chunk[..n].to_vec()]
        };
        for piece in pieces {
            if let Some(complaint) = sink.write(data(piece, false)).await {
                complain(complaint);
            }
        }
    }
    if let Some(rest) = lines.finish()
        && let Some(complaint) = sink.write(data(rest, false)).await
    {
        complain(complaint);
    }
    if !matches!(sink, Sink::File(_))
        && let Some(complaint) = sink.write(data(Vec::new(), true)).await
    {
        complain(complaint);
    }
    sink.deliver().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::{info, resources};
    use client::Handle;
    use formats::jobspec::JobspecBuilder;
    use proptest::prelude::*;

    #[test]
    fn lines() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"a\nb"), [b"a\n".to_vec()]);
        assert_eq!(lines.push(b"c\n\n"), [b"bc\n".to_vec(), b"\n".to_vec()]);
        assert_eq!(lines.push(b"x"), Vec::<Vec<u8>>::new());
        assert_eq!(lines.finish(), Some(b"x".to_vec()));
        assert_eq!(lines.finish(), None);
        assert_eq!(lines.push(&vec![b'y'; LINE_MAX + 1]).len(), 1);
    }

    proptest! {
        #[test]
        fn lines_lose_nothing(chunks in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..20), 0..20)) {
            let mut lines = Lines::default();
            let mut got: Vec<u8> = Vec::new();
            for chunk in &chunks {
                for line in lines.push(chunk) {
                    prop_assert!(line.ends_with(b"\n"));
                    got.extend(line);
                }
            }
            got.extend(lines.finish().unwrap_or_default());
            prop_assert_eq!(got, chunks.concat());
        }
    }

    #[test]
    fn limit() {
        let limit = Limit::new(10);
        assert_eq!(limit.take(10), (true, false));
        assert_eq!(limit.excess(), None);
        assert_eq!(limit.take(1), (false, true));
        assert_eq!(limit.take(1), (false, false));
        assert_eq!(limit.excess(), Some((2, 12)));
    }

    #[tokio::test]
    async fn labelled_shared_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.{{id.dec}}");
        let job = JobspecBuilder::new(["a"])
            .slots(2, 1, 0, None, false)
            .output(path.to_str().unwrap(), true);
        let info = info(job, &resources(&["0-1"], None), 3);
        let options = Options::read(&info).unwrap();
        let scope = Scope {
            info: &info,
            tmpdir: None,
            shell_rank: 0,
            task: None,
        };
        let tasks = [TaskTag { rank: 0, index: 0 }, TaskTag { rank: 1, index: 1 }];
        let (handle, _deliver) = Handle::with_sink(|_| true);
        let route = Route::Leader(KvsLog::start(
            handle,
            Default::default(),
            "job-1".into(),
            None,
        ));
        let out = Output::open(&options, &Dir::default(), scope, &tasks, &route, 100).unwrap();
        for (stream, rank, text) in [
            (Stream::Stdout, 0, "a\nb\n"),
            (Stream::Stderr, 1, "e\n"),
            (Stream::Stdout, 1, "tail"),
        ] {
            let sink = out.sink(stream, rank).unwrap();
            pump(text.as_bytes(), stream, rank, true, sink, |c| panic!("{c}")).await;
        }
        let text = std::fs::read_to_string(dir.path().join("out.1234")).unwrap();
        assert_eq!(text, "0: a\n0: b\n1: e\n1: tail");
        let events = opening_events(&options, scope);
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].1["count"], json!({"stdout": 2, "stderr": 2}));
        let want = path.to_str().unwrap().replace("{{id.dec}}", "1234");
        assert_eq!(
            events[2].1,
            json!({"stream": "stderr", "rank": "[0-1]", "path": want})
        );
    }
}
