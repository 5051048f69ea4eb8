//! The map from tasks to nodes, RFC 34, and its PMI-1 form (RFC 13).
//!
//! A map is a list of blocks; walking the blocks in order hands out task ids `0, 1, 2, …`. The
//! list may be empty, which means that the mapping is unknown. Appending joins blocks where it
//! can, so that regular distributions stay short at any size.

use crate::{Hostlist, Idset};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use std::{fmt::Write, str::FromStr};

/// `ppn` consecutive tasks on each of `nnodes` nodes from `node` on, `repeat` times over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// The first node.
    pub node: u32,
    /// How many nodes.
    pub nnodes: u32,
    /// Tasks on each node, one after the other.
    pub ppn: u32,
    /// How often the nodes are gone through.
    pub repeat: u32,
}

/// Where the tasks of a job run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taskmap {
    blocks: Vec<Block>,
}

/// Why text or JSON is not a task map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum TaskmapError {
    #[error("taskmap: not valid JSON: {0}")]
    Json(String),
    #[error("taskmap: version {0} is not supported; version 1 is")]
    Version(i64),
    #[error("taskmap: block {0} must be four numbers: node, node count, tasks per node, repeat")]
    Block(usize),
    #[error("taskmap: block {0} must have positive counts")]
    Zero(usize),
    #[error("taskmap: too many tasks")]
    TooLarge,
    #[error("taskmap: '{0}' is not a PMI process mapping such as (vector,(0,4,2))")]
    Pmi(String),
    #[error("taskmap: '{0}' is not a list of task ids by node such as 0-1;2-3")]
    Raw(String),
    #[error("taskmap: scheme block takes no value, found '{0}'")]
    BlockValue(String),
    #[error("taskmap: host {0} is not in the job's node list")]
    Host(String),
    #[error("taskmap: unknown scheme '{0}'; use block, cyclic, hostfile or manual")]
    Scheme(String),
    #[error("taskmap: stride '{0}' of scheme cyclic is not a positive number")]
    Stride(String),
    #[error(
        "taskmap: {got} tasks on {got_nodes} nodes given for {want} tasks on {want_nodes} nodes"
    )]
    Mismatch {
        got: u32,
        got_nodes: u32,
        want: u32,
        want_nodes: u32,
    },
}

/// The most tasks or nodes a map may name.
const LIMIT: u64 = i32::MAX as u64;

impl Taskmap {
    /// A map without tasks: the mapping is unknown.
    pub fn new() -> Taskmap {
        Taskmap::default()
    }

    /// The block distribution of `counts[node]` tasks on each node.
    pub fn from_counts(counts: &[u32]) -> Taskmap {
        let mut map = Taskmap::new();
        for (node, &ppn) in counts.iter().enumerate().filter(|(_, ppn)| **ppn > 0) {
            map.append(node as u32, 1, ppn);
        }
        map
    }

    /// The blocks in the order of their tasks.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Whether it says nothing.
    pub fn is_unknown(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds the next tasks: `ppn` on each of `nnodes` nodes from `node` on.
    pub fn append(&mut self, node: u32, nnodes: u32, ppn: u32) {
        if let Some(last) = self.blocks.last_mut() {
            if node == last.node + last.nnodes && ppn == last.ppn && last.repeat == 1 {
                last.nnodes += nnodes;
                return self.join_repeats();
            }
            if last.node == node && last.nnodes == 1 && nnodes == 1 && last.repeat == 1 {
                last.ppn += ppn;
                return self.join_repeats();
            }
            if last.node == node && last.nnodes == nnodes && last.ppn == ppn {
                last.repeat += 1;
                return;
            }
        }
        self.blocks.push(Block {
            node,
            nnodes,
            ppn,
            repeat: 1,
        });
    }

    fn join_repeats(&mut self) {
        while let [.., before, last] = &mut self.blocks[..] {
            let same =
                (before.node, before.nnodes, before.ppn) == (last.node, last.nnodes, last.ppn);
            if !same {
                return;
            }
            before.repeat += last.repeat;
            self.blocks.pop();
        }
    }

    /// The tasks in order as `(node, first task, count)`.
    fn runs(&self) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        let steps = self.blocks.iter().flat_map(|b| {
            (0..b.repeat).flat_map(move |_| (b.node..b.node + b.nnodes).map(move |n| (n, b.ppn)))
        });
        steps.scan(0, |next, (node, ppn)| {
            let first = *next;
            *next += ppn;
            Some((node, first, ppn))
        })
    }

