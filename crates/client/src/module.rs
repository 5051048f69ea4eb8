//! What a broker module is given (a handle, its requests and events, its arguments) and what every module answers.
//!
//! Each module has a [`Meter`]: what its host reads for `flux module list` and `stats`. Methods all modules have
//! (`stats-get`, `stats-clear`, `debug`, `rusage`, `config-reload`) are answered for a module that says ENOSYS to them,
//! so that a module only writes those it wants otherwise. Governing: RFC 5.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use wire::{Kind, Message, RpcError};

use crate::{Handle, Inbox};

/// Everything a module starts with.
pub struct Context {
    /// The module's handle; `rank()` and `size()` are known.
    pub handle: Handle,
    /// Requests to the module's services and subscribed events; ends when it shall shut down.
    pub inbox: Inbox,
    /// The name it is loaded under.
    pub name: String,
    /// Module arguments.
    pub args: Vec<String>,
}

/// Why a module ended early: the errno whoever loads it gets, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ModuleError {
    /// A positive errno value.
    pub errno: i32,
    /// What went wrong.
    pub text: String,
}

impl From<RpcError> for ModuleError {
    fn from(e: RpcError) -> Self {
        Self {
            errno: e.errno,
            text: e.to_string(),
        }
    }
}

impl ModuleError {
    /// An error with context: `what: cause`.
    pub fn new(what: &str, cause: impl std::fmt::Display) -> Self {
        Self::invalid(format!("{what}: {cause}"))
    }

    /// EINVAL with this text.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self {
            errno: libc::EINVAL,
            text: text.into(),
        }
    }

    /// What a module says to an argument it does not know.
    pub fn unknown_argument(arg: &str) -> Self {
        Self::invalid(format!("unknown module argument {arg:?}"))
    }
}

/// What a module's main returns.
pub type ModuleResult = Result<(), ModuleError>;

/// A running module.
pub type ModuleFuture = Pin<Box<dyn Future<Output = ModuleResult> + Send>>;

/// Entry point of a module.
pub type ModuleMain = fn(Context) -> ModuleFuture;

/// Messages of one direction, by kind.
#[derive(Debug, Default)]
struct Counts([AtomicU64; 4]);

impl Counts {
    fn add(&self, msg: &Message) {
        let index = match msg.kind() {
            Kind::Request { .. } => 0,
            Kind::Response { .. } => 1,
            Kind::Event { .. } => 2,
            Kind::Control { .. } => 3,
        };
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.iter().for_each(|n| n.store(0, Ordering::Relaxed));
    }

    fn to_json(&self) -> Value {
        let [request, response, event, control] =
            [0, 1, 2, 3].map(|i: usize| self.0[i].load(Ordering::Relaxed));
        json!({ "request": request, "response": response, "event": event, "control": control })
    }
}

/// What is known of a running module from outside it. All of it may be read and changed from any task.
#[derive(Debug)]
pub struct Meter {
    name: String,
    start: Instant,
    /// Milliseconds after `start` at which the module last sent something.
    seen: AtomicU64,
    sent: Counts,
    received: Counts,
    waiting: AtomicUsize,
    debug: AtomicU32,
    running: watch::Sender<bool>,
}

impl Meter {
    /// For a module of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            start: Instant::now(),
            seen: AtomicU64::new(0),
            sent: Counts::default(),
            received: Counts::default(),
            waiting: AtomicUsize::new(0),
            debug: AtomicU32::new(0),
            running: watch::Sender::new(false),
        }
    }

    /// The name the module is loaded under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The module has sent a message.
    pub fn note_sent(&self, msg: &Message) {
        let now = self.start.elapsed().as_millis() as u64;
        self.seen.store(now, Ordering::Relaxed);
        self.sent.add(msg);
    }

    /// The module was sent a message.
    pub fn note_received(&self, msg: &Message) {
        self.received.add(msg);
    }

    /// Whole seconds since the module last sent something.
    pub fn idle(&self) -> u64 {
        let now = self.start.elapsed().as_millis() as u64;
        now.saturating_sub(self.seen.load(Ordering::Relaxed)) / 1000
    }

    /// Requests and events in the module's inbox.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn queued(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// The module's debug flags (`flux module debug`).
    pub fn debug_flags(&self) -> u32 {
        self.debug.load(Ordering::Relaxed)
    }

    /// Whether debug flag `flag` was set; it is not any more.
    pub fn take_debug_flag(&self, flag: u32) -> bool {
        self.debug.fetch_and(!flag, Ordering::Relaxed) & flag != 0
    }

    /// The module has started: it serves requests now.
    pub fn set_running(&self) {
        self.running.send_replace(true);
    }

    /// Turns true when the module serves requests.
    pub fn running(&self) -> watch::Receiver<bool> {
        self.running.subscribe()
    }

    /// Forget the counts.
    pub fn clear(&self) {
        self.sent.clear();
        self.received.clear();
    }

    /// Answer a method that all modules have; `None` if `msg` is for another.
    pub fn answer(&self, msg: &Message) -> Option<Result<Value, RpcError>> {
        if msg.service() != self.name {
            return None;
        }
        let handler = match msg.method() {
            "stats-get" => Self::stats,
            "stats-clear" => Self::stats_clear,
            "debug" => Self::set_debug,
            "rusage" => rusage,
            // A module without configuration has nothing against a new one.
            "config-reload" => |_: &Self, _: &Message| Ok(Value::Null),
            _ => return None,
        };
        let allowed = match msg.method() {
            "stats-get" | "rusage" => Ok(()),
            _ => msg.require_owner(),
        };
        Some(allowed.and_then(|()| handler(self, msg)))
    }

    fn stats(&self, _: &Message) -> Result<Value, RpcError> {
        Ok(json!({ "tx": self.sent.to_json(), "rx": self.received.to_json() }))
    }

    fn stats_clear(&self, _: &Message) -> Result<Value, RpcError> {
        self.clear();
        Ok(Value::Null)
    }

    fn set_debug(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            op: String,
            flags: u32,
        }
        let Request { op, flags } = msg.json()?;
        match op.as_str() {
            "setbit" => drop(self.debug.fetch_or(flags, Ordering::Relaxed)),
            "clrbit" => drop(self.debug.fetch_and(!flags, Ordering::Relaxed)),
            "set" => self.debug.store(flags, Ordering::Relaxed),
            "clr" => self.debug.store(0, Ordering::Relaxed),
            _ => {
                let text = format!("debug: op: expected setbit, clrbit, set or clr, found {op:?}");
                return Err(RpcError::proto(text));
            }
        }
        Ok(json!({ "flags": self.debug_flags() }))
    }
}

