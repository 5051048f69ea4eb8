//! Connections between brokers: ordered, delayed, breakable, of limited capacity.
//!
//! A connection is that of one life of a child to one life of its parent. Frames of a direction
//! arrive in order or not at all, those of different connections in any order; a break loses what is
//! under way, and each end hears of it some time later. A cut edge holds frames back; held too long,
//! the connection breaks, as TCP does after its user timeout. Only so many frames are under way; the
//! others wait in their broker, as with a full socket.

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

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    /// When the last frame arrives.
    last: Duration,
    /// Frames sent before this are lost.
    lost: u64,
    sent: u64,
    arrived: u64,
}

/// One end has not heard of the other's end.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) child: u32,
    pub(crate) child_life: Session,
    pub(crate) parent_life: Session,
    pub(crate) open: bool,
    lanes: [Lane; 2],
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
            lanes: Default::default(),
        }
    }

    /// Frames under way.
    pub(crate) fn load(&self, way: Way) -> u64 {
        let lane = &self.lanes[way.index()];
        lane.sent - lane.arrived
    }

    /// Take a frame; when it arrives.
    pub(crate) fn send(
        &mut self,
        conn: ConnId,
        way: Way,
        frame: Frame,
        earliest: Duration,
    ) -> (Duration, Parcel) {
        let lane = &mut self.lanes[way.index()];
        lane.last = lane.last.max(earliest);
        lane.sent += 1;
        let parcel = Parcel {
            conn,
            way,
            frame,
            number: lane.sent,
        };
        (lane.last, parcel)
    }

    /// Lose what is under way; nobody is told.
    pub(crate) fn lose(&mut self) {
        for lane in &mut self.lanes {
            lane.lost = lane.sent;
        }
    }

    /// A parcel is at its end; whether it is not lost.
    pub(crate) fn deliver(&mut self, parcel: &Parcel) -> bool {
        let lane = &mut self.lanes[parcel.way.index()];
        lane.arrived += 1;
        self.open && parcel.number > lane.lost
    }
}
