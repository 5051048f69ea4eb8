//! The Fluxion scheduler's resource graph in an R's `scheduling` key: RFC 40, the JSON Graph
//! Format.
//!
//! A typed view of what the rest of Flux passes along unread. Vertices and edges keep members
//! that are not known here.

use super::ResourceSet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// A resource graph.
///
/// ```
/// use formats::resource_set::jgf::Graph;
/// use serde_json::json;
///
/// let node = |id: &str, kind: &str| json!({"id": id, "metadata": {"type": kind, "basename": kind}});
/// let graph = Graph::from_scheduling(&json!({"graph": {
///     "nodes": [node("0", "cluster"), node("1", "node")],
///     "edges": [{"source": "0", "target": "1",
///                "metadata": {"subsystem": "containment", "relationship": "contains"}}],
/// }}))?.expect("this is a graph");
/// assert_eq!(graph.of_type("node").count(), 1);
/// # Ok::<(), formats::resource_set::jgf::GraphError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Its vertices.
    pub nodes: Vec<Vertex>,
    /// Its edges.
    #[serde(default)]
    pub edges: Vec<Edge>,
    /// Other keys.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A resource pool of RFC 4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vertex {
    /// Unique in the graph.
    pub id: String,
    /// What it is.
    pub metadata: Pool,
}

/// The data of a vertex. The RFC requires all but the scheduler leaves most out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Such as `node` or `core`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A name that is unique everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The name without its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basename: Option<String>,
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number in the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Properties, as Fluxion writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Value>,
    /// How much it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// What the size counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Execution target, paths, exclusiveness and what else the scheduler writes.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A relation between two vertices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// The vertex it starts at.
    pub source: String,
    /// The vertex it leads to.
    pub target: String,
    /// What it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Relation>,
}

/// How the source of an edge is related to its target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    /// Such as `containment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystem: Option<String>,
    /// Such as `contains`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relationship: Option<String>,
    /// Other keys.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Why scheduler data is not a graph.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum GraphError {
    #[error("R.scheduling.graph: {0}")]
    Json(#[from] serde_json::Error),
    #[error("R.scheduling.graph.nodes[{at}].id: {id:?} is the id of an earlier vertex")]
    Duplicate { at: usize, id: String },
    #[error("R.scheduling.graph.edges[{at}].{end}: there is no vertex {id:?}")]
    Dangling {
        at: usize,
        end: &'static str,
        id: String,
    },
}

impl Graph {
    /// The graph in the value of `scheduling`; `None` if another writer wrote that.
    pub fn from_scheduling(scheduling: &Value) -> Result<Option<Graph>, GraphError> {
        let writer = scheduling.get("writer").and_then(Value::as_str);
        let graph = scheduling.get("graph");
        let (None | Some("fluxion" | "fluxion:jgf"), Some(graph)) = (writer, graph) else {
            return Ok(None);
        };
        let graph = Graph::deserialize(graph)?;
        graph.check()?;
        Ok(Some(graph))
    }

    /// The value of `scheduling` that holds the graph.
    pub fn to_scheduling(&self) -> Value {
        serde_json::json!({ "writer": "fluxion:jgf", "graph": self })
    }

    fn check(&self) -> Result<(), GraphError> {
        let mut ids = HashSet::new();
        for (at, vertex) in self.nodes.iter().enumerate() {
            if !ids.insert(&vertex.id) {
                let id = vertex.id.clone();
                return Err(GraphError::Duplicate { at, id });
            }
        }
        for (at, edge) in self.edges.iter().enumerate() {
            for (end, id) in [("source", &edge.source), ("target", &edge.target)] {
                if !ids.contains(id) {
                    let id = id.clone();
                    return Err(GraphError::Dangling { at, end, id });
                }
            }
        }
        Ok(())
    }