    /// How many tasks there are.
    pub fn ntasks(&self) -> u32 {
        self.blocks
            .iter()
            .map(|b| b.nnodes * b.ppn * b.repeat)
            .sum()
    }

    /// One more than the highest node.
    pub fn nnodes(&self) -> u32 {
        self.blocks
            .iter()
            .map(|b| b.node + b.nnodes)
            .max()
            .unwrap_or(0)
    }

    /// The ids of the tasks on a node.
    pub fn task_ids(&self, node: u32) -> Idset {
        self.runs()
            .filter(|r| r.0 == node)
            .flat_map(|(_, first, n)| first..first + n)
            .collect()
    }

    /// The number of tasks on a node.
    pub fn ntasks_on(&self, node: u32) -> u32 {
        let on = self
            .blocks
            .iter()
            .filter(|b| (b.node..b.node + b.nnodes).contains(&node));
        on.map(|b| b.ppn * b.repeat).sum()
    }

    /// The tasks on each node.
    pub fn counts(&self) -> Vec<u32> {
        (0..self.nnodes())
            .map(|node| self.ntasks_on(node))
            .collect()
    }

    /// The node of a task.
    pub fn node_of(&self, task: u32) -> Option<u32> {
        let mut first = 0;
        for b in &self.blocks {
            let total = b.nnodes * b.ppn * b.repeat;
            if task < first + total {
                return Some(b.node + (task - first) % (b.nnodes * b.ppn) / b.ppn);
            }
            first += total;
        }
        None
    }

    /// The same tasks per node, dealt out `stride` at a time in rounds over the nodes.
    pub fn cyclic(&self, stride: u32) -> Taskmap {
        let mut left = self.counts();
        let mut map = Taskmap::new();
        let mut total = self.ntasks();
        while total > 0 {
            for (node, avail) in left.iter_mut().enumerate().filter(|(_, n)| **n > 0) {
                let ppn = stride.max(1).min(*avail);
                map.append(node as u32, 1, ppn);
                *avail -= ppn;
                total -= ppn;
            }
        }
        map
    }

    /// Applies the `taskmap` shell option to a block distribution. `manual` takes a map in any
    /// form that must place as many tasks on as many nodes.
    pub fn with_scheme(&self, scheme: &str, value: &str) -> Result<Taskmap, TaskmapError> {
        match scheme {
            "block" if value.is_empty() => Ok(self.clone()),
            "block" => Err(TaskmapError::BlockValue(value.to_owned())),
            "cyclic" if value.is_empty() => Ok(self.cyclic(1)),
            "cyclic" => match value.parse() {
                Ok(stride) if stride > 0 => Ok(self.cyclic(stride)),
                _ => Err(TaskmapError::Stride(value.to_owned())),
            },
            "manual" => {
                let map: Taskmap = value.parse()?;
                let (got, got_nodes) = (map.ntasks(), map.nnodes());
                let (want, want_nodes) = (self.ntasks(), self.nnodes());
                if (got, got_nodes) != (want, want_nodes) {
                    return Err(TaskmapError::Mismatch {
                        got,
                        got_nodes,
                        want,
                        want_nodes,
                    });
                }
                Ok(map)
            }
            other => Err(TaskmapError::Scheme(other.to_owned())),
        }
    }

    /// One task for each of `hosts` in turn, starting over at its end, until there are `ntasks`;
    /// a task's node is the position of its host in `nodelist`.
    pub fn from_hosts(
        ntasks: u32,
        nodelist: &Hostlist,
        hosts: &Hostlist,
    ) -> Result<Taskmap, TaskmapError> {
        let nodes: Vec<u32> = hosts
            .iter()
            .map(|host| match nodelist.find(&host) {
                Some(node) => Ok(node as u32),
                None => Err(TaskmapError::Host(host)),
            })
            .collect::<Result<_, _>>()?;
        let mut map = Taskmap::new();
        for node in nodes.into_iter().cycle().take(ntasks as usize) {
            map.append(node, 1, 1);
        }
        Ok(map)
    }

