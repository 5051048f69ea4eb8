//! Times as cron writes them: for each unit the values that fit, and when all of them fit next.
//!
//! As in `struct tm`, months count from 0 and years from 1900; Sunday is weekday 0 (or 7).

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Map, Value};

/// Units and the values they can have.
const UNITS: [(&str, u32, u32); 7] = [
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("mday", 1, 31),
    ("month", 0, 11),
    ("year", 0, 1100),
    ("weekday", 0, 6),
];

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Days that are searched: a date that does not come in this time (four leap years, over a century that has none)
/// never does.
const HORIZON: i64 = 366 * 12;

/// The values of one unit; nothing said fits all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    text: String,
    values: Option<Vec<u32>>,
}

impl Field {
    fn has(&self, value: u32) -> bool {
        self.values.as_ref().is_none_or(|v| v.contains(&value))
    }
}

/// Which times are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern([Field; 7]);

fn value(unit: usize, text: &str) -> Result<u32, String> {
    let (name, low, high) = UNITS[unit];
    let names: &[&str] = match unit {
        4 => &MONTHS,
        6 => &DAYS,
        _ => &[],
    };
    let word = text.to_lowercase();
    let named = names
        .iter()
        .position(|n| word.len() >= 3 && word.starts_with(n))
        .map(|i| i as u32);
    let number = named.or_else(|| text.parse().ok());
    // Sunday has two numbers.
    let number = number.map(|n| if unit == 6 && n == 7 { 0 } else { n });
    number
        .filter(|n| (low..=high).contains(n))
        .ok_or_else(|| format!("{name}: expected {low} to {high}, found {text:?}"))
}

fn field(unit: usize, text: &str) -> Result<Field, String> {
    let (name, low, high) = UNITS[unit];
    let text = text.trim();
    if text == "*" {
        return Ok(Field {
            text: text.to_owned(),
            values: None,
        });
    }
    let mut values = Vec::new();
    for part in text.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let step: usize = step
            .parse()
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| format!("{name}: expected a step after /, found {part:?}"))?;
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((a, b)) => (value(unit, a)?, value(unit, b)?),
            None if step > 1 => (value(unit, range)?, high),
            None => (value(unit, range)?, value(unit, range)?),
        };
        if first > last {
            return Err(format!("{name}: {part:?} ends before it begins"));
        }
        values.extend((first..=last).step_by(step));
    }
    Ok(Field {
        text: text.to_owned(),
        values: Some(values),
    })
}

impl Pattern {
    /// From the members of an object, each a number or a text like `*/5` or `1-3,7`.
    pub(super) fn from_json(args: &Value) -> Result<Self, String> {
        let mut fields = Vec::new();
        for (unit, (name, ..)) in UNITS.iter().enumerate() {
            fields.push(match args.get(name) {
                None => field(unit, "*")?,
                Some(Value::String(text)) => field(unit, text)?,
                Some(Value::Number(n)) => field(unit, &n.to_string())?,
                Some(other) => {
                    return Err(format!("{name}: expected number or text, found {other}"));
                }
            });
        }
        // One field was made for each unit.
        Ok(Self(fields.try_into().map_err(|_| "units".to_owned())?))
    }

    pub(super) fn to_json(&self) -> Map<String, Value> {
        let pair = |(unit, field): (&(&str, u32, u32), &Field)| {
            (unit.0.to_owned(), Value::from(field.text.clone()))
        };
        UNITS.iter().zip(&self.0).map(pair).collect()
    }

    fn has_day(&self, day: Date) -> bool {
        let year = i32::from(day.year()) - 1900;
        self.0[3].has(day.day() as u32)
            && self.0[4].has(day.month() as u32 - 1)
            && u32::try_from(year).is_ok_and(|y| self.0[5].has(y))
            && self.0[6].has(day.weekday().to_sunday_zero_offset() as u32)
    }

    /// The first fitting time after `now`; both in seconds since the epoch.
    pub(super) fn next(&self, now: f64, zone: &TimeZone) -> Option<f64> {
        let now = Timestamp::from_second(now.floor() as i64).ok()?;
        let start = now.to_zoned(zone.clone());
        for ahead in 0..HORIZON {
            let day = start.date().checked_add(ahead.days()).ok()?;
            if !self.has_day(day) {
                continue;
            }
            let values = |unit: usize| (0..=UNITS[unit].2).filter(move |n| self.0[unit].has(*n));
            for hour in values(2) {
                for minute in values(1) {
                    for second in values(0) {
                        let time = day.at(hour as i8, minute as i8, second as i8, 0);
                        let at = zone.to_ambiguous_zoned(time).compatible().ok()?.timestamp();
                        if at > now {
                            return Some(at.as_second() as f64);
                        }
                        // The rest of this minute is over as well, seldom by more than one step.
                        if at.as_second() + 60 < now.as_second() {
                            break;
                        }
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn next(args: Value, now: &str) -> String {
        let now: Timestamp = now.parse().unwrap();
        let pattern = Pattern::from_json(&args).unwrap();
        match pattern.next(now.as_second() as f64, &TimeZone::UTC) {
            Some(at) => Timestamp::from_second(at as i64).unwrap().to_string(),
            None => "never".to_owned(),
        }
    }

    #[test]
    fn next_times() {
        let now = "2026-03-04T05:06:07Z";
        for (args, want) in [
            (json!({}), "2026-03-04T05:06:08Z"),
            (json!({"second": 0}), "2026-03-04T05:07:00Z"),
            (
                json!({"second": 0, "minute": "*/15"}),
                "2026-03-04T05:15:00Z",
            ),
            (
                json!({"second": 0, "minute": 0, "hour": 5}),
                "2026-03-05T05:00:00Z",
            ),
            (
                json!({"second": 0, "minute": 0, "hour": 0, "weekday": "sun"}),
                "2026-03-08T00:00:00Z",
            ),
            (
                json!({"second": 0, "minute": 0, "hour": 0, "weekday": "7"}),
                "2026-03-08T00:00:00Z",
            ),
            (
                json!({"second": 0, "minute": 0, "hour": 0, "mday": 29, "month": 1}),
                "2028-02-29T00:00:00Z",
            ),
            (
                json!({"second": 0, "minute": 5, "hour": 1, "mday": 1, "month": "Jan"}),
                "2027-01-01T01:05:00Z",
            ),
            (json!({"year": 100}), "never"),
            (json!({"mday": 30, "month": 1}), "never"),
        ] {
            assert_eq!(next(args.clone(), now), want, "{args}");
        }
    }

    #[test]
    fn fields() {
        let f = |unit, text| field(unit, text).map(|f| f.values);
        assert_eq!(f(1, "1-3,10/20"), Ok(Some(vec![1, 2, 3, 10, 30, 50])));
        assert_eq!(f(6, "Mon-Wed"), Ok(Some(vec![1, 2, 3])));
        assert_eq!(f(1, "*"), Ok(None));
        for (unit, text) in [
            (1, "60"),
            (1, "x"),
            (1, "5-3"),
            (1, "*/0"),
            (3, "0"),
            (1, ""),
        ] {
            assert!(f(unit, text).is_err(), "{text}");
        }
        assert!(Pattern::from_json(&json!({"hour": [1]})).is_err());
    }
}
