//! The life of jobs under crashes: the product's `job-ingest`, `job-manager`, `job-exec` and `sched-simple`, with its
//! key-value store, in one thread under a clock and a network of our own.
//!
//! Faults are the end of everything but the store and the shells, the end of one module, its orderly restart, and nodes
//! that lose their shells. Programs submit, cancel, hold, release and wait; [`checks`] is what must hold of it all.
//!
//! Invariant: a run is a function of its [`Plan`].

pub mod checks;
mod clients;
mod commands;
mod fate;
mod look;
mod shells;
mod world;

use std::ops::AddAssign;
use std::sync::Once;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What ends and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The broker of rank 0 with all modules.
    Broker,
    /// One module, without a word.
    Module(Part),
    /// One module is asked to end.
    Unload(Part),
    /// A node loses its shells.
    Node(u32),
}

/// A module that can end alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `job-manager`.
    Manager,
    /// `job-ingest`.
    Ingest,
    /// `job-exec`.
    Exec,
    /// `sched-simple`.
    Scheduler,
}

impl Part {
    /// All of them, in the order in which they start.
    pub const ALL: [Part; 4] = [Part::Manager, Part::Ingest, Part::Exec, Part::Scheduler];
}

/// What a run with something wrong must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The store acknowledges one commit that it has not kept.
    Forgets,
    /// A shell that is to be found again is started a second time.
    StartsTwice,
    /// The scheduler hears that cores are free which are not.
    SharesCores,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Source of all chance.
    pub seed: u64,
    /// Nodes, each with two cores.
    pub ranks: u32,
    /// Programs that submit.
    pub programs: u32,
    /// Jobs of each of them.
    pub jobs: u32,
    /// What happens when that many messages have been delivered.
    pub faults: Vec<(u64, Fault)>,
    /// Jobs have prologs and epilogs, and nodes housekeeping.
    pub commands: bool,
    /// Something is wrong on purpose.
    pub sabotage: Option<Sabotage>,
    /// Lines of history a failure shows.
    pub history: usize,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What did not hold, and what happened before.
    pub violation: Option<(String, Vec<String>)>,
    /// Messages that were delivered.
    pub messages: u64,
    /// Brokers, modules and nodes that ended.
    pub faults: u64,
    /// Jobs that were acknowledged.
    pub jobs: u64,
    /// Events in their logs.
    pub events: u64,
    /// Shells that were started.
    pub shells: u64,
}

impl AddAssign<&Outcome> for Outcome {
    fn add_assign(&mut self, other: &Outcome) {
        self.messages += other.messages;
        self.faults += other.faults;
        self.jobs += other.jobs;
        self.events += other.events;
        self.shells += other.shells;
    }
}

impl Plan {
    /// A plan in which everything is chance.
    pub fn random(seed: u64) -> Plan {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6a6f_6273);
        let ranks = rng.random_range(1..=4);
        let faults = (0..rng.random_range(0..=8)).map(|_| {
            let part = Part::ALL[rng.random_range(0..Part::ALL.len())];
            let fault = match rng.random_range(0..10) {
                0..=3 => Fault::Broker,
                4..=6 => Fault::Module(part),
                7 | 8 => Fault::Unload(part),
                _ => Fault::Node(rng.random_range(0..ranks)),
            };
            (rng.random_range(10..1500), fault)
        });
        let mut faults: Vec<(u64, Fault)> = faults.collect();
        faults.sort_by_key(|(at, _)| *at);
        Plan {
            seed,
            ranks,
            programs: rng.random_range(1..=4),
            jobs: rng.random_range(1..=6),
            faults,
            commands: rng.random_bool(0.5),
            sabotage: None,
            history: 300,
        }
    }

    /// A few jobs, and one fault after the message of this number.
    pub fn short(at: u64, fault: Fault) -> Plan {
        Plan {
            seed: 1,
            ranks: 2,
            programs: 1,
            jobs: 3,
            faults: vec![(at, fault)],
            commands: false,
            sabotage: None,
            history: 300,
        }
    }

    /// [`Plan::short`], without and with commands, with every fault after every message there is.
    pub fn sweep() -> Vec<Plan> {
        let parts = Part::ALL.into_iter();
        let faults = parts.flat_map(|part| [Fault::Module(part), Fault::Unload(part)]);
        let faults: Vec<Fault> = faults.chain([Fault::Broker, Fault::Node(0)]).collect();
        let plans = |commands| {
            let short = move |at, fault| Plan {
                commands,
                ..Plan::short(at, fault)
            };
            let calm = run(&short(u64::MAX, Fault::Broker));
            let each = |at| faults.iter().map(move |fault| short(at, *fault));
            (1..=calm.messages).flat_map(each).collect::<Vec<Plan>>()
        };
        [false, true].into_iter().flat_map(plans).collect()
    }
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Outcome {
    // What is made once in a process draws from the chance of whoever comes first.
    static FIRST: Once = Once::new();
    FIRST.call_once(|| {
        run_alone(&Plan {
            commands: true,
            ..Plan::short(u64::MAX, Fault::Broker)
        });
    });
    run_alone(plan)
}

/// In a thread of its own: time and chance belong to threads.
fn run_alone(plan: &Plan) -> Outcome {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            fate::begin(plan.seed);
            world::run(plan)
        });
        match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
