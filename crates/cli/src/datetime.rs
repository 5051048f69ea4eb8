//! Points in time as users write them.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use crate::error::Failure;

/// Seconds since the epoch of `now`, `+FSD`, `-FSD`, seconds since the epoch, `N UNITS ago`,
/// `in N UNITS`, `today`, `yesterday`, `tomorrow`, `noon`, `midnight`, a time of day, or a date with
/// or without a time.
pub(crate) fn parse(text: &str, now: f64) -> Result<f64, Failure> {
    let text = text.trim();
    let fault = || Failure::new(format!("Invalid datetime: \"{text}\""));
    let offset = |fsd: &str| formats::fsd::parse(fsd).ok().filter(|s| s.is_finite());
    if text == "now" {
        return Ok(now);
    }
    if let Some(fsd) = text.strip_prefix('+') {
        return offset(fsd).map(|s| now + s).ok_or_else(fault);
    }
    if let Some(fsd) = text.strip_prefix('-') {
        return offset(fsd).map(|s| now - s).ok_or_else(fault);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return if seconds.is_finite() {
            Ok(seconds)
        } else {
            Err(fault())
        };
    }
    let here = Timestamp::from_microsecond((now * 1e6) as i64)
        .map_err(|_| fault())?
        .to_zoned(TimeZone::system());
    let found = words(text, &here).or_else(|| civil(text, &here));
    found
        .map(|t| t.timestamp().as_microsecond() as f64 / 1e6)
        .ok_or_else(fault)
}

fn words(text: &str, now: &Zoned) -> Option<Zoned> {
    let at = |date: Date, time: Time| {
        date.to_datetime(time)
            .to_zoned(now.time_zone().clone())
            .ok()
    };
    let today = now.date();
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "today" | "midnight" => return at(today, Time::midnight()),
        "noon" => return at(today, Time::constant(12, 0, 0, 0)),
        "yesterday" => return at(today.yesterday().ok()?, Time::midnight()),
        "tomorrow" => return at(today.tomorrow().ok()?, Time::midnight()),
        _ => {}
    }
    let parts: Vec<&str> = lower.split_whitespace().collect();
    let (count, unit, sign) = match parts[..] {
        [count, unit, "ago"] => (count, unit, -1),
        ["in", count, unit] => (count, unit, 1),
        _ => return None,
    };
    let count = match count {
        "a" | "an" => 1,
        n => n.parse::<i64>().ok().filter(|n| *n < 1 << 32)?,
    } * sign;
    let span = match unit.trim_end_matches('s') {
        "second" | "sec" => count.seconds(),
        "minute" | "min" => count.minutes(),
        "hour" | "hr" => count.hours(),
        "day" => count.try_days_span()?,
        "week" => count.checked_mul(7)?.try_days_span()?,
        "month" => jiff::Span::new().try_months(count).ok()?,
        "year" => jiff::Span::new().try_years(count).ok()?,
        _ => return None,
    };
    now.checked_add(span).ok()
}

trait Days {
    fn try_days_span(self) -> Option<jiff::Span>;
}

impl Days for i64 {
    fn try_days_span(self) -> Option<jiff::Span> {
        jiff::Span::new().try_days(self).ok()
    }
}

fn civil(text: &str, now: &Zoned) -> Option<Zoned> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.to_zoned(now.time_zone().clone()));
    }
    let zoned = |t: DateTime| t.to_zoned(now.time_zone().clone()).ok();
    if let Ok(time) = text.parse::<DateTime>() {
        return zoned(time);
    }
    for format in [
        "%Y-%m-%d %H:%M",
        "%m/%d/%Y %H:%M",
        "%b %d, %Y %H:%M",
        "%b %d %Y %H:%M",
    ] {
        if let Ok(time) = DateTime::strptime(format, text) {
            return zoned(time);
        }
    }
    for format in ["%m/%d/%Y", "%m/%d/%y", "%b %d, %Y", "%b %d %Y", "%B %d, %Y"] {
        if let Ok(date) = Date::strptime(format, text) {
            return zoned(date.to_datetime(Time::midnight()));
        }
    }
    for format in ["%H:%M", "%H:%M:%S", "%I:%M%p", "%I:%M %p", "%I%p", "%I %p"] {
        if let Ok(time) = Time::strptime(format, text) {
            return zoned(now.date().to_datetime(time));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let now = 1_700_000_000.;
        let ok = |text: &str| parse(text, now).unwrap();
        assert_eq!(ok("now"), now);
        assert_eq!(ok("-1h"), now - 3600.);
        assert_eq!(ok("+1.5m"), now + 90.);
        assert_eq!(ok("12.5"), 12.5);
        assert_eq!(ok("2 hours ago"), now - 7200.);
        assert_eq!(ok("2023-11-14T22:13:20Z"), now);
        assert!(ok("yesterday") < ok("today") && ok("today") < ok("tomorrow"));
        assert_eq!(ok("noon"), ok("12:00"));
        for bad in ["", "blursday", "-x", "inf", "99999999999999 days ago"] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }
}
