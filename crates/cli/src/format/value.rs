//! What a field of an output format holds, and the conversions `!d !D !F !H !P`.

use formats::JobId;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A field's value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Not there: prints as nothing, whatever is asked.
    Empty,
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Id(JobId),
    /// Seconds since the epoch that were converted to a date with `!d`; 0 prints as nothing.
    Date(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Str(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Str(text)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}

impl From<usize> for Value {
    fn from(n: usize) -> Self {
        // Counts of things in memory fit.
        Value::Int(n as i64)
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Value::Float(n)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::Empty,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match n.as_i64() {
                Some(n) => Value::Int(n),
                None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(s) => Value::Str(s.clone()),
            Json::Object(map) if map.is_empty() => Value::Empty,
            Json::Array(_) | Json::Object(_) => Value::Str(crate::pyjson::dumps(json)),
        }
    }
}

/// Texts that count as "nothing to show".
pub(crate) fn is_blank(text: &str) -> bool {
    matches!(text, "" | "0s" | "0.0" | "0:00:00" | "1970-01-01T00:00:00")
        || text == date(0., "%FT%T").unwrap_or_default()
}

/// A local date and time.
pub(crate) fn date(seconds: f64, format: &str) -> Result<String, String> {
    let micros = (seconds * 1e6).round();
    // Casting saturates; the conversion then refuses what no calendar has.
    let time = Timestamp::from_microsecond(micros as i64).map_err(|e| e.to_string())?;
    let zoned = time.to_zoned(TimeZone::system());
    jiff::fmt::strtime::format(format, &zoned).map_err(|e| format!("time format '{format}': {e}"))
}

/// Seconds as tables show them: three decimals below 10 s, else four significant digits.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s.is_infinite() => "inf".to_owned(),
        s if s < 1e-3 => "0s".to_owned(),
        s if s < 10. => format!("{s:.3}s"),
        s if s < 60. => format!("{}s", general(s, 4)),
        s if s < 3600. => format!("{}m", general(s / 60., 4)),
        s if s < 86400. => format!("{}h", general(s / 3600., 4)),
        s => format!("{}d", general(s / 86400., 4)),
    }
}

/// C's `%.*g`.
pub(crate) fn general(value: f64, digits: usize) -> String {
    let digits = digits.max(1);
    if !value.is_finite() {
        return float(value);
    }
    if value == 0. {
        return "0".to_owned();
    }
    let scientific = format!("{:.*e}", digits - 1, value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    trim(&format!("{value:.decimals$}"))
}

/// A float as Python prints it: the shortest text that reads back the same.
pub(crate) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0. { "inf" } else { "-inf" }.to_owned();
    }
    let size = value.abs();
    if size != 0. && !(1e-4..1e16).contains(&size) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let text = format!("{value}");
    if text.contains('.') {
        text
    } else {
        format!("{text}.0")
    }
}

/// `[N day[s], ]H:MM:SS`, rounded to seconds but never a non-zero time to zero.
fn clock(seconds: f64) -> String {
    let seconds = if seconds > 0. && seconds < 1. {
        1.
    } else {
        seconds.round_ties_even()
    };
    if !seconds.is_finite() {
        return float(seconds);
    }
    let total = seconds as i64;
    let (days, rest) = (total.div_euclid(86400), total.rem_euclid(86400));
    let clock = format!("{}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    match days {
        0 => clock,
        1 | -1 => format!("{days} day, {clock}"),
        _ => format!("{days} days, {clock}"),
    }
}

impl Value {
    /// The text without any formatting.
    pub(crate) fn text(&self) -> String {
        match self {
            Value::Empty => String::new(),
            Value::Str(s) => s.clone(),
            Value::Int(n) => n.to_string(),
            Value::Float(x) => float(*x),
            Value::Bool(b) => if *b { "True" } else { "False" }.to_owned(),
            Value::Id(id) => crate::jobid::shown(*id),
            Value::Date(t) if *t == 0. => String::new(),
            Value::Date(t) => date(*t, "%FT%T").unwrap_or_default(),
        }
    }

    /// The value as a number, if it is one.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Value::Int(n) => Some(*n as f64),
            Value::Float(x) => Some(*x),
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Id(id) => Some(id.0 as f64),
            Value::Empty | Value::Str(_) | Value::Date(_) => None,
        }
    }

    /// Apply a conversion.
    pub(crate) fn convert(self, conversion: char) -> Result<Value, String> {
        let number = self.number();
        let or_blank = |what: &str| match self.text().as_str() {
            "" => Ok(Value::Str(String::new())),
            text => Err(format!("'{text}' cannot be shown as {what}")),
        };
        match (conversion, number) {
            ('s', _) => Ok(Value::Str(self.text())),
            ('r' | 'a', _) => Ok(match &self {
                Value::Str(s) => Value::Str(format!("'{s}'")),
                other => Value::Str(other.text()),
            }),
            ('d', Some(t)) => Ok(Value::Date(t)),
            ('d', None) if self.text().is_empty() => Ok(Value::Date(0.)),
            ('D', Some(0.)) => Ok(Value::Str(String::new())),
            ('D', Some(t)) => Ok(Value::Str(date(t, "%FT%T")?)),
            ('F', Some(t)) => Ok(Value::Str(duration(t))),
            ('H', Some(t)) => Ok(Value::Str(clock(t))),
            ('P', Some(x)) => {
                let percent = x * 100.;
                Ok(Value::Str(if percent > 0. && percent < 1. {
                    format!("{percent:.2}%")
                } else {
                    format!("{}%", general(percent, 3))
                }))
            }
            ('d' | 'D', None) => or_blank("a date"),
            ('F' | 'H', None) => or_blank("a duration"),
            ('P', None) => or_blank("a percentage"),
            (other, _) => Err(format!("unknown conversion '!{other}'")),
        }
    }

    /// Order for sorting: unset values, then numbers (also in text), then other text.
    pub(crate) fn compare(&self, other: &Value) -> std::cmp::Ordering {
        let key = |value: &Value| {
            let text = value.text();
            if text.is_empty() || text == "-" {
                return (0, 0., String::new());
            }
            match value.number().or_else(|| text.trim().parse().ok()) {
                Some(n) => (1, n, String::new()),
                None => (2, 0., text),
            }
        };
        let (a, b) = (key(self), key(other));
        a.0.cmp(&b.0)
            .then(a.1.total_cmp(&b.1))
            .then_with(|| a.2.cmp(&b.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let shown = [
            0., 0.0005, 0.25, 9.9994, 10., 59.99, 60., 3599., 3600., 86400., 1e7,
        ]
        .map(duration)
        .join(" ");
        assert_eq!(
            shown,
            "0s 0s 0.250s 9.999s 10s 59.99s 1m 59.98m 1h 1d 115.7d"
        );
        assert_eq!(duration(f64::INFINITY), "inf");
    }

    #[test]
    fn floats_and_clocks() {
        assert_eq!(
            [1., 0.1, 1e16, 1.5e-7, 123456.789].map(float).join(" "),
            "1.0 0.1 1e+16 1.5e-07 123456.789"
        );
        assert_eq!(
            [0., 0.2, 59.6, 3661., 90000., 200000.].map(clock).join("|"),
            "0:00:00|0:00:01|0:01:00|1:01:01|1 day, 1:00:00|2 days, 7:33:20"
        );
    }

    #[test]
    fn percentages() {
        let show = |x: f64| Value::Float(x).convert('P').unwrap().text();
        assert_eq!(
            [0., 0.001, 0.5, 0.9999, 1.].map(show).join(" "),
            "0% 0.10% 50% 100% 100%"
        );
    }
}
