//! Edges: connections come and go, and carry frames.

use std::time::Duration;

use overlay::Session;
use overlay::frame::Frame;
use rand::Rng;

use super::{Event, World};
use crate::check::Violation;
use crate::network::{ConnId, Connection, Parcel, Way};

/// A break shows at both ends within this.
pub(super) const NOTICE: Duration = Duration::from_millis(200);

/// Bytes a frame stands for in queues: about what it takes on the wire.
fn weight(frame: &Frame) -> usize {
    match frame {
        Frame::Message(_, msg) => msg.encoded_len() + 9,
        _ => 9,
    }
}

impl World {
    /// Who a frame of that direction is for.
    pub(super) fn end_of(&self, conn: ConnId, way: Way) -> u32 {
        let child = self.conns[conn].child;
        match way {
            Way::Down => child,
            // The root has no connection up.
            Way::Up => self.topology.parent(child).unwrap_or(0),
        }
    }

    pub(super) fn connect(&mut self, rank: u32, session: Session) -> Result<(), Violation> {
        let now = self.now;
        let parent = self.topology.parent(rank).unwrap_or(0) as usize;
        let cut = self.nodes[rank as usize].cut > now;
        let above = self.nodes[parent].life.as_ref().map(|l| l.session);
        let wait = self.millis(20..1000);
        let id = self.conns.len();
        let Some(life) = self.life(rank, session).filter(|l| l.up.is_none()) else {
            return Ok(());
        };
        let Some(above) = above.filter(|_| !cut) else {
            self.after(wait, Event::Connect(rank, session));
            return Ok(());
        };
        life.up = Some(id);
        let clock = life.clock(now);
        life.tree.parent_connected(clock);
        self.conns.push(Connection::new(rank, session, above));
        self.by_life.insert(session, id);
        // What waited for the connection before this one.
        self.flush(id, Way::Up);
        self.flush(id, Way::Down);
        self.settle(rank)
    }

    pub(super) fn arrive(&mut self, parcel: Parcel) -> Result<(), Violation> {
        let now = self.now;
        let (id, way) = (parcel.conn, parcel.way);
        let cut = self.nodes[self.conns[id].child as usize].cut;
        if cut > now && self.conns[id].open {
            self.agenda.at(cut, Event::Arrive(parcel));
            return Ok(());
        }
        let conn = &mut self.conns[id];
        let carried = conn.deliver(&parcel);
        let (child, child_life, parent_life) = (conn.child, conn.child_life, conn.parent_life);
        self.flush(id, way);
        if !carried {
            return Ok(());
        }
        self.outcome.frames += 1;
        let rank = self.end_of(id, way);
        match way {
            Way::Up => {
                let Some(life) = self.life(rank, parent_life) else {
                    return Ok(());
                };
                let clock = life.clock(now);
                let tree = &mut life.tree;
                tree.from_child(clock, child_life, Some(child), parcel.frame);
            }
            Way::Down => {
                let Some(life) = self.life(rank, child_life) else {
                    return Ok(());
                };
                let clock = life.clock(now);
                life.tree.from_parent(clock, parcel.frame);
            }
        }
        self.settle(rank)
    }

    /// A connection breaks; both ends hear of it.
    pub(super) fn sever(&mut self, conn: ConnId) {
        if !std::mem::replace(&mut self.conns[conn].open, false) {
            return;
        }
        for way in [Way::Up, Way::Down] {
            let wait = self.rng.random_range(Duration::ZERO..NOTICE);
            self.after(wait, Event::Hear(conn, way));
        }
    }

    pub(super) fn hear(&mut self, conn: ConnId, way: Way) -> Result<(), Violation> {
        let now = self.now;
        let c = &self.conns[conn];
        let (child_life, parent_life) = (c.child_life, c.parent_life);
        let current = self.by_life.get(&child_life) == Some(&conn);
        let rank = self.end_of(conn, way);
        match way {
            Way::Up => {
                if let Some(life) = self.life(rank, parent_life).filter(|_| current) {
                    let clock = life.clock(now);
                    life.tree.child_disconnected(clock, child_life);
                }
            }
            Way::Down => {
                let wait = self.millis(20..100);
                if let Some(life) = self.life(rank, child_life).filter(|l| l.up == Some(conn)) {
                    life.up = None;
                    life.tree.parent_disconnected();
                    self.after(wait, Event::Connect(rank, child_life));
                }
            }
        }
        self.settle(rank)
    }

