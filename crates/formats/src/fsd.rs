//! Flux Standard Duration, RFC 23: `90`, `1.5h`, `30s`, `250ms`, `infinity`.

/// Why a string is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a duration; give a number with an optional unit ms, s, m, h or d, or infinity"
)]
pub struct FsdError(pub String);

/// Parses a duration to seconds.
pub fn parse(text: &str) -> Result<f64, FsdError> {
    let error = || FsdError(text.to_owned());
    let number_len = text
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
        .len();
    // The letters of "inf" and "infinity" are the number, not a unit, and take no unit.
    if text
        .strip_prefix('+')
        .unwrap_or(text)
        .starts_with(['i', 'I'])
    {
        let name = text.trim_start_matches('+').to_ascii_lowercase();
        return if name == "inf" || name == "infinity" {
            Ok(f64::INFINITY)
        } else {
            Err(error())
        };
    }
    let (number, unit) = text.split_at(number_len);
    let scale = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.,
        "m" => 60.,
        "h" => 3600.,
        "d" => 86400.,
        _ => return Err(error()),
    };
    let value: f64 = number.parse().map_err(|_| error())?;
    if value >= 0. {
        Ok(value * scale)
    } else {
        Err(error())
    }
}

/// Formats seconds with the largest unit below the value, six significant digits.
pub fn format(seconds: f64) -> String {
    if seconds.is_infinite() {
        return "infinity".to_owned();
    }
    let (value, unit) = match seconds {
        s if s < 0.1 && s != 0. => (s * 1e3, "ms"),
        s if s < 60. => (s, "s"),
        s if s < 3600. => (s / 60., "m"),
        s if s < 86400. => (s / 3600., "h"),
        s => (s / 86400., "d"),
    };
    format!("{}{unit}", general(value, 6))
}

/// `value` as C's `%.*g` prints it: `digits` significant digits, no trailing zeros.
fn general(value: f64, digits: i32) -> String {
    if value == 0. {
        return "0".to_owned();
    }
    // Rounding can carry into the next power of ten, so the exponent is read off the result.
    let scientific = format!("{:.*e}", (digits - 1) as usize, value);
    let (mantissa, exponent) = scientific
        .split_once('e')
        .expect("`{:e}` prints an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` prints a decimal exponent");
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= digits {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
    } else {
        trim(&format!("{:.*}", (digits - 1 - exponent) as usize, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table_of_the_rfc() {
        for (text, want) in [
            ("2ms", 0.002),
            ("0.1s", 0.1),
            ("30", 30.),
            ("1.2h", 4320.),
            ("5m", 300.),
            ("0s", 0.),
            ("5d", 432000.),
            ("1e3", 1000.),
            (".5s", 0.5),
            ("inf", f64::INFINITY),
            ("INF", f64::INFINITY),
            ("infinity", f64::INFINITY),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "", "s", "-1", "-1s", "1S", "1 s", "1x", "nan", "infs", "inf s", "1m30s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn formatting() {
        for (seconds, want) in [
            (0., "0s"),
            (0.0123, "12.3ms"),
            (1.23e-5, "0.0123ms"),
            (0.1, "0.1s"),
            (42.25, "42.25s"),
            (59.9999999, "60s"),
            (90., "1.5m"),
            (5400., "1.5h"),
            (86400. * 3.5, "3.5d"),
            (1e12, "1.15741e+07d"),
            (f64::INFINITY, "infinity"),
        ] {
            assert_eq!(format(seconds), want);
        }
    }

    proptest! {
        #[test]
        fn formatted_durations_parse_back(seconds in 0f64..1e7) {
            let back = parse(&format(seconds)).unwrap();
            prop_assert!((back - seconds).abs() <= seconds * 1e-5, "{} {}", seconds, back);
        }
    }
}
