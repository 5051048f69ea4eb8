//! What programs may see: a naive model of the store, and what has happened so far.
//!
//! Each writer counts up; a transaction of a writer sets the same number at three keys in three directories, appends a
//! line to the log or both. So what may be there at a version is known from the commits that were acknowledged up to it.

use std::collections::{BTreeMap, BTreeSet};

use content::BlobRef;

/// The first thing that did not hold.
#[derive(Debug, Default)]
pub(super) struct Model {
    violation: Option<String>,
    /// The root of each version of the primary namespace.
    roots: BTreeMap<i64, BlobRef>,
    /// By writer: commits that were begun.
    begun: BTreeMap<u32, u64>,
    /// By writer: commits that were acknowledged, with their version.
    acknowledged: BTreeMap<u32, BTreeMap<u64, i64>>,
    /// Lines whose commit was refused.
    refused: BTreeSet<String>,
    /// The newest version somebody was told of.
    newest: i64,
    /// Acknowledged lines.
    lines: BTreeMap<String, i64>,
    pub(super) reads: u64,
    pub(super) lost: u64,
    pub(super) seen: u64,
    /// What watchers of the log that live have seen.
    pub(super) logs: BTreeMap<u64, Vec<String>>,
    /// What watchers of a writer's key have seen.
    pub(super) values: BTreeMap<u64, (u32, Vec<u64>)>,
    /// Requests under way, by who waits for them.
    pub(super) waiting: BTreeMap<u64, String>,
}

/// A line of the log.
pub(super) fn line(writer: u32, number: u64) -> String {
    format!("{writer}:{number}\n")
}

impl Model {
    pub(super) fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    pub(super) fn violation(&mut self) -> Option<String> {
        self.violation.take()
    }

    pub(super) fn commits(&self) -> u64 {
        self.acknowledged.values().map(|a| a.len() as u64).sum()
    }

    /// The next number of a writer.
    pub(super) fn begin(&mut self, writer: u32) -> u64 {
        let begun = self.begun.entry(writer).or_default();
        *begun += 1;
        *begun
    }

    pub(super) fn acknowledge(&mut self, writer: u32, number: u64, seq: i64, appended: bool) {
        let commits = self.acknowledged.entry(writer).or_default();
        if let Some((last, at)) = commits.last_key_value()
            && (*last >= number || *at >= seq)
        {
            let text = format!(
                "writer {writer}: commit {number} made version {seq}, {last} before it made {at}"
            );
            self.fail(text);
            return;
        }
        commits.insert(number, seq);
        self.newest = self.newest.max(seq);
        if appended {
            self.lines.insert(line(writer, number), seq);
        }
    }

    pub(super) fn refuse(&mut self, writer: u32, number: u64) {
        self.refused.insert(line(writer, number));
    }

    /// The newest version somebody was told of.
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    /// A version has this root wherever it is seen.
    pub(super) fn root(&mut self, seq: i64, root: BlobRef) {
        let known = *self.roots.entry(seq).or_insert(root);
        if known != root {
            self.fail(format!("version {seq} has two roots: {known} and {root}"));
        }
    }

    /// The last commit of a writer that must be there at a version.
    fn least(&self, writer: u32, seq: i64) -> u64 {
        let commits = self.acknowledged.get(&writer);
        let mut there = commits.into_iter().flatten().filter(|(_, at)| **at <= seq);
        there.next_back().map_or(0, |(number, _)| *number)
    }

    /// The values of a writer's keys at a version.
    pub(super) fn read(&mut self, writer: u32, seq: i64, values: &[u64; 3]) {
        self.reads += 1;
        let [value, ..] = *values;
        if values.iter().any(|v| *v != value) {
            let text = format!("version {seq}: the tree is torn: writer {writer} has {values:?}");
            return self.fail(text);
        }
        let (least, most) = (self.least(writer, seq), self.begun.get(&writer).copied());
        if value < least {
            let text = format!(
                "version {seq}: commit {least} of writer {writer} was acknowledged, but {value} is there"
            );
            return self.fail(text);
        }
        if value > most.unwrap_or(0) {
            self.fail(format!(
                "version {seq}: writer {writer} never wrote {value}"
            ));
            return;
        }
        // What was acknowledged later cannot be there yet.
        let commits = self.acknowledged.get(&writer);
        if let Some(at) = commits.and_then(|c| c.get(&value))
            && *at > seq
        {
            let text = format!(
                "version {seq}: commit {value} of writer {writer} is there, but made version {at}"
            );
            self.fail(text);
        }
    }

