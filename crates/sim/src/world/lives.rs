//! Lives: brokers start, work, meet with faults and end.

use std::time::Duration;

use overlay::tree::Output;
use overlay::{Control, Incoming, Peer, Session};
use rand::Rng;

use super::{Event, TICK, World};
use crate::check::Violation;
use crate::faults::Fault;
use crate::node::Life;

/// A connection over a cut edge breaks after this.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// What of a report ends the broker.
fn ends(incoming: Incoming) -> Option<String> {
    match incoming {
        Incoming::Gone {
            peer: Peer::Parent,
            why,
            ..
        } => Some(why),
        Incoming::Refused(why) => Some(why),
        Incoming::Left => Some("it has left".to_owned()),
        _ => None,
    }
}

impl World {
    pub(super) fn start(&mut self, rank: u32) -> Result<(), Violation> {
        let node = &self.nodes[rank as usize];
        if node.life.is_some() || node.buried {
            return Ok(());
        }
        let session = Session(self.rng.random());
        let offset = self.millis(0..1_000_000);
        let (limits, room) = (self.plan.limits, &self.plan.room);
        let life = Life::new(rank, &self.topology, limits, room, session, offset);
        self.nodes[rank as usize].life = Some(life);
        self.outcome.lives += 1;
        self.note(|| format!("rank {rank} starts as {session:?}"));
        self.after(TICK, Event::Tick(rank, session));
        if rank > 0 {
            self.after(Duration::ZERO, Event::Connect(rank, session));
        }
        self.settle(rank)
    }

    /// Let a broker work until it has nothing more to do.
    pub(super) fn settle(&mut self, rank: u32) -> Result<(), Violation> {
        let now = self.now;
        loop {
            let Some(life) = self.nodes[rank as usize].life.as_mut() else {
                return Ok(());
            };
            let (session, clock) = (life.session, life.clock(now));
            for (peer, to, msg) in life.outbox.take() {
                life.tree.send(clock, peer, to, msg);
            }
            if let Some(output) = life.tree.poll() {
                self.output(rank, output);
                continue;
            }
            let due = life.programs.run(&mut life.switch, &mut self.rng, now)?;
            while let Some(incoming) = life.switch.report() {
                life.over = life.over.take().or(ends(incoming));
            }
            let overrun = life.programs.replace_overrun(&mut life.switch);
            self.outcome.overruns += u64::from(overrun);
            let idle = due.is_empty() && life.outbox.is_empty() && !overrun;
            let over = life.over.take();
            for (at, answer) in due {
                self.agenda.at(at, Event::Answer(rank, session, answer));
            }
            if let Some(why) = over {
                self.stop(rank, &why);
                return Ok(());
            }
            if idle {
                return self.queues_bounded(rank);
            }
        }
    }

    fn output(&mut self, rank: u32, output: Output) {
        match output {
            Output::ToParent(frame) => self.send_up(rank, frame),
            Output::ToChild(session, frame) => self.send_down(rank, session, frame),
            Output::Forget(session) => {
                if let Some(life) = &self.nodes[rank as usize].life {
                    life.outbox.forget(session);
                }
            }
            Output::Report(incoming) => {
                if !matches!(incoming, Incoming::Message(..)) {
                    self.note(|| format!("rank {rank}: {incoming:?}"));
                }
                if let Some(life) = self.nodes[rank as usize].life.as_mut() {
                    life.switch.incoming(incoming);
                }
            }
        }
    }

    /// Count what programs of a rank have seen.
    pub(super) fn count(&mut self, rank: u32) {
        if let Some(life) = &self.nodes[rank as usize].life {
            self.outcome.answers += life.programs.answers;
            self.outcome.refusals += life.programs.refusals;
            self.outcome.events += life.programs.events;
        }
    }

    /// A life ends; another begins later.
    pub(super) fn stop(&mut self, rank: u32, why: &str) {
        self.count(rank);
        let node = &mut self.nodes[rank as usize];
        let Some(life) = node.life.take() else {
            return;
        };
        node.frozen = Duration::ZERO;
        node.ended = Some((life.session, self.now));
        self.note(|| format!("rank {rank} ends: {why}"));
        let children = self.topology.children(rank).iter();
        let below = children.filter_map(|c| self.nodes[*c as usize].life.as_ref()?.up);
        let below = below.filter(|c| self.conns[*c].parent_life == life.session);
        let conns: Vec<_> = life.up.into_iter().chain(below).collect();
        for conn in conns {
            self.sever(conn);
        }
        let later = self.millis(100..2000);
        self.after(later, Event::Start(rank));
    }

    pub(super) fn fault(&mut self, rank: u32, fault: Fault) -> Result<(), Violation> {
        let now = self.now;
        self.note(|| format!("rank {rank}: {fault:?}"));
        let node = &mut self.nodes[rank as usize];
        let Some(life) = &mut node.life else {
            return Ok(());
        };
        self.outcome.faults += 1;
        let conn = life.up.filter(|c| self.conns[*c].open);
        match fault {
            Fault::Crash => self.stop(rank, "it crashes"),
            Fault::Leave if rank == 0 => {}
            Fault::Leave => {
                if !std::mem::replace(&mut life.leaving, true) {
                    let clock = life.clock(now);
                    life.tree.control(clock, Control::Close);
                    life.tree.control(clock, Control::Goodbye);
                    return self.settle(rank);
                }
            }
            Fault::Freeze(time) => node.frozen = node.frozen.max(now + time),
            Fault::Break => {
                if let Some(conn) = conn {
                    self.sever(conn);
                }
            }
            Fault::Lose => {
                if let Some(conn) = conn {
                    self.conns[conn].lose();
                }
            }
            Fault::Cut(time) => self.cut(rank, time),
            Fault::Partition(time) => {
                for child in self.topology.clone().children(rank) {
                    self.cut(*child, time);
                }
            }
            Fault::Slow(time) => node.slow = time,
            Fault::Jump(time) => {
                life.offset += time;
                let clock = life.clock(now);
                life.tree.tick(clock);
                return self.settle(rank);
            }
            Fault::Deaf(time) => {
                life.programs.deaf = now + time;
                self.after(time, Event::Listen(rank));
            }
        }
        Ok(())
    }

    /// Nothing passes the edge above `rank` for some time.
    fn cut(&mut self, rank: u32, time: Duration) {
        let node = &mut self.nodes[rank as usize];
        node.cut = node.cut.max(self.now + time);
        let up = node.life.as_ref().and_then(|l| l.up);
        if let Some(conn) = up.filter(|c| self.conns[*c].open) {
            self.after(USER_TIMEOUT, Event::Timeout(conn));
        }
    }
}
