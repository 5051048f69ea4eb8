//! Which sockets of the driver have something to read: one system call for all of them.
//!
//! libzmq's own poll asks every socket by itself, several system calls each. The descriptors of its
//! sockets say less than `ZMQ_EVENTS` does: they are readable when there is news, and whatever is done
//! with a socket may take the news in (`ZMQ_FD` in zmq_getsockopt(3)). So a socket is read until it has
//! no more when its descriptor was readable, and also when the driver has sent over it.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::driver::Sockets;

/// What the driver waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Commands,
    Authentication,
    Children,
    Parent,
    ChildMonitor,
    ParentMonitor,
}

/// Sources that are to be read.
pub(super) struct Ready {
    descriptors: Vec<(Source, RawFd)>,
    /// By the number of the source.
    due: [bool; 6],
}

impl Ready {
    /// Watches `sockets` and `wake`, which must live as long as this is used.
    pub(super) fn new(sockets: &Sockets, wake: &EventFd) -> zmq::Result<Self> {
        let mut descriptors = vec![(Source::Commands, wake.as_raw_fd())];
        let sockets = [
            (Source::Authentication, Some(&sockets.zap)),
            (Source::Children, sockets.router.as_ref()),
            (Source::Parent, sockets.dealer.as_ref()),
            (Source::ChildMonitor, sockets.child_monitor.as_ref()),
            (Source::ParentMonitor, sockets.parent_monitor.as_ref()),
        ];
        for (source, socket) in sockets {
            if let Some(socket) = socket {
                descriptors.push((source, socket.get_fd()?));
            }
        }
        // There may be news already, that calls made until now have taken in.
        let due = [true; 6];
        Ok(Self { descriptors, due })
    }

    /// Wait until a source is due, for at most `patience`.
    pub(super) fn wait(&mut self, patience: Duration) -> Result<(), Errno> {
        let timeout = match self.due.contains(&true) {
            true => PollTimeout::ZERO,
            false => PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX),
        };
        let watch = |(_, fd): &(Source, RawFd)| {
            // SAFETY: the driver owns the sockets and the event descriptor together with this.
            PollFd::new(unsafe { BorrowedFd::borrow_raw(*fd) }, PollFlags::POLLIN)
        };
        let mut found: Vec<PollFd> = self.descriptors.iter().map(watch).collect();
        match poll(&mut found, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        for ((source, _), found) in self.descriptors.iter().zip(&found) {
            if found.revents().is_none_or(|flags| !flags.is_empty()) {
                self.due[*source as usize] = true;
            }
        }
        Ok(())
    }

    /// Whether `source` is to be read until it has no more, which the caller does now.
    pub(super) fn take(&mut self, source: Source) -> bool {
        std::mem::take(&mut self.due[source as usize])
    }

    /// `source` may have something that its descriptor does not tell.
    pub(super) fn mark(&mut self, source: Source) {
        self.due[source as usize] = true;
    }
}
