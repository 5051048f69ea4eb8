//! Which vertices count what is free below them.
//!
//! A specification such as `ALL:core,rack:node` names pairs: vertices of the first type keep the
//! amount of the second type in use below them, over time. What is counted prunes the search.

use crate::graph::{Graph, Word};
use std::collections::BTreeSet;

/// What each type of vertex counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters {
    /// By type: what is counted; of that the first so many were asked for.
    by_kind: Vec<(Vec<Word>, usize)>,
    /// Everything that somebody counts.
    all: Vec<Word>,
}

/// Why a text is no filter specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("prune filter '{0}': must be two types, such as ALL:core")]
pub struct FilterError(String);

impl Filters {
    /// The filters of a specification for a graph. Types that are leaves are counted at the
    /// cluster, and nodes at the root, in any case.
    pub fn new(spec: &str, graph: &Graph) -> Result<Filters, FilterError> {
        let words = graph.words();
        let mut everywhere: BTreeSet<Word> = BTreeSet::new();
        let mut own: Vec<(Word, BTreeSet<Word>)> = Vec::new();
        let mut total: BTreeSet<Word> = BTreeSet::new();
        for pair in spec.split(',').filter(|p| !p.trim().is_empty()) {
            let wrong = || FilterError(pair.to_owned());
            let (at, what) = pair.split_once(':').ok_or_else(wrong)?;
            let (at, what) = (at.trim(), what.trim());
            if at.is_empty() || what.is_empty() {
                return Err(wrong());
            }
            let Some(what) = words.find(what) else {
                continue;
            };
            total.insert(what);
            if at == "ALL" {
                own.iter_mut().for_each(|(_, set)| {
                    set.remove(&what);
                });
                everywhere.insert(what);
            } else if let Some(at) = words.find(at)
                && !everywhere.contains(&what)
            {
                add(&mut own, at, what);
            }
        }
        if let Some(cluster) = words.find("cluster") {
            for kind in graph.kinds() {
                let first = graph.of_kind(kind)[0];
                let leaf = graph.is_leaf(crate::graph::Vertex(first));
                if leaf && total.insert(kind) {
                    add(&mut own, cluster, kind);
                }
            }
        }
        let of = |kind: Word| -> Vec<Word> {
            let here = own.iter().find(|(k, _)| *k == kind).map(|(_, set)| set);
            let by_name = |set: &BTreeSet<Word>| {
                let mut list: Vec<Word> = set.iter().copied().filter(|w| *w != kind).collect();
                list.sort_by_key(|w| words.text(*w));
                list
            };
            let mut list = here.map(by_name).unwrap_or_default();
            list.extend(by_name(&everywhere));
            list
        };
        let mut by_kind: Vec<(Vec<Word>, usize)> = (0..words.len())
            .map(|i| of(Word(i as u16)))
            .map(|list| (list.clone(), list.len()))
            .collect();
        if let Some(node) = words.find("node").filter(|_| !graph.is_empty()) {
            let root = &mut by_kind[usize::from(graph.kind(graph.root()).0)];
            if !root.0.contains(&node) {
                root.0.push(node);
                total.insert(node);
            }
        }
        Ok(Filters {
            by_kind,
            all: total.into_iter().collect(),
        })
    }

    /// What vertices of a type count.
    pub fn at(&self, kind: Word) -> &[Word] {
        &self.by_kind[usize::from(kind.0)].0
    }

    /// What vertices of a type were asked to count.
    pub fn shown(&self, kind: Word) -> &[Word] {
        let (list, shown) = &self.by_kind[usize::from(kind.0)];
        &list[..*shown]
    }

    /// Everything that is counted somewhere.
    pub fn all(&self) -> &[Word] {
        &self.all
    }
}

fn add(own: &mut Vec<(Word, BTreeSet<Word>)>, at: Word, what: Word) {
    match own.iter_mut().find(|(kind, _)| *kind == at) {
        Some((_, set)) => {
            set.insert(what);
        }
        None => own.push((at, BTreeSet::from([what]))),
    }
}
