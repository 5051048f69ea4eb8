//! Flux Standard Duration, RFC 23: `90`, `1.5h`, `30s`, `250ms`, `infinity`.

/// Why a string is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a duration; give a number with an optional unit ms, s, m, h or d, or infinity"
)]
pub struct FsdError(pub String);

/// Parses a duration to seconds.
///
/// ```
/// use formats::fsd;
/// assert_eq!(fsd::parse("1.5h"), Ok(5400.));
/// assert_eq!(fsd::format(5400.), "1.5h");
/// ```
pub fn parse(text: &str) -> Result<f64, FsdError> {
    let error = || FsdError(text.to_owned());
    // As strtod has it, white space may come first.
    let unsigned = text.trim_ascii_start();
    let unsigned = unsigned.strip_prefix('+').unwrap_or(unsigned);
    if ["inf", "infinity"].contains(&unsigned.to_ascii_lowercase().as_str()) {
        return Ok(f64::INFINITY);
    }
    let (number, scale) = [
        ("ms", 1e-3),
        ("s", 1.),
        ("m", 60.),
        ("h", 3600.),
        ("d", 86400.),
    ]
    .into_iter()
    .find_map(|(unit, scale)| Some((unsigned.strip_suffix(unit)?, scale)))
    .unwrap_or((unsigned, 1.));
    // A hexadecimal number may end in d: then it has no unit.
    let value = hexadecimal(unsigned)
        .map(|value| (value, 1.))
        .or_else(|| Some((hexadecimal(number).or_else(|| decimal(number))?, scale)));
    let (value, scale) = value.ok_or_else(error)?;
    if value >= 0. {
        Ok(value * scale)
    } else {
        Err(error())
    }
}

/// Decimal digits, with a fraction and an exponent or not; `-0` is as good as 0.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.starts_with(|c: char| c.is_ascii_digit() || "-.".contains(c));
    plain.then(|| text.parse().ok()).flatten()
}

/// The form of C99 that starts with `0x`: hexadecimal digits, binary exponent after `p`.
fn hexadecimal(text: &str) -> Option<f64> {
    let body = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))?;
    let (mantissa, exponent) = match body.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (body, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| {
        text.chars().try_fold(0f64, |value, c| {
            Some(value * 16. + f64::from(c.to_digit(16)?))
        })
    };
    let fraction = digits(fraction)? / 16f64.powi(fraction.len() as i32);
    Some((digits(whole)? + fraction) * 2f64.powi(exponent))
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
            ("0x10", 16.),
            ("0x1.8p1m", 180.),
            ("0xd", 13.),
            ("-0", 0.),
            (" \t3s", 3.),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "", "s", "ms", "++1", "0x", "0xg", "0x1p", "-inf", "e3", "-1", "-1s", "1S", "1 s",
            "1x", "nan", "infs", "inf s", "1m30s",
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
