//! Shells that share a process, where jobs are started faster than processes should be made for their shells.
//!
//! To start a process, link it and connect it costs more than all else that a shell of a short job does. So a rank that starts
//! many shells gets one process that takes them ([`formats::shared_shell`]). Jobs that come leisurely have shells of their
//! own: nothing but their own shell can end them. So have jobs of several nodes, and those that ask for something that
//! concerns the whole process.
//!
//! The process is started through rexec, as shells are, and found again there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Handle, Node};
use formats::shared_shell::{NAME, READY};
use formats::subprocess::{AttachRequest, ExecRequest, ExecResponse, Target};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::watch::{Search, understand};
use crate::rexec;

/// Which shells share a process: `exec.shared-shells`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Policy {
    /// Those of ranks that start many.
    #[default]
    Auto,
    Always,
    Never,
}

impl Policy {
    /// By its name in the configuration.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "always" => Some(Self::Always),
            "never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// With `auto`: so many shells at once, and then so many a second, have processes of their own.
const BURST: f64 = 10.0;
const RATE: f64 = 10.0;

/// After a shell that was turned away, so many more are not sent.
const PENALTY: f64 = 50.0;

/// By then a process that can end has ended.
const RETIRED: Duration = Duration::from_secs(1);

/// Shell options that concern tasks only.
const OPTIONS: [&str; 11] = [
    "cpu-affinity",
    "env-expand",
    "exit-on-error",
    "exit-timeout",
    "gpu-affinity",
    "input",
    "output",
    "rlimit",
    "signal",
    "taskmap",
    "verbose",
];

/// Whether the shell of a job with one node can share a process.
pub(super) fn can_share(jobspec: &Value) -> bool {
    let system = &jobspec["attributes"]["system"];
    let options = system["shell"]["options"].as_object();
    let is_plain = |(name, value): (&String, &Value)| match name.as_str() {
        // libpmix serves one job in a process.
        "pmi" => value.as_str().is_some_and(|pmi| !pmi.contains("pmix")),
        name => OPTIONS.contains(&name),
    };
    options.is_none_or(|options| options.iter().all(is_plain))
        && system["exec"].is_null()
        && system["files"].is_null()
}

/// How fast a rank starts shells: what is left of those it has started when so many a second are taken off.
#[derive(Debug, Clone, Copy)]
struct Pace {
    level: f64,
    at: Instant,
}

impl Pace {
    fn new(at: Instant) -> Self {
        Self { level: 0.0, at }
    }

    /// One more.
    fn add(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        // A penalty is worked off by shells, not by time.
        self.level = match self.level < 0.0 {
            true => self.level,
            false => (self.level - RATE * passed).max(0.0),
        } + 1.0;
        self.at = now;
    }

    fn is_fast(&self) -> bool {
        self.level > BURST
    }
}

/// How the process of a rank's shared shells ends: with a wait status, once there is one.
#[derive(Debug, Clone)]
pub(super) struct Ending(watch::Receiver<Option<i32>>);

impl Ending {
    pub(super) fn has_come(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Wait for it.
    pub(super) async fn status(&mut self) -> i32 {
        match self.0.wait_for(Option::is_some).await.map(|status| *status) {
            Ok(Some(status)) => status,
            // Nobody watches any more: this service ends.
            _ => std::future::pending().await,
        }
    }
}

/// The process of a rank, as far as this service knows.
#[derive(Debug, Clone)]
enum Process {
    /// Nobody has looked, or it has ended.
    Unknown,
    /// It is being looked for, or started. This closes once it serves, or does not come.
    Coming(watch::Receiver<()>),
    Serves(Ending),
}

struct Rank {
    pace: Pace,
    process: Process,
}

/// All ranks' processes of shared shells.
pub(super) struct Sharing {
    handle: Handle,
    command: ExecRequest,
    patience: Duration,
    ranks: Mutex<HashMap<u32, Rank>>,
    watches: Mutex<JoinSet<()>>,
}

/// Critical sections only look and put, so what a poisoned lock holds is sound.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sharing {
    /// `command` makes the process.
    pub(super) fn new(handle: Handle, command: ExecRequest, patience: Duration) -> Self {
        Self {
            handle,
            command,
            patience,
            ranks: Mutex::default(),
            watches: Mutex::default(),
        }
    }

    /// Watch nobody any more: this service ends. Processes without shells end with it.
    pub(super) async fn close(&self) {
        let serve = |(rank, known): (&u32, &Rank)| match &known.process {
            Process::Serves(ending) => Some((*rank, ending.clone())),
            _ => None,
        };
        let serving: Vec<_> = lock(&self.ranks).iter().filter_map(serve).collect();
        let topic = format!("{NAME}.retire");
        let retired = serving.into_iter().map(|(rank, mut ending)| {
            let answer = self.handle.rpc(&topic, Node::Rank(rank), &json!({}));
            async move {
                if answer.await.is_ok() {
                    ending.status().await;
                }
            }
        });
        // One that does not answer looks after itself.
        let _ = tokio::time::timeout(RETIRED, futures::future::join_all(retired)).await;
        lock(&self.watches).abort_all();
    }

    fn with<T>(&self, rank: u32, f: impl FnOnce(&mut Rank) -> T) -> T {
        let unknown = || Rank {
            pace: Pace::new(Instant::now()),
            process: Process::Unknown,
        };
        f(lock(&self.ranks).entry(rank).or_insert_with(unknown))
    }