    /// The array of blocks.
    pub fn to_value(&self) -> Value {
        self.blocks
            .iter()
            .map(|b| json!([b.node, b.nnodes, b.ppn, b.repeat]))
            .collect()
    }

    /// The wrapped form: `{"version":1,"map":[…]}`.
    pub fn to_wrapped(&self) -> Value {
        json!({"version": 1, "map": self.to_value()})
    }

    /// Reads an array of blocks, wrapped or not.
    pub fn from_value(value: &Value) -> Result<Taskmap, TaskmapError> {
        let list = match value {
            Value::Object(map) => {
                match map.get("version").and_then(Value::as_i64) {
                    Some(1) => {}
                    other => return Err(TaskmapError::Version(other.unwrap_or(0))),
                }
                map.get("map")
            }
            other => Some(other),
        };
        let list = list
            .and_then(Value::as_array)
            .ok_or(TaskmapError::Block(0))?;
        let mut blocks = Vec::with_capacity(list.len());
        for (i, block) in list.iter().enumerate() {
            let number = |n: &Value| n.as_u64().and_then(|n| u32::try_from(n).ok());
            let numbers: Option<Vec<u32>> = block
                .as_array()
                .and_then(|b| b.iter().map(number).collect());
            let Some(&[node, nnodes, ppn, repeat]) = numbers.as_deref() else {
                return Err(TaskmapError::Block(i));
            };
            if nnodes == 0 || ppn == 0 || repeat == 0 {
                return Err(TaskmapError::Zero(i));
            }
            blocks.push(Block {
                node,
                nnodes,
                ppn,
                repeat,
            });
        }
        Taskmap::checked(blocks)
    }

    /// Refuses maps whose counts do not fit, so that the arithmetic above cannot overflow.
    fn checked(blocks: Vec<Block>) -> Result<Taskmap, TaskmapError> {
        let mut total = 0u64;
        for b in &blocks {
            let tasks = u64::from(b.nnodes)
                .checked_mul(u64::from(b.ppn))
                .and_then(|n| n.checked_mul(u64::from(b.repeat)))
                .ok_or(TaskmapError::TooLarge)?;
            total = total.checked_add(tasks).ok_or(TaskmapError::TooLarge)?;
            if total > LIMIT || u64::from(b.node) + u64::from(b.nnodes) > LIMIT {
                return Err(TaskmapError::TooLarge);
            }
        }
        Ok(Taskmap { blocks })
    }

    /// The value of the PMI-1 key `PMI_process_mapping`; empty when the mapping is unknown.
    pub fn to_pmi(&self) -> String {
        if self.is_unknown() {
            return String::new();
        }
        let mut text = String::from("(vector");
        for b in &self.blocks {
            for _ in 0..b.repeat {
                // Writing to a String cannot fail.
                let _ = write!(text, ",({},{},{})", b.node, b.nnodes, b.ppn);
            }
        }
        text.push(')');
        text
    }

    /// Reads a PMI-1 process mapping; an empty one says that the mapping is unknown.
    pub fn from_pmi(text: &str) -> Result<Taskmap, TaskmapError> {
        if text.is_empty() {
            return Ok(Taskmap::new());
        }
        let bad = || TaskmapError::Pmi(text.to_owned());
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let inner = compact
            .strip_prefix("(vector")
            .and_then(|t| t.strip_suffix(')'))
            .ok_or_else(bad)?;
        let mut blocks = Vec::new();
        if !inner.is_empty() {
            let list = inner
                .strip_prefix(",(")
                .and_then(|t| t.strip_suffix(')'))
                .ok_or_else(bad)?;
            for triple in list.split("),(") {
                let numbers: Result<Vec<u32>, _> = triple.split(',').map(str::parse).collect();
                let Ok(&[node, nnodes, ppn]) = numbers.as_deref() else {
                    return Err(bad());
                };
                if nnodes == 0 || ppn == 0 {
                    return Err(bad());
                }
                blocks.push(Block {
                    node,
                    nnodes,
                    ppn,
                    repeat: 1,
                });
            }
        }
        let checked = Taskmap::checked(blocks)?;
        let mut map = Taskmap::new();
        for b in checked.blocks {
            map.append(b.node, b.nnodes, b.ppn);
        }
        Ok(map)
    }

