//! The broker's log: RFC 5424 entries in a bounded ring, shown by `flux dmesg`, and where else they go.
//!
//! An entry of this broker goes into the ring (`log-level`) and, if it is critical enough (`log-critical-level`), to
//! standard error at once. It is forwarded towards rank 0 (`log-forward-level`), which writes all it gets to
//! `log-filename` and shows it (`log-stderr-level`), unless each broker shows its own (`log-stderr-mode` is `local`).
//! The ring holds `log-ring-size` entries; older ones make room. Governing: flux-broker-attributes(7).

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;

use bytes::Bytes;
use client::Handle;
use client::services::log::{SEVERITIES, priority, severity};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;
use wire::{Message, RpcError};

use crate::attrs::Attrs;

/// An entry made here and now.
pub(crate) fn entry(rank: u32, level: i32, app: &str, text: &str) -> Bytes {
    let number = priority(level as u8);
    let now = Timestamp::now();
    Bytes::from(format!("<{number}>1 {now:.6} {rank} {app} - - - {text}"))
}

/// The parts of an entry that are used here.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    severity: i32,
    time: &'a str,
    host: &'a str,
    app: &'a str,
    text: &'a str,
}

fn parse(line: &str) -> Option<Parts<'_>> {
    let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
    let mut fields = rest.splitn(8, ' ');
    let _version = fields.next()?;
    let (time, host, app) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Parts {
        severity: severity(number.parse().ok()?) as i32,
        time,
        host,
        app,
        text: fields.nth(3)?,
    })
}

/// A line for people, or for the journal if the process that reads standard error is systemd.
fn line(entry: &str, journal: bool, zone: &TimeZone) -> String {
    let Some(p) = parse(entry) else {
        return entry.to_owned();
    };
    let name = SEVERITIES[p.severity as usize];
    let (app, host, text) = (p.app, p.host, p.text);
    if journal {
        return format!("<{}>{app}.{name}[{host}]: {text}", p.severity);
    }
    let time = match p.time.parse::<Timestamp>() {
        Ok(at) => at
            .to_zoned(zone.clone())
            .strftime("%b %d %H:%M:%S.%6f %Z %Y")
            .to_string(),
        Err(_) => p.time.to_owned(),
    };
    format!("{time} {app}.{name}[{host}]: {text}")
}

/// Severity and text of an entry for people who follow the log: `app.severity[rank]: text`.
pub(crate) fn plain(entry: &[u8]) -> Option<(i32, String)> {
    let text = String::from_utf8_lossy(entry);
    let p = parse(text.trim_end_matches(['\0', '\n']))?;
    let name = SEVERITIES[p.severity as usize];
    Some((
        p.severity,
        format!("{}.{name}[{}]: {}", p.app, p.host, p.text),
    ))
}

/// An attribute that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("attribute {name}: {why}, found {value:?}")]
pub(crate) struct LogAttributeError {
    name: &'static str,
    value: String,
    why: &'static str,
}

struct Reader<'a>(&'a Attrs);

