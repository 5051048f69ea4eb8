//! What must hold of prologs, epilogs and housekeeping.

use std::collections::BTreeMap;

use formats::jobid::JobId;
use serde_json::{Value, json};

use super::checks::Record;
use super::shells::Span;

/// The configuration with a command for each.
pub(super) fn config() -> Value {
    let command = |name: &str| json!({ "command": [name], "per-rank": true });
    json!({ "job-manager": {
        "prolog": command("prolog"),
        "epilog": command("epilog"),
        "housekeeping": { "command": ["housekeeping"] },
    }})
}

/// All that ran, by what it was for and for which job.
struct Spans<'a>(BTreeMap<(String, JobId), Vec<&'a Span>>);

impl<'a> Spans<'a> {
    fn new(all: &'a [Span]) -> Self {
        let mut spans: BTreeMap<_, Vec<&Span>> = BTreeMap::new();
        for span in all {
            let Some((name, id)) = span.label.rsplit_once('-') else {
                continue;
            };
            if let Ok(id) = id.parse() {
                spans.entry((name.to_owned(), id)).or_default().push(span);
            }
        }
        Spans(spans)
    }

    fn of(&self, name: &str, id: JobId) -> &[&'a Span] {
        let key = (name.to_owned(), id);
        self.0.get(&key).map_or(&[], |spans| spans)
    }

    /// Whether it ran on a rank to its end, up to this time.
    fn has_ended(&self, name: &str, id: JobId, rank: u32, by: f64) -> bool {
        let ended = |span: &&&Span| span.until.is_some_and(|(at, told)| told && at <= by);
        let here = self.of(name, id).iter().filter(|span| span.rank == rank);
        here.filter(ended).count() > 0
    }
}

/// The first of `before` that does not end until one of `after` begins.
fn overlap<'a>(before: &[&'a Span], after: &[&'a Span]) -> Option<(&'a Span, &'a Span)> {
    let first = after.iter().min_by(|a, b| a.from.total_cmp(&b.from))?;
    let ends = |span: &&&&Span| span.until.is_none_or(|(at, _)| at > first.from);
    before
        .iter()
        .find(|span| ends(&span))
        .map(|span| (*span, *first))
}

/// Commands run in their order, each to its end, and nobody has the cores of a job before its housekeeping has ended.
pub(super) fn are_in_place(records: &[Record], spans: &[Span]) -> Result<(), String> {
    let spans = Spans::new(spans);
    for record in records {
        let id = record.id;
        let of = |name| spans.of(name, id);
        for (before, after) in [
            ("prolog", "shell"),
            ("prolog", "epilog"),
            ("shell", "epilog"),
            ("shell", "housekeeping"),
            ("epilog", "housekeeping"),
        ] {
            if let Some((one, other)) = overlap(of(before), of(after)) {
                return Err(format!("{other:?} did not wait for {one:?}"));
            }
        }
        for shell in of("shell") {
            if !spans.has_ended("prolog", id, shell.rank, shell.from) {
                return Err(format!("{shell:?} without a prolog"));
            }
        }
        let Some((free, set)) = record.time_of("free").zip(record.resources.as_ref()) else {
            continue;
        };
        if record.time_of("start").is_some()
            && let Some(rank) = set
                .ranks()
                .iter()
                .find(|r| !spans.has_ended("epilog", id, *r, free))
        {
            let record = record.shown();
            return Err(format!("free before the epilog on rank {rank}: {record}"));
        }
    }
    cores_are_kept(records, &spans)
}

fn cores_are_kept(records: &[Record], spans: &Spans<'_>) -> Result<(), String> {
    let mut uses: BTreeMap<(u32, u32), Vec<(f64, JobId)>> = BTreeMap::new();
    for record in records {
        let Some((set, from)) = record.resources.as_ref().zip(record.time_of("alloc")) else {
            continue;
        };
        for target in set.targets() {
            for core in target.children.cores.iter() {
                let uses = uses.entry((target.rank, core)).or_default();
                uses.push((from, record.id));
            }
        }
    }
    for ((rank, _), mut uses) in uses {
        uses.sort_by(|a, b| a.0.total_cmp(&b.0));
        for two in uses.windows(2) {
            let [(_, one), (from, other)] = two else {
                continue;
            };
            if !spans.has_ended("housekeeping", *one, rank, *from) {
                let (one, other) = (one.dec(), other.dec());
                return Err(format!(
                    "job {other} has a core of rank {rank} before the housekeeping of job {one} has ended"
                ));
            }
        }
    }
    Ok(())
}
