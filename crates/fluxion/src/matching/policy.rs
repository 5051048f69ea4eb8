//! Which of the resources that would do are taken.

use crate::graph::{Graph, Vertex, Word};

/// How candidates are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Greater scores first.
    Descending,
    /// Smaller scores first.
    Ascending,
    /// At the top, runs of neighbouring scores first, those of greater scores before others;
    /// below, greater scores first.
    Runs,
}

/// What a score is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// The logical id.
    Id,
    /// The property `perf_class`.
    PerformanceClass,
}

/// A policy of choosing resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What is preferred.
    pub order: Order,
    /// What it goes by.
    pub score: Score,
    /// Whether the ids of nodes go before the ids of what is in them.
    pub node_centric: bool,
    /// Whether every node that is part of a match is taken whole.
    pub node_exclusive: bool,
    /// Whether the search ends as soon as there is enough.
    pub first: bool,
}

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("match policy '{text}': {message}")]
#[allow(missing_docs)] // their messages say it
pub struct PolicyError {
    pub text: String,
    pub message: &'static str,
}

/// The performance class of a node that has none.
const SLOWEST: i64 = 9999;
/// How much a node's id weighs against the ids of what is in it.
const NODE_WEIGHT: i64 = 10_000;

impl Policy {
    const HIGH: Policy = Policy {
        order: Order::Descending,
        score: Score::Id,
        node_centric: false,
        node_exclusive: false,
        first: false,
    };

    /// The policy of a name, or of `policy=low|high` with `node_centric`, `node_exclusive` and
    /// `stop_on_1_matches`, each `=true|false`.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        let high = Policy::HIGH;
        let low = Policy {
            order: Order::Ascending,
            ..high
        };
        let node = |p: Policy| Policy {
            node_centric: true,
            ..p
        };
        let nodex = |p: Policy| Policy {
            node_exclusive: true,
            ..node(p)
        };
        Ok(match text {
            "first" => Policy {
                first: true,
                ..node(high)
            },
            "firstnodex" => Policy {
                first: true,
                ..nodex(high)
            },
            "high" => high,
            "low" => low,
            "hinode" => node(high),
            "lonode" => node(low),
            "hinodex" => nodex(high),
            "lonodex" => nodex(low),
            "locality" => Policy {
                order: Order::Runs,
                ..high
            },
            "variation" => Policy {
                order: Order::Ascending,
                score: Score::PerformanceClass,
                ..high
            },
            custom => return Policy::custom(custom),
        })
    }

    fn custom(text: &str) -> Result<Policy, PolicyError> {
        let fault = |message| PolicyError {
            text: text.to_owned(),
            message,
        };
        let mut policy = Policy::HIGH;
        let mut ordered = false;
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| fault("unknown"))?;
            if key == "policy" {
                ordered = true;
                policy.order = match value {
                    "high" => Order::Descending,
                    "low" => Order::Ascending,
                    _ => return Err(fault("policy must be high or low")),
                };
                continue;
            }
            let set = match value {
                "true" => true,
                "false" => false,
                _ => return Err(fault("options must be true or false")),
            };
            match key {
                "node_centric" => policy.node_centric = set,
                "node_exclusive" => policy.node_exclusive = set,
                "stop_on_1_matches" => policy.first = set,
                _ => return Err(fault("unknown option")),
            }
        }
        match ordered {
            true => Ok(policy),
            false => Err(fault("unknown")),
        }
    }

    /// What being inside a vertex adds to a score.
    pub(super) fn weight(&self, graph: &Graph, v: Vertex, node: Option<Word>) -> i64 {
        if !self.node_centric || Some(graph.kind(v)) != node {
            return 0;
        }
        let tie = (graph.uniq(v) % NODE_WEIGHT as u64) as i64 - 1;
        (graph.id(v) + 2) * NODE_WEIGHT + tie.abs()
    }

    /// The score of a vertex that would do, inside others that weigh so much.
    pub(super) fn score(&self, graph: &Graph, v: Vertex, inside: i64) -> i64 {
        match self.score {
            Score::Id => 1 + inside + graph.id(v) + 1,
            Score::PerformanceClass => {
                let class = graph.properties(v).and_then(|p| p.get("perf_class"));
                let class = class.and_then(|text| text.trim().parse().ok());
                1 + class
                    .filter(|c| (0..=SLOWEST).contains(c))
                    .unwrap_or(SLOWEST)
            }
        }
    }
}
