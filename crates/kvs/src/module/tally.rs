//! Running statistics of a series of numbers.

use serde_json::{Value, json};

/// Count, least, greatest, mean and sample standard deviation, by Welford's method.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    /// Sum of the squared distances from the mean.
    squares: f64,
}

impl Tally {
    pub(super) fn add(&mut self, x: f64) {
        self.count += 1;
        (self.min, self.max) = match self.count {
            1 => (x, x),
            _ => (self.min.min(x), self.max.max(x)),
        };
        let distance = x - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (x - self.mean);
    }

    /// The form it has in `stats-get`: least and greatest are whole.
    pub(super) fn to_json(self) -> Value {
        let stddev = match self.count {
            0 | 1 => 0.,
            n => (self.squares / (n - 1) as f64).sqrt(),
        };
        json!({
            "count": self.count, "min": self.min as i64, "max": self.max as i64,
            "mean": self.mean, "stddev": stddev,
        })
    }
}

impl FromIterator<f64> for Tally {
    fn from_iter<I: IntoIterator<Item = f64>>(numbers: I) -> Tally {
        let mut tally = Tally::default();
        numbers.into_iter().for_each(|x| tally.add(x));
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_few_numbers() {
        let of = |xs: &[f64]| xs.iter().copied().collect::<Tally>().to_json();
        let none = json!({"count": 0, "min": 0, "max": 0, "mean": 0.0, "stddev": 0.0});
        assert_eq!(of(&[]), none);
        let one = json!({"count": 1, "min": 3, "max": 3, "mean": 3.0, "stddev": 0.0});
        assert_eq!(of(&[3.]), one);
        let some = json!({"count": 3, "min": 2, "max": 6, "mean": 4.0, "stddev": 2.0});
        assert_eq!(of(&[4., 2., 6.]), some);
    }
}
