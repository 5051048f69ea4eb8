//! R version 1, RFC 20: nodes below one cluster, each with what its rank has.

use super::{ReadError, content};
use crate::graph::{Builder, Graph, NewVertex, Vertex};
use crate::matching::Selected;
use formats::{Hostlist, Idset};
use serde_json::Value;
use std::collections::BTreeMap;

/// Ids by type.
type Children = Vec<(String, Idset)>;

/// What the execution section of an R says.
#[derive(Debug)]
pub struct Execution {
    /// By rank: the host, and ids by type.
    nodes: Vec<(u32, String, Children)>,
    /// Properties of ranks, `name` or `name@type`.
    properties: Vec<(String, Idset)>,
}

/// A node of an R.
pub(super) struct Node<'a> {
    pub(super) rank: u32,
    host: &'a str,
    pub(super) children: &'a Children,
    execution: &'a Execution,
}

impl Node<'_> {
    /// The node as a vertex.
    pub(super) fn vertex(&self) -> NewVertex<'_> {
        NewVertex::host(self.host)
    }

    pub(super) fn properties(&self) -> impl Iterator<Item = &str> {
        let all = self.execution.properties.iter();
        all.filter(|(_, ranks)| ranks.contains(self.rank))
            .map(|(name, _)| name.as_str())
    }
}

fn idset(value: Option<&Value>, place: &str) -> Result<Idset, ReadError> {
    let text = value
        .and_then(Value::as_str)
        .ok_or_else(|| content(place, "must be a set of ids"))?;
    text.parse().map_err(|e| content(place, format!("{e}")))
}

impl Execution {
    /// Reads an R.
    pub fn parse(text: &str) -> Result<Execution, ReadError> {
        Execution::of(&serde_json::from_str(text)?)
    }

    /// Reads an R.
    pub fn of(r: &Value) -> Result<Execution, ReadError> {
        if r.get("version").and_then(Value::as_i64) != Some(1) {
            return Err(content("R.version", "must be 1"));
        }
        let execution = r
            .get("execution")
            .ok_or_else(|| content("R", "there is no execution"))?;
        let entries = execution.get("R_lite").and_then(Value::as_array);
        let entries = entries.ok_or_else(|| content("R.execution.R_lite", "must be a list"))?;
        let mut nodes: BTreeMap<u32, Children> = BTreeMap::new();
        for (i, entry) in entries.iter().enumerate() {
            let place = format!("R.execution.R_lite[{i}]");
            let ranks = idset(entry.get("rank"), &format!("{place}.rank"))?;
            let children = entry.get("children").and_then(Value::as_object);
            let children = children.ok_or_else(|| content(&*place, "there are no children"))?;
            let read = |(kind, ids): (&String, &Value)| {
                Ok((
                    kind.clone(),
                    idset(Some(ids), &format!("{place}.children.{kind}"))?,
                ))
            };
            let children: Children = children
                .iter()
                .map(read)
                .collect::<Result<_, ReadError>>()?;
            for rank in ranks.iter() {
                if nodes.insert(rank, children.clone()).is_some() {
                    return Err(content(place, format!("rank {rank} is listed twice")));
                }
            }
        }
        let mut hosts = Hostlist::new();
        let listed = execution.get("nodelist").and_then(Value::as_array);
        for text in listed.into_iter().flatten() {
            let place = "R.execution.nodelist";
            let text = text
                .as_str()
                .ok_or_else(|| content(place, "must be host names"))?;
            hosts
                .append_str(text)
                .map_err(|e| content(place, format!("{e}")))?;
        }
        if hosts.len() != nodes.len() {
            let message = format!("{} hosts for {} ranks", hosts.len(), nodes.len());
            return Err(content("R.execution.nodelist", message));
        }
        let mut properties = Vec::new();
        for (name, ranks) in execution
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let ranks = idset(Some(ranks), &format!("R.execution.properties.{name}"))?;
            properties.push((name.clone(), ranks));
        }
        let named = nodes.into_iter().zip(hosts.iter());
        Ok(Execution {
            nodes: named
                .map(|((rank, children), host)| (rank, host, children))
                .collect(),
            properties,
        })
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.nodes.iter().map(|(rank, host, children)| Node {
            rank: *rank,
            host,
            children,
            execution: self,
        })
    }

    /// The ranks.
    pub fn ranks(&self) -> impl Iterator<Item = u32> + '_ {
        self.nodes.iter().map(|n| n.0)
    }

    /// The vertices of a graph that are meant: a node is exclusive if all it contains is.
    pub fn chosen(&self, graph: &Graph) -> Result<Vec<Selected>, ReadError> {
        let mut chosen = Vec::new();
        for (rank, host, children) in &self.nodes {
            let place = || format!("rank {rank}");
            let node = graph.of_rank(i64::from(*rank)).first().copied();
            let node = node.filter(|v| graph.name(*v) == *host);
            let node = node.ok_or_else(|| content(place(), format!("there is no node {host}")))?;
            let before = chosen.len();
            let mut take = |vertex, exclusive| {
                chosen.push(Selected {
                    vertex,
                    amount: graph.size(vertex),
                    exclusive,
                    whole: false,
                    label: None,
                });
            };
            for (kind, ids) in children {
                let word = graph.words().find(kind);
                let mut of_kind = graph
                    .subtree(node)
                    .map(Vertex)
                    .filter(|v| Some(graph.kind(*v)) == word);
                let mut left = ids.clone();
                of_kind.by_ref().for_each(|v| {
                    if u32::try_from(graph.id(v)).is_ok_and(|id| left.remove(id)) {
                        take(v, true);
                    }
                });
                if !left.is_empty() {
                    return Err(content(place(), format!("{host} has no {kind} {left}")));
                }
            }
            let taken = chosen.len() - before;
            let leaves = graph
                .subtree(node)
                .filter(|v| graph.is_leaf(Vertex(*v)))
                .count();
            chosen.push(Selected {
                vertex: node,
                amount: graph.size(node),
                exclusive: taken == leaves,
                whole: taken == leaves,
                label: None,
            });
        }
        Ok(chosen)
    }
}

/// Reads a graph.
pub fn read(text: &str) -> Result<Builder, ReadError> {
    let execution = Execution::parse(text)?;
    let mut builder = Builder::default();
    let contained = builder.subsystem("containment")?;
    let root = builder.vertex(NewVertex::new("cluster", "cluster", 0, 0))?;
    let mut uniq = 1;
    for node in execution.nodes() {
        let mut add = |new: NewVertex, above: u32| -> Result<u32, ReadError> {
            let number = builder.vertex(NewVertex {
                rank: i64::from(node.rank),
                uniq,
                ..new
            })?;
            uniq += 1;
            builder.edge(contained, above, number);
            Ok(number)
        };
        let at = add(node.vertex(), root)?;
        for (kind, ids) in node.children {
            for id in ids.iter() {
                add(NewVertex::new(kind, kind, i64::from(id), 0), at)?;
            }
        }
        for name in node.properties() {
            builder.property(at, name, "");
        }
    }
    Ok(builder)
}
