//! Sets of small integers in the compact text form of RFC 22: `0-3,7`.
//!
//! An [`Idset`] is a sorted list of disjoint, non-adjacent closed ranges, so that a set of a
//! hundred thousand ranks that happens to be contiguous costs eight bytes. Set operations are
//! linear merges over the ranges; [`Idset::insert`] and [`Idset::remove`] search by bisection.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{cmp::Ordering, fmt, str::FromStr};

/// A set of `u32` ids.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Idset {
    /// Closed ranges `(first, last)`, ascending, with a gap of at least one id between them.
    ranges: Vec<(u32, u32)>,
}

/// Why a string is not an idset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum IdsetError {
    #[error("idset '{0}': brackets must surround the whole set")]
    Brackets(String),
    #[error("idset '{text}': '{token}' is not an id or a range such as 2-5")]
    Token { text: String, token: String },
    #[error("idset '{text}': '{token}' is out of order; ids must ascend")]
    Order { text: String, token: String },
}

impl Idset {
    /// The empty set.
    pub fn new() -> Idset {
        Idset::default()
    }

    /// The ids `first..=last`; empty when `first > last`.
    pub fn from_range(first: u32, last: u32) -> Idset {
        let ranges = if first <= last {
            vec![(first, last)]
        } else {
            Vec::new()
        };
        Idset { ranges }
    }

    /// How many ids.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(|&(a, b)| (b - a) as usize + 1).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The least id.
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|r| r.0)
    }

    /// The greatest id.
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|r| r.1)
    }

    /// The ranges in ascending order, both ends included.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// The ids, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(a, b)| a..=b)
    }

    /// The `n`th id in ascending order, counting from zero.
    pub fn nth(&self, n: usize) -> Option<u32> {
        let mut left = n;
        for &(a, b) in &self.ranges {
            let len = (b - a) as usize + 1;
            if left < len {
                return Some(a + left as u32);
            }
            left -= len;
        }
        None
    }

    /// How many ids of the set are smaller than `id`.
    pub fn rank_of(&self, id: u32) -> usize {
        self.ranges
            .iter()
            .take_while(|r| r.0 < id)
            .map(|&(a, b)| (b.min(id - 1) - a) as usize + 1)
            .sum()
    }

    fn find(&self, id: u32) -> Result<usize, usize> {
        self.ranges.binary_search_by(|&(a, b)| {
            if id < a {
                Ordering::Greater
            } else if id > b {
                Ordering::Less
            } else {
                Ordering::Equal
            }
        })
    }

    /// Whether the id is in the set. O(log r) in ranges.
    pub fn contains(&self, id: u32) -> bool {
        self.find(id).is_ok()
    }

    /// Adds `id`; false when it was there.
    pub fn insert(&mut self, id: u32) -> bool {
        let Err(at) = self.find(id) else { return false };
        let joins_left = at > 0 && self.ranges[at - 1].1 + 1 == id;
        let joins_right = at < self.ranges.len() && id + 1 == self.ranges[at].0;
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = id,
            (false, true) => self.ranges[at].0 = id,
            (false, false) => self.ranges.insert(at, (id, id)),
        }
        true
    }

    /// Takes `id` out; false when it was not there.
    pub fn remove(&mut self, id: u32) -> bool {
        let Ok(at) = self.find(id) else { return false };
        let (a, b) = self.ranges[at];
        match (a == id, b == id) {
            (true, true) => {
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at].0 = id + 1,
            (false, true) => self.ranges[at].1 = id - 1,
            (false, false) => {
                self.ranges[at].1 = id - 1;
                self.ranges.insert(at + 1, (id + 1, b));
            }
        }
        true
    }

    /// Appends a range whose start is not below any start seen so far.
    fn push(&mut self, (a, b): (u32, u32)) {
        match self.ranges.last_mut() {
            Some(last) if u64::from(a) <= u64::from(last.1) + 1 => last.1 = last.1.max(b),
            _ => self.ranges.push((a, b)),
        }
    }

    /// Ids of either set. O(r) in ranges, as the other operations on two sets.
    pub fn union(&self, other: &Idset) -> Idset {
        let mut out = Idset::default();
        let (mut i, mut j) = (0, 0);
        while i < self.ranges.len() || j < other.ranges.len() {
            let take_left = match (self.ranges.get(i), other.ranges.get(j)) {
                (Some(l), Some(r)) => l.0 <= r.0,
                (left, _) => left.is_some(),
            };
            if take_left {
                out.push(self.ranges[i]);
                i += 1;
            } else {
                out.push(other.ranges[j]);
                j += 1;
            }
        }
        out
    }

    /// Ids of both sets.
    pub fn intersection(&self, other: &Idset) -> Idset {
        let mut ranges = Vec::new();
        let (mut i, mut j) = (0, 0);
        while let (Some(&(a, b)), Some(&(c, d))) = (self.ranges.get(i), other.ranges.get(j)) {
            let (lo, hi) = (a.max(c), b.min(d));
            if lo <= hi {
                ranges.push((lo, hi));
            }
            if b < d {
                i += 1;
            } else {
                j += 1;
            }
        }
        Idset { ranges }
    }

    /// Ids of this set that are not in the other.
    pub fn difference(&self, other: &Idset) -> Idset {
        let mut ranges = Vec::new();
        let mut j = 0;
        for &(a, b) in &self.ranges {
            let mut from = u64::from(a);
            while j < other.ranges.len() && other.ranges[j].1 < a {
                j += 1;
            }
            let mut k = j;
            while let Some(&(c, d)) = other.ranges.get(k).filter(|r| r.0 <= b) {
                if u64::from(c) > from {
                    ranges.push((from as u32, c - 1));
                }
                from = from.max(u64::from(d) + 1);
                k += 1;
            }
            if from <= u64::from(b) {
                ranges.push((from as u32, b));
            }
        }
        Idset { ranges }
    }

    /// Whether all ids are in the other set.
    pub fn is_subset(&self, other: &Idset) -> bool {
        self.difference(other).is_empty()
    }

    /// As [`fmt::Display`], in brackets when the set holds more than one id.
    pub fn to_string_brackets(&self) -> String {
        if self.len() > 1 {
            format!("[{self}]")
        } else {
            self.to_string()
        }
    }
}

