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

    /// The vertex at a path of any subsystem.
    pub fn find_path(&self, path: &str) -> Option<Vertex> {
        self.find_rooted(path).or_else(|| {
            let mut others = self.paths.iter();
            others
                .find(|(_, paths)| paths.iter().any(|(_, p)| **p == *path))
                .map(|(v, _)| Vertex(*v))
        })
    }

    fn find_rooted(&self, path: &str) -> Option<Vertex> {
        let mut steps = path.strip_prefix('/')?.split('/');
        let mut name = String::new();
        let mut is = |v: Vertex, step: &str| {
            name.clear();
            self.push_name(v, &mut name);
            name == step
        };
        let first = steps.next()?;
        let start = Some(self.root()).filter(|root| is(*root, first))?;
        steps.try_fold(start, |v, step| self.children(v).find(|c| is(*c, step)))
    }
}