/// What the process, its ended children or this thread has used: getrusage(2).
fn rusage(_: &Meter, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        who: Option<String>,
    }
    // A request without payload asks for the process.
    let who = match msg.payload() {
        Some(_) => msg.json::<Request>()?.who,
        None => None,
    };
    let who = match who.as_deref() {
        None | Some("self") => libc::RUSAGE_SELF,
        Some("children") => libc::RUSAGE_CHILDREN,
        Some("thread") => libc::RUSAGE_THREAD,
        Some(other) => {
            let text = format!("rusage: who: expected self, children or thread, found {other:?}");
            return Err(RpcError::new(libc::EINVAL, text));
        }
    };
    // SAFETY: rusage is plain numbers, for which zero is a value, and the call only writes it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(who, &raw mut usage) < 0 {
            return Err(RpcError::errno(libc::EINVAL));
        }
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    Ok(json!({
        "utime": seconds(usage.ru_utime),
        "stime": seconds(usage.ru_stime),
        "maxrss": usage.ru_maxrss,
        "ixrss": usage.ru_ixrss,
        "idrss": usage.ru_idrss,
        "isrss": usage.ru_isrss,
        "minflt": usage.ru_minflt,
        "majflt": usage.ru_majflt,
        "nswap": usage.ru_nswap,
        "inblock": usage.ru_inblock,
        "oublock": usage.ru_oublock,
        "msgsnd": usage.ru_msgsnd,
        "msgrcv": usage.ru_msgrcv,
        "nsignals": usage.ru_nsignals,
        "nvcsw": usage.ru_nvcsw,
        "nivcsw": usage.ru_nivcsw,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Credentials, Flags, json_payload};

    fn request(method: &str, payload: Value) -> Message {
        let mut msg = Message::request(format!("m.{method}"), 0, 1, 0, json_payload(&payload).ok());
        msg.set_credentials(Credentials::owner(1));
        msg
    }

    #[test]
    fn counts_and_flags() {
        let meter = Meter::new("m");
        meter.note_received(&request("x", json!({})));
        meter.note_sent(&request("x", json!({})).response(0, None));
        let get = |method: &str, payload: Value| meter.answer(&request(method, payload)).unwrap();
        let stats = get("stats-get", json!({})).unwrap();
        assert_eq!(
            stats["rx"],
            json!({"request": 1, "response": 0, "event": 0, "control": 0})
        );
        assert_eq!(stats["tx"]["response"], 1);
        get("stats-clear", json!({})).unwrap();
        assert_eq!(get("stats-get", json!({})).unwrap()["tx"]["response"], 0);
        let debug = |op: &str, flags: u32| get("debug", json!({"op": op, "flags": flags}));
        assert_eq!(debug("setbit", 6).unwrap()["flags"], 6);
        assert_eq!(debug("clrbit", 2).unwrap()["flags"], 4);
        assert_eq!(debug("set", 9).unwrap()["flags"], 9);
        assert_eq!(debug("clr", 0).unwrap()["flags"], 0);
        assert_eq!(debug("flip", 0).unwrap_err().errno, libc::EPROTO);
        assert!(get("rusage", json!({"who": "children"})).unwrap()["utime"].is_f64());
        assert_eq!(
            get("rusage", json!({"who": "x"})).unwrap_err().errno,
            libc::EINVAL
        );
        assert!(meter.answer(&request("other", json!({}))).is_none());
    }

    #[test]
    fn changes_are_for_the_owner() {
        let meter = Meter::new("m");
        let mut msg = Message::request("m.debug", 0, 1, Flags::NORESPONSE, None);
        msg.set_credentials(Credentials {
            userid: 7,
            rolemask: wire::ROLE_USER,
        });
        assert_eq!(meter.answer(&msg).unwrap().unwrap_err().errno, libc::EPERM);
    }
}
