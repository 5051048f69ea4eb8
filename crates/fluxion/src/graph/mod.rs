//! The resource graph, RFC 4, as packed arrays.
//!
//! Vertices are numbered in depth-first preorder of the dominant subsystem, so that a subtree is a
//! range of numbers and a child is found without an edge list: the first child of a vertex follows
//! it, and a sibling begins where the subtree before it ends. A vertex that several contain has its
//! place below the first of them; the other edges are kept apart (`links`). Types, basenames and units are
//! [`Word`]s, names and paths are made when they are asked for, and what few vertices have (a name
//! of their own, properties, edges of other subsystems) is kept beside the arrays. A vertex costs
//! about forty bytes.
//!
//! The structure does not change: growing and shrinking make a new graph ([`Graph::edit`]), and a
//! map from old to new numbers.

mod build;
mod links;
mod order;
mod paths;
mod strings;
mod totals;

pub use build::{Builder, GraphError, NewVertex};
pub use strings::{COMMON, SLOT, UNKNOWN, Word, Words, XOR_SLOT};

use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::ops::Range;

/// A vertex of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vertex(pub u32);

impl Vertex {
    fn at(self) -> usize {
        self.0 as usize
    }
}

const NOBODY: u32 = u32::MAX;

/// The properties of a vertex; a property without a value has an empty one.
pub type Properties = BTreeMap<String, String>;

/// Resources and how they are contained in each other.
#[derive(Debug, Clone)]
pub struct Graph {
    words: Words,
    dominant: Word,
    kind: Vec<Word>,
    base: Vec<Word>,
    unit: Vec<Word>,
    id: Vec<i32>,
    rank: Vec<i32>,
    size: Vec<u32>,
    uniq: Vec<u64>,
    parent: Vec<u32>,
    end: Vec<u32>,
    ordinal: Vec<u32>,
    populations: Vec<Population>,
    totals: totals::Totals,
    links: links::Links,
    names: FxHashMap<u32, Box<str>>,
    properties: FxHashMap<u32, Properties>,
    down: FxHashSet<u32>,
    paths: FxHashMap<u32, Vec<(Word, Box<str>)>>,
    others: Vec<Subsystem>,
    ranked: BTreeMap<i32, Vec<Vertex>>,
}

/// All vertices of a type.
#[derive(Debug, Clone, Default)]
pub struct Population {
    vertices: Vec<u32>,
    /// Whether every size is 1.
    plain: bool,
    /// The type of what contains them, if it is the same for all.
    home: Option<Word>,
    /// Whether nothing around them or in them is in two others.
    apart: bool,
}

/// What a vertex contains directly: siblings in the tree, or a list.
#[derive(Debug, Clone)]
pub struct Children<'a> {
    ends: &'a [u32],
    next: u32,
    end: u32,
    listed: &'a [Vertex],
}

impl Iterator for Children<'_> {
    type Item = Vertex;

    #[inline]
    fn next(&mut self) -> Option<Vertex> {
        if self.next < self.end {
            let child = self.next;
            self.next = self.ends[child as usize];
            return Some(Vertex(child));
        }
        let (first, rest) = self.listed.split_first()?;
        self.listed = rest;
        Some(*first)
    }
}

/// The edges of a subsystem that is not the dominant one.
#[derive(Debug, Clone)]
pub struct Subsystem {
    /// Its name.
    pub name: Word,
    /// From, to; in the order of the source.
    pub edges: Vec<(Vertex, Vertex)>,
}

impl Graph {
    /// The number of vertices.
    pub fn len(&self) -> usize {
        self.kind.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.kind.is_empty()
    }

    /// The number of edges, those of all subsystems.
    pub fn edges(&self) -> usize {
        let inner = self.parent.iter().filter(|p| **p != NOBODY).count();
        inner + self.links.len() + self.others.iter().map(|s| s.edges.len()).sum::<usize>()
    }

    /// The root of the dominant subsystem. A graph that was built has one.
    pub fn root(&self) -> Vertex {
        Vertex(0)
    }

    /// All vertices, those outside the dominant subsystem last.
    pub fn vertices(&self) -> impl DoubleEndedIterator<Item = Vertex> + ExactSizeIterator {
        (0..self.kind.len() as u32).map(Vertex)
    }

    /// The words of types, basenames, units and subsystems.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// The name of the dominant subsystem.
    pub fn dominant(&self) -> Word {
        self.dominant
    }

    /// The type.
    pub fn kind(&self, v: Vertex) -> Word {
        self.kind[v.at()]
    }

    /// The type as text.
    pub fn kind_text(&self, v: Vertex) -> &str {
        self.words.text(self.kind(v))
    }

    /// The basename.
    pub fn base(&self, v: Vertex) -> &str {
        self.words.text(self.base[v.at()])
    }

    /// The unit of the size, often empty.
    pub fn unit(&self, v: Vertex) -> &str {
        self.words.text(self.unit[v.at()])
    }

    /// The logical id; -1 if it has none.
    pub fn id(&self, v: Vertex) -> i64 {
        i64::from(self.id[v.at()])
    }

    /// The execution target; -1 if it has none.
    pub fn rank(&self, v: Vertex) -> i64 {
        i64::from(self.rank[v.at()])
    }

    /// How much there is of it.
    pub fn size(&self, v: Vertex) -> u32 {
        self.size[v.at()]
    }

    /// The number it has in files.
    pub fn uniq(&self, v: Vertex) -> u64 {
        self.uniq[v.at()]
    }

