//! GRUG: a recipe, itself a small graph, that generates resources.
//!
//! The recipe is walked depth first; an edge met on the way to a node not seen before generates the
//! resources of that node for every resource of its source. An id is local to the ancestor that
//! `id_scope` names. Resources of type `node` get ranks in the order of their generation.

use super::{
    ReadError,
    recipe::{Edge, Method, Recipe},
};
use crate::graph::{Builder, NewVertex};
use rustc_hash::FxHashMap;

/// The most vertices a recipe may ask for.
const LIMIT: usize = 64 << 20;

/// Reads a recipe and generates what it says.
pub fn read(text: &str) -> Result<Builder, ReadError> {
    let recipe = Recipe::parse(text)?;
    let mut generator = Generator {
        made: vec![Vec::new(); recipe.nodes.len()],
        seen: vec![false; recipe.nodes.len()],
        recipe: &recipe,
        builder: Builder::default(),
        scales: Vec::new(),
        names: Vec::new(),
        above: FxHashMap::default(),
        next_rank: 0,
    };
    for node in 0..recipe.nodes.len() {
        if !generator.seen[node] {
            generator.walk(node, 0)?;
        }
    }
    if generator.builder.is_empty() {
        let message = "nothing is generated: no edge begins at a node with root=1".into();
        return Err(ReadError::Recipe {
            place: "graph".into(),
            message,
        });
    }
    Ok(generator.builder)
}

/// How deep a recipe may be.
const DEPTH: usize = 256;

struct Generator<'a> {
    recipe: &'a Recipe,
    builder: Builder,
    /// The resources of each node of the recipe.
    made: Vec<Vec<u32>>,
    seen: Vec<bool>,
    /// How often the levels above are multiplied, outermost first.
    scales: Vec<i64>,
    /// For each resource its recipe node and id, to spell names.
    names: Vec<(u32, i64)>,
    /// For (subsystem, resource) what it was made or associated under.
    above: FxHashMap<(String, u32), u32>,
    next_rank: i64,
}

