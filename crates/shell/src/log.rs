//! Messages of the shell itself.
//!
//! Until output is set up they go to the shell's standard error, which job-exec records. After
//! that they become `log` events in the job's `output` log, or lines in the file that takes the
//! tasks' standard error.

use crate::output::{Output, Sink, Stream};
use serde_json::{Map, Value, json};
use std::{
    cell::RefCell,
    io::{self, Write as _},
    rc::Rc,
};

/// Severity, as in RFC 5424. The three levels up to critical are fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Fatal = 0,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Debug = 6,
    Trace = 7,
}

impl Level {
    /// The level of a severity of syslog.
    pub fn from_severity(severity: i64) -> Level {
        match severity {
            ..=2 => Level::Fatal,
            3 => Level::Error,
            4 => Level::Warning,
            5 => Level::Notice,
            6 => Level::Debug,
            _ => Level::Trace,
        }
    }

    fn label(self) -> Option<&'static str> {
        match self {
            Level::Fatal => Some("FATAL"),
            Level::Error => Some("ERROR"),
            Level::Warning => Some(" WARN"),
            Level::Notice => None,
            Level::Debug => Some("DEBUG"),
            Level::Trace => Some("TRACE"),
        }
    }
}

/// The system's text of an error, without the number that Rust appends.
pub fn os_error(e: &io::Error) -> String {
    e.raw_os_error()
        .map_or_else(|| e.to_string(), |errno| wire::strerror(errno).into_owned())
}

/// Writes to standard error, as far as anybody reads it.
fn write_line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says what cannot go where messages go.
pub fn complain(text: &str) {
    write_line(&format!("flux-shell: {text}"));
}

/// A message, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub level: Level,
    /// The plugin that has it to say.
    pub component: Option<String>,
    /// File and line of its source.
    pub place: Option<(String, u32)>,
    pub message: String,
}

impl Record {
    pub fn new(level: Level, message: impl Into<String>) -> Record {
        Record {
            level,
            component: None,
            place: None,
            message: message.into(),
        }
    }

    /// The context of a `log` event, RFC 24.
    fn context(&self, rank: Option<u32>) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
        if let Some(rank) = rank {
            put("rank", json!(rank));
        }
        put("level", json!(self.level as u8));
        if let Some(component) = &self.component {
            put("component", json!(component));
        }
        put("message", json!(self.message));
        if let Some((file, line)) = &self.place {
            put("file", json!(file));
            put("line", json!(line));
        }
        map
    }

    /// The line that stands for it in a file.
    pub(crate) fn line(&self, rank: Option<u32>) -> String {
        match &self.component {
            Some(component) => line(rank, self.level, &format!("{component}: {}", self.message)),
            None => line(rank, self.level, &self.message),
        }
    }
}

/// Sees each message before it is logged.
pub type Watcher = Rc<dyn Fn(&Map<String, Value>)>;

#[derive(Clone, Default)]
pub struct Logger(Rc<RefCell<Inner>>);

/// Takes lines for which there is no better place yet.
pub type EarlySink = Box<dyn Fn(&str)>;

#[derive(Default)]
struct Inner {
    verbose: u8,
    rank: Option<u32>,
    /// In the place of standard error.
    early: Option<EarlySink>,
    sink: Option<Sink>,
    watcher: Option<Watcher>,
}

fn line(rank: Option<u32>, level: Level, message: &str) -> String {
    let rank = rank.map(|r| format!("[{r}]")).unwrap_or_default();
    let label = level.label().map(|l| format!("{l}: ")).unwrap_or_default();
    format!("flux-shell{rank}: {label}{message}")
}

impl Logger {
    /// A logger in a process whose standard error is not the shell's own.
    pub fn with_early(early: EarlySink) -> Logger {
        let logger = Logger::default();
        logger.0.borrow_mut().early = Some(early);
        logger
    }

    /// Learns the shell's place and how much to say.
    pub fn set_place(&self, rank: u32, verbose: i64) {
        self.0.borrow_mut().rank = Some(rank);
        self.set_verbose(verbose);
    }

    pub fn set_verbose(&self, verbose: i64) {
        self.0.borrow_mut().verbose = verbose.clamp(0, 2) as u8;
    }

    pub fn verbose(&self) -> u8 {
        self.0.borrow().verbose
    }

    /// From now on messages go where the tasks' errors go.
    pub fn set_output(&self, output: &Output) {
        self.0.borrow_mut().sink = output.shared(Stream::Stderr);
    }

    /// From now on `watcher` sees what is logged.
    pub fn watch(&self, watcher: Watcher) {
        self.0.borrow_mut().watcher = Some(watcher);
    }

    /// Whether a message of this level is wanted.
    pub fn is_on(&self, level: Level) -> bool {
        level as u8 <= Level::Notice as u8 + self.0.borrow().verbose
    }

    pub async fn log(&self, level: Level, message: &str) {
        self.record(&Record::new(level, message)).await;
    }

    pub async fn record(&self, record: &Record) {
        if !self.is_on(record.level) || record.message.is_empty() {
            return;
        }
        let (rank, sink, watcher) = {
            let inner = self.0.borrow();
            (inner.rank, inner.sink.clone(), inner.watcher.clone())
        };
        if let Some(watch) = watcher {
            watch(&record.context(rank));
        }
        match &sink {
            None => match &self.0.borrow().early {
                Some(early) => early(&format!("{}\n", record.line(rank))),
                None => write_line(&record.line(rank)),
            },
            Some(Sink::Kvs { log, .. }) => {
                let context = Value::Object(record.context(rank));
                log.append("output", "log", context).await;
            }
            Some(Sink::File(file)) => file.write_line(&record.line(rank)),
            Some(sink) => sink.send_log(record.context(rank)).await,
        }
    }
}

/// The line that stands for a `log` event of another shell in an output file.
pub fn event_line(context: &Map<String, Value>) -> Option<String> {
    let level = Level::from_severity(context.get("level")?.as_i64()?);
    let rank = context
        .get("rank")
        .and_then(Value::as_u64)
        .map(|r| r as u32);
    let text = |key| context.get(key).and_then(Value::as_str);
    let record = Record {
        component: text("component").map(str::to_owned),
        ..Record::new(level, text("message")?)
    };
    Some(record.line(rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(line(None, Level::Error, "x"), "flux-shell: ERROR: x");
        assert_eq!(line(Some(3), Level::Notice, "x"), "flux-shell[3]: x");
        let context = json!({"rank": 1, "level": 0, "message": "m"});
        assert_eq!(
            event_line(context.as_object().unwrap()).as_deref(),
            Some("flux-shell[1]: FATAL: m")
        );
        let logger = Logger::default();
        assert!(logger.is_on(Level::Notice) && !logger.is_on(Level::Debug));
        logger.set_place(0, 2);
        assert!(logger.is_on(Level::Trace));
    }
}
