//! `flux module trace`: the messages modules send and are sent.

use clap::Parser;
use client::{Handle, Node};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cmd::dmesg::Color;
use crate::error::{Failure, Outcome};
use crate::output;

/// Print the messages of modules
#[derive(Parser)]
pub(super) struct Trace {
    /// Print payloads too
    #[arg(short, long)]
    full: bool,
    /// Only topics that fit
    #[arg(short = 'T', long, value_name = "GLOB", default_value = "*")]
    topic: String,
    /// Only these types: request, response, event, control
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE,...",
        value_delimiter = ','
    )]
    types: Vec<Kind>,
    /// Times for people
    #[arg(short = 'H', long)]
    human: bool,
    /// With --human, the time since the message before
    #[arg(short, long, requires = "human")]
    delta: bool,
    /// Colours: always, never or auto
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_value = "auto", default_missing_value = "always")]
    color: Color,
    #[arg(value_name = "MODULE")]
    modules: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    Request = 1,
    Response = 2,
    Event = 4,
    Control = 8,
}

/// One traced message.
#[derive(Deserialize)]
struct Seen {
    timestamp: f64,
    prefix: String,
    name: String,
    #[serde(rename = "type")]
    kind: u8,
    topic: String,
    payload_size: u64,
    payload: Option<Value>,
    #[serde(default)]
    errnum: i32,
    #[serde(default)]
    errstr: String,
}

/// Bytes with a unit of 1024.
fn size(bytes: u64) -> String {
    let units = ["", "K", "M", "G", "T", "P", "E"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024. {
        value /= 1024.;
        unit += 1;
    }
    // As many digits as are there, but no more than eight.
    let digits = 7 - (value.max(1.).log10() as usize).min(7);
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{}", units[unit])
}

impl Seen {
    fn text(&self, width: usize) -> String {
        let kind = match self.kind {
            1 => "request",
            2 => "response",
            4 => "event",
            _ => "control",
        };
        let end = match (self.kind, self.errnum) {
            (2, 0) => " success".to_owned(),
            (2, n) => match wire::errno_name(n) {
                Some(name) => format!(" {name}"),
                None => format!(" errno {n}"),
            },
            _ => String::new(),
        };
        let (name, prefix, topic) = (&self.name, &self.prefix, &self.topic);
        let size = size(self.payload_size);
        format!("{name:>width$} {prefix} {kind} {topic} [{size}]{end}")
    }

    fn color(&self) -> &'static str {
        match (self.kind, self.errnum) {
            (2, n) if n > 0 => "1;31",
            (1, _) => "1;34",
            (2, _) => "36",
            (4, _) => "33",
            _ => "1",
        }
    }
}

struct Clock {
    human: bool,
    delta: bool,
    /// The minute that was announced, and what times are relative to.
    last: Option<(i64, f64)>,
}

impl Clock {
    fn show(&mut self, at: f64, zone: &TimeZone) -> String {
        let time = Timestamp::from_microsecond((at * 1e6) as i64).unwrap_or_default();
        let local = time.to_zoned(zone.clone());
        let minute = (at / 60.) as i64;
        match self.last {
            _ if !self.human => local.strftime("%Y-%m-%dT%H:%M:%S.%3f").to_string(),
            Some((shown, since)) if shown == minute => {
                if self.delta {
                    self.last = Some((minute, at));
                }
                format!("[{:>+11.6}]", at - since)
            }
            _ => {
                self.last = Some((minute, at));
                local.strftime("[%b%d %H:%M]").to_string()
            }
        }
    }
}

pub(super) async fn run(handle: &Handle, options: &Trace) -> Outcome {
    let typemask = match options.types.iter().fold(0, |mask, t| mask | *t as u32) {
        0 => 15,
        mask => mask,
    };
    let request = json!({
        "typemask": typemask,
        "topic_glob": options.topic,
        "names": options.modules,
        "full": options.full,
    });
    let width = options.modules.iter().map(String::len).max().unwrap_or(0);
    let (color, zone) = (options.color.on(), TimeZone::system());
    let mut clock = Clock {
        human: options.human,
        delta: options.delta,
        last: None,
    };
    let paint = |code: &str, text: &str| match color {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let mut stream = handle.stream("module.trace", Node::Any, &request);
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            signal = tokio::signal::ctrl_c() => {
                signal?;
                return Ok(0);
            }
        };
        let seen: Seen = match next {
            Some(msg) => msg?.json().map_err(|e| Failure::new(e.to_string()))?,
            None => return Ok(0),
        };
        let time = paint("32", &clock.show(seen.timestamp, &zone));
        let mut text = seen.text(width);
        let more = match &seen.payload {
            _ if seen.errnum > 0 => seen.errstr.clone(),
            // What came as JSON can be written as JSON.
            Some(payload) => serde_json::to_string_pretty(payload).unwrap_or_default(),
            None => String::new(),
        };
        if !more.is_empty() {
            text = format!("{text}\n{more}");
        }
        output::write(&format!("{time} {}\n", paint(seen.color(), &text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let seen = |kind, errnum| Seen {
            timestamp: 0.,
            prefix: "rx".into(),
            name: "kvs".into(),
            kind,
            topic: "kvs.ping".into(),
            payload_size: 12,
            payload: None,
            errnum,
            errstr: String::new(),
        };
        assert_eq!(seen(1, 0).text(5), "  kvs rx request kvs.ping [12]");
        assert_eq!(seen(2, 2).text(0), "kvs rx response kvs.ping [12] ENOENT");
        assert_eq!(["0", "1K", "1.5M"], [0, 1024, 3 << 19].map(size));
        let mut clock = Clock {
            human: true,
            delta: false,
            last: None,
        };
        let show = [60., 60.5, 61., 120.].map(|t| clock.show(t, &TimeZone::UTC));
        assert_eq!(
            show,
            [
                "[Jan01 00:01]",
                "[  +0.500000]",
                "[  +1.000000]",
                "[Jan01 00:02]"
            ]
        );
    }
}
