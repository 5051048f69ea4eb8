//! Modules about time: `heartbeat`, the pulse of an instance, and `cron`, commands run at times and on events.
//!
//! Governing: manual pages flux-heartbeat(5) and flux-cron(1); there is no RFC.

pub mod cron;
pub mod heartbeat;

use std::time::{Duration, SystemTime};

/// Seconds since the epoch.
fn now() -> f64 {
    formats::eventlog::timestamp(SystemTime::now())
}

/// That many seconds, or as many as a clock can count.
fn seconds(n: f64) -> Duration {
    const FAR: f64 = 1e9;
    Duration::from_secs_f64(n.clamp(0., FAR))
}
