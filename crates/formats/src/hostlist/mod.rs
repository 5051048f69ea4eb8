//! Lists of host names in the compact text form of RFC 29: `node[001-003,7],login`.
//!
//! A [`Hostlist`] keeps order and duplicates. A host is a prefix and an optional trailing
//! number; runs of consecutive numbers under one prefix and one zero padding are one range, so
//! a list of ten thousand regular names is one element. Searching a list is linear in its
//! ranges; [`Hostlist::index`] makes repeated searches logarithmic.
//!
//! ```
//! use formats::Hostlist;
//! let hosts: Hostlist = "node[08-11],login".parse()?;
//! assert_eq!(hosts.len(), 5);
//! assert_eq!(hosts.nth(2).as_deref(), Some("node10"));
//! assert_eq!(["a1", "a2", "a3"].iter().collect::<Hostlist>().to_string(), "a[1-3]");
//! # Ok::<(), formats::hostlist::HostlistError>(())
//! ```

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

mod index;
mod sets;
mod text;

pub use index::HostIndex;
pub use text::HostlistError;

/// The longest run of digits taken as a number; longer ones are part of the name.
const MAX_DIGITS: usize = 18;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    prefix: String,
    /// Numbers `first..=last`, zero-padded to `width`; `None` is a name without a number.
    numbers: Option<Numbers>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbers {
    first: u64,
    last: u64,
    width: usize,
}

/// An ordered list of host names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hostlist {
    runs: Vec<Run>,
}

impl Numbers {
    fn len(&self) -> usize {
        (self.last - self.first) as usize + 1
    }
}

impl Run {
    fn len(&self) -> usize {
        self.numbers.as_ref().map_or(1, Numbers::len)
    }

    fn nth(&self, n: usize) -> String {
        match self.numbers {
            None => self.prefix.clone(),
            Some(r) => format!(
                "{}{:0width$}",
                self.prefix,
                r.first + n as u64,
                width = r.width
            ),
        }
    }
}

/// Splits a host name into prefix, number and width of the digits.
fn split_host(host: &str) -> (&str, Option<(u64, usize)>) {
    let count = host.bytes().rev().take_while(u8::is_ascii_digit).count();
    if count == 0 || count > MAX_DIGITS {
        return (host, None);
    }
    let (prefix, digits) = host.split_at(host.len() - count);
    (prefix, digits.parse().ok().map(|n| (n, count)))
}

/// Whether `n` printed with padding `a` and with padding `b` looks the same.
fn same_text(n: u64, a: usize, b: usize) -> bool {
    a == b || {
        let digits = n.checked_ilog10().unwrap_or(0) as usize + 1;
        a.max(digits) == b.max(digits)
    }
}

impl Hostlist {
    /// A list without hosts.
    pub fn new() -> Hostlist {
        Hostlist::default()
    }

    /// How many hosts, duplicates included.
    pub fn len(&self) -> usize {
        self.runs.iter().map(Run::len).sum()
    }

