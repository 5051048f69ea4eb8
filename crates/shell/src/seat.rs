//! What a shell has of the process it runs in.
//!
//! A shell usually has a process of its own. Where short jobs come fast, one process has the shells of many
//! ([`crate::shared`]). Then the connection is not the shell's alone, and what belongs to a process (its directory, limits, CPU
//! binding) stays as it is: each task gets its own when it starts.

use crate::{Fatal, affinity::Machine, patience::Patience};
use client::{Handle, Inbox};
use formats::Idset;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    rc::Rc,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
};
use wire::Message;

/// What a broker says about itself, which stays the same as long as it is there.
#[derive(Debug, Clone)]
pub struct Broker {
    pub rank: u32,
    pub owner: Option<u32>,
    pub rundir: Option<String>,
    /// The path of the instance's own job id, `/` for the outermost.
    pub jobid_path: String,
}

/// What the shells in one process have in common.
pub struct Common {
    pub handle: Handle,
    pub patience: Patience,
    pub broker: Broker,
    /// The node's cores, if they can be told.
    pub machine: Option<Machine>,
    /// The CPUs the process itself is bound to.
    pub cpus: Idset,
}

/// Where messages for a shell come from.
pub enum Mail {
    /// All that comes over the shell's connection.
    Own(Inbox),
    /// What others have sorted out.
    Sorted(UnboundedReceiver<Message>, Handle),
}

impl Mail {
    /// The next message; `None` once the connection is gone.
    pub async fn recv(&mut self) -> Option<Message> {
        match self {
            Mail::Own(inbox) => inbox.recv().await,
            Mail::Sorted(messages, _) => messages.recv().await,
        }
    }
}

impl Drop for Mail {
    /// Whoever has asked what nobody will read is told so; a connection that ends does that by itself.
    fn drop(&mut self) {
        if let Mail::Sorted(messages, handle) = self {
            messages.close();
            while let Ok(message) = messages.try_recv() {
                if message.is_request() {
                    handle.respond_enosys(&message);
                }
            }
        }
    }
}

/// Signals that are for the tasks, or for the shell as long as there are none.
pub enum Signals {
    Process {
        interrupt: Signal,
        terminate: Signal,
        alarm: Signal,
    },
    Sent(UnboundedReceiver<i32>),
}

impl Signals {
    /// From now on signals do not end this process.
    pub fn of_process() -> Result<Signals, Fatal> {
        let watch = |kind| signal(kind).map_err(|e| Fatal::new(format!("watching signals: {e}")));
        Ok(Signals::Process {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            alarm: watch(SignalKind::alarm())?,
        })
    }

    /// The next signal. Nothing is lost when this is dropped.
    pub async fn next(&mut self) -> i32 {
        match self {
            Signals::Process {
                interrupt,
                terminate,
                alarm,
            } => tokio::select! {
                _ = interrupt.recv() => libc::SIGINT,
                _ = terminate.recv() => libc::SIGTERM,
                _ = alarm.recv() => libc::SIGALRM,
            },
            Signals::Sent(signals) => match signals.recv().await {
                Some(signum) => signum,
                // Who could send one has gone, and with it the connection, which ends the shell.
                None => std::future::pending().await,
            },
        }
    }
}

/// A shell's place in a process.
pub enum Seat {
    Own(Patience),
    Shared {
        common: Rc<Common>,
        /// What the job was allocated.
        r: Value,
        mail: UnboundedReceiver<Message>,
        signals: UnboundedReceiver<i32>,
    },
}

/// The directory of the job: that of the process, or one the process is not in.
#[derive(Debug, Clone, Default)]
pub struct Dir(pub Option<PathBuf>);

impl Dir {
    /// The path, seen from there.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        match &self.0 {
            Some(dir) => dir.join(path),
            None => path.as_ref().to_owned(),
        }
    }
}
