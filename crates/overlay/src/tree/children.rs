//! The way down: admitting children, noticing what becomes of them.

use std::collections::HashMap;

use crate::frame::Frame;
use crate::handshake::{Expected, Hello, MINOR_PING, Verdict, judge};
use crate::transport::{Incoming, Peer, Session, Status};

use super::{Moment, Output, Tree};

/// The children of a broker.
#[derive(Debug)]
pub(super) struct Children {
    ranks: Vec<u32>,
    /// In the order of `ranks`.
    states: Vec<State>,
    /// How many of them have each status, by its number.
    counts: [usize; Status::ALL.len()],
    /// Joined lives.
    sessions: HashMap<Session, u32>,
    /// No more are admitted.
    closed: bool,
}

#[derive(Debug)]
enum State {
    /// Not there: lost or offline.
    Away(Status),
    Joined(Box<Joined>),
}

/// A child that takes part.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) session: Session,
    /// Messages sent to it.
    pub(super) sent: u64,
    /// When we spoke last.
    pub(super) spoke: Moment,
    minor: u16,
    status: Status,
    received: u64,
    heard: Moment,
    torpid: bool,
    challenger: Option<Challenger>,
}

/// Another life that claims the rank of a joined child.
#[derive(Debug)]
struct Challenger {
    session: Session,
    hello: Hello,
    minor: u16,
    status: Status,
    /// The joined one is given up if it says nothing until then.
    until: Moment,
}

impl State {
    fn status(&self) -> Status {
        match self {
            Self::Away(status) => *status,
            Self::Joined(joined) => joined.status,
        }
    }
}

impl Children {
    pub(super) fn new(ranks: &[u32]) -> Self {
        let mut counts = [0; Status::ALL.len()];
        counts[Status::Offline as usize] = ranks.len();
        Self {
            counts,
            ranks: ranks.to_vec(),
            states: ranks.iter().map(|_| State::Away(Status::Offline)).collect(),
            sessions: HashMap::new(),
            closed: false,
        }
    }

    fn state(&mut self, rank: u32) -> Option<&mut State> {
        let at = self.ranks.binary_search(&rank).ok()?;
        self.states.get_mut(at)
    }

    /// Give a child another state; the one it had.
    fn replace(&mut self, rank: u32, state: State) -> Option<State> {
        let after = state.status();
        let before = std::mem::replace(self.state(rank)?, state);
        self.counts[before.status() as usize] -= 1;
        self.counts[after as usize] += 1;
        Some(before)
    }

    /// A joined child's status is this now; whether that is news.
    fn changed(&mut self, rank: u32, status: Status) -> bool {
        let Some(joined) = self.joined_mut(rank) else {
            return false;
        };
        let before = std::mem::replace(&mut joined.status, status);
        self.counts[before as usize] -= 1;
        self.counts[status as usize] += 1;
        before != status
    }

    pub(super) fn joined(&self, rank: u32) -> Option<&Joined> {
        let at = self.ranks.binary_search(&rank).ok()?;
        match &self.states[at] {
            State::Joined(joined) => Some(joined),
            State::Away(_) => None,
        }
    }

    pub(super) fn joined_mut(&mut self, rank: u32) -> Option<&mut Joined> {
        match self.state(rank)? {
            State::Joined(joined) => Some(joined),
            State::Away(_) => None,
        }
    }

    /// The rank of the joined child with this life.
    fn rank_of(&self, session: Session) -> Option<u32> {
        self.sessions.get(&session).copied()
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn status(&self) -> Status {
        let there = |s: &Status| self.counts[*s as usize] > 0;
        Status::of(Status::ALL.into_iter().filter(there))
    }
}

impl Tree {
    /// A frame from a broker that connected to us. `key_rank` is the rank its key belongs to, where
    /// every broker has a key of its own.
    pub fn from_child(
        &mut self,
        now: Moment,
        session: Session,
        key_rank: Option<u32>,
        frame: Frame,
    ) {
        if let Frame::Hello(hello) = frame {
            self.hello_from(now, session, key_rank, hello);
            return;
        }
        let Some(rank) = self.children.rank_of(session) else {
            self.stranger(session, &frame);
            return;
        };
        self.heard(now, rank, matches!(frame, Frame::Pong));
        // `heard` does not end the child.
        let Some(joined) = self.children.joined_mut(rank) else {
            return;
        };
        match frame {
            Frame::Message(number, msg) if number == joined.received + 1 => {
                joined.received = number;
                self.report(Incoming::Message(Peer::Child(rank), msg));
            }
            Frame::Keepalive(number) if number == joined.received => {}
            Frame::Message(..) | Frame::Keepalive(_) => {
                self.disconnect(now, rank, "messages from it were lost");
            }
            Frame::Status(status) if status.is_online() && self.children.changed(rank, status) => {
                self.report(Incoming::Child(rank, status));
                self.update_status();
            }
            Frame::Goodbye => {
                self.tell_child(session, Frame::Farewell);
                self.end_child(now, rank, Status::Offline, "administrative shutdown");
            }
            // Pongs have said all by coming; other kinds are for children.
            _ => {}
        }
    }

