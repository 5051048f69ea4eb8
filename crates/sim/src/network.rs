//! Connections between brokers: ordered, delayed, breakable.
//!
//! A connection is that of one life of a child to one life of its parent. Frames of a direction
//! arrive in order or not at all; a break loses what is under way, and each end hears of it some
//! time later. A cut edge holds frames back; held too long, the connection breaks, as TCP does
//! after its user timeout.

use std::time::Duration;

use overlay::Session;
use overlay::frame::Frame;

/// Names a connection for good.
pub(crate) type ConnId = usize;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

impl Way {
    fn index(self) -> usize {
        match self {
            Self::Up => 0,
            Self::Down => 1,
        }
    }
}

/// One end has not heard of the other's end.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) child: u32,
    pub(crate) child_life: Session,
    pub(crate) parent_life: Session,
    pub(crate) open: bool,
    /// When the last frame of each direction arrives.
    last: [Duration; 2],
    /// Frames sent before this, in each direction, are lost.
    lost: [u64; 2],
    sent: [u64; 2],
}

/// A frame under way.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) conn: ConnId,
    pub(crate) way: Way,
    pub(crate) frame: Frame,
    number: u64,
}

impl Connection {
    pub(crate) fn new(child: u32, child_life: Session, parent_life: Session) -> Self {
        Self {
            child,
            child_life,
            parent_life,
            open: true,
            last: [Duration::ZERO; 2],
            lost: [0; 2],
            sent: [0; 2],
        }
    }

    /// Take a frame; when it arrives.
    pub(crate) fn send(
        &mut self,
        conn: ConnId,
        way: Way,
        frame: Frame,
        earliest: Duration,
    ) -> (Duration, Parcel) {
        let i = way.index();
        self.last[i] = self.last[i].max(earliest);
        self.sent[i] += 1;
        let parcel = Parcel {
            conn,
            way,
            frame,
            number: self.sent[i],
        };
        (self.last[i], parcel)
    }

    /// Lose what is under way; nobody is told.
    pub(crate) fn lose(&mut self) {
        self.lost = self.sent;
    }

    /// Whether a parcel is not lost.
    pub(crate) fn carries(&self, parcel: &Parcel) -> bool {
        self.open && parcel.number > self.lost[parcel.way.index()]
    }
}
