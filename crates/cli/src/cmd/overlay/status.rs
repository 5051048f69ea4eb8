//! `flux overlay status`: walk the tree and print it.
//!
//! Every broker with children tells of them; of what is behind a broker that is gone, only the
//! shape is known, and its state presumed (a ghost).

use std::time::Instant;

use clap::Parser;
use client::Handle;
use formats::fsd;
use formats::idset::Idset;
use futures::future::{BoxFuture, FutureExt};

use super::{Child, Map, When, health, limit};
use crate::error::{Failure, Outcome, rpc_text};
use crate::launch::parse_duration;
use crate::output::outln;

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREY: &str = "\x1b[90m";
const DEFAULT: &str = "\x1b[39m";
const BOLD_BLUE: &str = "\x1b[01;34m";
const RESET: &str = "\x1b[0m";

#[derive(Parser)]
pub(super) struct Options {
    /// Root of the part to show
    #[arg(short, long, value_name = "NODEID", default_value_t = 0)]
    rank: u32,
    /// Say since when; twice or =2: how long brokers took to answer
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// As -v, by number
    #[arg(long = "verbose", value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    verbosity: Option<u8>,
    /// Wait this long for each broker; 0 is for ever
    #[arg(short, long, value_name = "FSD", default_value = "0.5s", value_parser = parse_duration)]
    timeout: f64,
    /// Only the root of the part
    #[arg(long)]
    summary: bool,
    /// Only what is not full
    #[arg(long)]
    down: bool,
    /// No lines that draw the tree
    #[arg(long)]
    no_pretty: bool,
    /// Nothing presumed about brokers that cannot be asked
    #[arg(long)]
    no_ghost: bool,
    /// Use color: always, never or auto
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always", default_value = "auto", value_enum)]
    color: When,
    /// Mark ranks or hosts, and what is above them
    #[arg(short = 'H', long, value_name = "TARGET")]
    highlight: Vec<String>,
    /// Wait until the part is full, partial, degraded, lost or offline
    #[arg(short, long, value_name = "STATE")]
    wait: Option<String>,
}

impl Options {
    pub(super) fn check(&self) -> Result<(), Failure> {
        let states = ["full", "partial", "degraded", "lost", "offline"];
        match &self.wait {
            Some(state) if !states.contains(&state.as_str()) => {
                Err(Failure::new("invalid --wait state"))
            }
            _ => Ok(()),
        }
    }

    fn verbose(&self) -> u8 {
        self.verbosity.unwrap_or(self.verbose)
    }
}

/// One line to be.
struct Line<'a> {
    rank: u32,
    status: &'a str,
    /// Since when, if that is known.
    duration: Option<f64>,
    error: &'a str,
    ghost: bool,
    /// How long the broker took to tell, if it told itself.
    took: Option<f64>,
}

struct Printer<'a> {
    map: &'a Map,
    options: &'a Options,
    marked: Idset,
    color: bool,
    print: &'a (dyn Fn(&str) + Sync),
}

/// Where a line is in the drawing: what is before its branch, and before those of its children.
#[derive(Clone, Default)]
struct Branch {
    first: String,
    rest: String,
}

impl Branch {
    fn child(&self, last: bool) -> Self {
        let (first, rest) = if last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        Self {
            first: format!("{}{first}", self.rest),
            rest: format!("{}{rest}", self.rest),
        }
    }
}

