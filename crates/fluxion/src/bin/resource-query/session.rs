//! A session: commands, one a line.

use anyhow::Result;
use fluxion::plan::{JobId, Time};
use fluxion::{Context, write};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Allocated,
    Reserved,
    Canceled,
}

impl State {
    pub(crate) fn text(self) -> &'static str {
        match self {
            State::Allocated => "ALLOCATED",
            State::Reserved => "RESERVED",
            State::Canceled => "CANCELED",
        }
    }
}

/// What is remembered of a job.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) state: State,
    pub(crate) start: Time,
    pub(crate) file: String,
    pub(crate) took: Duration,
}

pub(crate) struct Session {
    pub(crate) context: Context,
    pub(crate) format: write::Format,
    pub(crate) out: Box<dyn Write>,
    /// Whether to show what operations take.
    pub(crate) timed: bool,
    pub(crate) next_job: JobId,
    pub(crate) records: BTreeMap<JobId, Record>,
    /// The shortest, the longest and all matches together.
    pub(crate) times: Option<(Duration, Duration, Duration)>,
}

/// A command: its name, its short name, what it does, and how it is used.
type Command = (
    &'static str,
    &'static str,
    fn(&mut Session, &[&str]) -> Result<()>,
    &'static str,
);

const COMMANDS: &[Command] = &[
    (
        "match",
        "m",
        Session::match_one,
        "find resources: match allocate|allocate_with_satisfiability|allocate_orelse_reserve|satisfiability|without_allocating|without_allocating_future JOBSPEC",
    ),
    (
        "multi-match",
        "M",
        Session::match_many,
        "find resources for jobspecs one after the other: multi-match OPERATION JOBSPEC...",
    ),
    (
        "update",
        "u",
        Session::update,
        "have a job have what a file lists: update allocate|reserve jgf|jgf_shorthand|rv1exec FILE JOBID START DURATION",
    ),
    (
        "attach",
        "j",
        Session::attach,
        "add what a file lists to the graph: attach JGF",
    ),
    (
        "remove",
        "j",
        Session::remove,
        "remove a part of the graph: remove PATH true, or remove RANKS false",
    ),
    (
        "find",
        "f",
        Session::find,
        "show vertices: find status=up|down, sched-now=allocated|free, sched-future=reserved|free, agfilter=true|false, names=HOSTS, property=NAME, jobid-alloc|jobid-span|jobid-tag|jobid-reserved=JOBID, joined by and, or, parentheses",
    ),
    (
        "cancel",
        "c",
        Session::cancel,
        "take from a job what it has: cancel JOBID [stats]",
    ),
    (
        "partial-cancel",
        "pc",
        Session::partial_cancel,
        "take from a job a part of what it has: partial-cancel JOBID jgf|rv1exec FILE [stats]",
    ),
    (
        "set-property",
        "p",
        Session::set_property,
        "set a property: set-property PATH NAME=VALUE",
    ),
    (
        "get-property",
        "g",
        Session::get_property,
        "show properties: get-property PATH",
    ),
    (
        "set-status",
        "t",
        Session::set_status,
        "mark a vertex: set-status PATH up|down",
    ),
    (
        "get-status",
        "e",
        Session::get_status,
        "show how a vertex is marked: get-status PATH",
    ),
    ("list", "l", Session::list, "show all jobs"),
    ("info", "i", Session::info, "show a job: info JOBID"),
    ("stat", "s", Session::stat, "show how long matches took"),
    ("cat", "a", Session::cat, "print a file: cat JOBSPEC"),
    ("help", "h", Session::help, "show commands: help [COMMAND]"),
    ("quit", "q", |_, _| Ok(()), "end the session"),
];

/// What a file that a command names has in it.
pub(crate) fn read_file(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|_| anyhow::anyhow!("can't open {path}"))
}

impl Session {
    pub(crate) fn new(
        context: Context,
        format: write::Format,
        out: Box<dyn Write>,
        timed: bool,
    ) -> Session {
        Session {
            context,
            format,
            out,
            timed,
            next_job: 1,
            records: BTreeMap::new(),
            times: None,
        }
    }

    /// Does what a line says; whether the session goes on.
    pub(crate) fn command(&mut self, line: &str) -> Result<bool> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((name, args)) = words.split_first() else {
            return Ok(true);
        };
        let Some(command) = COMMANDS.iter().find(|c| c.0 == *name || c.1 == *name) else {
            return Ok(true);
        };
        if let Err(error) = (command.2)(self, args) {
            eprintln!("ERROR: {error:#}");
        }
        self.out.flush()?;
        Ok(command.0 != "quit")
    }

    /// A line of information between others.
    pub(crate) fn rule(&mut self) -> Result<()> {
        Ok(writeln!(self.out, "INFO: =============================")?)
    }

    /// Shows what an operation took.
    pub(crate) fn show_cost(&mut self, took: Duration) {
        if self.timed {
            let (looked, fitting) = self.context.visits();
            println!("INFO: ELAPSE={:.6}", took.as_secs_f64());
            println!("INFO: PREORDER VISIT COUNT={looked}");
            println!("INFO: POSTORDER VISIT COUNT={fitting}");
        }
    }

    fn help(&mut self, args: &[&str]) -> Result<()> {
        let asked = |c: &&Command| args.first().is_none_or(|a| *a == c.0 || *a == c.1);
        let mut found = false;
        for (name, short, _, note) in COMMANDS.iter().filter(asked) {
            println!("INFO: {name} ({short}) -- {note}");
            found = true;
        }
        if !found {
            println!("ERROR: unknown command: {}", args.join(" "));
        }
        Ok(())
    }
}