    /// Task ids by node, nodes separated by semicolons: `0-1;2-3`.
    pub fn to_raw(&self) -> String {
        let nodes: Vec<String> = (0..self.nnodes())
            .map(|n| self.task_ids(n).to_string())
            .collect();
        nodes.join(";")
    }

    /// Reads task ids by node.
    pub fn from_raw(text: &str) -> Result<Taskmap, TaskmapError> {
        let bad = || TaskmapError::Raw(text.to_owned());
        let mut runs = Vec::new();
        for (node, ids) in text.split(';').enumerate() {
            let ids: Idset = ids.trim().parse().map_err(|_| bad())?;
            runs.extend(
                ids.ranges()
                    .iter()
                    .map(|&(first, last)| (first, last, node as u32)),
            );
        }
        runs.sort_unstable();
        let mut map = Taskmap::new();
        let mut next = 0;
        for (first, last, node) in runs {
            if first != next || u64::from(last) > LIMIT {
                return Err(bad());
            }
            map.append(node, 1, last - first + 1);
            next = last + 1;
        }
        Ok(map)
    }
}

/// Any of the forms: JSON blocks (wrapped or not), PMI-1, or raw.
impl FromStr for Taskmap {
    type Err = TaskmapError;

    fn from_str(text: &str) -> Result<Taskmap, TaskmapError> {
        let text = text.trim();
        match text.bytes().next() {
            Some(b'[' | b'{') => {
                let value: Value =
                    serde_json::from_str(text).map_err(|e| TaskmapError::Json(e.to_string()))?;
                Taskmap::from_value(&value)
            }
            Some(b'(') => Taskmap::from_pmi(text),
            _ => Taskmap::from_raw(text),
        }
    }
}

impl Serialize for Taskmap {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(s)
    }
}

