//! What must hold of jobs and their resources, by name.

use std::collections::{BTreeMap, BTreeSet};

use formats::ResourceSet;
use formats::eventlog::Event;
use formats::job_event::JobEvent;
use formats::jobid::JobId;

/// What the store has of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Which job.
    pub id: JobId,
    /// Its eventlog.
    pub events: Vec<Event>,
    /// What it was given.
    pub resources: Option<ResourceSet>,
}

impl Record {
    /// Nothing changes any more.
    pub fn is_inactive(&self) -> bool {
        self.events.iter().any(|event| event.name == "clean")
    }

    pub(super) fn time_of(&self, name: &str) -> Option<f64> {
        let event = self.events.iter().find(|event| event.name == name);
        event.map(|event| event.timestamp)
    }

    /// For people: its events.
    pub fn shown(&self) -> String {
        let names: Vec<&str> = self.events.iter().map(|e| e.name.as_str()).collect();
        format!("job {}: {}", self.id.dec(), names.join(" "))
    }
}

/// Events that a log has once at most.
const ONCE: [&str; 8] = [
    "submit", "validate", "depend", "alloc", "start", "finish", "free", "clean",
];

/// Events that need others before them.
const AFTER: [(&str, &str); 9] = [
    ("validate", "submit"),
    ("depend", "validate"),
    ("priority", "depend"),
    ("alloc", "priority"),
    ("start", "alloc"),
    ("finish", "alloc"),
    ("release", "alloc"),
    ("free", "alloc"),
    ("clean", "submit"),
];

/// The eventlog is a sequence that RFC 21 allows.
pub fn is_legal(record: &Record) -> Result<(), String> {
    let bad = |why: String| Err(format!("illegal eventlog, {why}: {}", record.shown()));
    let mut seen = BTreeSet::new();
    let mut dependencies = BTreeSet::new();
    let (mut fatal, mut released) = (false, false);
    // Prologs and epilogs that have begun.
    let mut open = 0;
    let mut time = 0.0;
    for event in &record.events {
        let name = event.name.as_str();
        let typed = match JobEvent::try_from(event) {
            Ok(typed) => typed,
            Err(e) => return bad(e.to_string()),
        };
        if seen.is_empty() && name != "submit" {
            return bad(format!("{name} comes first"));
        }
        if seen.contains("clean") {
            return bad(format!("{name} after clean"));
        }
        if ONCE.contains(&name) && seen.contains(name) {
            return bad(format!("a second {name}"));
        }
        let lacks = |(of, needed): &&(&str, &str)| *of == name && !seen.contains(needed);
        if let Some((_, needed)) = AFTER.iter().find(lacks) {
            return bad(format!("{name} without {needed}"));
        }
        if event.timestamp < time {
            return bad(format!("{name} before what comes before it"));
        }
        time = event.timestamp;
        match typed {
            JobEvent::DependencyAdd(added) if !dependencies.insert(added.description.clone()) => {
                return bad(format!("a second dependency {}", added.description));
            }
            JobEvent::DependencyRemove(gone) if !dependencies.remove(&gone.description) => {
                return bad(format!("no dependency {}", gone.description));
            }
            JobEvent::Depend(_) if !dependencies.is_empty() => {
                return bad("depend with dependencies".to_owned());
            }
            JobEvent::PrologStart(_) | JobEvent::EpilogStart(_) => open += 1,
            JobEvent::PrologFinish(_) | JobEvent::EpilogFinish(_) => open -= 1,
            JobEvent::Start(_) | JobEvent::Free(_) | JobEvent::Clean(_) if open != 0 => {
                return bad(format!("{name} while a prolog or epilog is under way"));
            }
            JobEvent::Exception(exception) => fatal |= exception.severity == 0,
            JobEvent::Release(_) if released => return bad("release after the last".to_owned()),
            JobEvent::Release(release) => released |= release.last,
            JobEvent::Finish(_) if released => return bad("finish after release".to_owned()),
            JobEvent::Free(_) if seen.contains("start") && !released => {
                return bad("free before release".to_owned());
            }
            JobEvent::Clean(_) if seen.contains("alloc") && !seen.contains("free") => {
                return bad("clean without free".to_owned());
            }
            JobEvent::Clean(_) if !fatal && !seen.contains("finish") => {
                return bad("clean of a job that has not ended".to_owned());
            }
            _ => {}
        }
        seen.insert(name);
    }
    Ok(())
}

