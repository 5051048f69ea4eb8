//! Commands that find resources for jobs.

use crate::session::{Record, Session, State, read_file};
use anyhow::{Context as _, Result, bail};
use fluxion::plan::{JobId, Time};
use fluxion::{Match, MatchError, Op, request, write};
use std::io::Write;
use std::time::{Duration, Instant};

/// How a match ended.
enum Outcome {
    Found { start: Time, kept: bool },
    Busy,
    Unsatisfiable,
}

impl Session {
    pub(crate) fn match_one(&mut self, args: &[&str]) -> Result<()> {
        let [op, file] = args else {
            bail!("malformed command")
        };
        let op = Op::from_name(op).with_context(|| format!("unknown subcmd {op}"))?;
        self.run(op, file).map(|_| ())
    }

    pub(crate) fn match_many(&mut self, args: &[&str]) -> Result<()> {
        let [op, files @ ..] = args else {
            bail!("malformed command")
        };
        if files.len() < 2 {
            bail!("malformed command");
        }
        let op = Op::from_name(op).with_context(|| format!("unknown subcmd {op}"))?;
        for file in files {
            if !self.run(op, file)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether there was a match.
    fn run(&mut self, op: Op, file: &str) -> Result<bool> {
        let text = read_file(file)?;
        let job = self.next_job;
        let begin = Instant::now();
        let (outcome, r) = match self.find_for(op, job, &text) {
            Ok((outcome, r)) => {
                if matches!(
                    op,
                    Op::Allocate | Op::AllocateWithSatisfiability | Op::AllocateOrElseReserve
                ) {
                    self.next_job += 1;
                }
                (outcome, r)
            }
            Err(error) => {
                eprintln!("match_allocate: ERROR: Jobspec error for {job}: {error:#}");
                (Outcome::Busy, String::new())
            }
        };
        let took = begin.elapsed();
        write!(self.out, "{r}")?;
        match op {
            Op::Satisfiability => self.show_satisfiability(&outcome, took)?,
            _ => self.show_outcome(job, file, &outcome, took)?,
        }
        Ok(matches!(outcome, Outcome::Found { .. }))
    }

    fn find_for(&mut self, op: Op, job: JobId, text: &str) -> Result<(Outcome, String)> {
        let request = self.context.request(&request::parse(text)?)?;
        let outcome = match self.context.submit(op, job, &request, 0) {
            Ok(found) => {
                let start = found.start;
                if op == Op::Satisfiability {
                    return Ok((Outcome::Found { start, kept: false }, String::new()));
                }
                let kept = !matches!(op, Op::WithoutAllocating | Op::WithoutAllocatingFuture);
                let r = self.written(&found, request.queue.as_deref());
                return Ok((Outcome::Found { start, kept }, r));
            }
            Err(MatchError::Busy) => Outcome::Busy,
            Err(MatchError::Unsatisfiable) => Outcome::Unsatisfiable,
            Err(error) => return Err(error.into()),
        };
        Ok((outcome, String::new()))
    }

    fn written(&self, found: &Match, queue: Option<&str>) -> String {
        let frame = write::Frame {
            start: found.start,
            end: found.end,
            queue,
        };
        self.format
            .write(self.context.graph(), &found.selection, frame)
    }

    fn show_satisfiability(&mut self, outcome: &Outcome, took: Duration) -> Result<()> {
        let word = match outcome {
            Outcome::Unsatisfiable => "Unsatisfiable",
            _ => "Satisfiable",
        };
        self.rule()?;
        writeln!(self.out, "INFO: {word} request")?;
        self.rule()?;
        self.show_cost(took);
        Ok(())
    }

    fn show_outcome(
        &mut self,
        job: JobId,
        file: &str,
        outcome: &Outcome,
        took: Duration,
    ) -> Result<()> {
        self.rule()?;
        match outcome {
            Outcome::Found { start, kept } => {
                let state = match start {
                    0 => State::Allocated,
                    _ => State::Reserved,
                };
                let word = if *kept { state.text() } else { "MATCHED" };
                let when = match start {
                    0 => "Now".to_owned(),
                    start => start.to_string(),
                };
                writeln!(self.out, "INFO: JOBID={job}")?;
                writeln!(self.out, "INFO: RESOURCES={word}")?;
                writeln!(self.out, "INFO: SCHEDULED AT={when}")?;
                if *kept {
                    self.remember(job, state, *start, file, took);
                }
            }
            Outcome::Busy | Outcome::Unsatisfiable => {
                writeln!(self.out, "INFO: No matching resources found")?;
                if matches!(outcome, Outcome::Unsatisfiable) {
                    writeln!(self.out, "INFO: Unsatisfiable request")?;
                }
                writeln!(self.out, "INFO: JOBID={job}")?;
            }
        }
        self.show_cost(took);
        self.rule()
    }

    fn remember(&mut self, job: JobId, state: State, start: Time, file: &str, took: Duration) {
        let file = file.to_owned();
        self.records.insert(
            job,
            Record {
                state,
                start,
                file,
                took,
            },
        );
        let (least, most, all) = self.times.unwrap_or((took, took, Duration::ZERO));
        self.times = Some((least.min(took), most.max(took), all + took));
    }

    pub(crate) fn update(&mut self, args: &[&str]) -> Result<()> {
        let [op, format, file, job, start, duration] = args else {
            bail!("malformed command")
        };
        let reserved = match *op {
            "allocate" => false,
            "reserve" => true,
            _ => bail!("unknown subcmd {op}"),
        };
        if !matches!(*format, "jgf" | "jgf_shorthand" | "rv1exec") {
            bail!("unsupported reader {format}");
        }
        let text = read_file(file)?;
        let number = |text: &str| {
            text.parse::<i64>()
                .with_context(|| format!("no number: {text}"))
        };
        let (job, start, duration) = (number(job)?, number(start)?, number(duration)?);
        if self.context.jobs().contains_key(&job) {
            bail!("existing Jobid");
        }
        if start < 0 || duration <= 0 {
            bail!("invalid time ({start}, {duration})");
        }
        let begin = Instant::now();
        let listed = match *format {
            "rv1exec" => self.context.listed_in_rv1(&text),
            _ => self.context.listed_in_jgf(&text),
        };
        let restored =
            listed.and_then(|chosen| self.context.restore(job, chosen, start, duration, reserved));
        let outcome = match restored {
            Ok(found) => {
                let r = self.written(&found, None);
                write!(self.out, "{r}")?;
                Outcome::Found { start, kept: true }
            }
            Err(error) => {
                eprintln!("ERROR: {error:#}");
                Outcome::Busy
            }
        };
        self.show_outcome(job, file, &outcome, begin.elapsed())?;
        self.next_job = job + 1;
        Ok(())
    }
}
