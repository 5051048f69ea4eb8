//! The run: a queue of what happens, in order of time, and what it leads to.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use overlay::frame::Frame;
use overlay::topology::Shape;
use overlay::tree::Output;
use overlay::{Control, Incoming, Peer, Session, Status, Topology};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::Message;

use crate::check::{Check, Violation};
use crate::faults::Fault;
use crate::network::{ConnId, Connection, Parcel, Way};
use crate::node::{Life, Node};
use crate::program::Due;

/// How often brokers look at the time.
const TICK: Duration = Duration::from_millis(500);
/// A connection over a cut edge breaks after this.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// A break shows at both ends within this.
const NOTICE: Duration = Duration::from_millis(200);
/// From the last fault on, the tree has this long to get whole: restarts, level by level.
const SETTLE: Duration = Duration::from_secs(180);
/// After that nothing may be under way but requests just made.
const LINGER: Duration = Duration::from_secs(30);
/// Lines of history a failure shows.
const HISTORY: usize = 60;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Source of all chance.
    pub seed: u64,
    /// Number of brokers.
    pub size: u32,
    /// Shape of the tree.
    pub shape: Shape,
    /// Number of faults.
    pub faults: u32,
    /// Time over which faults are spread.
    pub length: Duration,
    /// Requests over that time.
    pub requests: u32,
}

impl Plan {
    /// A plan for `size` brokers in which everything else is chance.
    pub fn random(seed: u64, size: u32, faults: u32) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        let shapes = [
            Shape::Kary(1 + rng.random_range(0..2)),
            Shape::Kary(rng.random_range(2..17)),
            Shape::Binomial,
            Shape::Kary(0),
            Shape::Mincrit(Some(3)),
        ];
        // A line of many brokers takes its whole length to come back.
        let shape = match shapes[rng.random_range(0..shapes.len())] {
            Shape::Kary(1) if size > 32 => Shape::Kary(4),
            shape => shape,
        };
        Self {
            seed,
            size,
            shape,
            faults,
            length: Duration::from_millis(u64::from(faults) * rng.random_range(200..4000)),
            requests: faults * 10,
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Lives of brokers.
    pub lives: u64,
    /// Frames that arrived.
    pub frames: u64,
    /// Requests that ended.
    pub answers: u64,
    /// Events that reached programs.
    pub events: u64,
    /// Faults that hit something.
    pub faults: u64,
    /// What was wrong, with the last lines of history.
    pub violation: Option<(String, Vec<String>)>,
}

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
    HangUp,
    End,
}

struct World {
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    events: HashMap<u64, Event>,
    next: u64,
    rng: StdRng,
    topology: Topology,
    nodes: Vec<Node>,
    conns: Vec<Connection>,
    /// Connections by the child's life.
    by_life: HashMap<Session, ConnId>,
    history: VecDeque<String>,
    outcome: Outcome,
}

/// Run a plan.
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    if let Err(violation) = world.play() {
        let text = format!("{violation} (seed {}, {plan:?})", plan.seed);
        world.outcome.violation = Some((text, world.history.into()));
    }
    world.outcome
}