impl<'de> Deserialize<'de> for Taskmap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Taskmap, D::Error> {
        Taskmap::from_value(&Value::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The test vectors of RFC 34.
    const VECTORS: &[(&str, &str)] = &[
        ("0", "[[0,1,1,1]]"),
        ("0;1", "[[0,2,1,1]]"),
        ("0-1", "[[0,1,2,1]]"),
        ("0-1;2-3", "[[0,2,2,1]]"),
        ("0,2;1,3", "[[0,2,1,2]]"),
        ("1;0", "[[1,1,1,1],[0,1,1,1]]"),
        ("0-3;4-7;8-11;12-15", "[[0,4,4,1]]"),
        ("0,4,8,12;1,5,9,13;2,6,10,14;3,7,11,15", "[[0,4,1,4]]"),
        ("0-1,8-9;2-3,10-11;4-5,12-13;6-7,14-15", "[[0,4,2,2]]"),
        ("0-1;2-3;4-5;6-7;8-11;12-15", "[[0,4,2,1],[4,2,4,1]]"),
        (
            "0,6;1,7;2,8;3,9;4,10,12,14;5,11,13,15",
            "[[0,6,1,2],[4,2,1,2]]",
        ),
        (
            "14-15;12-13;10-11;8-9;4-7;0-3",
            "[[5,1,4,1],[4,1,4,1],[3,1,2,1],[2,1,2,1],[1,1,2,1],[0,1,2,1]]",
        ),
        (
            "0-1;2-3;4-5;6-7;8-9;12-13;10-11;14-15",
            "[[0,5,2,1],[6,1,2,1],[5,1,2,1],[7,1,2,1]]",
        ),
        (
            "12-15;8-11;4-7;0-3",
            "[[3,1,4,1],[2,1,4,1],[1,1,4,1],[0,1,4,1]]",
        ),
    ];

    #[test]
    fn vectors_of_the_rfc() {
        for (raw, json) in VECTORS {
            let map: Taskmap = json.parse().unwrap();
            assert_eq!(map.to_raw(), *raw);
            assert_eq!(raw.parse::<Taskmap>().unwrap(), map, "{raw}");
            assert_eq!(map.to_value().to_string(), *json);
            assert_eq!(Taskmap::from_value(&map.to_wrapped()), Ok(map));
        }
        assert!("[]".parse::<Taskmap>().unwrap().is_unknown());
    }

    #[test]
    fn schemes() {
        let block = Taskmap::from_counts(&[2, 2, 2, 2, 4, 4]);
        assert_eq!(block.to_value().to_string(), "[[0,4,2,1],[4,2,4,1]]");
        assert_eq!(block.to_pmi(), "(vector,(0,4,2),(4,2,4))");
        let json = |scheme, value| {
            block
                .with_scheme(scheme, value)
                .map(|m| m.to_value().to_string())
        };
        assert_eq!(json("cyclic", "").unwrap(), "[[0,6,1,2],[4,2,1,2]]");
        assert_eq!(json("cyclic", "2").unwrap(), "[[0,6,2,1],[4,2,2,1]]");
        assert_eq!(
            json("manual", "[[0,6,1,2],[4,2,1,2]]").unwrap(),
            "[[0,6,1,2],[4,2,1,2]]"
        );
        assert_eq!(
            json("manual", "0-1").unwrap_err().to_string(),
            "taskmap: 2 tasks on 1 nodes given for 16 tasks on 6 nodes"
        );
        assert!(json("cyclic", "0").is_err() && json("x", "").is_err());
        assert_eq!(Taskmap::from_counts(&[4; 4096]).cyclic(1).blocks().len(), 1);
        assert_eq!(
            Taskmap::from_counts(&[0, 2]).to_value().to_string(),
            "[[1,1,2,1]]"
        );
    }

    #[test]
    fn host_order() {
        let (nodes, hosts) = ("n[0-3]".parse().unwrap(), "n[3,1,1]".parse().unwrap());
        assert_eq!(
            Taskmap::from_hosts(4, &nodes, &hosts).unwrap().to_raw(),
            ";1-2;;0,3"
        );
        let other = "x1".parse().unwrap();
        assert_eq!(
            Taskmap::from_hosts(1, &nodes, &other),
            Err(TaskmapError::Host("x1".into()))
        );
    }

    #[test]
    fn refuses_malformed_maps() {
        for text in [
            "[[0,1,1]]",
            "[[0,0,1,1]]",
            "[[-1,1,1,1]]",
            "{}",
            "{\"version\":2,\"map\":[]}",
            "[1]",
            "[[0,65536,65536,1]]",
            "(vector",
            "(vector,0)",
            "(vector,(1,2))",
            "0;0",
            "1;2",
            "x",
        ] {
            assert!(text.parse::<Taskmap>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_form_round_trips(counts in prop::collection::vec(0u32..5, 0..12), stride in 0u32..4) {
            let mut map = Taskmap::from_counts(&counts);
            if stride > 0 { map = map.cyclic(stride); }
            let total: u32 = counts.iter().sum();
            prop_assert_eq!(map.ntasks(), total);
            let mut seen = Idset::new();
            for (node, count) in counts.iter().enumerate() {
                let ids = map.task_ids(node as u32);
                prop_assert_eq!(ids.len() as u32, *count);
                prop_assert_eq!(map.ntasks_on(node as u32), *count);
                for id in ids.iter() { prop_assert_eq!(map.node_of(id), Some(node as u32)); }
                seen = seen.union(&ids);
            }
            prop_assert_eq!(seen.len() as u32, total);
            prop_assert_eq!(map.node_of(total), None);
            prop_assert_eq!(Taskmap::from_value(&map.to_value()).unwrap(), map.clone());
            let same = |other: Taskmap| other.to_raw() == map.to_raw();
            prop_assert!(same(Taskmap::from_pmi(&map.to_pmi()).unwrap()));
            if total > 0 { prop_assert!(same(Taskmap::from_raw(&map.to_raw()).unwrap())); }
        }
    }
}
