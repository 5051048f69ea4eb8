//! The order of the vertices: depth first from the root of the dominant subsystem.

use super::{GraphError, NOBODY};
use rustc_hash::FxHashSet;

/// How deep a graph may be.
pub(super) const DEPTH: u32 = 256;

/// Where vertices go, and what contains what.
pub(super) struct Order {
    /// For each place of the preorder the vertex.
    pub(super) order: Vec<u32>,
    /// For each vertex what contains it: of several, by which it was first met.
    pub(super) parent: Vec<u32>,
    /// All children, in order, of vertices with some that have another parent.
    pub(super) rows: Vec<(u32, Vec<u32>)>,
}

/// Children of all vertices, one list after the other.
struct Children {
    first: Vec<u32>,
    list: Vec<u32>,
}

impl Children {
    fn new(vertices: usize, edges: &[(u32, u32)]) -> Children {
        let mut first = vec![0u32; vertices + 1];
        for (from, _) in edges {
            first[*from as usize + 1] += 1;
        }
        for i in 0..vertices {
            first[i + 1] += first[i];
        }
        let mut fill = first.clone();
        let mut list = vec![0u32; edges.len()];
        for (from, to) in edges {
            list[fill[*from as usize] as usize] = *to;
            fill[*from as usize] += 1;
        }
        Children { first, list }
    }

    fn of(&self, v: u32) -> &[u32] {
        &self.list[self.first[v as usize] as usize..self.first[v as usize + 1] as usize]
    }
}

impl Order {
    /// The order that edges make; `uniq` and `name` are for errors.
    pub(super) fn of(
        mut edges: Vec<(u32, u32)>,
        uniq: &[u64],
        name: &str,
    ) -> Result<Order, GraphError> {
        let n = uniq.len();
        let mut parent = vec![NOBODY; n];
        let mut is_tree = true;
        for (from, to) in &edges {
            is_tree &= parent[*to as usize] == NOBODY;
            parent[*to as usize] = *from;
        }
        if !is_tree {
            let mut known = FxHashSet::default();
            edges.retain(|edge| known.insert(*edge));
        }
        let children = Children::new(n, &edges);
        drop(edges);
        let mut roots = (0..n as u32)
            .filter(|v| parent[*v as usize] == NOBODY && (!children.of(*v).is_empty() || n == 1));
        let no_root = || GraphError::NoRoot(name.to_owned());
        let root = roots.next().ok_or_else(no_root)?;
        if let Some(second) = roots.next() {
            let text = |v: u32| uniq[v as usize].to_string();
            return Err(GraphError::Roots(name.to_owned(), text(root), text(second)));
        }
        let mut met = vec![false; if is_tree { 0 } else { n }];
        let mut order = Vec::with_capacity(n);
        let mut stack = vec![(root, NOBODY, 0)];
        while let Some((v, from, depth)) = stack.pop() {
            if depth > DEPTH {
                return Err(GraphError::Deep(uniq[v as usize]));
            }
            if !is_tree {
                if std::mem::replace(&mut met[v as usize], true) {
                    continue;
                }
                parent[v as usize] = from;
            }
            order.push(v);
            let below = children.of(v).iter().rev();
            stack.extend(below.map(|c| (*c, v, depth + 1)));
        }
        if order.len() < n {
            let mut seen = vec![false; n];
            order.iter().for_each(|v| seen[*v as usize] = true);
            for v in 0..n as u32 {
                if !seen[v as usize] {
                    if parent[v as usize] != NOBODY {
                        return Err(GraphError::Cycle(name.to_owned(), uniq[v as usize]));
                    }
                    order.push(v);
                }
            }
        }
        let rows = match is_tree {
            true => Vec::new(),
            false => shared_rows(&children, &parent, uniq, name)?,
        };
        Ok(Order {
            order,
            parent,
            rows,
        })
    }
}

/// The children of vertices with some that have another parent, once it is known that nothing contains itself.
fn shared_rows(
    children: &Children,
    parent: &[u32],
    uniq: &[u64],
    name: &str,
) -> Result<Vec<(u32, Vec<u32>)>, GraphError> {
    let n = uniq.len();
    let mut above = vec![0u32; n];
    children.list.iter().for_each(|c| above[*c as usize] += 1);
    let mut depth = vec![0u32; n];
    let mut ready: Vec<u32> = (0..n as u32).filter(|v| above[*v as usize] == 0).collect();
    while let Some(v) = ready.pop() {
        if depth[v as usize] > DEPTH {
            return Err(GraphError::Deep(uniq[v as usize]));
        }
        for c in children.of(v).iter().map(|c| *c as usize) {
            depth[c] = depth[c].max(depth[v as usize] + 1);
            above[c] -= 1;
            if above[c] == 0 {
                ready.push(c as u32);
            }
        }
    }
    if let Some(v) = above.iter().position(|left| *left > 0) {
        return Err(GraphError::Cycle(name.to_owned(), uniq[v]));
    }
    let has_others = |v: &u32| children.of(*v).iter().any(|c| parent[*c as usize] != *v);
    let sharing = (0..n as u32).filter(has_others);
    Ok(sharing.map(|v| (v, children.of(v).to_vec())).collect())
}
