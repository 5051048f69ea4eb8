//! The run: messages on their way, ranks that end and start, and time.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use client::module::{Context, Meter, ModuleResult};
use futures::channel::oneshot;
use futures::executor::LocalPool;
use futures::future::{AbortHandle, Abortable};
use futures::task::LocalSpawnExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::{Message, Text};

use super::programs::{KINDS, Kind, Life, Program, Shared};
use super::store::Store;
use super::{Outcome, Plan, Sabotage};
use crate::agenda::Agenda;
use crate::exchange::{Exchange, Packet, Step};

enum Event {
    /// From a rank to a neighbour, in these lives of theirs.
    Arrive([(u32, u64); 2], Packet),
    Deliver(Text, Message),
    Stored(u64, Message),
    Wake(oneshot::Sender<()>),
    Crash(u32),
    Start(u32),
    Full(bool),
}

/// A rank.
#[derive(Default)]
struct Node {
    alive: bool,
    /// Counts lives.
    life: u64,
    tasks: Vec<AbortHandle>,
    /// What the last life sent arrives until then.
    heard: Duration,
}

struct World {
    plan: Plan,
    now: Duration,
    rng: StdRng,
    agenda: Agenda<Event>,
    pool: LocalPool,
    exchange: Exchange,
    store: Store,
    /// When the last message on a way arrives: none overtakes another.
    ways: HashMap<(u32, u32), Duration>,
    inboxes: HashMap<Text, Duration>,
    disk: Duration,
    nodes: Vec<Node>,
    programs: Vec<Program>,
    shared: Rc<RefCell<Shared>>,
    history: VecDeque<String>,
    outcome: Outcome,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    if let Err(text) = world.play() {
        let text = format!("{text} ({plan:?})");
        world.outcome.violation = Some((text, world.history.into()));
        return world.outcome;
    }
    world.outcome
}

/// A piece of time without limit, for who asks late.
const LAST: Duration = Duration::from_secs(3600);

impl World {
    fn new(plan: &Plan) -> World {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let mut shared = Shared::default();
        let mut programs = Vec::new();
        for kind in KINDS {
            for number in 0..plan.programs {
                shared.left.insert((kind as u32, number), plan.rounds);
                let rank = rng.random_range(0..plan.size);
                programs.push(Program { kind, number, rank });
            }
        }
        let mut world = World {
            now: Duration::ZERO,
            agenda: Agenda::new(),
            pool: LocalPool::new(),
            exchange: Exchange::new(plan.size, plan.fanout, &["content-backing"]),
            store: Store::default(),
            ways: HashMap::new(),
            inboxes: HashMap::new(),
            disk: Duration::ZERO,
            nodes: (0..plan.size).map(|_| Node::default()).collect(),
            programs,
            shared: Rc::new(RefCell::new(shared)),
            history: VecDeque::new(),
            outcome: Outcome::default(),
            plan: plan.clone(),
            rng,
        };
        for rank in 0..plan.size {
            let at = world.time(10_000);
            world.agenda.at(at, Event::Start(rank));
        }
        world.schedule_faults();
        world
    }

    fn schedule_faults(&mut self) {
        let length = self.plan.length.as_micros() as u64;
        for _ in 0..self.plan.faults {
            let at = self.time(length);
            let event = match self.rng.random_range(0..10) {
                0 | 1 => Event::Crash(0),
                2 => Event::Full(true),
                _ => Event::Crash(self.rng.random_range(0..self.plan.size)),
            };
            self.agenda.at(at, event);
        }
    }

    fn time(&mut self, micros: u64) -> Duration {
        Duration::from_micros(self.rng.random_range(0..micros.max(1)))
    }

    fn delay(&mut self) -> Duration {
        let most = self.plan.delay.as_micros() as u64;
        self.time(most)
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.history.len() >= self.plan.history {
            self.history.pop_front();
        }
        let now = self.now;
        self.history.push_back(format!("{now:?} {}", line()));
    }

    fn play(&mut self) -> Result<(), String> {
        self.until_calm()?;
        if self.shared.borrow().left.values().any(|left| *left > 0) {
            // Ranks that watchers are on have no rounds to do; all others must have come to their end.
            let mut left = self.shared.borrow().left.clone();
            left.retain(|(kind, _), _| {
                ![Kind::LogWatcher as u32, Kind::ValueWatcher as u32].contains(kind)
            });
            if let Some(((kind, number), left)) = left.into_iter().find(|(_, left)| *left > 0) {
                return Err(format!(
                    "program {number} of kind {kind} has {left} rounds to do"
                ));
            }
        }
        self.close()
    }

    /// Lets things happen until nothing is going to.
    fn until_calm(&mut self) -> Result<(), String> {
        loop {
            self.run_programs();
            if let Some(text) = self.shared.borrow_mut().model.violation() {
                return Err(text);
            }
            let Some((at, event)) = self.agenda.next() else {
                return Ok(());
            };
            if at > LAST {
                return Err("there is no end to it".to_owned());
            }
            self.now = at;
            self.happen(event);
        }
    }

