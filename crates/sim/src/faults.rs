//! What goes wrong in a run.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// Something that happens to a broker, or to the edge above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The broker ends at once, and comes back later.
    Crash,
    /// The broker takes its leave, and comes back later.
    Leave,
    /// The broker does nothing for this long.
    Freeze(Duration),
    /// The connection to the parent breaks; both ends hear of it.
    Break,
    /// What is under way on that connection is lost, and nobody hears of it.
    Lose,
    /// Nothing passes that edge for this long.
    Cut(Duration),
    /// Nothing passes between the broker and those below it for this long.
    Partition(Duration),
    /// Everything on that edge takes this much longer from now on.
    Slow(Duration),
    /// The broker's clock leaps ahead, as after the suspension of its machine. It cannot go back: what brokers
    /// read is monotonic.
    Jump(Duration),
    /// The broker's client does not read for this long.
    Deaf(Duration),
}

impl Fault {
    /// One of them, with times that matter to brokers.
    pub(crate) fn random(rng: &mut StdRng) -> Self {
        let mut millis =
            |range: std::ops::Range<u64>| Duration::from_millis(rng.random_range(range));
        let (long, short) = (millis(10..60_000), millis(0..500));
        match rng.random_range(0..26) {
            0..6 => Self::Crash,
            6..9 => Self::Leave,
            9..12 => Self::Freeze(long),
            12..15 => Self::Break,
            15..17 => Self::Lose,
            17..19 => Self::Cut(long),
            19 => Self::Partition(long),
            20..22 => Self::Slow(short),
            22..24 => Self::Jump(long * 10),
            _ => Self::Deaf(long),
        }
    }
}