impl World {
    fn new(plan: &Plan) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            next: 0,
            rng: StdRng::seed_from_u64(plan.seed),
            topology: Topology::new(plan.shape, plan.size),
            nodes: (0..plan.size).map(|_| Node::default()).collect(),
            conns: Vec::new(),
            by_life: HashMap::new(),
            history: VecDeque::new(),
            outcome: Outcome::default(),
        };
        for rank in 0..plan.size {
            let at = world.millis(0..2000);
            world.at(at, Event::Start(rank));
        }
        let length = plan.length.as_millis().max(1) as u64;
        for _ in 0..plan.faults {
            let (at, rank) = (
                world.millis(0..length),
                world.rng.random_range(0..plan.size),
            );
            let fault = Fault::random(&mut world.rng);
            world.at(at, Event::Fault(rank, fault));
        }
        for i in 0..plan.requests {
            let (at, rank) = (
                world.millis(0..length),
                world.rng.random_range(0..plan.size),
            );
            let event = if i % 8 == 0 {
                Event::Publish(rank)
            } else {
                Event::Ask(rank)
            };
            world.at(at, event);
        }
        let end = plan.length + SETTLE;
        world.at(end, Event::HangUp);
        world.at(end + LINGER, Event::End);
        world
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((at, self.next)));
        self.events.insert(self.next, event);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        let now = self.now;
        self.history.push_back(format!("{now:?} {}", line()));
    }

    fn play(&mut self) -> Result<(), Violation> {
        while let Some(Reverse((at, id))) = self.queue.pop() {
            self.now = at;
            let Some(event) = self.events.remove(&id) else {
                continue;
            };
            if matches!(event, Event::End) {
                return self.end();
            }
            self.happen(event)?;
        }
        Ok(())
    }

    /// The rank an event has to wait for, if that is frozen.
    fn patient(&self, event: &Event) -> Option<u32> {
        let rank = match event {
            Event::Arrive(p) => self.end_of(p.conn, p.way),
            Event::Hear(conn, way) => self.end_of(*conn, *way),
            Event::Tick(rank, _) | Event::Answer(rank, ..) | Event::Ask(rank) => *rank,
            Event::Publish(rank) | Event::Connect(rank, _) => *rank,
            _ => return None,
        };
        (self.nodes[rank as usize].frozen > self.now).then_some(rank)
    }

    /// Who a frame of that direction is for.
    fn end_of(&self, conn: ConnId, way: Way) -> u32 {
        let child = self.conns[conn].child;
        match way {
            Way::Down => child,
            // Only broken lives have none, and those have no connections.
            Way::Up => self.topology.parent(child).unwrap_or(0),
        }
    }

    fn life(&mut self, rank: u32, session: Session) -> Option<&mut Life> {
        let life = self.nodes[rank as usize].life.as_mut();
        life.filter(|l| l.session == session)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(rank) = self.patient(&event) {
            let until = self.nodes[rank as usize].frozen;
            self.at(until, event);
            return Ok(());
        }
        let now = self.now;
        match event {
            Event::Arrive(parcel) => return self.arrive(parcel),
            Event::Hear(conn, way) => return self.hear(conn, way),
            Event::Connect(rank, session) => return self.connect(rank, session),
            Event::Tick(rank, session) => {
                if let Some(life) = self.life(rank, session) {
                    let local = now + life.offset;
                    life.tree.tick(local);
                    self.at(now + TICK, Event::Tick(rank, session));
                    return self.settle(rank);
                }
            }
            Event::Start(rank) => return self.start(rank),
            Event::Answer(rank, session, answer) => {
                if let Some(life) = self.life(rank, session) {
                    life.programs.answer(&mut life.switch, answer);
                    return self.settle(rank);
                }
            }
            Event::Ask(rank) => {
                let size = self.topology.size();
                let (nodes, rng) = (&mut self.nodes, &mut self.rng);
                if let Some(life) = &mut nodes[rank as usize].life {
                    life.programs.ask(&mut life.switch, rng, size, now);
                    return self.settle(rank);
                }
            }
            Event::Publish(rank) => {
                if let Some(life) = &mut self.nodes[rank as usize].life {
                    life.programs.publish(&mut life.switch);
                    return self.settle(rank);
                }
            }
            Event::Fault(rank, fault) => return self.fault(rank, fault),
            Event::Timeout(conn) => {
                let child = self.conns[conn].child;
                if self.nodes[child as usize].cut > now {
                    self.sever(conn);
                }
            }
            Event::HangUp => return self.hang_up(),
            Event::End => {}
        }
        Ok(())
    }

    fn start(&mut self, rank: u32) -> Result<(), Violation> {
        if self.nodes[rank as usize].life.is_some() {
            return Ok(());
        }
        let session = Session(self.rng.random());
        let offset = self.millis(0..1_000_000);
        let life = Life::new(rank, &self.topology, session, offset);
        self.nodes[rank as usize].life = Some(life);
        self.outcome.lives += 1;
        self.note(|| format!("rank {rank} starts as {session:?}"));
        let now = self.now;
        self.at(now + TICK, Event::Tick(rank, session));
        if rank > 0 {
            self.at(now, Event::Connect(rank, session));
        }
        self.settle(rank)
    }

    fn connect(&mut self, rank: u32, session: Session) -> Result<(), Violation> {
        let now = self.now;
        let parent = self.topology.parent(rank).unwrap_or(0) as usize;
        let cut = self.nodes[rank as usize].cut > now;
        let above = self.nodes[parent].life.as_ref().map(|l| l.session);
        let wait = self.millis(20..1000);
        let Some(life) = self.life(rank, session) else {
            return Ok(());
        };
        if life.up.is_some() {
            return Ok(());
        }
        let Some(above) = above.filter(|_| !cut) else {
            self.at(now + wait, Event::Connect(rank, session));
            return Ok(());
        };
        let id = self.conns.len();
        self.conns.push(Connection::new(rank, session, above));
        self.by_life.insert(session, id);
        let Some(life) = self.life(rank, session) else {
            return Ok(());
        };
        life.up = Some(id);
        let local = now + life.offset;
        life.tree.parent_connected(local);
        self.settle(rank)
    }

    fn arrive(&mut self, parcel: Parcel) -> Result<(), Violation> {
        let conn = &self.conns[parcel.conn];
        if !conn.carries(&parcel) {
            return Ok(());
        }
        let (child, child_life, parent_life) = (conn.child, conn.child_life, conn.parent_life);
        let cut = self.nodes[child as usize].cut;
        if cut > self.now {
            self.at(cut, Event::Arrive(parcel));
            return Ok(());
        }
        let now = self.now;
        self.outcome.frames += 1;
        let rank = self.end_of(parcel.conn, parcel.way);
        match parcel.way {
            Way::Up => {
                let Some(life) = self.life(rank, parent_life) else {
                    return Ok(());
                };
                let local = now + life.offset;
                life.tree
                    .from_child(local, child_life, Some(child), parcel.frame);
            }
            Way::Down => {
                let Some(life) = self.life(rank, child_life) else {
                    return Ok(());
                };
                let local = now + life.offset;
                life.tree.from_parent(local, parcel.frame);
            }
        }
        self.settle(rank)
    }

    /// A connection breaks; both ends hear of it.
    fn sever(&mut self, conn: ConnId) {
        if !std::mem::replace(&mut self.conns[conn].open, false) {
            return;
        }
        for way in [Way::Up, Way::Down] {
            let at = self.now + self.rng.random_range(Duration::ZERO..NOTICE);
            self.at(at, Event::Hear(conn, way));
        }
    }

    fn hear(&mut self, conn: ConnId, way: Way) -> Result<(), Violation> {
        let now = self.now;
        let c = &self.conns[conn];
        let (child_life, parent_life) = (c.child_life, c.parent_life);
        let current = self.by_life.get(&child_life) == Some(&conn);
        let rank = self.end_of(conn, way);
        match way {
            Way::Up => {
                if let Some(life) = self.life(rank, parent_life).filter(|_| current) {
                    let local = now + life.offset;
                    life.tree.child_disconnected(local, child_life);
                }
            }
            Way::Down => {
                let wait = self.millis(20..100);
                if let Some(life) = self.life(rank, child_life).filter(|l| l.up == Some(conn)) {
                    life.up = None;
                    life.tree.parent_disconnected();
                    self.at(now + wait, Event::Connect(rank, child_life));
                }
            }
        }
        self.settle(rank)
    }

    /// Put a frame on a connection; false if that is broken.
    fn post(&mut self, conn: ConnId, way: Way, frame: Frame) -> bool {
        if !self.conns[conn].open {
            return false;
        }
        let child = self.conns[conn].child as usize;
        let usual = Duration::from_micros(self.rng.random_range(50..5000));
        let earliest = self.now + usual + self.nodes[child].slow;
        let (at, parcel) = self.conns[conn].send(conn, way, frame, earliest);
        self.at(at, Event::Arrive(parcel));
        true
    }

    /// Let a broker work until it has nothing more to do.
    fn settle(&mut self, rank: u32) -> Result<(), Violation> {
        loop {
            let now = self.now;
            let Some(life) = self.nodes[rank as usize].life.as_mut() else {
                return Ok(());
            };
            let (session, local) = (life.session, now + life.offset);
            for (peer, to, msg) in life.outbox.take() {
                life.tree.send(local, peer, to, msg);
            }
            if let Some(output) = life.tree.poll() {
                self.output(rank, output);
                continue;
            }
            let due = life.programs.run(&mut life.switch, &mut self.rng, now)?;
            let quiet = due.is_empty();
            while let Some(incoming) = life.switch.report() {
                let over = match incoming {
                    Incoming::Gone {
                        peer: Peer::Parent,
                        why,
                        ..
                    } => Some(why),
                    Incoming::Refused(why) => Some(why),
                    Incoming::Left => Some("it has left".to_owned()),
                    _ => None,
                };
                life.over = life.over.take().or(over);
            }
            let over = life.over.take();
            for Due::Answer(at, answer) in due {
                self.at(at, Event::Answer(rank, session, answer));
            }
            if let Some(why) = over {
                self.stop(rank, &why);
                return Ok(());
            }
            let life = self.nodes[rank as usize].life.as_ref();
            if quiet && life.is_none_or(|l| l.outbox.is_empty()) {
                return Ok(());
            }
        }
    }

    fn output(&mut self, rank: u32, output: Output) {
        match output {
            Output::ToParent(frame) => {
                let life = self.nodes[rank as usize].life.as_ref();
                if let Some(conn) = life.and_then(|l| l.up) {
                    self.post(conn, Way::Up, frame);
                }
            }
            Output::ToChild(session, frame) => {
                let conn = self.by_life.get(&session).copied();
                if conn.is_none_or(|c| !self.post(c, Way::Down, frame)) {
                    let now = self.now;
                    if let Some(life) = self.nodes[rank as usize].life.as_mut() {
                        let local = now + life.offset;
                        life.tree.child_disconnected(local, session);
                    }
                }
            }
            Output::Forget(_) => {}
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

    /// A life ends; another begins later.
    fn stop(&mut self, rank: u32, why: &str) {
        let node = &mut self.nodes[rank as usize];
        let Some(life) = node.life.take() else {
            return;
        };
        node.frozen = Duration::ZERO;
        self.outcome.answers += life.programs.answers;
        self.outcome.events += life.programs.events;
        self.note(|| format!("rank {rank} ends: {why}"));
        let conns = (0..self.conns.len()).filter(|c| {
            let c = &self.conns[*c];
            c.open && (c.child_life == life.session || c.parent_life == life.session)
        });
        for conn in conns.collect::<Vec<_>>() {
            self.sever(conn);
        }
        let later = self.now + self.millis(100..2000);
        self.at(later, Event::Start(rank));
    }

    fn fault(&mut self, rank: u32, fault: Fault) -> Result<(), Violation> {
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
                    let local = now + life.offset;
                    life.tree.control(local, Control::Close);
                    life.tree.control(local, Control::Goodbye);
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
            Fault::Cut(time) => {
                node.cut = node.cut.max(now + time);
                if let Some(conn) = conn {
                    self.at(now + USER_TIMEOUT, Event::Timeout(conn));
                }
            }
            Fault::Slow(time) => node.slow = time,
        }
        Ok(())
    }

    /// All is calm: check the tree, then let every client go.
    fn hang_up(&mut self) -> Result<(), Violation> {
        self.membership()?;
        for rank in 0..self.topology.size() {
            if let Some(life) = &mut self.nodes[rank as usize].life {
                life.programs.settled()?;
            }
        }
        self.orphans()?;
        for rank in 0..self.topology.size() {
            if let Some(life) = &mut self.nodes[rank as usize].life {
                life.programs.hang_up(&mut life.switch);
            }
            self.settle(rank)?;
        }
        Ok(())
    }

    fn membership(&self) -> Result<(), Violation> {
        let wrong = |text: String| Err(Check::Membership.violated(text));
        for rank in 0..self.topology.size() {
            let Some(life) = &self.nodes[rank as usize].life else {
                return wrong(format!("rank {rank} is not there"));
            };
            if life.tree.status() != Status::Full {
                return wrong(format!("rank {rank} is {}", life.tree.status().name()));
            }
            for child in self.topology.children(rank) {
                let truth = self.nodes[*child as usize].life.as_ref().map(|l| l.session);
                let seen = life.tree.joined(*child);
                if truth != seen {
                    let text =
                        format!("rank {rank} has {seen:?} for rank {child}, which is {truth:?}");
                    return wrong(text);
                }
            }
        }
        Ok(())
    }

    /// Watchers whose client's broker is gone.
    fn orphans(&self) -> Result<(), Violation> {
        let lives = self.nodes.iter().filter_map(|n| n.life.as_ref());
        let clients: std::collections::HashSet<_> = lives
            .clone()
            .map(|l| l.programs.client_id().clone())
            .collect();
        for life in lives {
            if let Some(client) = life.programs.watchers().find(|c| !clients.contains(*c)) {
                let service = life.programs.client_id();
                let text = format!("{client} is gone, and watched beside {service}");
                return Err(Check::NoOrphans.violated(text));
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Violation> {
        for (rank, node) in self.nodes.iter_mut().enumerate() {
            let Some(life) = &mut node.life else {
                continue;
            };
            self.outcome.answers += life.programs.answers;
            self.outcome.events += life.programs.events;
            let (pending, watchers) = (life.switch.pending(), life.programs.watchers().count());
            if pending + watchers > 0 {
                let text = format!("rank {rank}: {pending} requests, {watchers} watchers");
                return Err(Check::NothingPending.violated(text));
            }
        }
        Ok(())
    }
}