impl FromIterator<u32> for Idset {
    fn from_iter<T: IntoIterator<Item = u32>>(iter: T) -> Idset {
        let mut set = Idset::default();
        let mut rest = Vec::new();
        for id in iter {
            match set.last() {
                Some(last) if id < last => rest.push(id),
                _ => set.push((id, id)),
            }
        }
        if rest.is_empty() {
            return set;
        }
        rest.sort_unstable();
        let mut other = Idset::default();
        for id in rest {
            other.push((id, id));
        }
        set.union(&other)
    }
}

impl Extend<u32> for Idset {
    fn extend<T: IntoIterator<Item = u32>>(&mut self, iter: T) {
        *self = self.union(&iter.into_iter().collect());
    }
}

impl From<u32> for Idset {
    fn from(id: u32) -> Idset {
        Idset {
            ranges: vec![(id, id)],
        }
    }
}

fn parse_id(token: &str) -> Option<u32> {
    let plain = token.bytes().all(|c| c.is_ascii_digit());
    let leading_zero = token.len() > 1 && token.starts_with('0');
    // u32::MAX is not an id: ids are joined by `last + 1`.
    (plain && !leading_zero)
        .then(|| token.parse().ok())
        .flatten()
        .filter(|id| *id < u32::MAX)
}

impl FromStr for Idset {
    type Err = IdsetError;

