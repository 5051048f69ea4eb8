//! `flux multi-prog`: another program and other arguments for each task of a job
//! (flux-multi-prog(1)).

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use clap::Parser;
use formats::Idset;

use crate::args::Args;
use crate::error::{Context as _, Failure, Outcome};

/// Run what a file has for this task: lines of task ranks, a program and its arguments.
///
/// `*` stands for all ranks that no line names; %t is the task's rank, %o its place in the line's ranks.
#[derive(Parser)]
struct Options {
    /// Only print what these ranks would run
    #[arg(short = 'n', long, value_name = "RANKS")]
    dry_run: Option<Idset>,
    /// The file
    #[arg(value_name = "CONFIG")]
    config: String,
}

/// A line of the file: a program with its arguments, and who runs it.
#[derive(Debug)]
struct Line {
    number: usize,
    /// None is `*`, the ranks that no other line has.
    ranks: Option<Idset>,
    command: Vec<String>,
}

/// All lines; no rank is in two of them.
#[derive(Debug)]
struct Programs(Vec<Line>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Fault {
    #[error("line {0}: No closing quotation, or nothing after a backslash")]
    Words(usize),
    #[error("line {0}: invalid idset: {1}")]
    Ranks(usize, String),
    #[error("line {0}: no command after the ranks")]
    Command(usize),
    #[error("line {0}: {1} is in line {2} already")]
    Twice(usize, String, usize),
    #[error("No matching line for rank {0}")]
    Rank(u32),
}

impl Programs {
    fn parse(text: &str) -> Result<Programs, Fault> {
        let mut lines: Vec<Line> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = shlex::split(line).ok_or(Fault::Words(number))?.into_iter();
            let Some(who) = words.next() else { continue };
            let ranks = match who.as_str() {
                "*" => None,
                ids => Some(
                    ids.parse::<Idset>()
                        .map_err(|_| Fault::Ranks(number, who.clone()))?,
                ),
            };
            let command: Vec<String> = words.collect();
            if command.is_empty() {
                return Err(Fault::Command(number));
            }
            lines.push(Line {
                number,
                ranks,
                command,
            });
        }
        match twice(&lines) {
            Some(fault) => Err(fault),
            None => Ok(Programs(lines)),
        }
    }

    /// What a task runs.
    fn command(&self, rank: u32) -> Result<Vec<String>, Fault> {
        let names = |line: &&Line| line.ranks.as_ref().is_some_and(|r| r.contains(rank));
        let line = self.0.iter().find(names);
        let line = line
            .or_else(|| self.0.iter().find(|line| line.ranks.is_none()))
            .ok_or(Fault::Rank(rank))?;
        let offset = line
            .ranks
            .as_ref()
            .map_or(rank as usize, |ranks| ranks.rank_of(rank));
        let (task, offset) = (rank.to_string(), offset.to_string());
        let fill = |word: &String| word.replace("%t", &task).replace("%o", &offset);
        Ok(line.command.iter().map(fill).collect())
    }
}

/// Two lines for the same ranks. Every task asks: O(n log n) for n ranges.
fn twice(lines: &[Line]) -> Option<Fault> {
    let mut rest = lines.iter().filter(|line| line.ranks.is_none());
    if let (Some(first), Some(second)) = (rest.next(), rest.next()) {
        return Some(Fault::Twice(second.number, "*".to_owned(), first.number));
    }
    let named = || {
        lines
            .iter()
            .filter_map(|l| Some((l.number, l.ranks.as_ref()?)))
    };
    let mut ranges: Vec<_> = named()
        .flat_map(|(number, ranks)| {
            ranks
                .ranges()
                .iter()
                .map(move |r| (r.0, r.1, number, ranks))
        })
        .collect();
    ranges.sort_unstable_by_key(|&(first, _, number, _)| (first, number));
    // If any two overlap, two that follow each other do.
    let overlap = ranges.windows(2).find(|pair| pair[0].1 >= pair[1].0)?;
    let ((_, _, a, left), (_, _, b, right)) = (overlap[0], overlap[1]);
    let what = format!("rank {}", left.intersection(right));
    Some(Fault::Twice(a.max(b), what, a.min(b)))
}

/// Words as one would type them in a shell.
fn typed(words: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%_-+=:,./".contains(c);
    let quote = |word: &String| match shlex::try_quote(word) {
        Ok(quoted) if word.is_empty() || !word.chars().all(is_plain) => quoted.into_owned(),
        // A word with a NUL cannot be quoted, nor run.
        _ => word.clone(),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(2)?;
    let text = std::fs::read_to_string(&options.config).context(&options.config)?;
    let fault = |e: Fault| Failure::new(format!("{}: {e}", options.config));
    let programs = Programs::parse(&text).map_err(fault)?;
    if let Some(ranks) = &options.dry_run {
        for rank in ranks.iter() {
            let command = programs.command(rank).map_err(fault)?;
            crate::output::write(&format!("{rank}: {}\n", typed(&command)));
        }
        return Ok(0);
    }
    let rank = std::env::var("FLUX_TASK_RANK")
        .ok()
        .and_then(|rank| rank.parse().ok())
        .ok_or_else(|| {
            Failure::new(
                "FLUX_TASK_RANK not found or invalid: run this in a job, or give --dry-run",
            )
        })?;
    let command = programs.command(rank).map_err(fault)?;
    let fault = Command::new(&command[0]).args(&command[1..]).exec();
    let code = match fault.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    };
    let failed: Outcome = Err(fault).context(&command[0]);
    failed.map_err(|failure| failure.code(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, ranks: &str) -> String {
        let programs = match Programs::parse(text) {
            Ok(programs) => programs,
            Err(fault) => return fault.to_string(),
        };
        let ranks: Idset = ranks.parse().unwrap();
        let show = |rank: u32| match programs.command(rank) {
            Ok(command) => format!("{rank}: {}", typed(&command)),
            Err(fault) => fault.to_string(),
        };
        ranks.iter().map(show).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_rank_has_its_line() {
        let text = "# who is where\n*\techo rest %t %o\n4,6 a%t%o 'x y' # note\n\n0-2 b %o#%t\n";
        insta::assert_snapshot!(all(text, "0-4,6-7"), @"
        0: b '0#0'
        1: b '1#1'
        2: b '2#2'
        3: echo rest 3 3
        4: a40 'x y'
        6: a61 'x y'
        7: echo rest 7 7
        ");
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, fault) in [
            (
                "0 a\n1 'b",
                "line 2: No closing quotation, or nothing after a backslash",
            ),
            ("# a\n1-0 b", "line 2: invalid idset: 1-0"),
            ("0-3", "line 1: no command after the ranks"),
            ("0-3 a\n\n2-5 b", "line 3: rank 2-3 is in line 1 already"),
            ("* a\n* b", "line 2: * is in line 1 already"),
            ("1 a", "No matching line for rank 0"),
        ] {
            assert_eq!(all(text, "0"), fault);
        }
    }
}
