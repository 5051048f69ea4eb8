//! The broker's life cycle.

use serde::{Deserialize, Serialize};

use crate::call::{Call, Empty, StreamCall};

/// The state the broker is in.
#[derive(Debug, Clone, Serialize)]
pub struct Get {}

/// Answer to [`Get`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct State {
    /// Name of the state, e.g. `run`.
    pub state: String,
    /// Seconds since it was entered.
    pub duration: f64,
}

impl Call for Get {
    const TOPIC: &'static str = "state-machine.get";
    type Answer = State;
}

/// Wait until the instance runs; an error if it never will.
#[derive(Debug, Clone, Serialize)]
pub struct Wait {}

impl Call for Wait {
    const TOPIC: &'static str = "state-machine.wait";
    type Answer = Empty;
}

/// Follow the state; for the owner.
#[derive(Debug, Clone, Serialize)]
pub struct Monitor {}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Entered {
    /// Number of the state.
    pub state: u32,
}

impl StreamCall for Monitor {
    const TOPIC: &'static str = "state-machine.monitor";
    type Item = Entered;
}
