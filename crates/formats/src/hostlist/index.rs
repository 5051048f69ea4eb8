//! Positions of hosts, found by bisection.

use super::{Hostlist, split_host};

/// Hosts whose names differ in the number only and are written alike: `(prefix, padding)`.
/// A number that fills its padding is written as one without padding, hence padding 0.
type Family<'a> = (&'a str, usize);

/// Finds the first position of a host in a [`Hostlist`] in O(log r), r being the list's ranges.
/// Making it costs O(r log r).
#[derive(Debug)]
pub struct HostIndex<'a> {
    /// Disjoint ranges in order: family, first number, last number, position of the first.
    ranges: Vec<(Family<'a>, u64, u64, usize)>,
}

/// The first number that fills `width` digits.
fn fills(width: usize) -> u64 {
    if width <= 1 {
        0
    } else {
        10u64.pow(width as u32 - 1)
    }
}

fn family_of(host: &str) -> (Family<'_>, u64) {
    match split_host(host) {
        (prefix, None) => ((prefix, usize::MAX), 0),
        (prefix, Some((n, width))) if n >= fills(width) => ((prefix, 0), n),
        (prefix, Some((n, width))) => ((prefix, width), n),
    }
}

impl<'a> HostIndex<'a> {
    fn new(list: &'a Hostlist) -> HostIndex<'a> {
        let mut all = Vec::with_capacity(list.runs.len());
        let mut at = 0;
        for run in &list.runs {
            let prefix = run.prefix.as_str();
            match run.numbers {
                None => all.push(((prefix, usize::MAX), 0, 0, at)),
                Some(r) => {
                    let full = fills(r.width);
                    if r.first < full {
                        all.push(((prefix, r.width), r.first, r.last.min(full - 1), at));
                    }
                    if r.last >= full {
                        let first = r.first.max(full);
                        all.push(((prefix, 0), first, r.last, at + (first - r.first) as usize));
                    }
                }
            }
            at += run.len();
        }
        all.sort_unstable();
        HostIndex {
            ranges: disjoint(all),
        }
    }

    /// The position of the first occurrence of `host`.
    pub fn find(&self, host: &str) -> Option<usize> {
        let (family, n) = family_of(host);
        let after = self
            .ranges
            .partition_point(|&(f, first, ..)| (f, first) <= (family, n));
        let &(f, first, last, at) = self.ranges.get(after.checked_sub(1)?)?;
        (f == family && n <= last).then(|| at + (n - first) as usize)
    }

    /// Whether `host` is in the list.
    pub fn contains(&self, host: &str) -> bool {
        self.find(host).is_some()
    }
}

/// Cuts overlapping ranges, so that each number keeps the range that came first in the list.
fn disjoint<'a>(sorted: Vec<(Family<'a>, u64, u64, usize)>) -> Vec<(Family<'a>, u64, u64, usize)> {
    use std::collections::BinaryHeap;
    let mut out: Vec<(Family, u64, u64, usize)> = Vec::with_capacity(sorted.len());
    // Ranges that go on where the sweep stands: the position at which number 0 would be decides.
    let mut open: BinaryHeap<std::cmp::Reverse<(i128, u64)>> = BinaryHeap::new();
    let mut input = sorted.into_iter().peekable();
    let Some(&(mut family, mut n, ..)) = input.peek() else {
        return out;
    };
    loop {
        while let Some((f, first, last, at)) = input.next_if(|r| r.0 == family && r.1 <= n) {
            debug_assert!(f == family && first <= n);
            open.push(std::cmp::Reverse((at as i128 - i128::from(first), last)));
        }
        while open.peek().is_some_and(|r| r.0.1 < n) {
            open.pop();
        }
        match open.peek() {
            Some(&std::cmp::Reverse((zero, last))) => {
                let next = input
                    .peek()
                    .filter(|r| r.0 == family)
                    .map_or(u64::MAX, |r| r.1 - 1);
                let end = last.min(next);
                let at = (zero + i128::from(n)) as usize;
                match out.last_mut() {
                    Some(r) if r.0 == family && r.2 + 1 == n && r.3 + (n - r.1) as usize == at => {
                        r.2 = end;
                    }
                    _ => out.push((family, n, end, at)),
                }
                n = end + 1;
            }
            None => match input.peek() {
                Some(&(f, first, ..)) => (family, n) = (f, first),
                None => return out,
            },
        }
    }
}

impl Hostlist {
    /// Prepares for many searches.
    ///
    /// ```
    /// let hosts: formats::Hostlist = "a[1-3],b,a2".parse().unwrap();
    /// let index = hosts.index();
    /// assert_eq!(index.find("b"), Some(3));
    /// assert_eq!(index.find("a2"), Some(1));
    /// assert_eq!(index.find("a02"), None);
    /// ```
    pub fn index(&self) -> HostIndex<'_> {
        HostIndex::new(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_walk_finds(
            list in prop::collection::vec("[ab]{0,1}(\\[(0|00|)[0-9]-1[0-9]\\]|0{0,2}[0-9]{1,2})|[ab]", 0..20),
            hosts in prop::collection::vec("[ab]{0,1}0{0,2}[0-9]{1,2}|[ab]", 0..20),
        ) {
            let list: Hostlist = list.join(",").parse().unwrap();
            let index = list.index();
            let all: Vec<String> = list.iter().collect();
            for host in hosts.iter().chain(&all) {
                prop_assert_eq!(index.find(host), all.iter().position(|h| h == host), "{}", host);
                prop_assert_eq!(list.find(host), index.find(host));
            }
        }
    }
}