/// From when until when a job has something.
type Use = (f64, f64, JobId);

/// No core belongs to two jobs at one time. Of a job that has not given back its cores it is not known until when it has
/// them: the records are read one after the other, and events are older than what stores them. In the end all have.
pub fn cores_are_not_shared(records: &[Record]) -> Result<(), String> {
    let mut uses: BTreeMap<(u32, u32), Vec<Use>> = BTreeMap::new();
    for record in records {
        let times = record.time_of("alloc").zip(record.time_of("free"));
        let Some((set, (from, until))) = record.resources.as_ref().zip(times) else {
            continue;
        };
        for target in set.targets() {
            for core in target.children.cores.iter() {
                let uses = uses.entry((target.rank, core)).or_default();
                uses.push((from, until, record.id));
            }
        }
    }
    for ((rank, core), mut uses) in uses {
        uses.sort_by(|a, b| a.0.total_cmp(&b.0));
        let shared = uses.windows(2).find(|two| two[1].0 < two[0].1);
        if let Some([(_, until, one), (from, _, other)]) = shared {
            let (one, other) = (one.dec(), other.dec());
            return Err(format!(
                "core {core} of rank {rank} belongs to the jobs {one} (until {until}) and {other} (from {from}) at one time"
            ));
        }
    }
    Ok(())
}

/// No job has two shells on one rank, be it one after the other.
pub fn shells_start_once(starts: &[(String, u32)]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match starts.iter().find(|start| !seen.insert(*start)) {
        Some((label, rank)) => Err(format!("{label} was started twice on rank {rank}")),
        None => Ok(()),
    }
}

/// What was acknowledged is there.
pub fn none_is_lost(acknowledged: &[JobId], records: &[Record]) -> Result<(), String> {
    let there: BTreeSet<JobId> = records.iter().map(|record| record.id).collect();
    match acknowledged.iter().find(|id| !there.contains(id)) {
        Some(id) => Err(format!("job {} was acknowledged and is lost", id.dec())),
        None => Ok(()),
    }
}

/// What was there before a restart is there after it. (There may be jobs besides, of whose record nobody had heard.)
pub fn nothing_changes(before: &[Record], after: &[Record]) -> Result<(), String> {
    for old in before {
        match after.iter().find(|new| new.id == old.id) {
            Some(new) if new == old => {}
            Some(new) => {
                let (old, new) = (old.shown(), new.shown());
                return Err(format!("a restart turned {old} into {new}"));
            }
            None => return Err(format!("a restart has lost {}", old.shown())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn record(names: &[&str]) -> Record {
        let context = |name: &str| match name {
            "submit" => json!({"userid": 1, "urgency": 16, "flags": 0, "version": 1}),
            "priority" => json!({"priority": 16}),
            "finish" => json!({"status": 0}),
            "release" => json!({"ranks": "all", "final": true}),
            "exception" => json!({"type": "cancel", "severity": 0, "note": "", "userid": 1}),
            _ => Value::Null,
        };
        let event = |(i, name): (usize, &&str)| {
            let event = Event::new(i as f64, *name);
            match context(name) {
                Value::Null => event,
                context => event.with_context(context),
            }
        };
        Record {
            id: JobId(1),
            events: names.iter().enumerate().map(event).collect(),
            resources: None,
        }
    }

    const LIFE: [&str; 10] = [
        "submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free",
        "clean",
    ];

    #[test]
    fn a_whole_life_is_legal() {
        assert_eq!(is_legal(&record(&LIFE)), Ok(()));
        let cancelled = ["submit", "validate", "depend", "exception", "clean"];
        assert_eq!(is_legal(&record(&cancelled)), Ok(()));
    }

    #[test]
    fn a_life_that_lacks_or_repeats_something_is_not() {
        for (i, name) in LIFE.into_iter().enumerate().take(LIFE.len() - 1) {
            let mut twice = LIFE.to_vec();
            twice.insert(i, name);
            if name != "priority" {
                assert!(is_legal(&record(&twice)).is_err(), "two of {name}");
            }
            let mut less = LIFE.to_vec();
            less.remove(i);
            if name != "start" {
                assert!(is_legal(&record(&less)).is_err(), "no {name}");
            }
        }
    }
}
