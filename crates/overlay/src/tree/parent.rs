//! The way up: saying hello, being admitted, losing the parent, leaving.

use crate::frame::Frame;
use crate::handshake::Verdict;
use crate::transport::{Incoming, Peer, Session, Status};

use super::{Moment, Output, Tree};

/// Where a broker stands with its parent.
#[derive(Debug)]
pub(super) enum Parent {
    /// Not admitted yet; when hello was said last.
    Connecting(Option<Moment>),
    /// Admitted.
    Joined(Joined),
    /// Goodbye was said, then for the last time.
    Leaving(Moment),
    /// Lost, left or refused: there is no way back in this life.
    Over,
}

/// The state of being admitted.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) session: Session,
    /// Messages sent to the parent.
    pub(super) sent: u64,
    /// When the parent was told last how we are.
    told: Moment,
    /// Messages received.
    received: u64,
    /// When the parent spoke last.
    heard: Moment,
}

impl Default for Parent {
    fn default() -> Self {
        Self::Connecting(None)
    }
}

impl Tree {
    /// There is a connection to the parent.
    pub fn parent_connected(&mut self, now: Moment) {
        match &self.parent {
            Some(Parent::Connecting(_)) => self.say_hello(now),
            // What the old connection carried may be lost; the numbers tell.
            Some(Parent::Joined(joined)) => {
                let frame = Frame::Keepalive(joined.sent);
                self.out.push_back(Output::ToParent(frame));
            }
            Some(Parent::Leaving(_) | Parent::Over) | None => {}
        }
    }

    /// The connection to the parent has broken.
    pub fn parent_disconnected(&mut self) {
        match &mut self.parent {
            // Said to nobody, perhaps.
            Some(Parent::Connecting(said)) => *said = None,
            Some(Parent::Joined(_)) => self.lose_parent("lost connection"),
            Some(Parent::Leaving(_)) => self.left(),
            Some(Parent::Over) | None => {}
        }
    }

    /// A frame from the parent.
    pub fn from_parent(&mut self, now: Moment, frame: Frame) {
        if let Some(Parent::Joined(joined)) = &mut self.parent {
            joined.heard = now;
        }
        match (frame, &mut self.parent) {
            (Frame::Verdict(verdict), Some(Parent::Connecting(_))) => self.verdict(now, verdict),
            (Frame::Message(number, msg), Some(Parent::Joined(joined))) => {
                if number != joined.received + 1 {
                    self.lose_parent("messages from the parent were lost");
                    return;
                }
                joined.received = number;
                self.report(Incoming::Message(Peer::Parent, msg));
            }
            (Frame::Keepalive(number), Some(Parent::Joined(joined)))
                if number != joined.received =>
            {
                self.lose_parent("messages from the parent were lost");
            }
            (Frame::Ping, Some(Parent::Joined(_))) => {
                self.out.push_back(Output::ToParent(Frame::Pong));
            }
            (Frame::Farewell, Some(Parent::Leaving(_))) => self.left(),
            (Frame::Disconnect(_), Some(Parent::Leaving(_))) => self.left(),
            (Frame::Disconnect(why), Some(Parent::Joined(_) | Parent::Connecting(_))) => {
                self.lose_parent(&format!("the parent broker cut us off: {why}"));
            }
            // Frames of other kinds are for parents; those in other states come too late.
            _ => {}
        }
    }

    fn verdict(&mut self, now: Moment, verdict: Verdict) {
        let admitted = match verdict {
            Verdict::Welcome { session, .. } => {
                u128::from_str_radix(&session, 16).map_err(|_| "malformed welcome".to_owned())
            }
            Verdict::Refused(why) => Err(why),
        };
        match admitted {
            Ok(session) => {
                let session = Session(session);
                self.parent = Some(Parent::Joined(Joined {
                    session,
                    sent: 0,
                    told: now,
                    received: 0,
                    heard: now,
                }));
                self.report(Incoming::Joined(Peer::Parent, session));
                // It may have changed since the hello.
                let frame = Frame::Status(self.status);
                self.out.push_back(Output::ToParent(frame));
            }
            Err(why) => {
                self.parent = Some(Parent::Over);
                self.report(Incoming::Refused(why));
            }
        }
    }

    pub(super) fn goodbye(&mut self, now: Moment) {
        match &self.parent {
            Some(Parent::Joined(_)) => {
                self.parent = Some(Parent::Leaving(now));
                self.out.push_back(Output::ToParent(Frame::Goodbye));
            }
            Some(Parent::Leaving(_)) => {}
            // Nobody to take leave of.
            Some(Parent::Connecting(_) | Parent::Over) | None => self.left(),
        }
    }

    fn left(&mut self) {
        if self.parent.is_some() {
            self.parent = Some(Parent::Over);
        }
        self.report(Incoming::Left);
    }

    /// More is queued for the parent than a broker can afford.
    pub fn parent_overrun(&mut self, bytes: usize) {
        match self.parent {
            // It will not hear the goodbye either.
            Some(Parent::Leaving(_)) => self.left(),
            _ => self.lose_parent(&format!(
                "the parent broker does not keep up: {bytes} bytes are waiting for it"
            )),
        }
    }

    pub(super) fn lose_parent(&mut self, why: &str) {
        if !matches!(self.parent, Some(Parent::Joined(_) | Parent::Connecting(_))) {
            return;
        }
        self.parent = Some(Parent::Over);
        self.report(Incoming::Gone {
            peer: Peer::Parent,
            status: Status::Lost,
            why: why.to_owned(),
        });
    }

    fn say_hello(&mut self, now: Moment) {
        let hello = self.hello();
        self.out.push_back(Output::ToParent(Frame::Hello(hello)));
        self.parent = Some(Parent::Connecting(Some(now)));
    }

    pub(super) fn tick_parent(&mut self, now: Moment) {
        let limits = self.limits;
        match &mut self.parent {
            Some(Parent::Connecting(Some(said))) if now >= *said + limits.hello => {
                self.say_hello(now);
            }
            Some(Parent::Leaving(said)) if now >= *said + limits.hello => {
                *said = now;
                self.out.push_back(Output::ToParent(Frame::Goodbye));
            }
            Some(Parent::Joined(joined)) => {
                let silent = now.saturating_sub(joined.heard);
                if !limits.parent_max.is_zero() && silent >= limits.parent_max {
                    self.lose_parent(&format!("the parent broker is silent for {silent:?}"));
                } else if now >= joined.told + limits.torpid_min {
                    joined.told = now;
                    let frame = Frame::Keepalive(joined.sent);
                    self.out.push_back(Output::ToParent(frame));
                    // Status frames have no numbers, so the last one may be lost unnoticed.
                    let frame = Frame::Status(self.status);
                    self.out.push_back(Output::ToParent(frame));
                }
            }
            _ => {}
        }
    }
}
