//! The run: what happens, in order of time, and what it leads to.
//!
//! A run has four parts: brokers start while faults and programs have their way (`Plan::length`); one
//! broker is taken away and stays away until all is calm; it comes back, and the tree gets whole; all
//! clients go. The invariants of [`crate::check`] are looked at throughout and at the end of each part.

mod checks;
mod edges;
mod lives;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use overlay::{Session, Topology};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::Message;

use crate::agenda::Agenda;
use crate::check::{self, Violation};
use crate::faults::Fault;
use crate::network::{ConnId, Connection, Parcel, Way};
use crate::node::{Life, Node};
use crate::plan::{Outcome, Plan};

/// How often brokers look at the time.
const TICK: Duration = Duration::from_millis(500);
/// How often the whole tree is looked at.
const INSPECTION: Duration = Duration::from_secs(5);
/// From the last fault on, the tree has this long to calm down: restarts, level by level.
const SETTLE: Duration = Duration::from_secs(180);
/// Requests to the broker that is away have this long.
const ANSWER: Duration = Duration::from_secs(30);
/// What the tree has to get whole after its return.
const RETURN: Duration = Duration::from_secs(60);
/// After that nothing may be under way but requests just made.
const LINGER: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum Event {
    Arrive(Parcel),
    /// One end of a broken connection hears of it.
    Hear(ConnId, Way),
    /// A life without connection to its parent tries to get one.
    Connect(u32, Session),
    Tick(u32, Session),
    Start(u32),
    Answer(u32, Session, Message),
    Ask(u32),
    Publish(u32),
    Fault(u32, Fault),
    /// A cut edge has held for long.
    Timeout(ConnId),
    /// A client that did not read may go on.
    Listen(u32),
    Inspect,
    /// A broker goes away for long.
    Bury(u32),
    /// Others ask for it and those below.
    AskLost(u32),
    /// It may come back.
    Unbury(u32),
    HangUp,
    End,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    agenda: Agenda<Event>,
    rng: StdRng,
    plan: Plan,
    topology: Topology,
    nodes: Vec<Node>,
    conns: Vec<Connection>,
    /// Connections by the child's life.
    by_life: HashMap<Session, ConnId>,
    history: VecDeque<String>,
    pub(crate) outcome: Outcome,
}

/// Run a plan.
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    world.schedule();
    if let Err(violation) = world.play() {
        let text = format!("{violation} (seed {}, {plan:?})", plan.seed);
        world.outcome.violation = Some((text, world.history.into()));
    }
    world.outcome
}

