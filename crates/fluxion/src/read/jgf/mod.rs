//! JSON Graph Format.
//!
//! [`Document`] is such a text as it is written: it becomes a graph ([`read`]), or says which part
//! of a graph is meant ([`Document::chosen`]). In the shorthand, what is below an exclusive vertex
//! belongs to it without being listed.

mod stream;

use super::{ReadError, content};
use crate::graph::{Builder, Graph, NewVertex, Vertex, Word};
use crate::matching::Selected;
use formats::Idset;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use stream::{Reader, Text};

/// The subsystem of edges that do not say theirs.
const CONTAINMENT: &str = "containment";
/// In the `status` of a vertex: down.
const DOWN: i64 = 1;

/// A graph as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a>(&'a str);

/// Up to here ids that are numbers may begin, or leave out others, at the price of a table of that size.
const ROOM: usize = 1 << 16;

/// The numbers that ids of a file stand for.
#[derive(Debug, Default)]
struct Numbers<'a> {
    /// Of ids that are numbers and come about in order, by id; the greatest number stands for none.
    dense: Vec<u32>,
    plain: FxHashMap<u64, u32>,
    others: FxHashMap<Cow<'a, str>, u32>,
}

impl<'a> Numbers<'a> {
    /// The id as a number that is written like that.
    fn plain(id: &str) -> Option<u64> {
        let number = id.parse().ok()?;
        (id == "0" || !id.starts_with(['0', '+'])).then_some(number)
    }

    fn insert(&mut self, id: Cow<'a, str>, number: u32) {
        let Some(id) = Numbers::plain(&id) else {
            self.others.insert(id, number);
            return;
        };
        let room = self.dense.len() * 2 + ROOM;
        match usize::try_from(id).ok().filter(|id| *id < room) {
            Some(id) => {
                if id >= self.dense.len() {
                    self.dense.resize(id + 1, u32::MAX);
                }
                self.dense[id] = number;
            }
            None => {
                self.plain.insert(id, number);
            }
        }
    }

    fn get(&self, id: &str) -> Option<u32> {
        let Some(id) = Numbers::plain(id) else {
            return self.others.get(id).copied();
        };
        let dense = usize::try_from(id).ok().and_then(|id| self.dense.get(id));
        let dense = dense.copied().filter(|n| *n != u32::MAX);
        dense.or_else(|| self.plain.get(&id).copied())
    }
}

#[derive(Debug, Deserialize)]
struct Node<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Debug, Deserialize)]
struct Metadata<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    basename: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    id: Option<i64>,
    uniq_id: Option<i64>,
    rank: Option<i64>,
    status: Option<i64>,
    exclusive: Option<bool>,
    size: Option<i64>,
    #[serde(borrow, default)]
    unit: Option<Text<'a>>,
    #[serde(borrow)]
    paths: Paths<'a>,
    #[serde(default)]
    properties: Option<BTreeMap<String, Option<String>>>,
}

/// The path of the containment subsystem apart from others, which are rare.
#[derive(Debug, Default)]
struct Paths<'a> {
    contained: Option<Cow<'a, str>>,
    others: Vec<(String, String)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Paths<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Paths<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a map of subsystems to paths")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Paths<'de>, A::Error> {
                let mut paths = Paths::default();
                while let Some((Text(key), Text(path))) = map.next_entry::<Text, Text>()? {
                    match key == CONTAINMENT {
                        true => paths.contained = Some(path),
                        false => paths.others.push((key.into_owned(), path.into_owned())),
                    }
                }
                Ok(paths)
            }
        }
        d.deserialize_map(Visitor)
    }
}

#[derive(Debug, Deserialize)]
struct Edge<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    #[serde(borrow, default)]
    metadata: Option<EdgeMetadata<'a>>,
}

#[derive(Debug, Deserialize)]
struct EdgeMetadata<'a> {
    #[serde(borrow, default)]
    subsystem: Option<Text<'a>>,
    /// The older form: an object whose keys are subsystems.
    #[serde(default)]
    name: Option<BTreeMap<String, Value>>,
}

