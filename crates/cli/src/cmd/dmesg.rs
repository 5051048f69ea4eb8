//! `flux dmesg`: the broker's log, whose entries are RFC 5424 lines.

use clap::Parser;
use client::services::log::{self, Clear, Dmesg, SEVERITIES};
use client::{Handle, Node};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::Outcome;
use crate::output;

/// Print the broker's log.
#[derive(Parser)]
struct Options {
    /// Empty the log
    #[arg(short = 'C', long)]
    clear: bool,
    /// Print the log, then empty it
    #[arg(short = 'c', long)]
    read_clear: bool,
    /// Go on with new entries
    #[arg(short, long)]
    follow: bool,
    /// Only new entries
    #[arg(short, long)]
    new: bool,
    /// Times for people
    #[arg(short = 'H', long)]
    human: bool,
    /// With --human, the time since the entry before
    #[arg(short, long, requires = "human")]
    delta: bool,
    /// Colours: always, never or auto
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, default_value = "auto", default_missing_value = "always")]
    color: Color,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    Always,
    Never,
    Auto,
}

impl Color {
    /// Whether standard output gets colours.
    pub(crate) fn on(self) -> bool {
        use std::io::IsTerminal as _;
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stdout().is_terminal(),
        }
    }
}

/// The parts of a log line that are shown.
#[derive(Debug, PartialEq)]
struct Entry<'a> {
    severity: usize,
    time: &'a str,
    rank: u32,
    app: &'a str,
    text: &'a str,
}

fn parse(line: &str) -> Option<Entry<'_>> {
    let (pri, rest) = line.strip_prefix('<')?.split_once('>')?;
    let mut parts = rest.splitn(8, ' ');
    let mut next = || parts.next();
    let (_version, time, host, app) = (next()?, next()?, next()?, next()?);
    let (_procid, _msgid, _data, text) = (next()?, next()?, next()?, next().unwrap_or(""));
    Some(Entry {
        severity: log::severity(pri.parse().ok()?) as usize,
        time,
        rank: host.parse().unwrap_or(0),
        app,
        text,
    })
}

/// Renders entries; remembers the time of the last for relative ones.
struct Printer {
    human: bool,
    delta: bool,
    color: bool,
    zone: TimeZone,
    /// The minute that was announced, and the time entries are relative to.
    last: Option<(jiff::Zoned, Timestamp)>,
}

impl Printer {
    fn paint(&self, code: &str, text: &str) -> String {
        match self.color && !code.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn line(&mut self, line: &str) -> String {
        let line = line.trim_end_matches(['\0', '\n']);
        let Some(entry) = parse(line) else {
            return line.to_owned();
        };
        let time = self.time(entry.time);
        let name = format!(
            "{}.{}[{}]",
            entry.app, SEVERITIES[entry.severity], entry.rank
        );
        let tint = match entry.severity {
            0..=2 => "1;31",
            3 => "31",
            4 => "1",
            7 => "34",
            _ => "",
        };
        let name = self.paint("33", &name);
        format!("{time} {name}: {}", self.paint(tint, entry.text))
    }

    fn time(&mut self, text: &str) -> String {
        let Ok(at) = text.parse::<Timestamp>() else {
            return self.paint("32", text);
        };
        let local = at.to_zoned(self.zone.clone());
        if !self.human {
            let offset = local.offset();
            if offset.seconds() == 0 {
                return self.paint("32", text);
            }
            return self.paint(
                "32",
                &local.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z").to_string(),
            );
        }
        let minute = |z: &jiff::Zoned| (z.date(), z.hour(), z.minute());
        match &self.last {
            Some((shown, since)) if minute(shown) == minute(&local) => {
                let dt = at.duration_since(*since).as_secs_f64();
                let text = self.paint("32", &format!("[{dt:>+11.6}]"));
                if self.delta {
                    self.last = Some((local, at));
                }
                text
            }
            _ => {
                let text = self.paint("1;32", &local.strftime("[%b%d %H:%M]").to_string());
                self.last = Some((local, at));
                text
            }
        }
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(async {
        let handle = Handle::open(None).await?;
        if !options.clear {
            let mut printer = Printer {
                human: options.human,
                delta: options.delta,
                color: options.color.on(),
                zone: TimeZone::system(),
                last: None,
            };
            let request = Dmesg {
                follow: options.follow || options.new,
                nobacklog: options.new,
            };
            let mut entries = handle.dmesg(&request);
            while let Some(entry) = entries.next().await {
                let text = entry?;
                output::write(&(printer.line(&text) + "\n"));
            }
        }
        if options.clear || options.read_clear {
            handle.ask(Node::Any, &Clear {}).await?;
        }
        Ok(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [&str; 3] = [
        "<56>1 2026-11-22T23:44:49.289847Z 0 broker - - - insmod heartbeat",
        "<48>1 2026-11-22T23:44:49.327857Z 1 logger - - - hello there",
        "<24>1 2026-11-22T23:45:00.000000Z 0 kvs - - - bad",
    ];

    fn show(human: bool, color: bool) -> String {
        let mut printer = Printer {
            human,
            delta: false,
            color,
            zone: TimeZone::UTC,
            last: None,
        };
        LOG.map(|line| printer.line(line)).join("\n")
    }

    #[test]
    fn lines() {
        insta::assert_snapshot!(show(false, false), @r"
        2026-11-22T23:44:49.289847Z broker.debug[0]: insmod heartbeat
        2026-11-22T23:44:49.327857Z logger.info[1]: hello there
        2026-11-22T23:45:00.000000Z kvs.err[0]: bad
        ");
        insta::assert_snapshot!(show(true, false), @r"
        [Nov22 23:44] broker.debug[0]: insmod heartbeat
        [  +0.038010] logger.info[1]: hello there
        [Nov22 23:45] kvs.err[0]: bad
        ");
        assert!(show(false, true).contains("\x1b[31mbad\x1b[0m"));
        assert_eq!(parse("nonsense"), None);
    }
}
