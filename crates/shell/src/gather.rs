//! The leader's side of the PMI exchange: collects the entries of all shells that have tasks, round by round.
//!
//! A shell may ask a second time, when it has lost the answer, or the leader's broker the question: what it has
//! given already counts once, and the answer to the round before is kept.

use crate::{info::JobInfo, pmi::Entries};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, rc::Rc};
use wire::Message;

#[derive(Debug)]
pub struct Gather {
    /// Shells that take part, the leader included if it has tasks.
    expected: usize,
    /// Rounds that are over.
    rounds: u64,
    entries: Entries,
    /// Who has arrived in this round, with the request to answer. The leader itself has none.
    arrived: BTreeMap<u32, Option<Message>>,
    last: Rc<Entries>,
}

/// What is to be answered, and to whom.
#[derive(Debug)]
pub struct Gathered {
    pub entries: Rc<Entries>,
    pub requests: Vec<Message>,
    /// All have arrived, the leader included.
    pub complete: bool,
}

/// What one shell gives.
#[derive(Debug)]
pub struct Gift {
    pub shell: u32,
    /// The shell's rounds before this.
    pub round: u64,
    pub entries: Entries,
    pub request: Option<Message>,
}

impl Gift {
    /// The request that brings the entries of a shell to the leader.
    pub fn payload(shell: u32, round: u64, entries: &Entries) -> Value {
        json!({"shell_rank": shell, "round": round, "entries": entries})
    }

    /// The reverse; nothing if the request is malformed.
    pub fn from_request(payload: &Map<String, Value>, request: Message) -> Option<Gift> {
        let number = |key: &str| payload.get(key).and_then(Value::as_u64);
        let entry = |(k, v): (&String, &Value)| Some((k.clone(), v.as_str()?.to_owned()));
        let entries = payload.get("entries")?.as_object()?;
        Some(Gift {
            shell: u32::try_from(number("shell_rank")?).ok()?,
            round: number("round")?,
            entries: entries.iter().map(entry).collect::<Option<_>>()?,
            request: Some(request),
        })
    }
}

impl Gather {
    pub fn new(info: &JobInfo) -> Gather {
        let expected = info.taskmap.counts().iter().filter(|n| **n > 0).count();
        Gather {
            expected,
            rounds: 0,
            entries: Entries::new(),
            arrived: BTreeMap::new(),
            last: Rc::default(),
        }
    }

    /// Rounds that are over.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Adds what a shell gives; returns what can be answered now.
    pub fn add(&mut self, gift: Gift) -> Option<Gathered> {
        if gift.round < self.rounds {
            return Some(Gathered {
                entries: self.last.clone(),
                requests: gift.request.into_iter().collect(),
                complete: false,
            });
        }
        self.entries.extend(gift.entries);
        self.arrived.insert(gift.shell, gift.request);
        if self.arrived.len() < self.expected {
            return None;
        }
        self.rounds += 1;
        self.last = Rc::new(std::mem::take(&mut self.entries));
        let arrived = std::mem::take(&mut self.arrived);
        Some(Gathered {
            entries: self.last.clone(),
            requests: arrived.into_values().flatten().collect(),
            complete: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::{info, resources};
    use formats::jobspec::JobspecBuilder;

    fn gift(shell: u32, round: u64, key: &str) -> Gift {
        Gift {
            shell,
            round,
            entries: Entries::from([(key.to_owned(), "v".to_owned())]),
            request: None,
        }
    }

    #[test]
    fn each_round_has_everybody_once() {
        let job = JobspecBuilder::new(["a"]).slots(3, 1, 0, None, false);
        let info = info(job, &resources(&["0", "0", "0"], None), 3);
        let mut gather = Gather::new(&info);
        let keys = |all: &Gathered| all.entries.keys().cloned().collect::<String>();
        for round in 0..2 {
            assert!(gather.add(gift(0, round, "a")).is_none());
            assert!(gather.add(gift(1, round, "b")).is_none());
            // It did not hear the answer.
            assert!(gather.add(gift(1, round, "b")).is_none());
            let all = gather.add(gift(2, round, "c")).unwrap();
            assert_eq!((keys(&all).as_str(), all.complete), ("abc", true));
            let again = gather.add(gift(1, round, "b")).unwrap();
            assert_eq!((keys(&again).as_str(), again.complete), ("abc", false));
        }
        assert_eq!(gather.rounds(), 2);
    }
}
