//! The nodes of an R, each with what hwloc sees in it.
//!
//! R says which nodes there are, which cores and GPUs they have and by which ids; hwloc says what these are in. If hwloc sees as
//! many of a type as R has, they are the same in order; if it sees more, R's ids are places among them. What R has and hwloc does
//! not see is in the node itself.

use super::hwloc::{Object, Reading, parse};
use super::rv1::{Execution, Node};
use super::{ReadError, content};
use crate::graph::{Builder, NewVertex};
use formats::Idset;
use std::collections::BTreeMap;

/// Makes the nodes of an R with the topologies of their ranks; of hwloc's types only those of `allowed`, unless there are none.
pub fn read(
    execution: &Execution,
    topologies: &BTreeMap<u32, String>,
    allowed: &[&str],
) -> Result<Builder, ReadError> {
    let mut builder = Builder::default();
    let root = builder.vertex(NewVertex::new("cluster", "cluster", 0, 0))?;
    let mut reading = Reading::new(builder, allowed)?;
    for node in execution.nodes() {
        let place = || format!("rank {}", node.rank);
        let text = topologies
            .get(&node.rank)
            .ok_or_else(|| content(place(), "there is no topology of it"))?;
        let mut topology = parse(text).map_err(|e| content(place(), e.to_string()))?;
        let mut hidden = Vec::new();
        for (kind, ids) in node.children {
            let unseen = match kind.as_str() {
                "core" => topology.fit(ids, |o| o.is_core().then_some(0)),
                "gpu" => topology.fit(ids, |o| o.is_gpu().then(|| o.device_number())),
                _ => ids.clone(),
            };
            if reading.allows(kind) {
                hidden.push((kind, unseen));
            }
        }
        let at = reading.node(&node, root)?;
        reading.contents(&topology, at)?;
        for (kind, ids) in hidden {
            for id in ids.iter() {
                reading.vertex(NewVertex::new(kind, kind, i64::from(id), 0), at)?;
            }
        }
    }
    Ok(reading.builder)
}

impl Reading<'_> {
    /// Adds a node of an R.
    fn node(&mut self, node: &Node, root: u32) -> Result<u32, ReadError> {
        self.begin(i64::from(node.rank));
        let at = self.vertex(node.vertex(), root)?;
        for name in node.properties() {
            self.builder.property(at, name, "");
        }
        Ok(at)
    }
}

impl Object {
    /// Leaves of a type what is among `ids`, and gives it its id; the ids that are left. `key` is what orders objects of the
    /// type, and nothing for others.
    fn fit(&mut self, ids: &Idset, key: impl Fn(&Object) -> Option<i64>) -> Idset {
        let mut keys = Vec::new();
        self.each(&mut |o| keys.extend(key(o)));
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|i| keys[*i]);
        let mut place = vec![0u32; keys.len()];
        for (nth, i) in order.into_iter().enumerate() {
            place[i] = nth as u32;
        }
        let same = keys.len() == ids.len();
        let listed: Vec<u32> = ids.iter().collect();
        let mut left = ids.clone();
        let mut places = place.into_iter();
        self.keep(&mut |o| {
            if key(o).is_none() {
                return true;
            }
            let Some(place) = places.next() else {
                return false;
            };
            let id = match same {
                true => listed[place as usize],
                false => place,
            };
            o.id = Some(i64::from(id));
            left.remove(id)
        });
        left
    }

    fn each(&self, visit: &mut dyn FnMut(&Object)) {
        for child in &self.children {
            visit(child);
            child.each(visit);
        }
    }

    /// Removes objects, with all below them.
    fn keep(&mut self, stays: &mut dyn FnMut(&mut Object) -> bool) {
        self.children.retain_mut(|child| {
            let here = stays(child);
            if here {
                child.keep(stays);
            }
            here
        });
    }
}