impl Generator<'_> {
    fn walk(&mut self, node: usize, depth: usize) -> Result<(), ReadError> {
        if depth > DEPTH {
            let place = self.recipe.nodes[node].kind.clone();
            let message = format!("it is inside more than {DEPTH} others");
            return Err(ReadError::Recipe { place, message });
        }
        self.seen[node] = true;
        let recipe = self.recipe;
        for edge in recipe.edges.iter().filter(|e| e.from == node) {
            if self.seen[edge.to] {
                continue;
            }
            self.follow(edge)?;
            self.walk(edge.to, depth + 1)?;
        }
        self.scales.pop();
        Ok(())
    }

    fn follow(&mut self, edge: &Edge) -> Result<(), ReadError> {
        let source = &self.recipe.nodes[edge.from];
        if source.root && self.made[edge.from].is_empty() {
            // Several nodes of a recipe may stand for the root of a subsystem: it is made once.
            let same = (0..self.made.len()).find(|n| {
                let other = &self.recipe.nodes[*n];
                other.root && other.subsystem == source.subsystem && !self.made[*n].is_empty()
            });
            let root = match same {
                Some(node) => self.made[node][0],
                None => self.make(edge.from, 0, None)?,
            };
            self.made[edge.from].push(root);
        }
        match &edge.method {
            Method::Multiply(scale) => self.multiply(edge, i64::from(*scale)),
            _ => self.associate(edge),
        }
    }

    fn make(&mut self, node: usize, id: i64, like: Option<u32>) -> Result<u32, ReadError> {
        let recipe = &self.recipe.nodes[node];
        if self.builder.len() >= LIMIT {
            let message = format!("more than {LIMIT} resources");
            return Err(ReadError::Recipe {
                place: recipe.kind.clone(),
                message,
            });
        }
        let rank = if recipe.kind == "node" {
            self.next_rank += 1;
            self.next_rank - 1
        } else {
            -1
        };
        self.names.push((node as u32, id));
        let uniq = self.builder.len() as u64;
        if let Some(first) = like {
            return Ok(self.builder.like(first, id, rank, uniq)?);
        }
        let new = NewVertex {
            rank,
            size: recipe.size,
            unit: &recipe.unit,
            ..NewVertex::new(&recipe.kind, &recipe.base, id, uniq)
        };
        Ok(self.builder.vertex(new)?)
    }

    fn multiply(&mut self, edge: &Edge, scale: i64) -> Result<(), ReadError> {
        let sources = std::mem::take(&mut self.made[edge.from]);
        let subsystem = self.builder.subsystem(&edge.subsystem)?;
        let mut made = Vec::with_capacity(sources.len() * scale as usize);
        let wrap: i64 = match usize::try_from(edge.id_scope) {
            Ok(scope) => self.scales.iter().rev().take(scope).product(),
            Err(_) => 1,
        };
        let keep_parents = self.needs_parents(&edge.subsystem);
        for (j, source) in sources.iter().enumerate() {
            for i in 0..scale {
                let id = match edge.id_scope {
                    ..0 => -1,
                    0 => edge.id_start + i,
                    _ => edge.id_start + (j as i64 % wrap * scale + i) * edge.id_stride,
                };
                let new = self.make(edge.to, id, made.first().copied())?;
                self.builder.edge(subsystem, *source, new);
                if keep_parents {
                    self.above.insert((edge.subsystem.clone(), new), *source);
                }
                made.push(new);
            }
        }
        self.made[edge.from] = sources;
        self.made[edge.to] = made;
        self.scales.push(scale);
        Ok(())
    }

    /// Whether paths of a subsystem will be compared or have to be noted.
    fn needs_parents(&self, subsystem: &str) -> bool {
        self.recipe.edges.iter().any(|e| match &e.method {
            Method::Multiply(_) => false,
            Method::Associate => e.subsystem == subsystem,
            Method::AssociateByPath { subsystem: by, .. } => {
                by == subsystem || e.subsystem == subsystem
            }
        })
    }

    fn path(&self, subsystem: &str, v: u32) -> Vec<u32> {
        let key = |v| (subsystem.to_owned(), v);
        let up = std::iter::successors(Some(v), |v| self.above.get(&key(*v)).copied());
        let mut path: Vec<u32> = up.collect();
        path.reverse();
        path
    }

    fn spell(&self, path: &[u32]) -> String {
        let mut text = String::new();
        for v in path {
            let (node, id) = self.names[*v as usize];
            text.push('/');
            text.push_str(&self.recipe.nodes[node as usize].base);
            if id != -1 {
                text.push_str(&id.to_string());
            }
        }
        text
    }

    fn associate(&mut self, edge: &Edge) -> Result<(), ReadError> {
        let kind = &self.recipe.nodes[edge.to].kind;
        let targets: Vec<u32> = (0..self.names.len() as u32)
            .filter(|v| self.recipe.nodes[self.names[*v as usize].0 as usize].kind == *kind)
            .collect();
        let subsystem = self.builder.subsystem(&edge.subsystem)?;
        let mut made = Vec::new();
        for source in self.made[edge.from].clone() {
            let prefix = |v: u32, by: &str, up: usize| {
                let path = self.path(by, v);
                path.len().checked_sub(up).map(|n| path[..n].to_vec())
            };
            let chosen: Vec<u32> = match &edge.method {
                Method::AssociateByPath {
                    subsystem: by,
                    target_up,
                    source_up,
                } => {
                    let wanted = prefix(source, by, *source_up);
                    let fits = |v: &&u32| prefix(**v, by, *target_up) == wanted;
                    targets.iter().filter(fits).copied().collect()
                }
                _ => targets.clone(),
            };
            for target in chosen {
                self.builder.edge(subsystem, source, target);
                self.above.insert((edge.subsystem.clone(), target), source);
                let path = self.spell(&self.path(&edge.subsystem, target));
                self.builder.path(target, &edge.subsystem, &path)?;
                made.push(target);
            }
        }
        self.made[edge.to] = made;
        Ok(())
    }
}