    /// Whether there are no hosts.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The hosts in order.
    pub fn iter(&self) -> impl Iterator<Item = String> + '_ {
        self.runs
            .iter()
            .flat_map(|run| (0..run.len()).map(|n| run.nth(n)))
    }

    /// The `n`th host, counting from zero.
    pub fn nth(&self, n: usize) -> Option<String> {
        let mut left = n;
        for run in &self.runs {
            if left < run.len() {
                return Some(run.nth(left));
            }
            left -= run.len();
        }
        None
    }

    /// The position of the first occurrence of `host`.
    pub fn find(&self, host: &str) -> Option<usize> {
        let (prefix, number) = split_host(host);
        let mut at = 0;
        for run in &self.runs {
            match (run.numbers, number) {
                (None, None) if run.prefix == prefix => return Some(at),
                (Some(r), Some((n, width)))
                    if run.prefix == prefix
                        && (r.first..=r.last).contains(&n)
                        && same_text(n, r.width, width) =>
                {
                    return Some(at + (n - r.first) as usize);
                }
                _ => at += run.len(),
            }
        }
        None
    }

    /// Whether a host is in the list. O(r) in ranges; see [`Hostlist::index`].
    pub fn contains(&self, host: &str) -> bool {
        self.find(host).is_some()
    }

    /// Appends one host name, taken as it is.
    pub fn push(&mut self, host: &str) {
        let (prefix, number) = split_host(host);
        let numbers = number.map(|(n, width)| Numbers {
            first: n,
            last: n,
            width,
        });
        self.push_run(prefix, numbers);
    }

    fn push_run(&mut self, prefix: &str, numbers: Option<Numbers>) {
        // One form for one text: a number without leading zeros has no padding.
        let numbers = numbers.map(|n| Numbers {
            width: if n.is_padded() { n.width } else { 1 },
            ..n
        });
        if let Some(new) = numbers
            && let Some(Run {
                prefix: last,
                numbers: Some(r),
            }) = self.runs.last_mut()
            && last == prefix
            && r.last + 1 == new.first
            && same_text(new.first, r.width, new.width)
            && same_text(new.last, r.width, new.width)
        {
            r.last = new.last;
            return;
        }
        self.runs.push(Run {
            prefix: prefix.to_owned(),
            numbers,
        });
    }

    /// Appends all hosts of `other`.
    pub fn append(&mut self, other: &Hostlist) {
        for run in &other.runs {
            self.push_run(&run.prefix, run.numbers);
        }
    }

    /// Parses `text` and appends its hosts.
    pub fn append_str(&mut self, text: &str) -> Result<(), HostlistError> {
        self.append(&text.parse()?);
        Ok(())
    }
}

impl Numbers {
    /// Whether the first number is written with a leading zero.
    fn is_padded(&self) -> bool {
        // Numbers below this do not fill the width.
        self.width > 1 && self.first < 10u64.pow(self.width as u32 - 1)
    }
}

impl fmt::Display for Hostlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = 0;
        while at < self.runs.len() {
            if at > 0 {
                f.write_str(",")?;
            }
            let run = &self.runs[at];
            let Some(first) = run.numbers else {
                f.write_str(&run.prefix)?;
                at += 1;
                continue;
            };
            // The padding of the first number holds for its whole bracket (RFC 29), so a padded
            // one takes only numbers that it prints right; without padding each keeps its own.
            let fits = |r: &Numbers| {
                !first.is_padded()
                    || same_text(r.first, r.width, first.width)
                        && same_text(r.last, r.width, first.width)
            };
            let group: Vec<Numbers> = self.runs[at..]
                .iter()
                .map_while(|r| r.numbers.filter(|_| r.prefix == run.prefix))
                .take_while(fits)
                .collect();
            at += group.len();
            f.write_str(&run.prefix)?;
            let bracketed = group.len() > 1 || first.len() > 1;
            if bracketed {
                f.write_str("[")?;
            }
            for (i, r) in group.iter().enumerate() {
                if i > 0 {
                    f.write_str(",")?;
                }
                write!(f, "{:0width$}", r.first, width = r.width)?;
                if r.last > r.first {
                    write!(f, "-{:0width$}", r.last, width = r.width)?;
                }
            }
            if bracketed {
                f.write_str("]")?;
            }
        }
        Ok(())
    }
}

impl<S: AsRef<str>> FromIterator<S> for Hostlist {
    fn from_iter<T: IntoIterator<Item = S>>(iter: T) -> Hostlist {
        let mut list = Hostlist::default();
        for host in iter {
            list.push(host.as_ref());
        }
        list
    }
}

impl Serialize for Hostlist {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hostlist {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Hostlist, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(text: &str) -> Vec<String> {
        text.parse::<Hostlist>()
            .expect("valid hostlist in a test")
            .iter()
            .collect()
    }