impl World {
    /// A world in which brokers are about to start.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            agenda: Agenda::new(),
            rng: StdRng::seed_from_u64(plan.seed),
            plan: plan.clone(),
            topology: Topology::new(plan.shape, plan.size),
            nodes: (0..plan.size).map(|_| Node::default()).collect(),
            conns: Vec::new(),
            by_life: HashMap::new(),
            history: VecDeque::new(),
            outcome: Outcome::default(),
        };
        for rank in 0..plan.size {
            let at = world.millis(0..2000);
            world.agenda.at(at, Event::Start(rank));
        }
        world
    }

    /// Plan what happens to them.
    fn schedule(&mut self) {
        let (size, length) = (self.plan.size, self.plan.length);
        for _ in 0..self.plan.faults {
            let (at, rank) = self.somewhere();
            let fault = Fault::random(&mut self.rng);
            self.agenda.at(at, Event::Fault(rank, fault));
        }
        for i in 0..self.plan.requests {
            let (at, rank) = self.somewhere();
            let event = match i % 8 {
                0 => Event::Publish(rank),
                _ => Event::Ask(rank),
            };
            self.agenda.at(at, event);
        }
        self.agenda.at(INSPECTION, Event::Inspect);
        let calm = length + SETTLE;
        if size > 1 {
            let rank = self.rng.random_range(1..size);
            self.agenda.at(length, Event::Bury(rank));
            self.agenda.at(calm - ANSWER, Event::AskLost(rank));
            self.agenda.at(calm, Event::Unbury(rank));
        }
        self.agenda.at(calm + RETURN, Event::HangUp);
        self.agenda.at(calm + RETURN + LINGER, Event::End);
    }

    /// A time and a place for something to happen.
    fn somewhere(&mut self) -> (Duration, u32) {
        let length = self.plan.length.as_millis().max(1) as u64;
        (
            self.millis(0..length),
            self.rng.random_range(0..self.plan.size),
        )
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.agenda.at(self.now + wait, event);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.history.len() >= self.plan.history {
            self.history.pop_front();
        }
        let now = self.now;
        self.history.push_back(format!("{now:?} {}", line()));
    }

    fn play(&mut self) -> Result<(), Violation> {
        check::is_a_tree(&self.topology)?;
        while self.step()? {}
        Ok(())
    }

    /// Let one thing happen; false after the last.
    pub(crate) fn step(&mut self) -> Result<bool, Violation> {
        let Some((at, event)) = self.agenda.next() else {
            return Ok(false);
        };
        self.now = at;
        if matches!(event, Event::End) {
            return self.end().map(|()| false);
        }
        self.happen(event)?;
        Ok(true)
    }

    /// Whether the root calls the tree full.
    pub(crate) fn is_full(&self) -> bool {
        let root = self.nodes[0].life.as_ref();
        root.is_some_and(|life| life.tree.status() == overlay::Status::Full)
    }

    /// The rank an event has to wait for, if that is frozen.
    fn patient(&self, event: &Event) -> Option<u32> {
        let rank = match event {
            Event::Arrive(p) => self.end_of(p.conn, p.way),
            Event::Hear(conn, way) => self.end_of(*conn, *way),
            Event::Tick(rank, _) | Event::Answer(rank, ..) | Event::Ask(rank) => *rank,
            Event::Publish(rank) | Event::Connect(rank, _) | Event::Listen(rank) => *rank,
            _ => return None,
        };
        (self.nodes[rank as usize].frozen > self.now).then_some(rank)
    }

    fn life(&mut self, rank: u32, session: Session) -> Option<&mut Life> {
        let life = self.nodes[rank as usize].life.as_mut();
        life.filter(|l| l.session == session)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(rank) = self.patient(&event) {
            let until = self.nodes[rank as usize].frozen;
            self.agenda.at(until, event);
            return Ok(());
        }
        match event {
            Event::Arrive(parcel) => self.arrive(parcel),
            Event::Hear(conn, way) => self.hear(conn, way),
            Event::Connect(rank, session) => self.connect(rank, session),
            Event::Tick(rank, session) => self.tick(rank, session),
            Event::Start(rank) => self.start(rank),
            Event::Answer(rank, session, answer) => {
                if let Some(life) = self.life(rank, session) {
                    life.programs.answer(&mut life.switch, answer);
                }
                self.settle(rank)
            }
            Event::Ask(rank) => self.ask(rank),
            Event::Publish(rank) => {
                if let Some(life) = &mut self.nodes[rank as usize].life {
                    life.programs.publish(&mut life.switch, &mut self.rng);
                }
                self.settle(rank)
            }
            Event::Fault(rank, fault) => self.fault(rank, fault),
            Event::Timeout(conn) => {
                let child = self.conns[conn].child;
                if self.nodes[child as usize].cut > self.now {
                    self.sever(conn);
                }
                Ok(())
            }
            Event::Listen(rank) => self.settle(rank),
            Event::Inspect => {
                self.after(INSPECTION, Event::Inspect);
                self.no_ended_life_joined()
            }
            Event::Bury(rank) => {
                self.nodes[rank as usize].buried = true;
                self.stop(rank, "it is taken away");
                Ok(())
            }
            Event::AskLost(rank) => self.ask_lost(rank),
            Event::Unbury(rank) => {
                self.no_lost_subtree_online(rank)?;
                self.all_answered(Some(rank))?;
                self.nodes[rank as usize].buried = false;
                self.start(rank)
            }
            Event::HangUp => self.hang_up(),
            Event::End => Ok(()),
        }
    }

    fn tick(&mut self, rank: u32, session: Session) -> Result<(), Violation> {
        let now = self.now;
        if let Some(life) = self.life(rank, session) {
            let clock = life.clock(now);
            life.tree.tick(clock);
            self.after(TICK, Event::Tick(rank, session));
            return self.settle(rank);
        }
        Ok(())
    }

    fn ask(&mut self, rank: u32) -> Result<(), Violation> {
        let (now, size) = (self.now, self.plan.size);
        for _ in 0..self.plan.burst {
            if let Some(life) = &mut self.nodes[rank as usize].life {
                let programs = &mut life.programs;
                programs.ask(&mut life.switch, &mut self.rng, size, now);
            }
        }
        self.settle(rank)
    }

    /// Some that are not below the broker that is away ask for it and those below.
    fn ask_lost(&mut self, away: u32) -> Result<(), Violation> {
        let below = self.topology.subtree(away);
        for _ in 0..4 {
            let rank = self.rng.random_range(0..self.plan.size);
            let to = below[self.rng.random_range(0..below.len())];
            if let Some(life) = &mut self.nodes[rank as usize].life
                && !below.contains(&rank)
            {
                life.programs.ask_lost(&mut life.switch, to);
            }
            self.settle(rank)?;
        }
        Ok(())
    }

    /// All is calm: let every client go.
    fn hang_up(&mut self) -> Result<(), Violation> {
        self.membership()?;
        self.all_answered(None)?;
        self.no_orphans()?;
        for rank in 0..self.plan.size {
            if let Some(life) = &mut self.nodes[rank as usize].life {
                life.programs.hang_up(&mut life.switch);
            }
            self.settle(rank)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Violation> {
        for rank in 0..self.plan.size {
            self.count(rank);
        }
        self.nothing_pending()
    }
}
