//! The part of a field after the colon: Python's format specification, with two more suffixes:
//! `h` shows `-` for nothing, `+` marks text that was cut.

use super::value::{Value, date, float, general, is_blank};

/// A parsed specification. Fields keep what was written, so that it can be put together again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zero: bool,
    pub(crate) width: Option<usize>,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
    hyphen: bool,
    mark: bool,
}

impl Spec {
    /// `None` if the text is not a specification.
    pub(crate) fn parse(text: &str) -> Option<Spec> {
        let mut spec = Spec::default();
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '=' | '^'));
        if is_align(chars.get(1)) {
            spec.fill = Some(chars[0]);
            spec.align = Some(chars[1]);
            at = 2;
        } else if is_align(chars.first()) {
            spec.align = Some(chars[0]);
            at = 1;
        }
        let mut take = |allowed: &str| {
            let c = chars.get(at).copied().filter(|c| allowed.contains(*c))?;
            at += 1;
            Some(c)
        };
        spec.sign = take("-+ ");
        take("z");
        spec.alternate = take("#").is_some();
        spec.zero = take("0").is_some();
        let digits = |take: &mut dyn FnMut(&str) -> Option<char>| -> Option<usize> {
            let mut text = String::new();
            while let Some(c) = take("0123456789") {
                text.push(c);
            }
            text.parse().ok()
        };
        spec.width = digits(&mut take);
        spec.grouping = take("_,");
        if take(".").is_some() {
            spec.precision = Some(digits(&mut take)?);
        }
        spec.kind = take("bcdeEfFgGnosxX%");
        spec.hyphen = take("h").is_some();
        spec.mark = take("+").is_some();
        (at == chars.len()).then_some(spec)
    }

    /// Widen a column; text cut at a smaller width is cut at the new one instead.
    pub(crate) fn widen(&mut self, width: usize) {
        self.width = Some(width);
        if matches!(self.kind, None | Some('s'))
            && self.precision.is_some_and(|p| p > 0 && p < width)
        {
            self.precision = Some(width);
        }
    }

    /// The text of a heading: only alignment and width count.
    pub(crate) fn heading(&self, text: &str) -> String {
        pad(text.to_owned(), self.align.unwrap_or('<'), ' ', self.width)
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let chars = [self.fill, self.align, self.sign].into_iter().flatten();
        let mut out: String = chars.collect();
        if self.alternate {
            out.push('#');
        }
        if self.zero {
            out.push('0');
        }
        if let Some(width) = self.width {
            out.push_str(&width.to_string());
        }
        out.extend(self.grouping);
        if let Some(precision) = self.precision {
            out.push_str(&format!(".{precision}"));
        }
        out.extend(self.kind);
        if self.hyphen {
            out.push('h');
        }
        if self.mark {
            out.push('+');
        }
        f.write_str(&out)
    }
}

fn pad(text: String, align: char, fill: char, width: Option<usize>) -> String {
    let missing = width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    let fills = |n: usize| fill.to_string().repeat(n);
    match align {
        '>' => format!("{}{text}", fills(missing)),
        '^' => format!(
            "{}{text}{}",
            fills(missing / 2),
            fills(missing - missing / 2)
        ),
        '=' => {
            let digits = text.trim_start_matches(['-', '+', ' ']);
            let sign = &text[..text.len() - digits.len()];
            format!("{sign}{}{digits}", fills(missing))
        }
        _ => format!("{text}{}", fills(missing)),
    }
}

/// Format a value with what stands after the colon.
pub(crate) fn format(value: &Value, text: &str) -> Result<String, String> {
    if let Value::Date(seconds) = value {
        return format_date(*seconds, text);
    }
    if text.is_empty() {
        return Ok(value.text());
    }
    let spec = Spec::parse(text).ok_or_else(|| format!("invalid format specification '{text}'"))?;
    let whole = match (spec.hyphen, value.text()) {
        (true, shown) if is_blank(&shown) => Some("-".to_owned()),
        (true, shown) => Some(shown),
        (false, _) => None,
    };
    let as_text = |mut shown: String, default: char| {
        let full = shown.chars().count();
        if let Some(precision) = spec.precision {
            shown = shown.chars().take(precision).collect();
        }
        let align = spec.align.unwrap_or(default);
        let mut padded = pad(shown, align, spec.fill.unwrap_or(' '), spec.width);
        if spec.mark && padded.chars().count() < full {
            padded.pop();
            padded.push('+');
        }
        padded
    };
    if let Some(shown) = whole {
        return Ok(as_text(shown, '<'));
    }
    let mismatch = |what: &str| {
        let kind = spec.kind.map_or_else(String::new, |k| k.to_string());
        Err(format!("format '{kind}' does not apply to {what}"))
    };
    match value {
        Value::Empty => Ok(as_text(String::new(), '<')),
        Value::Str(s) => match spec.kind {
            None | Some('s') => Ok(as_text(s.clone(), '<')),
            Some(_) => mismatch(&format!("the text '{s}'")),
        },
        Value::Int(_) | Value::Id(_) | Value::Bool(_) => {
            let n = match value {
                Value::Int(n) => i128::from(*n),
                Value::Id(id) => i128::from(id.0),
                Value::Bool(b) => i128::from(*b),
                _ => 0,
            };
            match spec.kind {
                None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X' | 'c') => Ok(integer(n, &spec)),
                // A number asked for as text is shown as text.
                Some('s') => Ok(as_text(value.text(), '<')),
                Some(_) => Ok(real(n as f64, &spec)),
            }
        }
        Value::Float(x) => match spec.kind {
            None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%') => Ok(real(*x, &spec)),
            Some('s') => Ok(as_text(float(*x), '<')),
            Some(_) => mismatch(&format!("the number {}", float(*x))),
        },
        Value::Date(_) => Ok(String::new()),
    }
}