impl Edge<'_> {
    fn subsystem(&self) -> Option<&str> {
        let data = self.metadata.as_ref()?;
        let older = || data.name.as_ref()?.keys().next().map(String::as_str);
        data.subsystem.as_ref().map(|s| &*s.0).or_else(older)
    }
}

impl Metadata<'_> {
    fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| &*name.0)
    }
}

impl Node<'_> {
    fn place(&self) -> String {
        format!("vertex {}", self.id)
    }

    fn uniq(&self) -> Result<u64, ReadError> {
        let given = self.metadata.uniq_id.and_then(|n| u64::try_from(n).ok());
        let uniq = given.or_else(|| self.id.parse().ok());
        uniq.ok_or_else(|| content(self.place(), "neither uniq_id nor id is a number"))
    }

    /// The id; that of a node may be what its host's name ends with.
    fn id(&self, uniq: u64) -> i64 {
        let suffix = || {
            let name = self
                .metadata
                .name()
                .filter(|_| self.metadata.kind == "node")?;
            let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            name[name.len() - digits..].parse().ok()
        };
        let id = self.metadata.id.or_else(suffix);
        id.unwrap_or(i64::try_from(uniq).unwrap_or(-1))
    }

    fn basename(&self) -> &str {
        let given = self.metadata.basename.as_ref();
        given.map_or(&self.metadata.kind, |base| &base.0)
    }

    fn is_usual_name(&self, name: &str, id: i64) -> bool {
        let usual = name.strip_prefix(self.basename());
        usual.is_some_and(|rest| match id {
            -1 => rest.is_empty(),
            _ => rest.parse() == Ok(id) && (rest == "0" || !rest.starts_with(['0', '+'])),
        })
    }

    fn add_to(&self, builder: &mut Builder) -> Result<u32, ReadError> {
        let data = &self.metadata;
        let uniq = self.uniq()?;
        let id = self.id(uniq);
        let number = builder.vertex(NewVertex {
            kind: &data.kind,
            base: self.basename(),
            name: data.name().filter(|name| !self.is_usual_name(name, id)),
            id,
            rank: data.rank.unwrap_or(-1),
            size: data.size.unwrap_or(1),
            unit: data.unit.as_ref().map_or("", |unit| &unit.0),
            uniq,
        })?;
        for (name, value) in data.properties.iter().flat_map(|p| p.iter()) {
            builder.property(number, name, value.as_deref().unwrap_or(""));
        }
        for (subsystem, path) in &data.paths.others {
            builder.path(number, subsystem, path)?;
        }
        if data.status == Some(DOWN) {
            builder.set_down(number);
        }
        Ok(number)
    }
}

/// Reads a graph.
pub fn read(text: &str) -> Result<Builder, ReadError> {
    let mut builder = Builder::default();
    Document::new(text).add_to(&mut builder, |_| Ok(None))?;
    Ok(builder)
}

/// Adds what comes to a builder.
struct Adding<'b, 'a, K> {
    builder: &'b mut Builder,
    /// Finds vertices that are there already by (path, rank).
    known: K,
    numbers: Numbers<'a>,
    /// The numbers of vertices that were there before.
    old: Range<u32>,
    contained: Word,
}

impl<'a, K> Reader<'a> for Adding<'_, 'a, K>
where
    K: FnMut((&str, i64)) -> Result<Option<u32>, ReadError>,
{
    fn node(&mut self, node: Node<'a>) -> Result<(), ReadError> {
        let path = node.metadata.paths.contained.as_deref().unwrap_or("");
        let number = match (self.known)((path, node.metadata.rank.unwrap_or(-1)))? {
            Some(number) => number,
            None => node.add_to(self.builder)?,
        };
        if self.numbers.get(&node.id).is_some() {
            return Err(content(node.place(), "there is another vertex of this id"));
        }
        self.numbers.insert(node.id, number);
        Ok(())
    }

    fn edge(&mut self, edge: Edge<'a>) -> Result<(), ReadError> {
        let end = |id: &str| {
            let place = || format!("edge {} to {}", edge.source, edge.target);
            let missing = || content(place(), format!("there is no vertex {id}"));
            self.numbers.get(id).ok_or_else(missing)
        };
        let (from, to) = (end(&edge.source)?, end(&edge.target)?);
        if self.old.contains(&to) {
            return Ok(());
        }
        match edge.subsystem() {
            None | Some(CONTAINMENT) => self.builder.edge(self.contained, from, to),
            Some(other) => {
                let other = self.builder.subsystem(other)?;
                self.builder.edge(other, from, to);
            }
        }
        Ok(())
    }
}

