//! `flux fortune`: a saying, by chance.

use clap::{Parser, ValueEnum};
use rand::seq::IndexedRandom as _;

use crate::args::Args;
use crate::error::{Failure, Outcome};
use crate::output::outln;

/// Print a saying.
#[derive(Parser)]
struct Options {
    /// What it is about
    #[arg(short, long, value_enum, default_value = "all")]
    category: Category,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Category {
    All,
    Valentines,
    Fun,
    Facts,
    Art,
}

const FACTS: &[&str] = &[
    "An instance in a job is an instance like any other: it may have jobs that are instances.",
    "A job's id has the time it was submitted in it: `flux job id --to=dec` shows the number.",
    "What happened to a job is all in its eventlog: `flux job eventlog ID`.",
    "`flux bulksubmit` makes a job of each of its inputs, and has {} for them.",
    "Blobs are named by what they hold: two that are the same are one.",
    "`flux proxy ID` lets you in where a job is, as if you were there.",
    "The broker with the rank 0 is the root of the tree. It is the only one that has a root's view.",
];

const FUN: &[&str] = &[
    "There are two hard problems in scheduling: backfill, names, and counting ranks from 0.",
    "A job is never late. It begins precisely when its resources mean to.",
    "Give a node a job, and it is busy for a day. Give it an instance, and it submits its own.",
    "Your job will be very successful: its exit code is a round number.",
    "He who drains the wrong rank will have a quiet afternoon.",
    "Patience: your job is next, right after all the others.",
];

const VALENTINES: &[&str] = &[
    "Of all the ranks in all the trees, yours is the one I route to.",
    "Nodes are red, gpus are blue; I hold no allocation but one next to you.",
    "My heartbeat has a period of two seconds, and each is for you.",
    "Let us meet at the barrier: I shall wait for you there as long as it takes.",
];

const ART: &[&str] = &[
    "      [0]
     /   \\
  [1]     [2]
  / \\     / \\
[3] [4] [5] [6]    rooted, and growing",
    "  submit   run   clean
    o------>o----->o
             \\
              o----> …    jobs all the way down",
];

impl Category {
    fn sayings(self) -> Vec<&'static str> {
        let parts: &[&[&str]] = match self {
            Category::All => &[FACTS, FUN, VALENTINES, ART],
            Category::Valentines => &[VALENTINES],
            Category::Fun => &[FUN],
            Category::Facts => &[FACTS],
            Category::Art => &[ART],
        };
        parts.concat()
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(2)?;
    let sayings = options.category.sayings();
    let saying = sayings.choose(&mut rand::rng());
    outln!("{}", saying.ok_or_else(|| Failure::new("nothing to say"))?);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_something_to_say_of_everything() {
        let of = |category: &Category| category.sayings().len();
        let [all, rest @ ..] = Category::value_variants() else {
            panic!("no categories");
        };
        assert!(rest.iter().all(|category| of(category) > 0));
        assert_eq!(of(all), rest.iter().map(of).sum::<usize>());
    }
}
