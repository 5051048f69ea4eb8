//! A JSON graph, element by element.
//!
//! The lists of a graph are long, so none is kept: each element goes to a [`Reader`] as it is met. Vertices come before
//! edges; of a text that has them the other way round the edges are passed over and read in the end.

use super::{Edge, Node};
use crate::read::ReadError;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// A text that is not copied unless it has to be.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// What takes the elements.
pub(super) trait Reader<'a> {
    /// A vertex.
    fn node(&mut self, node: Node<'a>) -> Result<(), ReadError>;

    /// An edge; all vertices have come.
    fn edge(&mut self, edge: Edge<'a>) -> Result<(), ReadError>;
}

/// What is said beside the graph.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) writer: Option<String>,
    pub(super) free_ranks: Option<Value>,
}

/// Reads all of a text.
pub(super) fn walk<'a>(text: &'a str, reader: &mut dyn Reader<'a>) -> Result<Frame, ReadError> {
    let mut walk = Walk {
        reader,
        refusal: None,
        frame: Frame::default(),
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_map(&mut walk).and_then(|()| json.end());
    match walk.refusal {
        Some(refusal) => Err(refusal),
        None => Ok(read.map(|()| walk.frame)?),
    }
}

struct Walk<'r, 'a> {
    reader: &'r mut dyn Reader<'a>,
    /// Why the reader would not have an element.
    refusal: Option<ReadError>,
    frame: Frame,
}

impl<'a> Walk<'_, 'a> {
    fn has<E: serde::de::Error>(&mut self, taken: Result<(), ReadError>) -> Result<(), E> {
        taken.map_err(|refusal| {
            self.refusal = Some(refusal);
            E::custom("refused")
        })
    }

    fn node<E: serde::de::Error>(&mut self, node: Node<'a>) -> Result<(), E> {
        let taken = self.reader.node(node);
        self.has(taken)
    }

    fn edge<E: serde::de::Error>(&mut self, edge: Edge<'a>) -> Result<(), E> {
        let taken = self.reader.edge(edge);
        self.has(taken)
    }
}

impl<'de> Visitor<'de> for &mut Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with a graph")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_graph = false;
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "graph" if has_graph => return Err(A::Error::duplicate_field("graph")),
                "graph" => {
                    map.next_value_seed(Lists(self))?;
                    has_graph = true;
                }
                "writer" => self.frame.writer = map.next_value()?,
                "free_ranks" => self.frame.free_ranks = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match has_graph {
            true => Ok(()),
            false => Err(A::Error::missing_field("graph")),
        }
    }
}

/// The value of `graph`.
struct Lists<'w, 'r, 'a>(&'w mut Walk<'r, 'a>);

impl<'de> DeserializeSeed<'de> for Lists<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Lists<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with nodes and edges")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let walk = self.0;
        let (mut has_nodes, mut has_edges) = (false, false);
        let mut early: Option<&'de RawValue> = None;
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "nodes" if has_nodes => return Err(A::Error::duplicate_field("nodes")),
                "edges" if has_edges => return Err(A::Error::duplicate_field("edges")),
                "nodes" => {
                    map.next_value_seed(each(|node| walk.node(node)))?;
                    has_nodes = true;
                }
                "edges" => {
                    match has_nodes {
                        true => map.next_value_seed(each(|edge| walk.edge(edge)))?,
                        false => early = Some(map.next_value()?),
                    }
                    has_edges = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if !has_nodes {
            return Err(A::Error::missing_field("nodes"));
        }
        if !has_edges {
            return Err(A::Error::missing_field("edges"));
        }
        let Some(early) = early else { return Ok(()) };
        let edges = each(|edge| walk.edge(edge));
        let read = edges.deserialize(&mut serde_json::Deserializer::from_str(early.get()));
        read.map_err(|e| A::Error::custom(format_args!("edges: {e}")))
    }
}

/// A list whose elements go to a function.
struct Each<T, F>(F, PhantomData<T>);

fn each<T, E, F: FnMut(T) -> Result<(), E>>(take: F) -> Each<T, F> {
    Each(take, PhantomData)
}

impl<'de, T, F> DeserializeSeed<'de> for Each<T, F>
where
    T: Deserialize<'de>,
    F: FnMut(T) -> Result<(), serde_json::Error>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de, T, F> Visitor<'de> for Each<T, F>
where
    T: Deserialize<'de>,
    F: FnMut(T) -> Result<(), serde_json::Error>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            (self.0)(element).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}