impl Reader<'_> {
    fn bad(&self, name: &'static str, why: &'static str) -> LogAttributeError {
        let value = self.0.get(name).unwrap_or_default().to_owned();
        LogAttributeError { name, value, why }
    }

    fn level(&self, name: &'static str, default: i32) -> Result<i32, LogAttributeError> {
        match self.0.get(name) {
            None => Ok(default),
            // Negative is allowed: it is below every severity.
            Some(text) => level(text).ok_or_else(|| self.bad(name, LEVEL)),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, LogAttributeError> {
        match self.0.get(name) {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(self.bad(name, "expected 0 or 1")),
        }
    }
}

const LEVEL: &str = "expected a severity of at most 7 (debug)";

fn level(text: &str) -> Option<i32> {
    text.parse().ok().filter(|level| *level <= 7)
}

/// The entry as a text of RFC 3, which ends with a NUL.
fn terminated(entry: &Bytes) -> Bytes {
    match entry.last() {
        Some(0) => entry.clone(),
        _ => [entry, &b"\0"[..]].concat().into(),
    }
}

/// The log of one broker.
pub(crate) struct LogRing {
    entries: VecDeque<Bytes>,
    capacity: usize,
    rank: u32,
    level: i32,
    stderr_level: i32,
    critical_level: i32,
    forward_level: i32,
    /// Set if each broker shows its own entries.
    local: bool,
    file: Option<File>,
    syslog: Option<(i32, String)>,
    zone: TimeZone,
    followers: Vec<Message>,
    /// Entries of this broker and of others that have come so far.
    own: u64,
    others: u64,
}

impl LogRing {
    pub(crate) fn new(attrs: &Attrs) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let read = Reader(attrs);
        let size = "log-ring-size";
        let capacity = match attrs.get(size) {
            None => 1024,
            Some(text) => text
                .parse()
                .map_err(|_| read.bad(size, "expected a number of entries"))?,
        };
        let local = match attrs.get("log-stderr-mode") {
            None | Some("leader") => false,
            Some("local") => true,
            Some(_) => {
                return Err(read
                    .bad("log-stderr-mode", "expected leader or local")
                    .into());
            }
        };
        let rank: u32 = attrs.get("rank").and_then(|r| r.parse().ok()).unwrap_or(0);
        // Rank 0 gets what others forward, so it has the only file.
        let file = match attrs.get("log-filename").filter(|_| rank == 0) {
            Some(path) => Some(
                File::create(path).with_context(|| format!("attribute log-filename: {path}"))?,
            ),
            None => None,
        };
        let syslog_level = read.level("log-syslog-level", 3)?;
        let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
        let who = format!("{user}@{}", attrs.get("jobid-path").unwrap_or("/"));
        Ok(Self {
            entries: VecDeque::new(),
            capacity,
            rank,
            level: read.level("log-level", 7)?,
            stderr_level: read.level("log-stderr-level", 3)?,
            critical_level: read.level("log-critical-level", 2)?,
            forward_level: read.level("log-forward-level", 3)?,
            local,
            file,
            syslog: read
                .flag("log-syslog-enable")?
                .then_some((syslog_level, who)),
            zone: TimeZone::system(),
            followers: Vec::new(),
            own: 0,
            others: 0,
        })
    }

    /// `log-stderr-level` has changed.
    pub(crate) fn set_stderr_level(&mut self, text: &str) -> Result<(), RpcError> {
        let bad = || {
            RpcError::new(
                libc::EINVAL,
                format!("log-stderr-level: {LEVEL}, found {text:?}"),
            )
        };
        self.stderr_level = level(text).ok_or_else(bad)?;
        Ok(())
    }

    /// `log.append`: store an entry, show it and pass it on where it is due.
    pub(crate) fn append(&mut self, entry: &Bytes, handle: &Handle) {
        let text = String::from_utf8_lossy(entry);
        let text = text.trim_end_matches(['\0', '\n']);
        let parts = parse(text);
        let own = parts
            .as_ref()
            .is_some_and(|p| p.host.parse() == Ok(self.rank));
        // What has no severity is treated as information, as a report from elsewhere.
        let severity = parts.map_or(6, |p| p.severity);
        let mut shown = false;
        match own {
            true => self.own += 1,
            false => self.others += 1,
        }
        if own {
            if severity <= self.level {
                self.push(entry, handle);
            }
            let here = self.local && severity <= self.stderr_level;
            if here || severity <= self.critical_level {
                eprintln!("{}", line(text, self.local, &self.zone));
                shown = true;
            }
        }
        if self.rank > 0 {
            if severity <= self.forward_level {
                handle.notify_raw("log.append", client::Node::Upstream, Some(entry.clone()));
            }
        } else if let Some(file) = &mut self.file {
            // A full disk must not stop what is logged.
            let _ = writeln!(file, "{}", line(text, false, &self.zone));
        }
        if !shown && !self.local && self.rank == 0 && severity <= self.stderr_level {
            eprintln!("{}", line(text, false, &self.zone));
        }
        if let Some((level, who)) = &self.syslog
            && severity <= *level
        {
            syslog(severity, &format!("{who} {}", line(text, true, &self.zone)));
        }
    }

    fn push(&mut self, entry: &Bytes, handle: &Handle) {
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        let entry = terminated(entry);
        for req in &self.followers {
            handle.respond_raw(req, Some(entry.clone()));
        }
        self.entries.push_back(entry);
    }

    /// `log.dmesg`: the ring, then (with `follow`) what comes.
    pub(crate) fn dmesg(
        &mut self,
        msg: &Message,
        handle: &Handle,
    ) -> Option<Result<Value, RpcError>> {
        #[derive(Deserialize)]
        struct Request {
            follow: bool,
            #[serde(default)]
            nobacklog: bool,
        }
        let checked = msg.require_owner().and_then(|()| msg.require_streaming());
        let req: Request = match checked.and_then(|()| msg.json()) {
            Ok(req) => req,
            Err(e) => return Some(Err(e)),
        };
        if !req.nobacklog {
            for entry in &self.entries {
                handle.respond_raw(msg, Some(entry.clone()));
            }
        }
        if req.follow {
            self.followers.push(msg.clone());
            return None;
        }
        Some(Err(RpcError::errno(libc::ENODATA)))
    }

    /// `log.stats-get`.
    pub(crate) fn stats(&self) -> Value {
        serde_json::json!({
            "count": self.own + self.others,
            "local": self.own,
            "remote": self.others,
            "ring-used": self.entries.len(),
            "ring-size": self.capacity,
        })
    }

    /// `log.clear`.
    pub(crate) fn clear(&mut self, msg: &Message) -> Result<Value, RpcError> {
        msg.require_owner()?;
        self.entries.clear();
        Ok(Value::Null)
    }

    /// A follower wants no more; the request to end it names its matchtag.
    pub(crate) fn cancel(&mut self, msg: &Message, handle: &Handle) {
        let Ok(matchtag) = msg.cancelled() else {
            return;
        };
        let ended = |req: &mut Message| req.is_same_rpc(msg, Some(matchtag));
        for req in self.followers.extract_if(.., ended) {
            handle.respond_error(&req, &RpcError::errno(libc::ENODATA));
        }
    }

    /// A follower is gone.
    pub(crate) fn disconnect(&mut self, msg: &Message) {
        self.followers.retain(|req| !req.is_same_rpc(msg, None));
    }
}

