//! How long a tree takes to get whole, and what each broker of it costs.

use std::time::{Duration, Instant};

use overlay::topology::Shape;

use crate::check::Violation;
use crate::plan::Plan;
use crate::world::World;

/// What starting a tree came to.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// Time in the simulated world until the root called the tree full.
    pub simulated: Duration,
    /// Time of this machine for that.
    pub real: Duration,
    /// Frames exchanged.
    pub frames: u64,
}

/// Start `size` brokers.
pub fn boot(size: u32, shape: Shape) -> Result<Boot, Violation> {
    let start = Instant::now();
    let mut world = World::new(&Plan::boot(size, shape));
    while !world.is_full() {
        world.step()?;
    }
    Ok(Boot {
        simulated: world.now,
        real: start.elapsed(),
        frames: world.outcome.frames,
    })
}
