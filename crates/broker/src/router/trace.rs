//! `module.trace`: streams that show the messages of modules as they pass the router.
//!
//! A traced message costs one response per stream it fits; without streams tracing costs nothing.

use std::time::SystemTime;

use formats::eventlog::timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Kind, Match, Message, NODEID_ANY, RpcError, json_payload};

/// What the request says.
#[derive(Deserialize)]
struct Wanted {
    typemask: u32,
    topic_glob: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    full: bool,
}

struct Trace {
    request: Message,
    matcher: Match,
    names: Vec<String>,
    full: bool,
}

/// The streams.
#[derive(Default)]
pub(super) struct Traces(Vec<Trace>);

impl Traces {
    pub(super) fn add(&mut self, request: &Message) -> Result<(), RpcError> {
        request.require_streaming()?;
        let wanted: Wanted = request.json()?;
        let mut matcher = Match::topic(&wanted.topic_glob);
        matcher.typemask = wanted.typemask as u8;
        self.0.push(Trace {
            request: request.clone(),
            matcher,
            names: wanted.names,
            full: wanted.full,
        });
        Ok(())
    }

    pub(super) fn remove(&mut self, notice: &Message) {
        self.0.retain(|t| !t.request.is_same_rpc(notice, None));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Responses about a message that module `name` has sent (`tx`) or been sent (`rx`).
    pub(super) fn show(&self, prefix: &str, name: &str, msg: &Message) -> Vec<Message> {
        // Tracing traces would never end.
        if msg.topic() == "module.trace" {
            return Vec::new();
        }
        let fits = |t: &&Trace| {
            (t.names.is_empty() || t.names.iter().any(|n| n == name)) && t.matcher.matches(msg)
        };
        let show = |t: &Trace| {
            // JSON values always encode.
            let payload = json_payload(&line(prefix, name, msg, t.full)).ok();
            t.request.response(0, payload)
        };
        self.0.iter().filter(fits).map(show).collect()
    }
}

fn line(prefix: &str, name: &str, msg: &Message, full: bool) -> Value {
    // No broker: the peer is a module.
    let mut line = record(prefix, i64::from(NODEID_ANY as i32), msg, full);
    line["name"] = name.into();
    if full
        && errnum(msg) == 0
        && let Ok(payload) = msg.json::<Value>()
    {
        line["payload"] = payload;
    }
    line
}

fn errnum(msg: &Message) -> u32 {
    match msg.kind() {
        Kind::Response { errnum, .. } => errnum,
        _ => 0,
    }
}

/// What is shown of every message, here and by `overlay.trace`; `full` with an error's text.
pub(super) fn record(prefix: &str, rank: i64, msg: &Message, full: bool) -> Value {
    let errnum = errnum(msg);
    let size = match errnum {
        0 => msg.payload().map_or(0, bytes::Bytes::len),
        _ => 0,
    };
    let errstr = msg.text().filter(|_| full && errnum != 0);
    json!({
        "timestamp": timestamp(SystemTime::now()),
        "prefix": prefix,
        "rank": rank,
        "type": msg.kind().bit(),
        "topic": msg.topic(),
        "payload_size": size,
        "errnum": errnum,
        "errstr": errstr.unwrap_or_default(),
    })
}