    /// Every rank has the same version in the end, and what was seen is what is there.
    fn close(&mut self) -> Result<(), String> {
        let mut versions = Vec::new();
        for rank in 0..self.plan.size {
            let life = self.life_of(Program {
                kind: Kind::Reader,
                number: u32::MAX,
                rank,
            });
            let version = Rc::new(RefCell::new(None));
            let told = version.clone();
            let close = async move {
                let at = life.close(rank == 0).await;
                *told.borrow_mut() = Some(at);
            };
            self.spawn(rank, close);
            self.until_calm()?;
            let version = version.borrow_mut().take();
            match version {
                Some(Ok(version)) => versions.push(version),
                Some(Err(e)) => return Err(format!("rank {rank} cannot be read in the end: {e}")),
                None => return Err(format!("rank {rank} does not answer in the end")),
            }
        }
        if versions.iter().any(|v| *v != versions[0]) {
            return Err(format!(
                "ranks have different versions in the end: {versions:?}"
            ));
        }
        let shared = self.shared.borrow();
        let model = &shared.model;
        self.outcome.commits = model.commits();
        self.outcome.lost = model.lost;
        self.outcome.reads = model.reads;
        self.outcome.seen = model.seen;
        Ok(())
    }

    fn spawn(&mut self, rank: u32, task: impl Future<Output = ()> + 'static) {
        let (abort, registration) = AbortHandle::new_pair();
        self.nodes[rank as usize].tasks.push(abort);
        let task = Abortable::new(task, registration);
        let spawned = self.pool.spawner().spawn_local(async move {
            // Ended or aborted: it is over.
            let _ = task.await;
        });
        // The pool is ours and goes away with us.
        spawned.expect("the pool is there");
    }