    /// The graph of a set: a cluster with its nodes, which have all else directly in them.
    ///
    /// ```
    /// use formats::{ResourceSet, resource_set::jgf::Graph};
    ///
    /// let mut set = ResourceSet::new();
    /// set.add(0, "a7", &"0-1".parse()?, &"0".parse()?);
    /// let graph = Graph::of_nodes(&set);
    /// assert_eq!(graph.of_type("core").count(), 2);
    /// assert_eq!(graph.nodes[1].metadata.extra["paths"]["containment"], "/cluster0/a7");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of_nodes(set: &ResourceSet) -> Graph {
        let mut graph = Graph::default();
        graph.extra.insert("directed".into(), Value::from(false));
        let cluster = Pool {
            kind: "cluster".into(),
            ..Pool::default()
        };
        let root = graph.add(cluster, None, "/cluster0");
        for target in set.targets() {
            let at_rank = || Map::from_iter([("rank".to_owned(), Value::from(target.rank))]);
            let named = set.properties_of(target.rank);
            let properties: Map<_, _> = named.map(|p| (p.to_owned(), Value::from(""))).collect();
            let node = Pool {
                kind: "node".into(),
                name: Some(target.host.to_string()),
                properties: (!properties.is_empty()).then_some(Value::Object(properties)),
                extra: at_rank(),
                ..Pool::default()
            };
            let path = format!("/cluster0/{}", target.host);
            let at = graph.add(node, Some(&root), &path);
            for (kind, ids) in target.children.iter() {
                for id in ids.iter() {
                    let pool = Pool {
                        kind: kind.to_owned(),
                        id: Some(i64::from(id)),
                        extra: at_rank(),
                        ..Pool::default()
                    };
                    graph.add(pool, Some(&at), &format!("{path}/{kind}{id}"));
                }
            }
        }
        graph
    }

    /// Adds a vertex with the next id; that id.
    fn add(&mut self, mut pool: Pool, above: Option<&str>, path: &str) -> String {
        let id = self.nodes.len().to_string();
        let paths = serde_json::json!({ "containment": path });
        pool.extra.insert("paths".into(), paths);
        self.nodes.push(Vertex {
            id: id.clone(),
            metadata: pool,
        });
        self.edges.extend(above.map(|above| Edge {
            source: above.to_owned(),
            target: id.clone(),
            metadata: None,
        }));
        id
    }

    /// The vertices of a type, such as `node` or `core`.
    pub fn of_type(&self, kind: &str) -> impl Iterator<Item = &Vertex> {
        self.nodes.iter().filter(move |v| v.metadata.kind == kind)
    }

    /// Adds vertices and edges of `other` that are not there yet: vertices are told apart by
    /// id, edges by ends and subsystem.
    pub fn append(&mut self, other: &Graph) {
        let ids: HashSet<String> = self.nodes.iter().map(|v| v.id.clone()).collect();
        let new = other.nodes.iter().filter(|v| !ids.contains(&v.id));
        self.nodes.extend(new.cloned());
        type Key = (String, String, Option<String>);
        let key = |e: &Edge| -> Key {
            let subsystem = e.metadata.as_ref().and_then(|m| m.subsystem.clone());
            (e.source.clone(), e.target.clone(), subsystem)
        };
        let known: HashSet<Key> = self.edges.iter().map(key).collect();
        let new = other.edges.iter().filter(|e| !known.contains(&key(e)));
        self.edges.extend(new.cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn graph(ids: &[&str], edges: &[(&str, &str)]) -> Value {
        let nodes = ids
            .iter()
            .map(|id| json!({"id": id, "metadata": {"type": "core", "rank": 0}}));
        let edges = edges.iter().map(|(s, t)| {
            json!({"source": s, "target": t,
            "metadata": {"subsystem": "containment", "relationship": "contains"}})
        });
        json!({"graph": {"nodes": nodes.collect::<Value>(), "edges": edges.collect::<Value>()}})
    }

    #[test]
    fn graphs() {
        let value = graph(&["0", "1"], &[("0", "1")]);
        let mut a = Graph::from_scheduling(&value).unwrap().unwrap();
        assert_eq!(a.to_scheduling()["graph"], value["graph"]);
        let b = Graph::from_scheduling(&graph(&["0", "2"], &[("0", "2")]))
            .unwrap()
            .unwrap();
        a.append(&b);
        a.append(&b);
        assert_eq!((a.nodes.len(), a.edges.len()), (3, 2));
        assert_eq!(a.nodes[0].metadata.extra["rank"], 0);
        let other = json!({"writer": "TreePool", "graph": 0});
        assert_eq!(Graph::from_scheduling(&other).unwrap(), None);
    }

    #[test]
    fn faults() {
        let fails = |v: Value| Graph::from_scheduling(&v).unwrap_err().to_string();
        insta::assert_snapshot!([
            fails(graph(&["0", "0"], &[])),
            fails(graph(&["0"], &[("0", "1")])),
            fails(json!({"graph": {}})),
        ].join("\n"), @r#"
        R.scheduling.graph.nodes[1].id: "0" is the id of an earlier vertex
        R.scheduling.graph.edges[0].target: there is no vertex "1"
        R.scheduling.graph: missing field `nodes`
        "#);
    }
}
