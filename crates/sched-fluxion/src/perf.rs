//! How long matches take.

use serde_json::{Value, json};

/// Mean and variance as numbers come in (Welford).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    all: u64,
    since_reset: u64,
    longest: Option<(i64, u64)>,
    min: f64,
    max: f64,
    mean: f64,
    squares: f64,
}

impl Tally {
    /// A match for a job took so many seconds and looked at so many vertices.
    pub(crate) fn add(&mut self, took: f64, job: i64, visits: u64) {
        self.all += 1;
        self.since_reset += 1;
        self.min = if self.since_reset == 1 {
            took
        } else {
            self.min.min(took)
        };
        if took > self.max {
            self.max = took;
            self.longest = Some((job, visits));
        }
        let before = took - self.mean;
        self.mean += before / self.since_reset as f64;
        self.squares += before * (took - self.mean);
    }

    /// Forget all but how many there were.
    pub(crate) fn clear(&mut self) {
        *self = Tally {
            all: self.all,
            ..Tally::default()
        };
    }

    pub(crate) fn to_value(self) -> Value {
        // Of one there is no distribution.
        let [min, mean, variance] = match self.since_reset {
            0 | 1 => [0.0; 3],
            n => [self.min, self.mean, self.squares / n as f64],
        };
        let (job, visits) = self.longest.map_or((-1, -1), |(job, n)| (job, n as i64));
        json!({
            "njobs": self.all,
            "njobs-reset": self.since_reset,
            "max-match-jobid": job,
            "max-match-iters": visits,
            "stats": { "min": min, "max": self.max, "avg": mean, "variance": variance },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_variance() {
        let mut tally = Tally::default();
        for (job, took) in [2.0, 4.0, 6.0].into_iter().enumerate() {
            tally.add(took, job as i64, 10);
        }
        let value = tally.to_value();
        assert_eq!(
            value["stats"],
            json!({"min": 2.0, "max": 6.0, "avg": 4.0, "variance": 8.0 / 3.0})
        );
        assert_eq!(
            (&value["max-match-jobid"], &value["max-match-iters"]),
            (&json!(2), &json!(10))
        );
        tally.clear();
        let value = tally.to_value();
        assert_eq!(
            (
                &value["njobs"],
                &value["njobs-reset"],
                &value["max-match-jobid"]
            ),
            (&json!(3), &json!(0), &json!(-1))
        );
    }
}