    fn module<F>(&mut self, rank: u32, name: &'static str, main: impl FnOnce(Context) -> F)
    where
        F: Future<Output = ModuleResult> + 'static,
    {
        let (_, handle) = self.exchange.attach(rank, Some(name));
        handle.set_meter(std::sync::Arc::new(Meter::new(name)));
        let inbox = handle.inbox().expect("a fresh handle has its inbox");
        let args = match name {
            "content" => vec![
                "await-backing".to_owned(),
                "purge-target-size=20000".to_owned(),
            ],
            _ => vec![],
        };
        let context = Context {
            handle,
            inbox,
            name: name.to_owned(),
            args,
        };
        let (shared, main) = (self.shared.clone(), main(context));
        self.spawn(rank, async move {
            let end = main.await;
            let text = format!("module {name} of rank {rank} has ended: {end:?}");
            shared.borrow_mut().model.fail(text);
        });
    }

    fn life_of(&mut self, program: Program) -> Life {
        Life {
            shared: self.shared.clone(),
            handle: self.exchange.attach(program.rank, None).1,
            rng: StdRng::seed_from_u64(self.rng.random()),
            program,
            writers: self.plan.programs,
        }
    }

    fn start(&mut self, rank: u32) {
        let parent = self.exchange.parent(rank);
        if parent.is_some_and(|p| !self.nodes[p as usize].alive) {
            let later = self.now + Duration::from_millis(5) + self.delay();
            self.agenda.at(later, Event::Start(rank));
            return;
        }
        let node = &mut self.nodes[rank as usize];
        if node.alive {
            return;
        }
        node.alive = true;
        node.life += 1;
        self.note(|| format!("rank {rank} starts"));
        self.module(rank, "content", content::cache::main);
        if rank == 0 {
            let (_, handle) = self.exchange.attach(0, None);
            self.spawn(0, async move {
                let offer = serde_json::json!({"name": "sim", "durable": true, "batches": true});
                let register = "content.register-backing";
                let registered = handle.rpc(register, client::Node::Any, &offer).await;
                registered.expect("there is one store");
            });
        }
        self.module(rank, "kvs", kvs::module::main);
        self.module(rank, "kvs-watch", kvs::kvs_watch::main);
        let here = |program: &&Program| program.rank == rank;
        let programs: Vec<Program> = self.programs.iter().filter(here).cloned().collect();
        for program in programs {
            let life = self.life_of(program);
            self.spawn(rank, life.run());
        }
    }

    /// A rank ends, with all below it: they have lost their way up.
    fn crash(&mut self, top: u32) {
        for rank in top..self.plan.size {
            if !self.exchange.is_below(rank, top) || !self.nodes[rank as usize].alive {
                continue;
            }
            self.outcome.crashes += 1;
            self.note(|| format!("rank {rank} ends"));
            let heard = self.now + self.delay();
            let node = &mut self.nodes[rank as usize];
            node.alive = false;
            node.heard = heard;
            node.tasks.drain(..).for_each(|task| task.abort());
            self.exchange.detach(rank);
            let back = self.now + self.time(50_000);
            self.agenda.at(back, Event::Start(rank));
        }
        self.pool.run_until_stalled();
    }

    /// Runs everybody who can, and takes up what they send.
    fn run_programs(&mut self) {
        loop {
            self.pool.run_until_stalled();
            let sleepers = std::mem::take(&mut self.shared.borrow_mut().sleepers);
            for (time, wake) in sleepers {
                self.agenda.at(self.now + time, Event::Wake(wake));
            }
            let Some((rank, from, msg)) = self.exchange.sent() else {
                return;
            };
            let step = self.exchange.submit(rank, from, msg);
            self.go(rank, step);
        }
    }

    /// A time not before that of the last message on the same way.
    fn in_order(last: Option<&mut Duration>, at: Duration) -> Duration {
        match last {
            Some(last) => {
                *last = at.max(*last + Duration::from_nanos(1));
                *last
            }
            None => at,
        }
    }

    fn go(&mut self, rank: u32, step: Step) {
        match step {
            Step::Nowhere => {}
            Step::Port(id, msg) => {
                let at = self.now + self.delay().min(Duration::from_micros(100));
                let at = Self::in_order(Some(self.inboxes.entry(id.clone()).or_default()), at);
                self.agenda.at(at, Event::Deliver(id, msg));
            }
            Step::Hop(to, packet) => {
                let at = self.now + self.delay();
                let at = Self::in_order(Some(self.ways.entry((rank, to)).or_default()), at);
                let life = |rank: u32| (rank, self.nodes[rank as usize].life);
                self.agenda
                    .at(at, Event::Arrive([life(rank), life(to)], packet));
            }
            Step::Outside(msg) => {
                let at = self.now + self.delay();
                let at = Self::in_order(Some(&mut self.disk), at);
                self.agenda.at(at, Event::Stored(self.nodes[0].life, msg));
            }
            Step::Event(event) => self.event(rank, &event),
        }
    }

    /// An event has come to a rank: to all there who want it, and to all below.
    fn event(&mut self, rank: u32, event: &Message) {
        for id in self.exchange.subscribers(rank, event.topic()) {
            self.go(rank, Step::Port(id, event.clone()));
        }
        for child in self.exchange.children(rank) {
            let lost =
                self.plan.sabotage == Some(Sabotage::LosesEvents) && self.rng.random_bool(0.05);
            if self.nodes[child as usize].alive && !lost {
                self.go(rank, Step::Hop(child, Packet::Event(event.clone())));
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(lives, packet) => self.arrive(lives, packet),
            Event::Deliver(id, msg) => {
                self.note(|| format!("{id} gets {:?} {}", msg.kind(), msg.topic()));
                self.exchange.deliver(&id, msg);
            }
            Event::Stored(life, msg) => self.stored(life, &msg),
            // Who slept may be gone.
            Event::Wake(wake) => drop(wake.send(())),
            Event::Crash(rank) => self.crash(rank),
            Event::Start(rank) => self.start(rank),
            Event::Full(full) => {
                self.note(|| format!("the store is full: {full}"));
                self.store.full = full;
                if full {
                    let until = self.now + self.time(50_000);
                    self.agenda.at(until, Event::Full(false));
                }
            }
        }
    }

    fn arrive(&mut self, [(from, sent), (to, meant)]: [(u32, u64); 2], packet: Packet) {
        let is = |rank: u32, life| {
            let node = &self.nodes[rank as usize];
            node.alive && node.life == life
        };
        // The last words of somebody who is gone are heard for a while.
        let heard = is(from, sent) || self.now <= self.nodes[from as usize].heard;
        if !is(to, meant) || !heard {
            return;
        }
        self.outcome.messages += 1;
        let step = match packet {
            Packet::Up(msg, goal) => self.exchange.request(to, msg, goal),
            Packet::Down(msg, id) => self.exchange.toward(to, id, msg),
            Packet::Event(event) => Step::Event(event),
        };
        self.go(to, step);
    }

    fn stored(&mut self, life: u64, msg: &Message) {
        let is_ours = self.nodes[0].alive && self.nodes[0].life == life;
        // What the disk had been given before a crash may be on it afterwards, but is not answered.
        if !is_ours && (self.nodes[0].alive || self.rng.random_bool(0.5)) {
            return;
        }
        let done = self.store.handle(msg, self.plan.sabotage);
        self.note(|| format!("the store has done {}: {:?}", msg.method(), done.is_ok()));
        if !is_ours || msg.no_response() {
            return;
        }
        let mut response = match done {
            Ok(payload) => msg.response(0, payload),
            Err(e) => msg.error_response(&e),
        };
        if let Some(id) = response.pop_route() {
            self.go(0, Step::Port(id, response));
        }
    }
}