    /// Frames of a life that is not joined: one we gave up, or of our own earlier life.
    fn stranger(&mut self, session: Session, frame: &Frame) {
        match frame {
            Frame::Goodbye => self.tell_child(session, Frame::Farewell),
            _ => {
                let why = "it is not joined here (any more)".to_owned();
                self.tell_child(session, Frame::Disconnect(why));
            }
        }
        self.out.push_back(Output::Forget(session));
    }

    /// The connection of a life has broken.
    pub fn child_disconnected(&mut self, now: Moment, session: Session) {
        if let Some(rank) = self.children.rank_of(session) {
            self.end_child(now, rank, Status::Lost, "lost connection");
            return;
        }
        for state in &mut self.children.states {
            if let State::Joined(joined) = state
                && matches!(&joined.challenger, Some(c) if c.session == session)
            {
                joined.challenger = None;
            }
        }
    }

    /// More is queued for a child than a broker can afford.
    pub fn child_overrun(&mut self, now: Moment, session: Session, bytes: usize) {
        if let Some(rank) = self.children.rank_of(session) {
            let why = format!("it does not keep up: {bytes} bytes are waiting for it");
            self.disconnect(now, rank, &why);
        }
    }

    /// A sign of life of a joined child.
    fn heard(&mut self, now: Moment, rank: u32, pong: bool) {
        let Some(joined) = self.children.joined_mut(rank) else {
            return;
        };
        let silent = now.saturating_sub(joined.heard);
        joined.heard = now;
        let woke = std::mem::take(&mut joined.torpid);
        // Anything but an answer may have been on its way since before the child died.
        let alive = pong || joined.minor < MINOR_PING;
        let challenger = joined.challenger.take_if(|_| alive);
        if woke {
            let torpid = false;
            self.report(Incoming::Torpid {
                rank,
                torpid,
                silent,
            });
        }
        if let Some(challenger) = challenger {
            let why = format!("rank {rank} is already connected");
            self.reject(challenger.session, &challenger.hello, why);
        }
    }

    fn hello_from(&mut self, now: Moment, session: Session, key_rank: Option<u32>, hello: Hello) {
        let rank = hello.rank;
        if self.children.closed {
            self.reject(session, &hello, "the instance is shutting down".to_owned());
            return;
        }
        let expected = Expected {
            key_rank,
            rank: self.facts.rank,
            size: self.facts.topology.size(),
            children: &self.children.ranks,
            hostname: self.facts.hosts.get(&rank).map(String::as_str),
        };
        let (minor, status) = match judge(&hello, &expected) {
            Ok(accepted) => accepted,
            Err(why) => return self.reject(session, &hello, why),
        };
        let challenge = self.limits.challenge;
        // `judge` lets only our children through.
        let Some(state) = self.children.state(rank) else {
            return;
        };
        match state {
            State::Away(_) => self.admit(now, session, rank, minor, status),
            // Repeated: our answer was late, or lost with a connection.
            State::Joined(joined) if joined.session == session => {
                if joined.received == 0 {
                    let minor = joined.minor;
                    self.welcome(session, minor);
                }
            }
            State::Joined(joined) => {
                let old = joined.session;
                let ping = joined.minor >= MINOR_PING;
                let sent = joined.sent;
                let until = match &joined.challenger {
                    Some(c) if c.session == session => c.until,
                    _ => now + challenge,
                };
                let before = joined.challenger.replace(Challenger {
                    session,
                    hello,
                    minor,
                    status,
                    until,
                });
                if let Some(before) = before.filter(|b| b.session != session) {
                    let why = format!("another broker with rank {rank} came later");
                    self.reject(before.session, &before.hello, why);
                }
                // A broken connection shows when something is sent; a live child answers.
                let sign = if ping {
                    Frame::Ping
                } else {
                    Frame::Keepalive(sent)
                };
                self.tell_child(old, sign);
            }
        }
    }

