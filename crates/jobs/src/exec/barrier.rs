//! The barriers that the shells of a job meet at, before and after starting tasks.
//!
//! A shell says how many it has passed (`round`). It may come a second time, having lost the answer, and others may have
//! heard more than this service: whoever has passed a barrier proves that all had come.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use client::Handle;
use formats::Idset;
use serde::Deserialize;
use wire::{Message, RpcError};

/// What a shell says.
#[derive(Deserialize)]
struct Entry {
    /// Its broker.
    rank: Option<u32>,
    /// Barriers it has passed; shells of others do not say.
    round: Option<u64>,
    /// It only tells how many it has passed.
    passed: Option<u64>,
}

/// Answer, even where no response was asked for: shells of others wait for one all the same.
fn answer(handle: &Handle, request: &Message, errno: i32) {
    // If the shell cannot be reached it has ended.
    let _ = handle.send(request.response(errno, None));
}

pub(super) struct Barrier {
    ranks: Idset,
    /// Barriers that all have come to.
    passed: u64,
    waiting: HashMap<u32, (u64, Message)>,
    broken: bool,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
}

impl Barrier {
    /// For the shells on these brokers; the first barrier may be waited for this long.
    pub(super) fn new(ranks: Idset, timeout: Option<Duration>) -> Self {
        Self {
            ranks,
            passed: 0,
            waiting: HashMap::new(),
            broken: false,
            timeout,
            deadline: None,
        }
    }

    /// A shell enters, or tells where it is; the last one lets all go on.
    pub(super) fn enter(&mut self, handle: &Handle, request: Message) {
        let entry: Entry = match request.json() {
            Ok(entry) => entry,
            Err(e) => return handle.respond_error(&request, &e),
        };
        if let Some(passed) = entry.passed {
            self.passed = self.passed.max(passed);
            answer(handle, &request, 0);
            return self.release(handle);
        }
        let rank = entry.rank.filter(|rank| self.ranks.contains(*rank));
        let Some(rank) = rank else {
            let text = "the job has no shell on this rank";
            return handle.respond_error(&request, &RpcError::new(libc::EINVAL, text));
        };
        if self.broken {
            return answer(handle, &request, libc::EIO);
        }
        let round = entry.round.unwrap_or(self.passed);
        self.passed = self.passed.max(round);
        if self.waiting.is_empty() && self.passed == 0 {
            self.deadline = self.timeout.and_then(|t| Instant::now().checked_add(t));
        }
        self.waiting.insert(rank, (round, request));
        let here = |(round, _): &&(u64, Message)| *round == self.passed;
        if self.waiting.values().filter(here).count() == self.ranks.len() {
            self.passed += 1;
        }
        self.release(handle);
    }

    /// Let go on who waits at a barrier that is behind all.
    fn release(&mut self, handle: &Handle) {
        let passed = self.passed;
        if passed > 0 {
            self.deadline = None;
        }
        for (_, (_, request)) in self.waiting.extract_if(|_, (round, _)| *round < passed) {
            answer(handle, &request, 0);
        }
    }

    /// A shell has exited: nobody can pass any more.
    pub(super) fn fail(&mut self, handle: &Handle) {
        self.broken = true;
        self.deadline = None;
        for (_, (_, request)) in self.waiting.drain() {
            answer(handle, &request, libc::EIO);
        }
    }

    /// Whether shells wait that can never pass.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When the first barrier has been waited for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// It has: those who have not come.
    pub(super) fn expire(&mut self) -> Idset {
        self.deadline = None;
        let missing = self.ranks.iter().filter(|r| !self.waiting.contains_key(r));
        missing.collect()
    }
}
