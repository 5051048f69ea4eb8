//! `flux bulksubmit`: submit a job for each input, in the manner of GNU parallel.
//!
//! `COMMAND ::: INPUTS ::: INPUTS` makes every combination; `:::+` links inputs one by one to the
//! others, `::::` reads them from a file, and without any they are the lines of standard input.

use std::io::Read as _;

use clap::Parser;
use rand::seq::SliceRandom as _;

use crate::args::{Args, with_line_ends};
use crate::bulk::{self, Bulk, Job};
use crate::error::{Failure, Outcome};
use crate::output::outln;
use crate::submit::template::Fields;
use crate::submit::{Common, Tasks};

/// Submit a job for each input.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    tasks: Tasks,
    #[command(flatten)]
    bulk: Bulk,
    /// Submit in random order
    #[arg(long)]
    shuffle: bool,
    /// What separates inputs in files; "none" is blanks and line ends
    #[arg(long, value_name = "STRING", default_value = "\\n")]
    sep: String,
    /// Command with replacement fields, then ::: and inputs
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// Inputs of one delimiter.
#[derive(Debug, PartialEq)]
struct List {
    linked: bool,
    words: Vec<String>,
}

/// Separate the words of a file.
fn split(text: &str, sep: &str) -> Vec<String> {
    let words: Box<dyn Iterator<Item = &str>> = match sep {
        "none" | "None" | "NONE" => Box::new(text.split_whitespace()),
        sep => Box::new(text.split(sep).filter(|w| !w.is_empty())),
    };
    words.map(str::to_owned).collect()
}

fn read(name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let result = match name {
        "-" => std::io::stdin().read_to_string(&mut text),
        path => std::fs::File::open(path).and_then(|mut f| f.read_to_string(&mut text)),
    };
    result.map_err(|e| Failure::new(format!("{name}: {e}")))?;
    Ok(text)
}

/// The command and the inputs after it.
fn parse(words: &[String], sep: &str) -> Result<(Vec<String>, Vec<List>), Failure> {
    let mut parts = words.split_inclusive(|w| w.starts_with(":::"));
    let mut command = parts.next().unwrap_or(&[]).to_vec();
    let mut lists = Vec::new();
    let mut delimiter = command.pop_if(|w| w.starts_with(":::"));
    while let Some(mark) = delimiter {
        let mut words = parts.next().unwrap_or(&[]).to_vec();
        delimiter = words.pop_if(|w| w.starts_with(":::"));
        let (file, linked) = match mark.as_str() {
            ":::" => (false, false),
            ":::+" => (false, true),
            "::::" => (true, false),
            "::::+" => (true, true),
            other => return Err(Failure::new(format!("unknown delimiter '{other}'"))),
        };
        if file {
            let [name] = &words[..] else {
                return Err(Failure::new("exactly one file must follow ::::"));
            };
            words = split(&read(name)?, sep);
        }
        if words.is_empty() {
            return Err(Failure::new(format!("no inputs follow {mark}")));
        }
        lists.push(List { linked, words });
    }
    Ok((command, lists))
}

/// All combinations of the lists that are not linked, each with its linked inputs.
fn combine(lists: &[List]) -> Vec<Vec<String>> {
    let free = lists.iter().filter(|l| !l.linked);
    let rows = free.fold(vec![Vec::new()], |rows: Vec<Vec<String>>, list| {
        let extend = |row: &Vec<String>| -> Vec<Vec<String>> {
            let add = |word: &String| row.iter().chain([word]).cloned().collect();
            list.words.iter().map(add).collect()
        };
        rows.iter().flat_map(extend).collect()
    });
    let full = |(i, row): (usize, Vec<String>)| {
        let mut row = row.into_iter();
        let word = |list: &List| match list.linked {
            true => Some(list.words[i % list.words.len()].clone()),
            false => row.next(),
        };
        lists.iter().filter_map(word).collect()
    };
    rows.into_iter().enumerate().map(full).collect()
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(2)?;
    let sep = with_line_ends(&options.sep);
    let (mut command, mut lists) = parse(&options.command, &sep)?;
    if command.is_empty() {
        command.push("{}".to_owned());
    }
    if lists.is_empty() {
        let words = split(&read("-")?, &sep);
        lists.push(List {
            linked: false,
            words,
        });
    }
    let mut jobs = Vec::new();
    for (i, inputs) in combine(&lists).iter().enumerate() {
        let mut job = Job {
            common: options.common.clone(),
            tasks: options.tasks.clone(),
            bulk: options.bulk.clone(),
            command: command.clone(),
        };
        let named = vec![
            ("seq", i.to_string()),
            ("seq1", (i + 1).to_string()),
            // Filled in when copies are made.
            ("cc", "{cc}".to_owned()),
        ];
        job.fill(&Fields { inputs, named })?;
        jobs.push(job);
    }
    if options.shuffle {
        jobs.shuffle(&mut rand::rng());
    }
    if jobs.is_empty() {
        return Err(Failure::new("no jobs provided for bulk submission"));
    }
    let mut copies = Vec::new();
    for job in &jobs {
        if job.common.verbose > 0 || job.common.dry_run {
            outln!("bulksubmit: submit {}", job.command.join(" "));
        }
        copies.extend(job.copies()?);
    }
    if options.common.dry_run {
        return Ok(0);
    }
    bulk::submit(&copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (_, lists) = parse(&words, "\n").unwrap();
        combine(&lists)
            .into_iter()
            .map(|row| row.join(" "))
            .collect()
    }

    #[test]
    fn combinations() {
        assert_eq!(rows("cmd {} ::: a b"), ["a", "b"]);
        assert_eq!(rows("cmd ::: a b ::: 1 2"), ["a 1", "a 2", "b 1", "b 2"]);
        assert_eq!(rows("cmd ::: a b :::+ 1 2"), ["a 1", "b 2"]);
        assert_eq!(rows("::: a b c :::+ x"), ["a x", "b x", "c x"]);
        let words = ["a".to_owned(), "::::".to_owned()];
        assert!(parse(&words, "\n").is_err());
        assert_eq!(split("a b\n\nc\n", "\n"), ["a b", "c"]);
        assert_eq!(split("a b\nc", "none"), ["a", "b", "c"]);
    }
}
