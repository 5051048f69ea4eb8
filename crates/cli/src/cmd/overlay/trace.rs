//! `flux overlay trace`: the messages between a broker and its peers, as they pass.

use clap::Parser;
use client::{Handle, Node};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Match, errno_name};

use super::When;
use crate::error::{Failure, Outcome};
use crate::output::outln;

const YELLOW: &str = "\x1b[33m";
const BOLD_BLUE: &str = "\x1b[01;34m";
const CYAN: &str = "\x1b[36m";
const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const BOLD_GREEN: &str = "\x1b[1m\x1b[32m";
const BOLD_RED: &str = "\x1b[1m\x1b[31m";
const RESET: &str = "\x1b[0m";

#[derive(Parser)]
pub(super) struct Options {
    /// Only messages of this peer
    #[arg(short, long, value_name = "NODEID")]
    rank: Option<u32>,
    /// Show payloads that are JSON
    #[arg(short, long)]
    full: bool,
    /// Only these types: request, response, event, control
    #[arg(short = 't', long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Use color: always, never or auto
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always", default_value = "auto", value_enum)]
    color: When,
    /// Times for people: seconds within the minute
    #[arg(short = 'H', long)]
    human: bool,
    /// With --human, the time since the message before
    #[arg(short, long)]
    delta: bool,
    /// Only messages whose topic fits
    #[arg(value_name = "topic-glob", default_value = "*")]
    glob: String,
}

impl Options {
    fn typemask(&self) -> Result<u8, Failure> {
        let bit = |name: &String| match name.as_str() {
            "request" => Ok(Match::REQUEST),
            "response" => Ok(Match::RESPONSE),
            "event" => Ok(Match::EVENT),
            "control" => Ok(Match::CONTROL),
            _ => Err(Failure::new(
                "valid types: request, response, event, control",
            )),
        };
        if self.types.is_empty() {
            return Ok(Match::REQUEST | Match::RESPONSE | Match::EVENT | Match::CONTROL);
        }
        self.types
            .iter()
            .try_fold(0, |mask, name| Ok(mask | bit(name)?))
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.delta && !self.human {
            return Err(Failure::new("--delta can only be used with --human"));
        }
        self.typemask().map(drop)
    }
}

/// A message that passed.
#[derive(Deserialize)]
struct Seen {
    timestamp: f64,
    prefix: String,
    rank: i64,
    #[serde(rename = "type")]
    kind: u8,
    topic: String,
    payload_size: u64,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    errnum: i32,
    #[serde(default)]
    errstr: String,
}

/// Bytes for people: in powers of 1024, without digits after the point where there are none.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["", "K", "M", "G", "T"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 1024. {
            break;
        }
        value /= 1024.;
        unit = next;
    }
    match value.fract() == 0. {
        true => format!("{value:.0}{unit}"),
        false => format!("{value:.1}{unit}"),
    }
}

/// Prints times: in full, or for people relative to the minute.
struct Clock {
    human: bool,
    delta: bool,
    color: bool,
    last: f64,
}

impl Clock {
    fn paint(&self, color: &str, text: &str) -> String {
        match self.color {
            true => format!("{color}{text}{RESET}"),
            false => text.to_owned(),
        }
    }

    fn show(&mut self, time: f64) -> Result<String, Failure> {
        let zoned = jiff::Timestamp::from_microsecond((time * 1e6) as i64)
            .map_err(|e| Failure::new(format!("timestamp {time}: {e}")))?
            .to_zoned(jiff::tz::TimeZone::system());
        if !self.human {
            let text = zoned.strftime("%Y-%m-%dT%T.%3f").to_string();
            return Ok(self.paint(GREEN, &text));
        }
        let same = (time / 60.).floor() == (self.last / 60.).floor();
        let text = if same {
            let offset = match self.delta {
                true => time - self.last,
                false => time - (time / 60.).floor() * 60.,
            };
            self.paint(GREEN, &format!("[{offset:+11.6}]"))
        } else {
            self.paint(BOLD_GREEN, &format!("[{}]", zoned.strftime("%b%d %H:%M")))
        };
        if !same || self.delta {
            self.last = time;
        }
        Ok(format!("{text} "))
    }
}

fn describe(seen: &Seen) -> String {
    let (rank, kind) = match seen.rank {
        r if r < 0 || r == i64::from(wire::NODEID_ANY) => ("*".to_owned(), seen.kind),
        r => (r.to_string(), seen.kind),
    };
    let sign = match kind {
        Match::REQUEST => ">",
        Match::RESPONSE => "<",
        Match::EVENT => "e",
        Match::CONTROL => "c",
        _ => "?",
    };
    let outcome = match (kind, seen.errnum) {
        (Match::RESPONSE, 0) => " success".to_owned(),
        (Match::RESPONSE, errnum) => match errno_name(errnum) {
            Some(name) => format!(" {name}"),
            None => format!(" errno {errnum}"),
        },
        _ => String::new(),
    };
    let (prefix, topic) = (&seen.prefix, &seen.topic);
    format!(
        "{prefix} {rank} {sign} {topic} [{}]{outcome}",
        size(seen.payload_size)
    )
}

fn details(seen: &Seen) -> Option<String> {
    if seen.errnum > 0 {
        return Some(seen.errstr.clone()).filter(|text| !text.is_empty());
    }
    match &seen.payload {
        Value::Null => None,
        // A value that was read as JSON is written as JSON.
        payload => serde_json::to_string_pretty(payload).ok(),
    }
}

pub(super) async fn run(handle: &Handle, options: Options) -> Outcome {
    let request = json!({
        "typemask": options.typemask()?,
        "topic_glob": options.glob,
        "nodeid": options.rank.map_or(-1, i64::from),
        "full": options.full,
    });
    let mut clock = Clock {
        human: options.human,
        delta: options.delta,
        color: options.color.is_on(),
        last: 0.,
    };
    let mut messages = handle.stream("overlay.trace", Node::Any, &request);
    while let Some(message) = messages.next().await {
        let seen: Seen = message?.json()?;
        let color = match (seen.kind, seen.errnum) {
            (Match::RESPONSE, 1..) => BOLD_RED,
            (Match::RESPONSE, _) => CYAN,
            (Match::REQUEST, _) => BOLD_BLUE,
            (Match::EVENT, _) => YELLOW,
            _ => BOLD,
        };
        let mut text = describe(&seen);
        if let Some(details) = details(&seen) {
            text.push('\n');
            text.push_str(&details);
        }
        outln!(
            "{} {}",
            clock.show(seen.timestamp)?,
            clock.paint(color, &text)
        );
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let seen = |kind, errnum| Seen {
            timestamp: 1.,
            prefix: "rx".into(),
            rank: if kind == Match::EVENT { -1 } else { 3 },
            kind,
            topic: "a.b".into(),
            payload_size: 1536,
            payload: Value::Null,
            errnum,
            errstr: String::new(),
        };
        let lines = [
            (Match::REQUEST, 0),
            (Match::RESPONSE, 0),
            (Match::RESPONSE, 2),
            (Match::EVENT, 0),
        ];
        let lines = lines.map(|(kind, errnum)| describe(&seen(kind, errnum)));
        insta::assert_snapshot!(lines.join("\n"), @r"
        rx 3 > a.b [1.5K]
        rx 3 < a.b [1.5K] success
        rx 3 < a.b [1.5K] ENOENT
        rx * e a.b [1.5K]
        ");
        assert_eq!(
            [size(0), size(1023), size(1024), size(5 << 20)],
            ["0", "1023", "1K", "5M"]
        );
    }
}