/// Gathers the vertices of a graph that are meant, with their ranks.
struct Choosing<'g> {
    graph: &'g Graph,
    chosen: Vec<(i64, Selected)>,
}

impl<'a> Reader<'a> for Choosing<'_> {
    fn node(&mut self, node: Node<'a>) -> Result<(), ReadError> {
        let vertex = node.find(self.graph)?;
        let selected = Selected {
            vertex,
            amount: self.graph.size(vertex),
            exclusive: node.metadata.exclusive.unwrap_or(false),
            whole: false,
            label: None,
        };
        let rank = node.metadata.rank.unwrap_or(-1);
        self.chosen.push((rank, selected));
        Ok(())
    }

    fn edge(&mut self, _: Edge<'a>) -> Result<(), ReadError> {
        Ok(())
    }
}

impl<'a> Document<'a> {
    /// A text that is to be read.
    pub fn new(text: &'a str) -> Document<'a> {
        Document(text)
    }

    /// Adds the vertices and edges to a builder. `known` finds vertices that are there already by
    /// (path, rank).
    pub fn add_to(
        &self,
        builder: &mut Builder,
        known: impl FnMut((&str, i64)) -> Result<Option<u32>, ReadError>,
    ) -> Result<(), ReadError> {
        let mut adding = Adding {
            known,
            numbers: Numbers::default(),
            old: 0..builder.len() as u32,
            contained: builder.subsystem(CONTAINMENT)?,
            builder,
        };
        stream::walk(self.0, &mut adding).map(drop)
    }

    /// The vertices of a graph that this document lists. Those that a job gave back are left out.
    pub fn chosen(&self, graph: &Graph) -> Result<Vec<Selected>, ReadError> {
        let mut choosing = Choosing {
            graph,
            chosen: Vec::new(),
        };
        let frame = stream::walk(self.0, &mut choosing)?;
        let short = frame.writer.as_deref() == Some(crate::write::SHORTHAND);
        let back = given_back(&frame.free_ranks)?;
        let is_back = |rank: i64| u32::try_from(rank).is_ok_and(|rank| back.contains(rank));
        let kept = choosing
            .chosen
            .into_iter()
            .filter(|(rank, _)| !is_back(*rank));
        let kept = kept.map(|(_, selected)| Selected {
            whole: selected.exclusive && short,
            ..selected
        });
        Ok(kept.collect())
    }
}

/// The ranks that a job has given back already.
fn given_back(free_ranks: &Option<Value>) -> Result<Idset, ReadError> {
    let text = match free_ranks {
        None => return Ok(Idset::new()),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    text.parse()
        .map_err(|e| content("free_ranks", format!("{e}")))
}

impl Node<'_> {
    /// The vertex of a graph that is meant.
    fn find(&self, graph: &Graph) -> Result<Vertex, ReadError> {
        let data = &self.metadata;
        let others = data.paths.others.iter().map(|(_, path)| path.as_str());
        let mut found = None;
        for path in data.paths.contained.as_deref().into_iter().chain(others) {
            let there = graph.find_path(path);
            let there =
                there.ok_or_else(|| content(self.place(), format!("there is no {path}")))?;
            if found.is_some_and(|v| v != there) {
                return Err(content(self.place(), "its paths are of different vertices"));
            }
            found = Some(there);
        }
        let v = found.ok_or_else(|| content(self.place(), "it has no path"))?;
        let differs = |what: &str| {
            Err(content(
                self.place(),
                format!("its {what} is not that of the graph"),
            ))
        };
        if *data.kind != *graph.kind_text(v) {
            return differs("type");
        }
        if data.rank.unwrap_or(-1) != graph.rank(v) {
            return differs("rank");
        }
        if data.id.is_some_and(|id| id != graph.id(v)) {
            return differs("id");
        }
        if data.size.unwrap_or(1) != i64::from(graph.size(v)) {
            return differs("size");
        }
        Ok(v)
    }
}
