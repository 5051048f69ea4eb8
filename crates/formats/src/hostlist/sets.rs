//! Orders and set operations on host lists.

use super::{Hostlist, split_host};
use std::collections::HashMap;

/// Sorts by what stands before the number at the end, then by the length of the number as it is
/// written, then by its value.
fn key(host: &str) -> (&str, usize, u64) {
    match split_host(host) {
        (prefix, Some((n, width))) => (prefix, width, n),
        (prefix, None) => (prefix, 0, 0),
    }
}

impl Hostlist {
    /// Sorts by prefix, length of the number and number. O(n log n) in hosts.
    pub fn sort(&mut self) {
        let mut hosts: Vec<String> = self.iter().collect();
        hosts.sort_by(|a, b| key(a).cmp(&key(b)));
        *self = hosts.into_iter().collect();
    }

    /// Sorts and keeps each host once.
    pub fn uniq(&mut self) {
        let mut hosts: Vec<String> = self.iter().collect();
        hosts.sort_by(|a, b| key(a).cmp(&key(b)));
        hosts.dedup();
        *self = hosts.into_iter().collect();
    }

    fn select(&self, other: &Hostlist, wanted: bool) -> Hostlist {
        let index = other.index();
        self.iter()
            .filter(|host| index.contains(host) == wanted)
            .collect()
    }

    /// The hosts that are also in `other`, in the order and number they have here.
    pub fn intersection(&self, other: &Hostlist) -> Hostlist {
        self.select(other, true)
    }

    /// The hosts that are not in `other`, in the order and number they have here.
    pub fn difference(&self, other: &Hostlist) -> Hostlist {
        self.select(other, false)
    }

    /// The hosts of either list that are not in the other: ours, then theirs.
    pub fn symmetric_difference(&self, other: &Hostlist) -> Hostlist {
        let mut out = self.difference(other);
        out.append(&other.difference(self));
        out
    }

    /// Takes out one occurrence, the first, for each host of `other`.
    pub fn subtract(&mut self, other: &Hostlist) {
        let mut left: HashMap<String, usize> = HashMap::new();
        for host in other.iter() {
            *left.entry(host).or_default() += 1;
        }
        *self = self
            .iter()
            .filter(|host| match left.get_mut(host) {
                Some(n @ 1..) => {
                    *n -= 1;
                    false
                }
                _ => true,
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Hostlist {
        text.parse().expect("a hostlist in a test")
    }

    #[test]
    fn orders() {
        let mut hosts = list("foo10,bar,foo[2,01],foo,foo2");
        hosts.sort();
        assert_eq!(
            hosts.iter().collect::<Vec<_>>(),
            ["bar", "foo", "foo2", "foo2", "foo01", "foo10"]
        );
        hosts.uniq();
        assert_eq!(hosts.to_string(), "bar,foo,foo[2,01,10]");
    }

    #[test]
    fn sets() {
        let (a, b) = (list("a[1-3],b,a2"), list("a2,c"));
        assert_eq!(a.intersection(&b).to_string(), "a[2,2]");
        assert_eq!(a.difference(&b).to_string(), "a[1,3],b");
        assert_eq!(a.symmetric_difference(&b).to_string(), "a[1,3],b,c");
        let mut rest = a.clone();
        rest.subtract(&b);
        assert_eq!(rest.to_string(), "a[1,3],b,a2");
    }
}