impl Printer<'_> {
    fn name(&self, rank: u32) -> String {
        let name = format!("{rank} {}", self.map.host(rank));
        let below = || self.map.subtree(rank).intersection(&self.marked);
        if self.marked.is_empty() || below().is_empty() {
            return name;
        }
        match self.color {
            true => format!("{BOLD_BLUE}{name}{RESET}"),
            false => format!("<<{name}>>"),
        }
    }

    fn took(&self, took: Option<f64>) -> String {
        match took {
            Some(ms) if self.options.verbose() >= 2 => format!(" ({ms:.3} ms)"),
            _ => String::new(),
        }
    }

    fn line(&self, line: &Line<'_>, branch: &Branch) {
        let color = match (line.status, line.ghost) {
            _ if !self.color => None,
            (_, true) => Some(GREY),
            ("lost", _) => Some(RED),
            ("offline", _) => Some(YELLOW),
            _ => None,
        };
        let status = match color {
            Some(color) => format!("{color}{}{DEFAULT}", line.status),
            None => line.status.to_owned(),
        };
        let since = match line.duration {
            Some(d) if self.options.verbose() >= 1 && d > 0. => format!(" for {}", fsd::format(d)),
            _ => String::new(),
        };
        let error = match line.error {
            "" => String::new(),
            error => format!(" {error}"),
        };
        let took = self.took(line.took);
        let text = match self.options.summary {
            true => format!("{status}{since}{took}"),
            false => {
                let name = self.name(line.rank);
                format!("{}{name}: {status}{since}{error}{took}", self.first(branch))
            }
        };
        (self.print)(&text);
    }

    fn first<'b>(&self, branch: &'b Branch) -> &'b str {
        if self.options.no_pretty {
            ""
        } else {
            &branch.first
        }
    }

    /// Print a line if it is to be seen; whether what is below it is to be looked at.
    fn show(&self, line: &Line<'_>, told: bool, branch: &Branch) -> bool {
        if self.options.summary {
            self.line(line, branch);
            return false;
        }
        if self.options.down && line.status == "full" {
            return false;
        }
        let verbose = self.options.verbose() >= 2;
        let leaf = self.map.below(line.rank).is_empty();
        // A broker with children is asked and tells itself; so is any, if times are wanted.
        if told || matches!(line.status, "lost" | "offline") || (leaf && !verbose) {
            self.line(line, branch);
        }
        !leaf || verbose
    }

    /// What is below a broker that cannot be asked.
    fn ghosts(&self, rank: u32, status: &str, branch: &Branch) {
        if self.options.no_ghost {
            return;
        }
        let below = self.map.below(rank);
        for (i, child) in below.iter().enumerate() {
            let branch = branch.child(i + 1 == below.len());
            let line = Line {
                rank: *child,
                status,
                duration: None,
                error: "",
                ghost: true,
                took: None,
            };
            if self.show(&line, false, &branch) {
                self.ghosts(*child, status, &branch);
            }
        }
    }

    fn child(&self, child: &Child, branch: &Branch) -> bool {
        let line = Line {
            rank: child.rank,
            status: &child.status,
            duration: Some(child.duration),
            error: &child.error,
            ghost: false,
            took: None,
        };
        self.show(&line, false, branch)
    }
}

/// Ask a broker and print what it tells; an error only for the first.
fn walk<'a>(
    handle: &'a Handle,
    printer: &'a Printer<'a>,
    rank: u32,
    branch: Branch,
    top: bool,
) -> BoxFuture<'a, Result<bool, Failure>> {
    async move {
        let options = printer.options;
        let wait = options.wait.as_deref();
        let start = Instant::now();
        let answer = health(handle, rank, wait, limit(options.timeout)).await;
        let took = Some(start.elapsed().as_secs_f64() * 1e3);
        let health = match answer {
            Ok(health) => health,
            Err(e) if top => return Err(Failure::new(rpc_text(&e))),
            Err(e) => {
                let (first, name) = (printer.first(&branch), printer.name(rank));
                let text = format!("{first}{name}: {}{}", rpc_text(&e), printer.took(took));
                (printer.print)(&text);
                return Ok(false);
            }
        };
        let line = Line {
            rank: health.rank,
            status: &health.status,
            duration: Some(health.duration),
            error: "",
            ghost: false,
            took,
        };
        if !printer.show(&line, true, &branch) {
            return Ok(true);
        }
        for (i, child) in health.children.iter().enumerate() {
            let branch = branch.child(i + 1 == health.children.len());
            if !printer.child(child, &branch) {
                continue;
            }
            let asked = !child.is_gone()
                && walk(handle, printer, child.rank, branch.clone(), false).await?;
            if !asked {
                printer.ghosts(child.rank, &child.status, &branch);
            }
        }
        Ok(true)
    }
    .boxed()
}

fn marked(map: &Map, targets: &[String]) -> Result<Idset, Failure> {
    let mut marked = Idset::new();
    for target in targets {
        let ranks = match target.parse::<Idset>() {
            Ok(ranks) => ranks,
            Err(_) => map.ranks_of(target)?,
        };
        marked = marked.union(&ranks);
    }
    let all = Idset::from_range(0, map.size - 1);
    let unknown = marked.difference(&all);
    if !unknown.is_empty() {
        let s = if unknown.len() > 1 { "s" } else { "" };
        let text = format!("--highlight: rank{s} {unknown} not in set {all}");
        return Err(Failure::new(text));
    }
    Ok(marked)
}

pub(super) async fn run(handle: &Handle, map: &Map, options: &Options) -> Outcome {
    let printer = Printer {
        map,
        options,
        marked: marked(map, &options.highlight)?,
        color: options.color.is_on(),
        print: &|line| outln!("{line}"),
    };
    walk(handle, &printer, options.rank, Branch::default(), true).await?;
    Ok(0)
}