    /// A shell is to be started on this rank: whether it goes to the shared ones. These are fetched when they are wanted; while
    /// they come, shells get processes of their own.
    pub(super) fn place(self: &Arc<Self>, policy: Policy, rank: u32) -> Option<Ending> {
        let wanted = self.with(rank, |rank| {
            rank.pace.add(Instant::now());
            match policy {
                Policy::Never => false,
                Policy::Always => true,
                Policy::Auto => rank.pace.is_fast(),
            }
        });
        if !wanted {
            return None;
        }
        match self.seek(rank, true) {
            Process::Serves(ending) => Some(ending),
            _ => None,
        }
    }

    /// The shared shells of a rank did not take one.
    pub(super) fn turned_away(&self, rank: u32) {
        self.with(rank, |rank| rank.pace.level = -PENALTY);
    }

    /// The process of a rank, if rexec has it.
    pub(super) async fn find(self: &Arc<Self>, rank: u32) -> Option<Ending> {
        if let Process::Coming(mut coming) = self.seek(rank, false) {
            // It has come, or will not, when nobody is left to say so.
            while coming.changed().await.is_ok() {}
        }
        match self.with(rank, |rank| rank.process.clone()) {
            Process::Serves(ending) => Some(ending),
            _ => None,
        }
    }

    /// The process of a rank. One that is not known is looked for from now on, made if it is to be, and followed to its end.
    /// Of those who ask at the same time one does that: rexec tells one client of a process.
    fn seek(self: &Arc<Self>, rank: u32, make: bool) -> Process {
        let (process, sought) = self.with(rank, |rank| {
            let Process::Unknown = rank.process else {
                return (rank.process.clone(), None);
            };
            let (coming, come) = watch::channel(());
            rank.process = Process::Coming(come);
            (rank.process.clone(), Some(coming))
        });
        if let Some(coming) = sought {
            let sharing = self.clone();
            lock(&self.watches).spawn(async move {
                let end = sharing.follow(rank, make, coming).await;
                sharing.with(rank, |r| r.process = Process::Unknown);
                if let Some((ending, status)) = end {
                    let _ = ending.send(Some(status));
                }
            });
        }
        process
    }

    /// Follow it; returns how it ended, and whom to tell, if it has served.
    async fn follow(
        &self,
        rank: u32,
        make: bool,
        coming: watch::Sender<()>,
    ) -> Option<(watch::Sender<Option<i32>>, i32)> {
        let node = Node::Rank(rank);
        let attach = || {
            let request = AttachRequest {
                target: Target::label(NAME),
                flags: rexec::OUTPUT,
            };
            self.handle.stream("rexec.attach", node, &request)
        };
        let mut stream = match make {
            true => self.handle.stream("rexec.exec", node, &self.command),
            false => attach(),
        };
        let (mut coming, mut served) = (Some(coming), None);
        let mut search = Search::new(self.patience);
        loop {
            let answer = understand(stream.next().await, None);
            let mut serves = || {
                // Those who wait look as soon as this is dropped.
                if let Some(_come) = coming.take() {
                    let (tell, ending) = watch::channel(None);
                    served = Some(tell);
                    let process = Process::Serves(Ending(ending));
                    self.with(rank, |r| r.process = process);
                }
            };
            match answer {
                Ok(ExecResponse::Attached { .. }) => {
                    search.over();
                    serves();
                }
                Ok(ExecResponse::Output { io, .. }) if io.data == READY.as_bytes() => serves(),
                Ok(ExecResponse::Output { io, .. }) if !io.data.is_empty() => {
                    let text = String::from_utf8_lossy(&io.data);
                    let text = format!("shared shells on rank {rank}: {}", text.trim_end());
                    self.handle.say("job-exec", 4, &text);
                }
                Ok(ExecResponse::Finished { status }) => {
                    // Its end is known, so that there can be another.
                    self.handle.notify("rexec.wait", node, &Target::label(NAME));
                    return Some((served?, status));
                }
                Ok(_) => {}
                Err(e) if e.errno == libc::EEXIST => stream = attach(),
                Err(e)
                    if (served.is_some() || e.errno == libc::EBUSY)
                        && search.goes_on_after(&e).await =>
                {
                    stream = attach()
                }
                // It is gone, and its shells with it.
                Err(_) => return Some((served?, libc::SIGKILL)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_concern_their_process_do_not_share_it() {
        let with = |system: Value| json!({ "attributes": { "system": system } });
        let options = |options: Value| with(json!({ "shell": { "options": options } }));
        for plain in [
            json!({}),
            with(json!({ "duration": 0 })),
            options(json!({ "rlimit": { "core": -1 }, "verbose": 1, "output": {} })),
            options(json!({ "pmi": "simple" })),
        ] {
            assert!(can_share(&plain), "{plain}");
        }
        for other in [
            options(json!({ "pty": true })),
            options(json!({ "pmi": "pmix" })),
            options(json!({ "something": "of a plugin" })),
            with(json!({ "files": {} })),
            with(json!({ "exec": { "job_shell": "/bin/true" } })),
        ] {
            assert!(!can_share(&other), "{other}");
        }
    }

    #[test]
    fn pace() {
        let start = Instant::now();
        let fast_after = |n: u32, gap: Duration| {
            let mut pace = Pace::new(start);
            (0..n).for_each(|i| pace.add(start + gap * i));
            pace.is_fast()
        };
        assert!(!fast_after(10, Duration::ZERO));
        assert!(fast_after(11, Duration::ZERO));
        // What comes as slowly as that may come for ever.
        assert!(!fast_after(1000, Duration::from_millis(101)));
        assert!(fast_after(1000, Duration::from_millis(50)));
        let mut pace = Pace::new(start);
        pace.level = -PENALTY;
        let again = (1..).find(|_| {
            pace.add(start + Duration::from_secs(60));
            pace.is_fast()
        });
        assert_eq!(again, Some(61));
    }
}