    fn from_str(text: &str) -> Result<Idset, IdsetError> {
        let inner = match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            Some(inner) => inner,
            None => text,
        };
        if inner.contains(['[', ']']) {
            return Err(IdsetError::Brackets(text.to_owned()));
        }
        let mut set = Idset::default();
        // Empty elements are skipped: upstream's decoder takes "0,,1" and a trailing comma.
        for token in inner.split(',').filter(|t| !t.is_empty()) {
            let bad = || IdsetError::Token {
                text: text.to_owned(),
                token: token.to_owned(),
            };
            let (a, b) = match token.split_once('-') {
                None => {
                    let id = parse_id(token).ok_or_else(bad)?;
                    (id, id)
                }
                Some((a, b)) => {
                    let (a, b) = parse_id(a).zip(parse_id(b)).ok_or_else(bad)?;
                    if a >= b {
                        return Err(bad());
                    }
                    (a, b)
                }
            };
            if set.last().is_some_and(|last| a <= last) {
                let (text, token) = (text.to_owned(), token.to_owned());
                return Err(IdsetError::Order { text, token });
            }
            set.push((a, b));
        }
        Ok(set)
    }
}

impl fmt::Display for Idset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &(a, b)) in self.ranges.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            if a == b {
                write!(f, "{a}")?
            } else {
                write!(f, "{a}-{b}")?
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Idset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Idset[{self}]")
    }
}

impl Serialize for Idset {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Idset {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Idset, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(text: &str) -> Idset {
        text.parse().expect("valid idset in a test")
    }

    #[test]
    fn text_forms() {
        for (text, ids, shown) in [
            ("", vec![], ""),
            ("[]", vec![], ""),
            ("2", vec![2], "2"),
            ("7-9", vec![7, 8, 9], "7-9"),
            ("1,7-9,16", vec![1, 7, 8, 9, 16], "1,7-9,16"),
            ("1,2,3,5,6,42", vec![1, 2, 3, 5, 6, 42], "1-3,5-6,42"),
            ("[1-3,5-6,42]", vec![1, 2, 3, 5, 6, 42], "1-3,5-6,42"),
        ] {
            let s = set(text);
            assert_eq!(s.iter().collect::<Vec<_>>(), ids, "{text}");
            assert_eq!(s.to_string(), shown);
            assert_eq!(s.len(), ids.len());
        }
        assert_eq!(set("3").to_string_brackets(), "3");
        assert_eq!(set("3-4").to_string_brackets(), "[3-4]");
    }

    #[test]
    fn refuses_malformed_text() {
        for text in [
            "x",
            "1-",
            "-1",
            "5-1",
            "1-1",
            "01",
            "1,1",
            "3,2",
            "[1",
            "[[1]]",
            "1 2",
            "4294967295",
        ] {
            assert!(text.parse::<Idset>().is_err(), "{text}");
        }
        assert_eq!(
            "0-3,2".parse::<Idset>().unwrap_err().to_string(),
            "idset '0-3,2': '2' is out of order; ids must ascend"
        );
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(a in prop::collection::vec(0u32..60, 0..40),
                            b in prop::collection::vec(0u32..60, 0..40)) {
            let (sa, sb): (BTreeSet<u32>, BTreeSet<u32>) =
                (a.iter().copied().collect(), b.iter().copied().collect());
            let (ia, ib): (Idset, Idset) = (a.iter().copied().collect(), b.iter().copied().collect());
            let ids = |s: &Idset| s.iter().collect::<Vec<_>>();
            prop_assert_eq!(ids(&ia), sa.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ids(&ia.union(&ib)), sa.union(&sb).copied().collect::<Vec<_>>());
            prop_assert_eq!(ids(&ia.intersection(&ib)), sa.intersection(&sb).copied().collect::<Vec<_>>());
            prop_assert_eq!(ids(&ia.difference(&ib)), sa.difference(&sb).copied().collect::<Vec<_>>());
            prop_assert_eq!(set(&ia.to_string()), ia.clone());
            prop_assert_eq!(set(&format!("[{ia}]")), ia.clone());
            let mut grown = Idset::new();
            for id in &a { grown.insert(*id); }
            prop_assert_eq!(&grown, &ia);
            for id in &b {
                let had = grown.contains(*id);
                prop_assert_eq!(grown.remove(*id), had);
            }
            prop_assert_eq!(&grown, &ia.difference(&ib));
            for (n, id) in ia.iter().enumerate() {
                prop_assert_eq!(ia.nth(n), Some(id));
                prop_assert_eq!(ia.rank_of(id), n);
            }
        }
    }
}