    /// Whether a connection takes one more frame.
    fn is_free(&self, conn: ConnId, way: Way) -> bool {
        self.conns[conn].load(way) < u64::from(self.plan.room.window.0)
    }

    fn put(&mut self, conn: ConnId, way: Way, frame: Frame) {
        let child = self.conns[conn].child as usize;
        let usual = Duration::from_micros(self.rng.random_range(50..5000));
        let earliest = self.now + usual + self.nodes[child].slow;
        let (at, parcel) = self.conns[conn].send(conn, way, frame, earliest);
        self.agenda.at(at, Event::Arrive(parcel));
    }

    /// The broker of `rank` sends a frame to its parent.
    pub(super) fn send_up(&mut self, rank: u32, frame: Frame) {
        let Some(life) = &self.nodes[rank as usize].life else {
            return;
        };
        let Some(conn) = life.up.filter(|c| self.conns[*c].open) else {
            return;
        };
        let outbox = life.outbox.clone();
        let mut waiting = outbox.lock();
        if waiting.up.is_empty() && self.is_free(conn, Way::Up) {
            return self.put(conn, Way::Up, frame);
        }
        let bytes = weight(&frame);
        waiting.up.push(frame, bytes);
        let bytes = waiting.up.bytes();
        if bytes > self.plan.room.peers.hard
            && let Some(life) = &mut self.nodes[rank as usize].life
        {
            life.tree.parent_overrun(bytes);
            self.outcome.overruns += 1;
        }
    }

    /// The broker of `rank` sends a frame to a life of a child.
    pub(super) fn send_down(&mut self, rank: u32, session: Session, frame: Frame) {
        let now = self.now;
        let conn = self.by_life.get(&session).copied();
        let conn = conn.filter(|c| self.conns[*c].open);
        let free = conn.map(|c| (c, self.conns[c].child, self.is_free(c, Way::Down)));
        let Some(life) = &mut self.nodes[rank as usize].life else {
            return;
        };
        let clock = life.clock(now);
        let Some((conn, child, free)) = free else {
            return life.tree.child_disconnected(clock, session);
        };
        let outbox = life.outbox.clone();
        let mut waiting = outbox.lock();
        let queue = waiting.down.get(&child).filter(|(to, _)| *to == session);
        if queue.is_none_or(|(_, queue)| queue.is_empty()) && free {
            return self.put(conn, Way::Down, frame);
        }
        // Those who are not joined get no more than a verdict or a farewell.
        if life.tree.joined(child) != Some(session) {
            return;
        }
        let queue = waiting
            .down
            .entry(child)
            .or_insert_with(|| (session, Default::default()));
        let bytes = weight(&frame);
        queue.1.push(frame, bytes);
        let bytes = queue.1.bytes();
        if bytes > self.plan.room.peers.hard {
            life.tree.child_overrun(clock, session, bytes);
            self.outcome.overruns += 1;
        }
    }

    /// Offer a connection what waits for it.
    fn flush(&mut self, conn: ConnId, way: Way) {
        let c = &self.conns[conn];
        if !c.open {
            return;
        }
        let (child, child_life, parent_life) = (c.child, c.child_life, c.parent_life);
        let sender = match way {
            Way::Up => self.life(child, child_life),
            Way::Down => self.life(self.topology.parent(child).unwrap_or(0), parent_life),
        };
        let Some(outbox) = sender.map(|life| life.outbox.clone()) else {
            return;
        };
        let mut waiting = outbox.lock();
        let queue = match way {
            Way::Up => Some(&mut waiting.up),
            Way::Down => {
                let queue = waiting.down.get_mut(&child);
                queue
                    .filter(|(to, _)| *to == child_life)
                    .map(|(_, queue)| queue)
            }
        };
        let Some(queue) = queue else { return };
        while self.is_free(conn, way)
            && let Some((frame, _)) = queue.pop()
        {
            self.put(conn, way, frame);
        }
    }
}
