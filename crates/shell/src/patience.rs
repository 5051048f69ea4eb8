//! What a shell does while its broker is away.
//!
//! A shell that outlives its broker ([`formats::survivor`]) keeps its tasks and what they write, connects to the next broker
//! as soon as it is there, and asks again what was not answered. It ends when that takes too long, or when its
//! record is gone: then nobody expects it any more. Any other shell ends with its connection, and asks once.

use std::{
    env, fs,
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use client::{Handle, Node, OpenError, OpenOptions, Reconnect, Status};
use formats::survivor::{self, Record};
use serde_json::{Value, json};
use wire::{Message, RpcError};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a broker may take to have its services, and a shell to have one with its next broker.
const SERVED: Duration = Duration::from_secs(10);

/// What is said of a broker or service that is not there, or not there yet.
const AWAY: [i32; 4] = [
    libc::ECONNRESET,
    libc::EHOSTUNREACH,
    libc::EAGAIN,
    libc::ENOSYS,
];

/// For how long a shell waits, if it waits.
#[derive(Debug, Clone, Default)]
pub struct Patience(Option<Arc<Terms>>);

#[derive(Debug)]
struct Terms {
    record: PathBuf,
    limit: Duration,
}

impl Terms {
    /// Whether the next broker will find this shell: the record is there, and not that of another one for the same job.
    fn are_kept(&self) -> bool {
        let record = fs::read(&self.record).ok();
        let record = record.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        record.is_some_and(|record| record.pid == std::process::id() as i32)
    }
}

/// What becomes of a connection that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There is a broker again.
    Back,
    /// Nobody will come, or not in time.
    Abandoned,
}

impl Patience {
    /// As the environment says.
    pub fn from_env() -> Patience {
        let terms = || {
            Some(Terms {
                record: env::var_os(survivor::RECORD)?.into(),
                limit: Duration::from_secs(env::var(survivor::PATIENCE).ok()?.parse().ok()?),
            })
        };
        Patience(terms().map(Arc::new))
    }

    /// A connection to the broker.
    pub async fn open(&self) -> Result<Handle, OpenError> {
        let options = OpenOptions::from_env()?;
        let again = Reconnect {
            max_delay: Duration::from_millis(500),
            ..Reconnect::default()
        };
        let options = match &self.0 {
            Some(_) => options.reconnect(again),
            None => options,
        };
        options.open(None).await
    }

    /// Attempts at one thing.
    pub fn attempts(&self) -> Attempts {
        Attempts {
            terms: self.0.clone(),
            failing: None,
            unserved: None,
        }
    }

    /// Ask until there is an answer.
    pub async fn rpc(
        &self,
        handle: &Handle,
        topic: &str,
        node: Node,
        request: &Value,
    ) -> Result<Message, RpcError> {
        let mut attempts = self.attempts();
        loop {
            match handle.rpc(topic, node, request).await {
                Err(e) if attempts.go_on_after(&e).await => {}
                answer => return answer,
            }
        }
    }

    /// Wait until connection number `connection` is lost, and then for the next broker; `connection` becomes the number of
    /// the connection there is then. `None` once it is gone for good, as it is for a shell without patience.
    async fn turn(&self, handle: &Handle, connection: &mut u32) -> Option<Turn> {
        let terms = self.0.as_deref()?;
        let mut status = handle.status();
        let former = Status::Connected(*connection);
        status.wait_for(|s| *s != former).await.ok()?;
        // Nobody reads there any more.
        silence();
        let since = Instant::now();
        loop {
            let back = status.wait_for(|s| matches!(s, Status::Connected(_)));
            if let Ok(back) = tokio::time::timeout(PAUSE, back).await {
                if let Status::Connected(number) = *back.ok()? {
                    *connection = number;
                }
                return Some(match terms.are_kept() {
                    true => Turn::Back,
                    false => Turn::Abandoned,
                });
            }
            if since.elapsed() > terms.limit || !terms.are_kept() {
                return Some(Turn::Abandoned);
            }
        }
    }

    /// Follow the connection until it is gone for good: with each next broker the service is registered again, and `tell`
    /// hears what becomes of each connection that is lost.
    pub async fn keep_service(self, handle: Handle, service: String, tell: impl Fn(Turn)) {
        let mut connection = 0;
        while let Some(turn) = self.turn(&handle, &mut connection).await {
            if turn == Turn::Back {
                // Should the broker be gone again, the next turn is to follow.
                let request = json!({ "service": service });
                let _ = self.rpc(&handle, "service.add", Node::Any, &request).await;
            }
            tell(turn);
        }
    }

    /// Wait until the broker has noted that this shell runs: before, another may be started for the same job should the
    /// broker end. False if it ends.
    pub async fn is_noted(&self, handle: &Handle) -> bool {
        let Some(terms) = self.0.as_deref() else {
            return true;
        };
        let status = handle.status();
        while !terms.are_kept() {
            if *status.borrow() != Status::Connected(0) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Take back the record: the next broker need not look for this process.
    pub fn withdraw(&self) {
        if let Some(terms) = self.0.as_deref().filter(|t| t.are_kept()) {
            // One that stays says of a process that has ended, which does no harm.
            let _ = fs::remove_file(&terms.record);
            // The directory goes with the last.
            let _ = terms.record.parent().map(fs::remove_dir);
        }
    }

    /// Leave the exit code for the broker that did not start this shell.
    pub fn leave(&self, code: i32) {
        if let Some(terms) = self.0.as_deref().filter(|t| t.are_kept()) {
            // Without it the shell counts as killed.
            let _ = fs::write(survivor::exit_file(&terms.record), code.to_string());
        }
    }
}

/// Attempts at one thing, that fail.
#[derive(Debug)]
pub struct Attempts {
    terms: Option<Arc<Terms>>,
    /// Since when.
    failing: Option<Instant>,
    /// Since when there is a broker without the service.
    unserved: Option<Instant>,
}

impl Attempts {
    /// Whether to ask again after this error; after a pause, if so.
    pub async fn go_on_after(&mut self, e: &RpcError) -> bool {
        let Some(terms) = self.terms.as_deref().filter(|_| AWAY.contains(&e.errno)) else {
            return false;
        };
        let failing = *self.failing.get_or_insert_with(Instant::now);
        let unserved = match e.errno {
            libc::ENOSYS => *self.unserved.get_or_insert_with(Instant::now),
            _ => {
                self.unserved = None;
                Instant::now()
            }
        };
        if failing.elapsed() > terms.limit || unserved.elapsed() > SERVED || !terms.are_kept() {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
        true
    }
}

/// Let what is written to the standard streams vanish: their readers are gone.
fn silence() {
    if let Ok(null) = fs::File::options().write(true).open("/dev/null") {
        for stream in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
            // SAFETY: both are open descriptors, and nothing in this program owns the second.
            unsafe { libc::dup2(null.as_raw_fd(), stream) };
        }
    }
}
