//! How long requests take, for statistics.

use std::time::Duration;

use serde_json::{Value, json};

/// How long something took.
#[derive(Default)]
pub(super) struct Times {
    count: u64,
    total: Duration,
    least: Duration,
    most: Duration,
}

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        self.least = match self.count {
            0 => time,
            _ => self.least.min(time),
        };
        self.most = self.most.max(time);
        self.count += 1;
        self.total += time;
    }

    /// Milliseconds.
    pub(super) fn to_json(&self) -> Value {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "count": self.count,
            "min": ms(self.least),
            "max": ms(self.most),
            "mean": ms(self.total) / (self.count.max(1) as f64),
        })
    }
}
