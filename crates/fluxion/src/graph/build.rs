//! From vertices and edges in any order to a [`Graph`].

use super::links::Links;
use super::order::Order;
use super::totals::Totals;
use super::{Graph, NOBODY, Population, Properties, Subsystem, Vertex, Word, Words};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// A vertex to be.
#[derive(Debug, Clone, Copy)]
pub struct NewVertex<'a> {
    /// Its type.
    pub kind: &'a str,
    /// Its basename.
    pub base: &'a str,
    /// Its name, if it is not basename and id.
    pub name: Option<&'a str>,
    /// Its logical id, -1 for none.
    pub id: i64,
    /// Its execution target, -1 for none.
    pub rank: i64,
    /// How much there is of it.
    pub size: i64,
    /// The unit of the size.
    pub unit: &'a str,
    /// Its number in files.
    pub uniq: u64,
}

impl NewVertex<'_> {
    /// A node, whose id is the number that its host's name ends with.
    pub fn host(name: &str) -> NewVertex<'_> {
        let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let id = name[base.len()..].parse().unwrap_or(-1);
        let usual = match id {
            -1 => base == name,
            id => format!("{base}{id}") == *name,
        };
        NewVertex {
            name: Some(name).filter(|_| !usual),
            ..NewVertex::new("node", base, id, 0)
        }
    }

    /// A vertex of size 1 without a rank.
    pub fn new<'a>(kind: &'a str, base: &'a str, id: i64, uniq: u64) -> NewVertex<'a> {
        NewVertex {
            kind,
            base,
            name: None,
            id,
            rank: -1,
            size: 1,
            unit: "",
            uniq,
        }
    }
}

/// Why there is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum GraphError {
    #[error("vertex {uniq}: {what} {value} is out of range")]
    Range {
        uniq: u64,
        what: &'static str,
        value: i64,
    },
    #[error("there are more than {0} different types, basenames and units")]
    Words(usize),
    #[error("there are more vertices than can be numbered")]
    Vertices,
    #[error("there is no vertex in subsystem {0}")]
    NoRoot(String),
    #[error("subsystem {0} has more than one root: {1} and {2}")]
    Roots(String, String, String),
    #[error("vertex {0} is inside more than {limit} others", limit = super::order::DEPTH)]
    Deep(u64),
    #[error("subsystem {0} has a cycle, through vertex {1}")]
    Cycle(String, u64),
}

/// A graph in the making. Vertices are numbered as they come.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    words: Words,
    kind: Vec<Word>,
    base: Vec<Word>,
    unit: Vec<Word>,
    id: Vec<i32>,
    rank: Vec<i32>,
    size: Vec<u32>,
    uniq: Vec<u64>,
    names: FxHashMap<u32, Box<str>>,
    properties: FxHashMap<u32, Properties>,
    down: FxHashSet<u32>,
    paths: FxHashMap<u32, Vec<(Word, Box<str>)>>,
    edges: Vec<(Word, Vec<(u32, u32)>)>,
}

impl Builder {
    /// The number of vertices so far.
    pub fn len(&self) -> usize {
        self.kind.len()
    }

    /// Whether there is nothing yet.
    pub fn is_empty(&self) -> bool {
        self.kind.is_empty()
    }

    fn word(&mut self, text: &str) -> Result<Word, GraphError> {
        let too_many = GraphError::Words(usize::from(u16::MAX));
        self.words.add(text).ok_or(too_many)
    }

    /// Adds a vertex; its number.
    pub fn vertex(&mut self, new: NewVertex) -> Result<u32, GraphError> {
        let number = u32::try_from(self.kind.len()).ok().filter(|n| *n < NOBODY);
        let number = number.ok_or(GraphError::Vertices)?;
        let range = |what, value| GraphError::Range {
            uniq: new.uniq,
            what,
            value,
        };
        let id = i32::try_from(new.id).map_err(|_| range("id", new.id))?;
        let rank = i32::try_from(new.rank).map_err(|_| range("rank", new.rank))?;
        let size = u32::try_from(new.size).map_err(|_| range("size", new.size))?;
        // Most vertices are of the type of the one before, most basenames are types, and most
        // sizes have no unit.
        let kind = match self.kind.last() {
            Some(last) if self.words.text(*last) == new.kind => *last,
            _ => self.word(new.kind)?,
        };
        let base = match new.base == new.kind {
            true => kind,
            false => self.word(new.base)?,
        };
        let unit = match (new.unit, self.unit.first()) {
            ("", Some(first)) if self.words.text(*first).is_empty() => *first,
            (unit, _) => self.word(unit)?,
        };
        self.kind.push(kind);
        self.base.push(base);
        self.unit.push(unit);
        self.id.push(id);
        self.rank.push(rank);
        self.size.push(size);
        self.uniq.push(new.uniq);
        if let Some(name) = new.name {
            self.names.insert(number, name.into());
        }
        Ok(number)
    }

