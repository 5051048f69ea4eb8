//! The plugins in the order in which they were loaded, and which of them handle a topic.
//!
//! Who handles a topic is found once and remembered until a plugin comes, goes or changes its mind: a topic that nobody
//! handles costs one look.

use std::collections::HashMap;
use std::sync::Arc;

use wire::Glob;

use super::tap::{Body, Builtin, Order, Tap};

/// Topics remembered: there are about twenty, besides those that name events and keys.
const REMEMBERED: usize = 256;

/// The stack.
#[derive(Debug)]
pub(super) struct Stack {
    taps: Vec<Arc<Tap>>,
    /// The plugins that are not the manager itself.
    foreign: usize,
    /// Who handles a topic, and the changes of all handlers when that was found.
    matching: HashMap<String, Arc<[Arc<Tap>]>>,
    changes: u64,
}

impl Default for Stack {
    fn default() -> Self {
        let mut stack = Self {
            taps: Vec::new(),
            foreign: 0,
            matching: HashMap::new(),
            changes: 0,
        };
        for (builtin, _) in Builtin::ALL {
            stack.push_builtin(builtin);
        }
        stack
    }
}

/// Whether a plugin of this name is meant: a name, a glob (a leading dot has to be named), or `all` that are not built in.
fn is_meant(pattern: &str, name: &str) -> bool {
    let is_hidden = name.starts_with('.');
    match pattern {
        "all" => !is_hidden,
        _ if pattern.contains(['*', '?', '[']) => {
            (!is_hidden || pattern.starts_with('.')) && Glob::new(pattern).matches(name)
        }
        _ => pattern == name,
    }
}

impl Stack {
    fn push_builtin(&mut self, builtin: Builtin) {
        let names = Builtin::ALL.iter().chain(&Builtin::ON_DEMAND);
        let name = names.clone().find(|(b, _)| *b == builtin);
        let name = name.map_or("", |(_, name)| name).to_owned();
        self.push(Tap {
            serial: 0,
            name,
            path: "builtin".to_owned(),
            body: Body::Builtin(builtin),
            order: Order::None,
        });
    }

    /// Put in a builtin by its name, if it is one.
    pub(super) fn restore_builtin(&mut self, name: &str) -> bool {
        let mut names = Builtin::ALL.iter().chain(&Builtin::ON_DEMAND);
        let found = names.find(|(_, known)| *known == name);
        if let Some((builtin, _)) = found {
            self.push_builtin(*builtin);
        }
        found.is_some()
    }

    pub(super) fn push(&mut self, tap: Tap) -> Arc<Tap> {
        let tap = Arc::new(tap);
        self.taps.push(tap.clone());
        self.changed();
        tap
    }

    fn changed(&mut self) {
        self.foreign = self.taps.iter().filter(|tap| !tap.is_builtin()).count();
        self.matching.clear();
    }

    /// Take out the plugins that are meant.
    pub(super) fn remove(&mut self, pattern: &str) -> Vec<Arc<Tap>> {
        let gone = self
            .taps
            .extract_if(.., |tap| is_meant(pattern, &tap.name))
            .collect();
        self.changed();
        gone
    }

    /// Take out those that do not work any more.
    pub(super) fn remove_broken(&mut self) -> Vec<Arc<Tap>> {
        if self.foreign == 0 || self.taps.iter().all(|tap| tap.broken().is_none()) {
            return Vec::new();
        }
        let is_broken = |tap: &mut Arc<Tap>| tap.broken().is_some();
        let gone = self.taps.extract_if(.., is_broken).collect();
        self.changed();
        gone
    }

    /// Whether only the manager itself is in it.
    pub(super) fn is_plain(&self) -> bool {
        self.foreign == 0
    }

    pub(super) fn has(&self, builtin: Builtin) -> bool {
        let is_it = |tap: &Arc<Tap>| matches!(tap.body, Body::Builtin(b) if b == builtin);
        self.taps.iter().any(is_it)
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.taps.iter().map(|tap| tap.name.as_str()).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Tap>> {
        self.taps.clone()
    }

    pub(super) fn named(&self, name: &str) -> Option<Arc<Tap>> {
        self.taps.iter().find(|tap| tap.name == name).cloned()
    }

    pub(super) fn by_serial(&self, serial: u64) -> Option<Arc<Tap>> {
        let is_it = |tap: &&Arc<Tap>| tap.serial == serial && !tap.is_builtin();
        self.taps.iter().find(is_it).cloned()
    }

    /// Who handles a topic, in order.
    pub(super) fn matching(&mut self, topic: &str) -> Arc<[Arc<Tap>]> {
        if self.foreign == 0 {
            return Arc::default();
        }
        let changes = self.taps.iter().map(|tap| tap.changes()).sum();
        if changes != self.changes || self.matching.len() >= REMEMBERED {
            self.matching.clear();
            self.changes = changes;
        }
        if let Some(found) = self.matching.get(topic) {
            return found.clone();
        }
        let found = self.taps.iter().filter(|tap| tap.handles(topic));
        let found: Arc<[Arc<Tap>]> = found.cloned().collect();
        self.matching.insert(topic.to_owned(), found.clone());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtins_are_hidden() {
        let mut stack = Stack::default();
        assert!(stack.is_plain() && stack.has(Builtin::BeginTime));
        assert!(stack.matching("job.new").is_empty());
        assert!(stack.remove("all").is_empty() && stack.remove("*").is_empty());
        assert_eq!(stack.remove(".begin-time").len(), 1);
        assert!(!stack.has(Builtin::BeginTime));
        assert!(stack.restore_builtin(".begin-time") && !stack.restore_builtin(".none"));
        assert_eq!(stack.names().last(), Some(&".begin-time"));
        assert_eq!(stack.remove(".limit-*").len(), 2);
        assert_eq!(stack.remove(".*").len(), 9);
    }

    #[test]
    fn who_is_meant() {
        for (pattern, name, want) in [
            ("all", "a.so", true),
            ("all", ".a", false),
            ("a.so", "a.so", true),
            ("a", "a.so", false),
            ("a*", "a.so", true),
            ("[ab].so", "b.so", true),
            (".?", ".a", true),
            ("?a", ".a", false),
        ] {
            assert_eq!(is_meant(pattern, name), want, "{pattern} {name}");
        }
    }
}
