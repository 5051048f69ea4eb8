//! The barrier that the shells of a job meet in before and after starting tasks.

use client::Handle;
use wire::{Message, RpcError};

/// Shells that have entered and wait.
pub(super) struct Barrier {
    size: usize,
    waiting: Vec<Message>,
    broken: bool,
}

impl Barrier {
    /// For `size` shells.
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            waiting: Vec::new(),
            broken: false,
        }
    }

    /// A shell enters; the last one lets all go on.
    pub(super) fn enter(&mut self, handle: &Handle, request: Message) {
        if self.broken {
            handle.respond_error(&request, &RpcError::errno(libc::EIO));
            return;
        }
        self.waiting.push(request);
        if self.waiting.len() == self.size {
            for request in self.waiting.drain(..) {
                handle.respond_ok(&request);
            }
        }
    }

    /// A shell has exited: nobody can pass any more.
    pub(super) fn fail(&mut self, handle: &Handle) {
        self.broken = true;
        for request in self.waiting.drain(..) {
            handle.respond_error(&request, &RpcError::errno(libc::EIO));
        }
    }

    /// Whether shells wait that can never pass.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }
}
