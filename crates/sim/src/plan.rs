//! What to run, and what came of it.

use std::time::Duration;

use broker::switch;
use overlay::Limits;
use overlay::backlog;
use overlay::topology::Shape;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

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
    /// Times at which a program asks or publishes.
    pub requests: u32,
    /// Requests each time.
    pub burst: u32,
    /// How patient brokers are.
    pub limits: Limits,
    /// How much is kept, and where.
    pub room: Room,
    /// Lines of history a failure shows.
    pub history: usize,
}

/// Bounds of all queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Frames a connection takes before the others wait in their broker.
    pub window: Window,
    /// What may wait for a peer.
    pub peers: backlog::Bounds,
    /// What a router keeps.
    pub router: switch::Bounds,
}

/// Frames under way on a connection, per direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window(pub u32);

impl Default for Window {
    fn default() -> Self {
        Self(1000)
    }
}

impl Room {
    /// So little that all bounds are met.
    fn scarce(rng: &mut StdRng) -> Self {
        let soft = rng.random_range(1..20) * 1024;
        Self {
            window: Window(rng.random_range(1..16)),
            peers: backlog::Bounds {
                soft,
                hard: soft * rng.random_range(2..5),
            },
            router: switch::Bounds {
                pending: rng.random_range(10..100),
                held: rng.random_range(1..8),
                unread: rng.random_range(8..64) * 1024,
            },
        }
    }
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
        let scarce = rng.random_range(0..3) == 0;
        let parent_max = [0, 0, 45][rng.random_range(0..3)];
        Self {
            seed,
            size,
            shape,
            faults,
            length: Duration::from_millis(u64::from(faults) * rng.random_range(200..4000)),
            requests: faults * 8,
            burst: if scarce { rng.random_range(1..20) } else { 1 },
            limits: Limits {
                parent_max: Duration::from_secs(parent_max),
                ..Limits::default()
            },
            room: if scarce {
                Room::scarce(&mut rng)
            } else {
                Room::default()
            },
            history: 60,
        }
    }

    /// Nothing but `size` brokers that start.
    pub fn boot(size: u32, shape: Shape) -> Self {
        Self {
            shape,
            ..Self::random(0, size, 0)
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
    /// Those of them that were refused because a queue was full.
    pub refusals: u64,
    /// Events that reached programs.
    pub events: u64,
    /// Faults that hit something.
    pub faults: u64,
    /// Peers and programs cut off because they did not keep up.
    pub overruns: u64,
    /// What was wrong, with the last lines of history.
    pub violation: Option<(String, Vec<String>)>,
}

impl std::ops::AddAssign<&Self> for Outcome {
    fn add_assign(&mut self, other: &Self) {
        self.lives += other.lives;
        self.frames += other.frames;
        self.answers += other.answers;
        self.refusals += other.refusals;
        self.events += other.events;
        self.faults += other.faults;
        self.overruns += other.overruns;
    }
}