fn syslog(severity: i32, text: &str) {
    let Ok(text) = std::ffi::CString::new(text) else {
        return;
    };
    // SAFETY: the format takes one string, which lives until the call returns.
    unsafe { libc::syslog(severity, c"%s".as_ptr(), text.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "<24>1 2026-01-01T00:00:00.5Z 3 app 0 - - hello there";

    #[test]
    fn lines() {
        let utc = TimeZone::UTC;
        assert_eq!(
            line(ENTRY, false, &utc),
            "Jan 01 00:00:00.500000 UTC 2026 app.err[3]: hello there"
        );
        assert_eq!(line(ENTRY, true, &utc), "<3>app.err[3]: hello there");
        assert_eq!(line("noise", true, &utc), "noise");
        let made = entry(3, libc::LOG_ERR, "app", "x y");
        let made = std::str::from_utf8(&made).unwrap();
        assert_eq!(
            parse(made).map(|p| (p.severity, p.host, p.text)),
            Some((3, "3", "x y"))
        );
    }

    fn ring(pairs: &[(&str, &str)]) -> anyhow::Result<LogRing> {
        let mut attrs = Attrs::default();
        pairs.iter().for_each(|(k, v)| attrs.set(k, *v));
        LogRing::new(&attrs)
    }

    #[test]
    fn attributes_are_checked() {
        for (name, value) in [
            ("log-level", "8"),
            ("log-stderr-level", "x"),
            ("log-ring-size", "-1"),
            ("log-stderr-mode", "x"),
            ("log-syslog-enable", "2"),
            ("log-filename", "/nonexistent/x"),
        ] {
            let e = ring(&[(name, value)]).err().unwrap().to_string();
            assert!(e.contains(name), "{e}");
        }
        assert_eq!(
            ring(&[("log-critical-level", "-1")])
                .unwrap()
                .critical_level,
            -1
        );
    }

    #[test]
    fn the_ring_is_bounded() {
        let (handle, _deliver) = Handle::with_sink(|_| true);
        let mut log = ring(&[("log-ring-size", "2"), ("log-level", "5"), ("rank", "1")]).unwrap();
        for (level, text) in [(5, "a"), (4, "b"), (6, "dropped"), (5, "c")] {
            log.append(&entry(1, level, "t", text), &handle);
        }
        // Whoever follows gets texts, which end with a NUL.
        let texts: Vec<_> = log.entries.iter().map(|e| &e[e.len() - 2..]).collect();
        assert_eq!(texts, [b"b\0", b"c\0"]);
        log.append(&entry(7, 0, "t", "of another rank"), &handle);
        assert_eq!(log.entries.len(), 2);
    }
}