    /// Adds many vertices that differ in id, rank and uniq only. Much faster than one by one.
    pub(crate) fn like(
        &mut self,
        first: u32,
        id: i64,
        rank: i64,
        uniq: u64,
    ) -> Result<u32, GraphError> {
        let number = u32::try_from(self.kind.len()).map_err(|_| GraphError::Vertices)?;
        let range = |what, value| GraphError::Range { uniq, what, value };
        let id = i32::try_from(id).map_err(|_| range("id", id))?;
        let rank = i32::try_from(rank).map_err(|_| range("rank", rank))?;
        let first = first as usize;
        self.kind.push(self.kind[first]);
        self.base.push(self.base[first]);
        self.unit.push(self.unit[first]);
        self.size.push(self.size[first]);
        self.id.push(id);
        self.rank.push(rank);
        self.uniq.push(uniq);
        Ok(number)
    }

    /// Sets a property of a vertex.
    pub fn property(&mut self, v: u32, name: &str, value: &str) {
        let properties = self.properties.entry(v).or_default();
        properties.insert(name.to_owned(), value.to_owned());
    }

    /// Marks a vertex down.
    pub fn set_down(&mut self, v: u32) {
        self.down.insert(v);
    }

    /// Notes the path of a vertex in a subsystem that is not the dominant one.
    pub fn path(&mut self, v: u32, subsystem: &str, path: &str) -> Result<(), GraphError> {
        let word = self.word(subsystem)?;
        let paths = self.paths.entry(v).or_default();
        match paths.iter_mut().find(|p| p.0 == word) {
            Some(known) => known.1 = path.into(),
            None => paths.push((word, path.into())),
        }
        Ok(())
    }

    /// The word of a subsystem, for its edges.
    pub fn subsystem(&mut self, name: &str) -> Result<Word, GraphError> {
        self.word(name)
    }

    /// Adds an edge of a subsystem.
    pub fn edge(&mut self, subsystem: Word, from: u32, to: u32) {
        match self.edges.iter_mut().find(|s| s.0 == subsystem) {
            Some((_, list)) => list.push((from, to)),
            None => self.edges.push((subsystem, vec![(from, to)])),
        }
    }

    /// The graph whose tree is the `dominant` subsystem, and the new number of each vertex.
    pub fn finish(mut self, dominant: &str) -> Result<(Graph, Vec<u32>), GraphError> {
        let dominant = self.word(dominant)?;
        let own = self.edges.iter().position(|s| s.0 == dominant);
        let tree = own.map_or_else(Vec::new, |i| self.edges.swap_remove(i).1);
        let order = Order::of(tree, &self.uniq, self.words.text(dominant))?;
        Ok(self.lay_out(dominant, order))
    }

