//! `--begin-time`: `now`, `+FSD`, a date, a time of day, or both.

use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, ToSpan, Zoned};

/// The time `text` names, in seconds since the epoch.
pub(super) fn parse(text: &str, now: &Zoned) -> Option<f64> {
    let seconds = |at: &Zoned| at.timestamp().as_duration().as_secs_f64();
    if text == "now" {
        return Some(seconds(now));
    }
    for (sign, mark) in [(1., '+'), (-1., '-')] {
        if let Some(offset) = text.strip_prefix(mark) {
            let offset = formats::fsd::parse(offset).ok()? * sign;
            SignedDuration::try_from_secs_f64(offset).ok()?;
            return Some(seconds(now) + offset);
        }
    }
    let at = civil(text, now)?.to_zoned(now.time_zone().clone()).ok()?;
    Some(seconds(&at))
}

fn civil(text: &str, now: &Zoned) -> Option<DateTime> {
    let text = text.trim().to_lowercase();
    if let Ok(at) = text.replace(' ', "t").parse::<DateTime>() {
        return Some(at);
    }
    let mut date: Option<Date> = None;
    let mut time: Option<Time> = None;
    // "3 pm" is one time.
    let text = text.replace(" am", "am").replace(" pm", "pm");
    for word in text.split_whitespace().filter(|w| *w != "at") {
        match (day(word, now), clock(word)) {
            (Some(found), _) if date.is_none() => date = Some(found),
            (_, Some(found)) if time.is_none() => time = Some(found),
            _ => return None,
        }
    }
    if date.is_none() && time.is_none() {
        return None;
    }
    Some(
        date.unwrap_or(now.date())
            .to_datetime(time.unwrap_or(Time::midnight())),
    )
}

fn day(word: &str, now: &Zoned) -> Option<Date> {
    match word {
        "today" => Some(now.date()),
        "tomorrow" => now.date().checked_add(1.day()).ok(),
        _ => match word.split('/').collect::<Vec<_>>()[..] {
            [month, day, year] => {
                Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
            }
            [month, day] => {
                Date::new(now.date().year(), month.parse().ok()?, day.parse().ok()?).ok()
            }
            _ => word.parse().ok(),
        },
    }
}

fn clock(word: &str) -> Option<Time> {
    match word {
        "noon" => return Time::new(12, 0, 0, 0).ok(),
        "midnight" => return Some(Time::midnight()),
        _ => {}
    }
    let half = [("am", 0), ("pm", 12)]
        .iter()
        .find_map(|(mark, add)| Some((word.strip_suffix(mark)?, *add)));
    let (digits, add) = half.map_or((word, None), |(digits, add)| (digits, Some(add)));
    let mut parts = digits.split(':').map(|p| p.parse::<i8>().ok());
    let hour = parts.next()??;
    let (minute, second) = match (parts.next(), parts.next(), parts.next()) {
        // A bare number is an hour only with am or pm.
        (None, ..) if add.is_some() => (0, 0),
        (Some(minute), None, _) => (minute?, 0),
        (Some(minute), Some(second), None) => (minute?, second?),
        _ => return None,
    };
    let hour = match add {
        None => hour,
        Some(add) if (1..=12).contains(&hour) => hour % 12 + add,
        Some(_) => return None,
    };
    Time::new(hour, minute, second, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now: Zoned = "2026-03-04T10:00:00+00:00[UTC]".parse().unwrap();
        let at = |text| {
            let seconds = parse(text, &now)?;
            Some(
                jiff::Timestamp::from_second(seconds as i64)
                    .unwrap()
                    .to_string(),
            )
        };
        for (text, want) in [
            ("now", "2026-03-04T10:00:00Z"),
            ("+1h", "2026-03-04T11:00:00Z"),
            ("3pm", "2026-03-04T15:00:00Z"),
            ("12:30 am", "2026-03-04T00:30:00Z"),
            ("tomorrow", "2026-03-05T00:00:00Z"),
            ("tomorrow noon", "2026-03-05T12:00:00Z"),
            ("2026-05-06", "2026-05-06T00:00:00Z"),
            ("2026-05-06 07:08", "2026-05-06T07:08:00Z"),
            ("5/6/2026 7:08:09", "2026-05-06T07:08:09Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(want), "{text}");
        }
        for text in ["", "x", "+x", "25:00", "13pm", "7", "3pm 4pm"] {
            assert_eq!(at(text), None, "{text}");
        }
    }
}