/// `%Y-%m-%d::>12`: a time format, then where it goes.
fn format_date(seconds: f64, text: &str) -> Result<String, String> {
    let (time, place) = text.split_once("::").unwrap_or((text, ""));
    let shown = match seconds {
        0. => String::new(),
        t => date(t, if time.is_empty() { "%FT%T" } else { time })?,
    };
    if place.is_empty() {
        return Ok(shown);
    }
    format(&Value::Str(shown), place)
}

fn signed(text: String, negative: bool, spec: &Spec) -> String {
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        (false, _) => "",
    };
    let text = format!("{sign}{text}");
    let (align, fill) = match spec.zero {
        true => (spec.align.unwrap_or('='), spec.fill.unwrap_or('0')),
        false => (spec.align.unwrap_or('>'), spec.fill.unwrap_or(' ')),
    };
    pad(text, align, fill, spec.width)
}

fn grouped(digits: &str, separator: Option<char>) -> String {
    let Some(separator) = separator else {
        return digits.to_owned();
    };
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(separator);
        }
        out.push(c);
    }
    if digits.contains('.') {
        out.push('.');
        out.push_str(rest);
    }
    out
}

fn integer(n: i128, spec: &Spec) -> String {
    let size = n.unsigned_abs();
    let (prefix, digits) = match spec.kind {
        Some('b') => ("0b", format!("{size:b}")),
        Some('o') => ("0o", format!("{size:o}")),
        Some('x') => ("0x", format!("{size:x}")),
        Some('X') => ("0X", format!("{size:X}")),
        _ => ("", grouped(&size.to_string(), spec.grouping)),
    };
    let prefix = if spec.alternate { prefix } else { "" };
    signed(format!("{prefix}{digits}"), n < 0, spec)
}

fn real(x: f64, spec: &Spec) -> String {
    let size = x.abs();
    let precision = spec.precision.unwrap_or(6);
    let digits = match spec.kind {
        Some('f' | 'F') => format!("{size:.precision$}"),
        Some('%') => format!("{:.precision$}%", size * 100.),
        Some('e' | 'E') => {
            let text = format!("{size:.precision$e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        Some(_) => general(size, precision),
        None => spec
            .precision
            .map_or_else(|| float(size), |p| general(size, p)),
    };
    signed(
        grouped(&digits, spec.grouping),
        x.is_sign_negative() && x != 0.,
        spec,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_as_python_formats_them() {
        let cases: &[(Value, &str, &str)] = &[
            (Value::from("abc"), ">5", "  abc"),
            (Value::from("abc"), "^5", " abc "),
            (Value::from("abcdefghijkl"), "<10.10+", "abcdefghi+"),
            (Value::from("abcdefghij"), "<10.10+", "abcdefghij"),
            (Value::from(""), ">4h", "   -"),
            (Value::Int(0), ">4h", "   0"),
            (Value::Float(0.), ">4h", "   -"),
            (Value::Int(42), ">6", "    42"),
            (Value::Int(42), "<6", "42    "),
            (Value::Int(42), "06", "000042"),
            (Value::Int(1234567), ",", "1,234,567"),
            (Value::Int(255), "#x", "0xff"),
            (Value::Float(1.5), "8.3f", "   1.500"),
            (Value::Float(-1.5), "+.1f", "-1.5"),
            (Value::Empty, ">3d", "   "),
            (Value::Bool(true), "", "True"),
            (Value::Bool(true), ">3", "  1"),
            (Value::Date(0.), "%b%d %R::>12h", "           -"),
        ];
        for (value, spec, expected) in cases {
            assert_eq!(
                format(value, spec).as_deref(),
                Ok(*expected),
                "{value:?} {spec}"
            );
        }
        assert!(format(&Value::from("a"), "d").is_err());
        assert!(format(&Value::from("a"), "~~~").is_err());
    }

    proptest! {
        #[test]
        fn specifications_read_back(
            align in prop::option::of(prop::sample::select(vec!['<', '>', '^'])),
            width in (1usize..99).prop_map(Some),
            precision in prop::option::of(0usize..99),
            hyphen: bool,
            mark: bool,
        ) {
            let spec = Spec { align, width, precision, hyphen, mark, ..Spec::default() };
            prop_assert_eq!(Spec::parse(&spec.to_string()), Some(spec));
        }
    }
}