    /// What contains it; of several, what is first met depth first.
    pub fn parent(&self, v: Vertex) -> Option<Vertex> {
        Some(self.parent[v.at()])
            .filter(|p| *p != NOBODY)
            .map(Vertex)
    }

    /// The numbers of a vertex's children if nothing is below these and their numbers in files ascend, as is usual.
    pub(crate) fn row_below(&self, v: Vertex) -> Option<Range<u32>> {
        let below = v.0 + 1..self.end[v.at()];
        let range = below.start as usize..below.end as usize;
        let is_row =
            self.parent[range.clone()].iter().all(|p| *p == v.0) && self.links.row(v).is_none();
        (is_row && self.uniq[range].is_sorted()).then_some(below)
    }

    /// What contains it, what contains that, up to the root.
    pub fn ancestors(&self, v: Vertex) -> impl Iterator<Item = Vertex> + '_ {
        std::iter::successors(self.parent(v), |p| self.parent(*p))
    }

    /// The vertex and all below it, as numbers; what belongs to others is left out.
    #[inline]
    pub fn subtree(&self, v: Vertex) -> Range<u32> {
        v.0..self.end[v.at()]
    }

    /// Whether nothing is contained in it.
    #[inline]
    pub fn is_leaf(&self, v: Vertex) -> bool {
        self.end[v.at()] == v.0 + 1 && self.links.row(v).is_none()
    }

    /// What it contains directly.
    #[inline]
    pub fn children(&self, v: Vertex) -> Children<'_> {
        let listed = self.links.row(v);
        Children {
            ends: &self.end,
            next: v.0 + 1,
            end: match listed {
                None => self.end[v.at()],
                Some(_) => 0,
            },
            listed: listed.unwrap_or_default(),
        }
    }

    /// Which of its type it is, counted in preorder.
    pub fn ordinal(&self, v: Vertex) -> u32 {
        self.ordinal[v.at()]
    }

    /// All vertices of a type in preorder.
    pub fn of_kind(&self, kind: Word) -> &[u32] {
        self.populations
            .get(usize::from(kind.0))
            .map_or(&[], |p| &p.vertices)
    }

    /// Whether every vertex of a type has size 1.
    pub fn is_plain(&self, kind: Word) -> bool {
        let population = self.populations.get(usize::from(kind.0));
        population.is_some_and(|p| p.plain)
    }

    /// The type of what contains vertices of a type, if it is the same for all of them.
    pub fn home(&self, kind: Word) -> Option<Word> {
        self.populations.get(usize::from(kind.0))?.home
    }

    /// How much of a type a vertex and all below it have.
    pub fn total(&self, v: Vertex, kind: Word) -> i64 {
        let own = match self.kind(v) == kind {
            true => i64::from(self.size(v)),
            false => 0,
        };
        match self.is_leaf(v) {
            true => own,
            false => own + self.totals.below(v.0, kind),
        }
    }

    /// The types that vertices have.
    pub fn kinds(&self) -> impl Iterator<Item = Word> + '_ {
        let used = self.populations.iter().enumerate();
        used.filter(|(_, p)| !p.vertices.is_empty())
            .map(|(i, _)| Word(i as u16))
    }

    /// Its properties.
    pub fn properties(&self, v: Vertex) -> Option<&Properties> {
        self.properties.get(&v.0)
    }

    /// Sets a property.
    pub fn set_property(&mut self, v: Vertex, name: &str, value: &str) {
        let properties = self.properties.entry(v.0).or_default();
        properties.insert(name.to_owned(), value.to_owned());
    }

    /// Takes a property away; whether it had it.
    pub fn remove_property(&mut self, v: Vertex, name: &str) -> bool {
        let Some(properties) = self.properties.get_mut(&v.0) else {
            return false;
        };
        let had = properties.remove(name).is_some();
        if properties.is_empty() {
            self.properties.remove(&v.0);
        }
        had
    }

    /// Whether it is up itself; what contains it may be down.
    pub fn is_up(&self, v: Vertex) -> bool {
        self.down.is_empty() || !self.down.contains(&v.0)
    }

    /// Whether nothing is down.
    pub fn all_up(&self) -> bool {
        self.down.is_empty()
    }

    /// Marks it up or down; whether that is a change.
    pub fn set_up(&mut self, v: Vertex, up: bool) -> bool {
        if up {
            self.down.remove(&v.0)
        } else {
            self.down.insert(v.0)
        }
    }

    /// The vertices that are down themselves, in no order.
    pub fn down(&self) -> impl Iterator<Item = Vertex> + '_ {
        self.down.iter().copied().map(Vertex)
    }

    /// The uppermost vertices of an execution target.
    pub fn of_rank(&self, rank: i64) -> &[Vertex] {
        i32::try_from(rank)
            .ok()
            .and_then(|rank| self.ranked.get(&rank))
            .map_or(&[], Vec::as_slice)
    }

    /// The execution targets.
    pub fn ranks(&self) -> impl Iterator<Item = i64> + '_ {
        self.ranked.keys().map(|r| i64::from(*r))
    }

    /// The subsystems beside the dominant one.
    pub fn others(&self) -> &[Subsystem] {
        &self.others
    }

    fn index_ranks(&mut self) {
        let mut ranked: BTreeMap<i32, Vec<Vertex>> = BTreeMap::new();
        for v in self.vertices() {
            let rank = self.rank[v.at()];
            let above = self.parent(v).map(|p| self.rank[p.at()]);
            if rank >= 0 && above != Some(rank) {
                ranked.entry(rank).or_default().push(v);
            }
        }
        self.ranked = ranked;
    }
}