    #[test]
    fn expansion() {
        for (text, hosts) in [
            ("", ""),
            ("foox,fooy,fooz", "foox,fooy,fooz"),
            ("[1-3,5-6]", "1,2,3,5,6"),
            ("foo[1-5]", "foo1,foo2,foo3,foo4,foo5"),
            (
                "foo[0-4]-eth2",
                "foo0-eth2,foo1-eth2,foo2-eth2,foo3-eth2,foo4-eth2",
            ),
            ("foo1,foo1,foo1", "foo1,foo1,foo1"),
            ("[00-02]", "00,01,02"),
            ("[00-2]", "00,01,02"),
            ("foo[1,1,2,1]", "foo1,foo1,foo2,foo1"),
            ("[005,4,11-13]", "005,004,011,012,013"),
            ("r[0-1]n[1-2]", "r0n1,r0n2,r1n1,r1n2"),
            ("r1[8-10]", "r18,r19,r110"),
            ("a,,b, c\td", "a,b,c,d"),
        ] {
            let want: Vec<&str> = hosts.split(',').filter(|h| !h.is_empty()).collect();
            assert_eq!(expand(text), want, "{text}");
        }
    }

    #[test]
    fn compression() {
        for (hosts, text) in [
            ("foo1,foo2,foo3,foo5", "foo[1-3,5]"),
            ("foo8,foo9,foo10", "foo[8-10]"),
            ("foo08,foo09,foo10", "foo[08-10]"),
            ("foo98,foo099", "foo[98,099]"),
            ("foo1,foo3,foo01,foo10", "foo[1,3,01,10]"),
            ("foo09,foo1", "foo09,foo1"),
            ("foo1,foo1,foo2,foo1", "foo[1,1-2,1]"),
            ("vm,vm", "vm,vm"),
            ("a1,b1,a2", "a1,b1,a2"),
            ("a1,a", "a1,a"),
            ("a01", "a01"),
        ] {
            let list: Hostlist = hosts.split(',').collect();
            assert_eq!(list.to_string(), text);
            assert_eq!(expand(text).join(","), hosts);
        }
    }

    #[test]
    fn searching() {
        let list: Hostlist = "a,n[08-12],b,n9".parse().unwrap();
        assert_eq!(list.len(), 8);
        for (i, host) in list.iter().enumerate() {
            assert_eq!(list.find(&host), Some(i), "{host}");
            assert_eq!(list.nth(i), Some(host));
        }
        assert_eq!(list.nth(8), None);
        assert_eq!(list.find("n8"), None);
        assert_eq!(list.find("c"), None);
    }

    #[test]
    fn refuses_malformed_lists() {
        for text in [
            "a[",
            "a]",
            "a[1",
            "a[1]]",
            "a[[1]]",
            "a[]",
            "a[x]",
            "a[2-1]",
            "a[1-]",
            "a\u{e9}",
            "a\0",
            "a[1 -2]",
            "a[0-9999999]",
            "a[0-9999]b[0-9999]",
            "a[0-299999]x",
            "a1[0-299999]",
        ] {
            assert!(text.parse::<Hostlist>().is_err(), "{text}");
        }
        assert_eq!(
            "n[3-1]".parse::<Hostlist>().unwrap_err().to_string(),
            "hostlist 'n[3-1]': '3-1' is not a number or a range such as 2-5"
        );
    }

    proptest! {
        #[test]
        fn text_round_trips(hosts in prop::collection::vec("[a-c]{0,1}[0-1]{0,2}[0-9]{1,2}|[a-z]{1,3}", 0..30)) {
            let list: Hostlist = hosts.iter().collect();
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), hosts.clone());
            prop_assert_eq!(list.to_string().parse::<Hostlist>().unwrap(), list.clone());
            prop_assert_eq!(expand(&list.to_string()), hosts);
        }
    }
}
