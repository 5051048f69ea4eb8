//! Job urgency, RFC 30: how important its owner thinks a job is, 0 to 31.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A number from 0 (held) to 31 (expedited).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u8")]
pub struct Urgency(u8);

/// Why something is not an urgency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum UrgencyError {
    #[error("urgency {0} is out of range: 0 to 31")]
    Range(i64),
    #[error("'{0}' is not a number from 0 to 31, hold, default or expedite")]
    Name(String),
}

impl Urgency {
    /// The job is not given resources.
    pub const HOLD: Urgency = Urgency(0);
    /// What a job has that says nothing; also the most a guest may ask for.
    pub const DEFAULT: Urgency = Urgency(16);
    /// The job is first in the queue.
    pub const EXPEDITE: Urgency = Urgency(31);

    /// A checked number.
    pub fn new(value: i64) -> Result<Urgency, UrgencyError> {
        match u8::try_from(value) {
            Ok(value @ 0..=31) => Ok(Urgency(value)),
            _ => Err(UrgencyError::Range(value)),
        }
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Whether a user who does not own the instance may ask for it.
    pub fn is_for_guests(self) -> bool {
        self <= Urgency::DEFAULT
    }

    /// The priority it stands for when no priority plugin says otherwise.
    pub fn default_priority(self) -> u32 {
        match self {
            Urgency::EXPEDITE => u32::MAX,
            Urgency(value) => value.into(),
        }
    }
}

impl Default for Urgency {
    fn default() -> Urgency {
        Urgency::DEFAULT
    }
}

impl TryFrom<i64> for Urgency {
    type Error = UrgencyError;

    fn try_from(value: i64) -> Result<Urgency, UrgencyError> {
        Urgency::new(value)
    }
}

impl From<Urgency> for u8 {
    fn from(urgency: Urgency) -> u8 {
        urgency.0
    }
}

/// A number, or one of the names that commands take, in any case.
impl FromStr for Urgency {
    type Err = UrgencyError;

    fn from_str(text: &str) -> Result<Urgency, UrgencyError> {
        match text.to_ascii_lowercase().as_str() {
            "hold" => Ok(Urgency::HOLD),
            "default" => Ok(Urgency::DEFAULT),
            "expedite" => Ok(Urgency::EXPEDITE),
            number => number
                .parse()
                .ok()
                .and_then(|value| Urgency::new(value).ok())
                .ok_or_else(|| UrgencyError::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for Urgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bounds() {
        assert_eq!("Hold".parse(), Ok(Urgency::HOLD));
        assert_eq!("expedite".parse(), Urgency::new(31));
        assert_eq!("16".parse(), Ok(Urgency::default()));
        assert_eq!(
            "32".parse::<Urgency>().unwrap_err().to_string(),
            "'32' is not a number from 0 to 31, hold, default or expedite"
        );
        assert_eq!(Urgency::new(-1), Err(UrgencyError::Range(-1)));
        assert_eq!(
            serde_json::from_str::<Urgency>("31").unwrap(),
            Urgency::EXPEDITE
        );
        let fault = serde_json::from_str::<Urgency>("32")
            .unwrap_err()
            .to_string();
        assert_eq!(fault, "urgency 32 is out of range: 0 to 31");
        assert_eq!(serde_json::to_string(&Urgency::HOLD).unwrap(), "0");
    }

    #[test]
    fn priorities() {
        let of = |n| Urgency::new(n).unwrap().default_priority();
        assert_eq!((of(0), of(16), of(30), of(31)), (0, 16, 30, u32::MAX));
        assert!(Urgency::DEFAULT.is_for_guests() && !Urgency::new(17).unwrap().is_for_guests());
    }
}
