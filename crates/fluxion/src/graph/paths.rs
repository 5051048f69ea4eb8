//! Names and paths, which are made from parents when somebody asks.

use super::{Graph, Vertex, Word};

impl Graph {
    /// Appends the name.
    pub fn push_name(&self, v: Vertex, out: &mut String) {
        use std::fmt::Write;
        if let Some(name) = self.names.get(&v.0) {
            return out.push_str(name);
        }
        out.push_str(self.base(v));
        if self.id(v) != -1 {
            let _ = write!(out, "{}", self.id(v));
        }
    }

    /// The name: a name of its own, or basename and id.
    pub fn name(&self, v: Vertex) -> String {
        let mut out = String::new();
        self.push_name(v, &mut out);
        out
    }

    /// The name if it is not basename and id.
    pub fn own_name(&self, v: Vertex) -> Option<&str> {
        self.names.get(&v.0).map(|name| &**name)
    }

    /// Appends the path in the dominant subsystem.
    pub fn push_path(&self, v: Vertex, out: &mut String) {
        if let Some(parent) = self.parent(v) {
            self.push_path(parent, out);
        }
        out.push('/');
        self.push_name(v, out);
    }

    /// The path in the dominant subsystem.
    pub fn path(&self, v: Vertex) -> String {
        let mut out = String::new();
        self.push_path(v, &mut out);
        out
    }

    /// Its paths in the other subsystems.
    pub fn other_paths(&self, v: Vertex) -> &[(Word, Box<str>)] {
        self.paths.get(&v.0).map_or(&[], Vec::as_slice)
    }

    /// Whether it is reached from the root of the dominant subsystem.
    pub fn is_rooted(&self, v: Vertex) -> bool {
        self.subtree(self.root()).contains(&v.0)
    }

    /// The first vertex at a path of any subsystem.
    pub fn find_path(&self, path: &str) -> Option<Vertex> {
        self.find_paths(path).first().copied()
    }

    /// The vertices at a path of any subsystem. Names need not be unique.
    pub fn find_paths(&self, path: &str) -> Vec<Vertex> {
        let mut found = Vec::new();
        if let Some(path) = path.strip_prefix('/') {
            self.descend(self.root(), path, &mut found);
        }
        if found.is_empty() {
            let has = |paths: &[(Word, Box<str>)]| paths.iter().any(|(_, p)| **p == *path);
            found.extend(self.paths.iter().filter(|p| has(p.1)).map(|p| Vertex(*p.0)));
            found.sort_unstable();
        }
        found
    }

    fn descend(&self, v: Vertex, path: &str, found: &mut Vec<Vertex>) {
        let (step, rest) = match path.split_once('/') {
            Some((step, rest)) => (step, Some(rest)),
            None => (path, None),
        };
        if !self.has_name(v, step) {
            return;
        }
        match rest {
            None => found.push(v),
            Some(rest) => self.children(v).for_each(|c| self.descend(c, rest, found)),
        }
    }

    fn has_name(&self, v: Vertex, name: &str) -> bool {
        if let Some(own) = self.own_name(v) {
            return own == name;
        }
        let id = self.id(v);
        name.strip_prefix(self.base(v))
            .is_some_and(|rest| match id {
                -1 => rest.is_empty(),
                _ => rest.parse() == Ok(id) && (rest == "0" || !rest.starts_with(['0', '+'])),
            })
    }
}
