//! Printing events (RFC 18): as text with different times, or as they are.

use formats::Event;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::Failure;
use crate::format::date;

/// How times are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// Seconds since the epoch.
    Raw,
    /// ISO 8601, local.
    Iso,
    /// Seconds since the first event.
    Offset,
    /// Date and time once a minute, seconds since then in between.
    Human,
}

impl TimeFormat {
    pub(crate) fn parse(text: &str) -> Result<TimeFormat, Failure> {
        match text.to_ascii_lowercase().as_str() {
            "raw" => Ok(TimeFormat::Raw),
            "iso" => Ok(TimeFormat::Iso),
            "offset" => Ok(TimeFormat::Offset),
            "human" | "reltime" => Ok(TimeFormat::Human),
            _ => Err(Failure::new(format!(
                "invalid time-format type '{text}' (raw, iso, offset or human)"
            ))),
        }
    }
}

/// Prints the events of one log, in their order.
#[derive(Debug)]
pub(crate) struct Printer {
    json: bool,
    time: TimeFormat,
    color: bool,
    /// Least width of offsets.
    offset_width: usize,
    first: Option<f64>,
    /// The minute last shown as a date, and the time of the event it was shown for.
    minute: Option<(String, f64)>,
}

/// The options `--format`, `--time-format`, `--human`, `--color` in their common meaning.
#[derive(Debug, Default)]
pub(crate) struct Style<'a> {
    pub(crate) format: Option<&'a str>,
    pub(crate) time: Option<&'a str>,
    pub(crate) human: bool,
    /// `--color[=WHEN]`.
    pub(crate) color: Option<&'a str>,
    /// Least width of offsets.
    pub(crate) offset_width: usize,
}

const RESET: &str = "\x1b[0m";

impl Printer {
    pub(crate) fn new(style: &Style<'_>) -> Result<Printer, Failure> {
        let (format, time) = match style.human {
            true => ("text", "human"),
            false => (style.format.unwrap_or("text"), style.time.unwrap_or("raw")),
        };
        let json = match format.to_ascii_lowercase().as_str() {
            "text" => false,
            "json" => true,
            _ => {
                return Err(Failure::new(format!(
                    "invalid format type '{format}' (text or json)"
                )));
            }
        };
        let color = match style.color.unwrap_or("auto") {
            "always" => true,
            "never" => false,
            "auto" => std::io::IsTerminal::is_terminal(&std::io::stdout()),
            other => {
                return Err(Failure::new(format!(
                    "--color: '{other}' is not always, never or auto"
                )));
            }
        };
        Ok(Printer {
            json,
            time: TimeFormat::parse(time)?,
            color,
            offset_width: style.offset_width,
            first: None,
            minute: None,
        })
    }

    /// An event that is not shown, but may be the first.
    pub(crate) fn pass(&mut self, event: &Event) {
        self.first.get_or_insert(event.timestamp);
    }

    /// An event as a line.
    pub(crate) fn line(&mut self, event: &Event) -> String {
        if self.json {
            return event.encode();
        }
        let paint = |code: &str, text: &str| match self.color {
            true => format!("{code}{text}{RESET}"),
            false => text.to_owned(),
        };
        let name = match event.name.as_str() {
            "exception" => paint("\x1b[1m\x1b[31m", "exception"),
            name => paint("\x1b[33m", name),
        };
        let mut context = String::new();
        for (key, value) in event.context.iter().flatten() {
            let color = if value.is_number() {
                "\x1b[37m"
            } else {
                "\x1b[35m"
            };
            let (key, value) = (paint("\x1b[34m", key), paint(color, &value.to_string()));
            context.push_str(&format!(" {key}={value}"));
        }
        let (is_break, time) = self.time(event.timestamp);
        let time = match (self.color, is_break) {
            (true, true) => format!("\x1b[1m\x1b[32m{time}{RESET}"),
            (true, false) => format!("\x1b[32m{time}{RESET}"),
            (false, _) => time,
        };
        format!("{time} {name}{context}\n")
    }

    /// The time, and whether it starts a new minute.
    fn time(&mut self, t: f64) -> (bool, String) {
        let text = match self.time {
            TimeFormat::Raw => format!("{t:.6}"),
            TimeFormat::Offset => {
                let offset = t - *self.first.get_or_insert(t);
                format!("{offset:>width$.6}", width = self.offset_width)
            }
            TimeFormat::Iso => iso(t),
            TimeFormat::Human => {
                let minute = date(t, "%b%d %H:%M").unwrap_or_default();
                let year = date(t, "%Y").unwrap_or_default();
                let this = format!("{year} {minute}");
                match &self.minute {
                    Some((last, base)) if *last == this => format!("[{:+11.6}]", t - base),
                    _ => {
                        self.minute = Some((this, t));
                        return (true, format!("[{minute}]"));
                    }
                }
            }
        };
        (false, text)
    }
}

fn iso(t: f64) -> String {
    let micros = ((t - t.floor()) * 1e6) as u64;
    let Ok(whole) = Timestamp::from_second(t as i64) else {
        return format!("{t:.6}");
    };
    let zoned = whole.to_zoned(TimeZone::system());
    let seconds = zoned.strftime("%Y-%m-%dT%H:%M:%S");
    let zone = match zoned.offset().is_zero() {
        true => "Z".to_owned(),
        false => zoned.strftime("%:z").to_string(),
    };
    format!("{seconds}.{micros:06}{zone}")
}

/// Whether a context has `key=value`; the value may be JSON or plain text.
pub(crate) fn context_matches(event: &Event, key: &str, wanted: &str) -> bool {
    event.get(key).is_some_and(|value| {
        let json = value.to_string();
        value.as_str() == Some(wanted) || json == wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn log() -> Vec<Event> {
        vec![
            Event::new(1_700_000_000.25, "submit").with_context(json!({"userid": 0, "s": "a b"})),
            Event::new(1_700_000_001.5, "exception").with_context(json!({"type": "cancel"})),
            Event::new(1_700_000_100., "clean"),
        ]
    }

    fn show(style: &Style<'_>) -> String {
        let mut printer = Printer::new(style).unwrap();
        log().iter().map(|e| printer.line(e)).collect()
    }

    #[test]
    fn styles() {
        insta::assert_snapshot!(show(&Style::default()), @r#"
        1700000000.250000 submit userid=0 s="a b"
        1700000001.500000 exception type="cancel"
        1700000100.000000 clean
        "#);
        let offset = Style {
            time: Some("offset"),
            ..Style::default()
        };
        insta::assert_snapshot!(show(&offset), @r#"
        0.000000 submit userid=0 s="a b"
        1.250000 exception type="cancel"
        99.750000 clean
        "#);
        let json = Style {
            format: Some("json"),
            ..Style::default()
        };
        assert_eq!(show(&json), formats::eventlog::encode(&log()));
        let human = show(&Style {
            human: true,
            ..Style::default()
        });
        assert!(human.contains("[  +1.250000] exception"), "{human}");
    }

    #[test]
    fn contexts() {
        let event = Event::new(1., "x").with_context(json!({"n": 4, "s": "t"}));
        assert!(context_matches(&event, "n", "4") && context_matches(&event, "s", "t"));
        assert!(context_matches(&event, "s", "\"t\"") && !context_matches(&event, "s", "u"));
        assert!(!context_matches(&event, "z", "4"));
    }
}
