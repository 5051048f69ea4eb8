//! The key-value store under crashes: the product's modules `content`, `kvs` and `kvs-watch` on every rank of a tree, in
//! one thread, under a clock and a network of our own.
//!
//! Messages take their time and keep the order of their connection. Faults are brokers below rank 0 that end with all
//! below them and come back, the end of rank 0 and with it of everything but the store, and a store that refuses what
//! it is given for a while. Programs on all ranks commit, read and watch; [`model`] is what they may see.
//!
//! Invariant: a run is a function of its [`Plan`].

mod model;
mod programs;
pub(crate) mod store;
mod world;

use std::ops::AddAssign;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use world::run;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Source of all chance.
    pub seed: u64,
    /// Number of ranks.
    pub size: u32,
    /// Children of each rank.
    pub fanout: u32,
    /// Ranks that end and come back.
    pub faults: u32,
    /// Programs of each kind.
    pub programs: u32,
    /// What each of them does before it ends, if its broker lives.
    pub rounds: u32,
    /// Faults are spread over this time.
    pub length: Duration,
    /// A message is under way between two ranks for up to this long.
    pub delay: Duration,
    /// Something is wrong on purpose.
    pub sabotage: Option<Sabotage>,
    /// Lines of history a failure shows.
    pub history: usize,
}

/// What a run with something wrong must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The store acknowledges what it has not kept.
    Forgets,
    /// An event now and then reaches nobody below a rank.
    LosesEvents,
    /// The store keeps a root without some of its objects.
    Tears,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What did not hold, and what happened before.
    pub violation: Option<(String, Vec<String>)>,
    /// Messages that reached a rank.
    pub messages: u64,
    /// Brokers that ended before their time.
    pub crashes: u64,
    /// Commits that were acknowledged.
    pub commits: u64,
    /// Commits that failed, or whose end nobody has heard of.
    pub lost: u64,
    /// Reads that were checked.
    pub reads: u64,
    /// Changes that watchers were told of.
    pub seen: u64,
}

impl AddAssign<&Outcome> for Outcome {
    fn add_assign(&mut self, other: &Outcome) {
        self.messages += other.messages;
        self.crashes += other.crashes;
        self.commits += other.commits;
        self.lost += other.lost;
        self.reads += other.reads;
        self.seen += other.seen;
    }
}

impl Plan {
    /// A plan in which everything but the size is chance.
    pub fn random(seed: u64, size: u32) -> Plan {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6b76_7300);
        Plan {
            seed,
            size,
            fanout: rng.random_range(1..=4),
            faults: rng.random_range(0..=6),
            programs: rng.random_range(1..=4),
            rounds: rng.random_range(5..=30),
            length: Duration::from_millis(rng.random_range(50..600)),
            delay: Duration::from_micros([20, 500, 5000, 20_000][rng.random_range(0..4)]),
            sabotage: None,
            history: 200,
        }
    }
}