    /// The whole log at a version.
    pub(super) fn log(&mut self, seq: i64, lines: &[String]) {
        self.reads += 1;
        let there: BTreeSet<&String> = lines.iter().collect();
        if there.len() < lines.len() {
            return self.fail(format!(
                "version {seq}: a line of the log is there twice: {lines:?}"
            ));
        }
        let missing = self
            .lines
            .iter()
            .find(|(l, at)| **at <= seq && !there.contains(l));
        if let Some((missing, at)) = missing {
            let text = format!("version {seq}: line {missing:?} of version {at} is not there");
            return self.fail(text);
        }
        if let Some(refused) = lines.iter().find(|l| self.refused.contains(*l)) {
            self.fail(format!("version {seq}: line {refused:?} was refused"));
        }
    }

    /// A watcher is told of a value.
    pub(super) fn told(&mut self, watcher: u64, value: u64) {
        self.seen += 1;
        let Some((writer, seen)) = self.values.get_mut(&watcher) else {
            return;
        };
        let writer = *writer;
        let last = seen.last().copied();
        seen.push(value);
        let Some(last) = last else { return };
        if value < last {
            return self.fail(format!(
                "watcher {watcher} of writer {writer}: {value} after {last}"
            ));
        }
        let commits = self.acknowledged.get(&writer);
        let between = commits.and_then(|c| c.range(last + 1..value.max(last + 1)).next());
        if let Some((missed, _)) = between {
            let text = format!(
                "watcher {watcher} of writer {writer}: commit {missed} was left out between {last} and {value}"
            );
            self.fail(text);
        }
    }

    /// All is calm: what the watchers that live have seen is all there is.
    pub(super) fn settle(&mut self, log: &[String], values: &BTreeMap<u32, u64>) {
        for (watcher, seen) in std::mem::take(&mut self.logs) {
            if seen != log {
                self.fail(format!(
                    "watcher {watcher} of the log saw {seen:?}, the log is {log:?}"
                ));
            }
        }
        for (watcher, (writer, seen)) in std::mem::take(&mut self.values) {
            let (last, now) = (seen.last().copied(), values.get(&writer).copied());
            if last != now {
                self.fail(format!(
                    "watcher {watcher} of writer {writer} saw {last:?} last, but {now:?} is there"
                ));
            }
        }
        if let Some((_, what)) = self.waiting.pop_first() {
            self.fail(format!("nobody has ended this: {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_is_found() {
        let found = |check: fn(&mut Model)| {
            let mut model = Model::default();
            for (number, seq) in [(1, 3), (2, 7)] {
                assert_eq!(model.begin(0), number);
                model.acknowledge(0, number, seq, true);
            }
            check(&mut model);
            model.violation().is_some()
        };
        assert!(!found(|m| m.read(0, 7, &[2; 3])) && !found(|m| m.read(0, 2, &[0; 3])));
        assert!(found(|m| m.read(0, 7, &[2, 2, 1])), "torn");
        assert!(found(|m| m.read(0, 7, &[1; 3])), "lost");
        assert!(found(|m| m.read(0, 9, &[3; 3])), "made up");
        assert!(found(|m| m.read(0, 6, &[2; 3])), "from the future");
        assert!(found(|m| m.acknowledge(0, 3, 7, false)), "backwards");
        assert!(!found(|m| m.log(7, &[line(0, 1), line(0, 2)])));
        assert!(found(|m| m.log(7, &[line(0, 1)])), "a line is lost");
        assert!(found(|m| m.log(3, &[line(0, 1), line(0, 1)])), "twice");
    }
}
