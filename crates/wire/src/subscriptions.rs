//! Who wants which events: a set of (subscriber, prefix), counted.
//!
//! Events go to those who have subscribed to a beginning of their topic; the empty prefix is all events.
//! Finding them costs a few steps in a sorted map for each prefix that matches, whatever else is in it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Subscriptions of many subscribers.
///
/// ```
/// let mut subs = wire::Subscriptions::default();
/// subs.add("job.", "alice");
/// subs.add("", "bob");
/// assert_eq!(subs.subscribers("job.state"), ["bob", "alice"]);
/// assert_eq!(subs.remove("job.", &"alice"), Some(0));
/// assert_eq!(subs.subscribers("job.state"), ["bob"]);
/// ```
#[derive(Debug, Clone)]
pub struct Subscriptions<K> {
    by_prefix: BTreeMap<String, Vec<(K, u32)>>,
    /// How many prefixes each subscriber has, to forget those without any in no time.
    prefixes: HashMap<K, usize>,
}

impl<K> Default for Subscriptions<K> {
    fn default() -> Self {
        Self {
            by_prefix: BTreeMap::new(),
            prefixes: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Subscriptions<K> {
    /// Add one subscription; returns how many `key` has to this prefix now.
    pub fn add(&mut self, prefix: &str, key: K) -> u32 {
        if !self.by_prefix.contains_key(prefix) {
            self.by_prefix.insert(prefix.to_owned(), Vec::new());
        }
        // Inserted just above if it was not there.
        let keys = self.by_prefix.get_mut(prefix).expect("prefix is present");
        if let Some((_, count)) = keys.iter_mut().find(|(k, _)| *k == key) {
            *count += 1;
            return *count;
        }
        *self.prefixes.entry(key.clone()).or_default() += 1;
        keys.push((key, 1));
        1
    }

    /// Undo one [`Subscriptions::add`]; returns how many are left, or `None` if there was none.
    pub fn remove(&mut self, prefix: &str, key: &K) -> Option<u32> {
        let keys = self.by_prefix.get_mut(prefix)?;
        let at = keys.iter().position(|(k, _)| k == key)?;
        keys[at].1 -= 1;
        let left = keys[at].1;
        if left == 0 {
            keys.swap_remove(at);
            if keys.is_empty() {
                self.by_prefix.remove(prefix);
            }
            if let Some(n) = self.prefixes.get_mut(key) {
                *n -= 1;
                if *n == 0 {
                    self.prefixes.remove(key);
                }
            }
        }
        Some(left)
    }

    /// Remove all subscriptions of `key`; returns its prefixes, each as often as it was subscribed.
    pub fn remove_all(&mut self, key: &K) -> Vec<String> {
        let mut gone = Vec::new();
        if self.prefixes.remove(key).is_none() {
            return gone;
        }
        self.by_prefix.retain(|prefix, keys| {
            if let Some(at) = keys.iter().position(|(k, _)| k == key) {
                let (_, count) = keys.swap_remove(at);
                gone.extend(std::iter::repeat_n(prefix.clone(), count as usize));
            }
            !keys.is_empty()
        });
        gone
    }

    /// Every prefix as often as it is subscribed by anyone.
    pub fn prefixes(&self) -> impl Iterator<Item = (&str, u32)> {
        let total = |keys: &[(K, u32)]| keys.iter().map(|k| k.1).sum();
        self.by_prefix
            .iter()
            .map(move |(p, keys)| (p.as_str(), total(keys)))
    }

    /// Nobody is subscribed to anything.
    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty()
    }

    /// Who gets an event with this topic: each subscriber once, shortest prefix first.
    pub fn subscribers(&self, topic: &str) -> Vec<K> {
        let mut found: Vec<&[(K, u32)]> = Vec::new();
        let mut below: Option<(&str, bool)> = Some((topic, true));
        // The greatest key up to a bound is either a beginning of the topic, or it shares with the topic
        // all that a smaller key could.
        while let Some((bound, inclusive)) = below {
            use std::ops::Bound::{Excluded, Included, Unbounded};
            let end = if inclusive {
                Included(bound)
            } else {
                Excluded(bound)
            };
            let Some((prefix, keys)) = self.by_prefix.range::<str, _>((Unbounded, end)).next_back()
            else {
                break;
            };
            below = if topic.starts_with(prefix.as_str()) {
                found.push(keys);
                (!prefix.is_empty()).then_some((prefix.as_str(), false))
            } else {
                Some((common(prefix, topic), true))
            };
        }
        let mut out: Vec<K> = Vec::with_capacity(found.iter().map(|keys| keys.len()).sum());
        let mut seen: std::collections::HashSet<&K> = std::collections::HashSet::new();
        let several = found.len() > 1;
        for (key, _) in found.into_iter().rev().flatten() {
            if !several || seen.insert(key) {
                out.push(key.clone());
            }
        }
        out
    }
}

/// The longest beginning two texts share.
fn common<'a>(a: &str, b: &'a str) -> &'a str {
    let mut at = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    while !b.is_char_boundary(at) {
        at -= 1;
    }
    &b[..at]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts() {
        let mut subs = Subscriptions::default();
        assert_eq!(
            (subs.add("a", 1), subs.add("a", 1), subs.add("a", 2)),
            (1, 2, 1)
        );
        assert_eq!(subs.prefixes().collect::<Vec<_>>(), [("a", 3)]);
        assert_eq!(
            (subs.remove("a", &1), subs.remove("a", &1)),
            (Some(1), Some(0))
        );
        assert_eq!((subs.remove("a", &1), subs.remove("b", &2)), (None, None));
        subs.add("a.b", 2);
        subs.add("a.b", 2);
        let mut gone = subs.remove_all(&2);
        gone.sort();
        assert_eq!(gone, ["a", "a.b", "a.b"]);
        assert!(subs.is_empty() && subs.remove_all(&2).is_empty());
    }

    proptest! {
        #[test]
        fn as_a_plain_list(
            subs in proptest::collection::vec(("[aƒ.]{0,4}", 0u8..5), 0..20),
            dropped in 0u8..5,
            topic in "[aƒ.]{0,6}",
        ) {
            let mut set = Subscriptions::default();
            for (prefix, key) in &subs {
                set.add(prefix, *key);
            }
            set.remove_all(&dropped);
            let mut got = set.subscribers(&topic);
            got.sort_unstable();
            let mut want: Vec<u8> = subs
                .iter()
                .filter(|(p, k)| *k != dropped && topic.starts_with(p.as_str()))
                .map(|s| s.1)
                .collect();
            want.sort_unstable();
            want.dedup();
            prop_assert_eq!(got, want);
        }
    }
}