    fn reject(&mut self, session: Session, hello: &Hello, why: String) {
        let verdict = Verdict::Refused(why.clone());
        self.tell_child(session, Frame::Verdict(verdict));
        self.out.push_back(Output::Forget(session));
        self.report(Incoming::Rejected {
            rank: hello.rank,
            host: hello.hostname.clone(),
            why,
        });
    }

    fn welcome(&mut self, session: Session, minor: u16) {
        let verdict = Verdict::Welcome {
            minor,
            session: format!("{:032x}", self.facts.session.0),
        };
        self.tell_child(session, Frame::Verdict(verdict));
    }

    fn admit(&mut self, now: Moment, session: Session, rank: u32, minor: u16, status: Status) {
        let joined = Joined {
            session,
            sent: 0,
            spoke: now,
            minor,
            status,
            received: 0,
            heard: now,
            torpid: false,
            challenger: None,
        };
        self.children.replace(rank, State::Joined(Box::new(joined)));
        self.children.sessions.insert(session, rank);
        self.welcome(session, minor);
        self.report(Incoming::Joined(Peer::Child(rank), session));
        self.report(Incoming::Child(rank, status));
        self.update_status();
    }

    pub(super) fn disconnect(&mut self, now: Moment, rank: u32, why: &str) {
        if let Some(session) = self.joined(rank) {
            self.tell_child(session, Frame::Disconnect(why.to_owned()));
            self.end_child(now, rank, Status::Lost, why);
        }
    }

    /// A joined child takes part no more; whoever waits for its rank gets it.
    fn end_child(&mut self, now: Moment, rank: u32, status: Status, why: &str) {
        let Some(State::Joined(joined)) = self.children.replace(rank, State::Away(status)) else {
            return;
        };
        self.children.sessions.remove(&joined.session);
        self.out.push_back(Output::Forget(joined.session));
        self.report(Incoming::Gone {
            peer: Peer::Child(rank),
            status,
            why: why.to_owned(),
        });
        self.update_status();
        if let Some(c) = joined.challenger {
            if self.children.closed {
                self.reject(
                    c.session,
                    &c.hello,
                    "the instance is shutting down".to_owned(),
                );
            } else {
                self.admit(now, c.session, rank, c.minor, c.status);
            }
        }
    }

    pub(super) fn tick_children(&mut self, now: Moment) {
        let limits = self.limits;
        let mut overdue = Vec::new();
        for (rank, state) in self.children.ranks.iter().zip(&mut self.children.states) {
            let State::Joined(joined) = state else {
                continue;
            };
            if now >= joined.spoke + limits.probe {
                joined.spoke = now;
                let frame = Frame::Keepalive(joined.sent);
                self.out.push_back(Output::ToChild(joined.session, frame));
            }
            let silent = now.saturating_sub(joined.heard);
            let torpid = !limits.torpid_max.is_zero() && silent >= limits.torpid_max;
            if torpid != joined.torpid {
                joined.torpid = torpid;
                let rank = *rank;
                let incoming = Incoming::Torpid {
                    rank,
                    torpid,
                    silent,
                };
                self.out.push_back(Output::Report(incoming));
            }
            if matches!(&joined.challenger, Some(c) if now >= c.until) {
                overdue.push(*rank);
            }
        }
        for rank in overdue {
            self.disconnect(now, rank, "it came back without saying goodbye");
        }
    }

    /// Send something to every child at once: a connection that has broken then shows.
    pub fn probe(&mut self, now: Moment) {
        for state in &mut self.children.states {
            if let State::Joined(joined) = state {
                joined.spoke = now;
                let frame = Frame::Keepalive(joined.sent);
                self.out.push_back(Output::ToChild(joined.session, frame));
            }
        }
    }
}
