//! When garbage is worth collecting, without clocks.

use std::time::Instant;

use super::Swept;
use super::settings::Settings;

/// A collection of some length is followed by a rest of so many times its length.
const REST: u32 = 9;

/// What has happened since the last collection.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes that were stored since it began.
    stored: u64,
    /// Bytes in the store that are referred to, and bytes that were found not to be.
    live: u64,
    condemned: u64,
    began: Option<Instant>,
    ended: Option<Instant>,
}

impl Pace {
    pub(super) fn store(&mut self, bytes: u64) {
        self.stored += bytes;
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        self.stored = 0;
    }

    /// A collection has ended, and found this unless it failed.
    pub(super) fn end(&mut self, now: Instant, swept: Option<&Swept>) {
        self.ended = Some(now);
        if let Some(swept) = swept {
            let blobs = u128::from(swept.live + swept.condemned).max(1);
            let condemned = u128::from(swept.used) * u128::from(swept.condemned) / blobs;
            self.condemned = condemned as u64;
            self.live = swept.used - self.condemned;
        }
    }

    /// When the next one is due: as soon as there is enough that may be garbage, but not before what was found last time
    /// may go.
    pub(super) fn due(&self, settings: &Settings, now: Instant) -> Option<Instant> {
        let enough = settings
            .minimum
            .max((self.live as f64 * settings.growth) as u64);
        if !settings.automatic || self.stored.saturating_add(self.condemned) < enough {
            return None;
        }
        let (Some(began), Some(ended)) = (self.began, self.ended) else {
            return Some(now);
        };
        let rest = ended.duration_since(began) * REST;
        Some((began + settings.grace).max(ended + rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn swept(live: u64, condemned: u64, used: u64) -> Swept {
        Swept {
            live,
            condemned,
            used,
            ..Swept::default()
        }
    }

    #[test]
    fn it_is_due_when_enough_may_be_garbage_and_not_too_often() {
        let settings = Settings {
            grace: Duration::from_secs(60),
            minimum: 100,
            ..Settings::default()
        };
        let (mut pace, start) = (Pace::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        pace.store(99);
        assert_eq!(pace.due(&settings, start), None);
        pace.store(1);
        assert_eq!(pace.due(&settings, start), Some(start));
        pace.begin(start);
        // Half of what is live may come before it is worth while again.
        pace.end(after(1), Some(&swept(1000, 0, 1000)));
        pace.store(499);
        assert_eq!(pace.due(&settings, after(1)), None);
        pace.store(1);
        assert_eq!(pace.due(&settings, after(1)), Some(after(60)));
        // One that took long is followed by a long rest; what it has condemned counts.
        pace.begin(after(60));
        pace.end(after(70), Some(&swept(1000, 1000, 2000)));
        assert_eq!(pace.due(&settings, after(70)), Some(after(160)));
        // One that fails leaves what was known.
        pace.begin(after(160));
        pace.end(after(161), None);
        assert_eq!(pace.due(&settings, after(161)), Some(after(220)));
        let off = Settings {
            automatic: false,
            ..settings
        };
        assert_eq!(pace.due(&off, after(161)), None);
    }
}