    fn lay_out(self, dominant: Word, made: Order) -> (Graph, Vec<u32>) {
        let Order {
            order,
            parent,
            rows,
        } = made;
        let n = order.len();
        let mut place = vec![0u32; n];
        for (i, v) in order.iter().enumerate() {
            place[*v as usize] = i as u32;
        }
        fn pick<T: Copy>(from: &[T], order: &[u32]) -> Vec<T> {
            order.iter().map(|v| from[*v as usize]).collect()
        }
        let above = |v: &u32| match parent[*v as usize] {
            NOBODY => NOBODY,
            p => place[p as usize],
        };
        let parent: Vec<u32> = order.iter().map(above).collect();
        let mut end: Vec<u32> = (1..=n as u32).collect();
        for v in (0..n).rev() {
            if parent[v] != NOBODY {
                let p = parent[v] as usize;
                end[p] = end[p].max(end[v]);
            }
        }
        let (kind, size) = (pick(&self.kind, &order), pick(&self.size, &order));
        let (mut populations, ordinal) = populate(&kind, &size, self.words.len());
        for population in &mut populations {
            let home = |v: &u32| kind.get(parent[*v as usize] as usize).copied();
            let mut homes = population.vertices.iter().map(home);
            let first = homes.next().flatten();
            population.home = first.filter(|_| homes.all(|h| h == first));
        }
        fn moved<T>(map: FxHashMap<u32, T>, place: &[u32]) -> FxHashMap<u32, T> {
            let at = |(v, value): (u32, T)| (place[v as usize], value);
            map.into_iter().map(at).collect()
        }
        let others = self.edges.into_iter().map(|(name, edges)| Subsystem {
            name,
            edges: (edges.into_iter())
                .map(|(a, b)| (Vertex(place[a as usize]), Vertex(place[b as usize])))
                .collect(),
        });
        let at = |v: u32| Vertex(place[v as usize]);
        let rows = rows.into_iter().map(|(v, row)| {
            let row = row.into_iter().map(at).collect();
            (at(v), row)
        });
        let links = Links::new(rows.collect(), &parent);
        let mut totals = Totals::new(&kind, &size, &parent, self.words.len());
        totals.add_shared(&links, &parent, &end, &kind, &size);
        for population in &mut populations {
            population.apart = links.leave_apart(&population.vertices, &parent, &end);
        }
        let mut graph = Graph {
            dominant,
            totals,
            links,
            others: others.collect(),
            base: pick(&self.base, &order),
            unit: pick(&self.unit, &order),
            id: pick(&self.id, &order),
            rank: pick(&self.rank, &order),
            uniq: pick(&self.uniq, &order),
            kind,
            size,
            parent,
            end,
            ordinal,
            populations,
            names: moved(self.names, &place),
            properties: moved(self.properties, &place),
            down: self.down.iter().map(|v| place[*v as usize]).collect(),
            paths: moved(self.paths, &place),
            words: self.words,
            ranked: BTreeMap::new(),
        };
        graph.index_ranks();
        (graph, place)
    }
}

fn populate(kind: &[Word], size: &[u32], words: usize) -> (Vec<Population>, Vec<u32>) {
    let mut counts = vec![0usize; words];
    kind.iter().for_each(|k| counts[usize::from(k.0)] += 1);
    let with_room = |n: usize| Population {
        vertices: Vec::with_capacity(n),
        plain: true,
        home: None,
        apart: true,
    };
    let mut populations: Vec<Population> = counts.into_iter().map(with_room).collect();
    let mut ordinal = Vec::with_capacity(kind.len());
    for (v, k) in kind.iter().enumerate() {
        let list = &mut populations[usize::from(k.0)].vertices;
        ordinal.push(list.len() as u32);
        list.push(v as u32);
    }
    for population in &mut populations {
        population.plain = population.vertices.iter().all(|v| size[*v as usize] == 1);
    }
    (populations, ordinal)
}

impl Graph {
    /// The graph with something added or taken away: `keep` says which vertices stay, `change` adds
    /// to a builder that holds them, where vertex `v` is number `old[v]`. Then the new number of
    /// each old vertex that stayed.
    pub fn edit(
        &self,
        keep: impl Fn(Vertex) -> bool,
        change: impl FnOnce(&mut Builder, &[Option<u32>]) -> Result<(), GraphError>,
    ) -> Result<(Graph, Vec<Option<Vertex>>), GraphError> {
        let mut builder = Builder::default();
        let mut old = Vec::with_capacity(self.len());
        for v in self.vertices() {
            if !keep(v) {
                old.push(None);
                continue;
            }
            let number = builder.vertex(NewVertex {
                kind: self.kind_text(v),
                base: self.base(v),
                name: self.own_name(v),
                id: self.id(v),
                rank: self.rank(v),
                size: i64::from(self.size(v)),
                unit: self.unit(v),
                uniq: self.uniq(v),
            })?;
            for (name, value) in self.properties(v).into_iter().flatten() {
                builder.property(number, name, value);
            }
            for (subsystem, path) in self.other_paths(v) {
                builder.path(number, self.words.text(*subsystem), path)?;
            }
            if !self.is_up(v) {
                builder.set_down(number);
            }
            old.push(Some(number));
        }
        let dominant = self.words.text(self.dominant);
        let contained: Vec<_> = (self.vertices())
            .flat_map(|v| self.children(v).map(move |c| (v, c)))
            .collect();
        let others = self.others.iter().map(|s| (s.name, s.edges.as_slice()));
        for (name, edges) in std::iter::once((self.dominant, contained.as_slice())).chain(others) {
            let name = builder.subsystem(self.words.text(name))?;
            for (a, b) in edges {
                if let (Some(a), Some(b)) = (old[a.at()], old[b.at()]) {
                    builder.edge(name, a, b);
                }
            }
        }
        change(&mut builder, &old)?;
        let (graph, place) = builder.finish(dominant)?;
        let new = old.iter().map(|n| n.map(|n| Vertex(place[n as usize])));
        Ok((graph, new.collect()))
    }
}
