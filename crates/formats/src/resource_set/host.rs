//! Host names of targets, many of them in one allocation.
//!
//! A set of ten thousand targets is parsed from one hostlist; its names are written into one
//! shared text, and each target holds its place in it. A name keeps the whole text alive, which
//! is what subsets of a set share anyway.

use crate::Hostlist;
use std::{cmp::Ordering, fmt, hash, ops::Deref, sync::Arc};

/// A million hosts of sixty letters: a guard against long prefixes of large ranges.
const MAX_TEXT: usize = 1 << 26;

/// The name of a host; empty when it is not known. Compares, hashes and prints as its text.
///
/// ```
/// use formats::resource_set::HostName;
///
/// let host = HostName::from("node7");
/// assert!(host == "node7" && host.starts_with("node"));
/// assert!(HostName::default().is_empty());
/// ```
#[derive(Clone, Default)]
pub struct HostName {
    names: Option<Arc<str>>,
    start: u32,
    end: u32,
}

impl HostName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        match &self.names {
            Some(names) => &names[self.start as usize..self.end as usize],
            None => "",
        }
    }

    /// The names of a list, in its order; `None` if their text is longer than any sane list's.
    pub(super) fn all(list: &Hostlist) -> Option<Vec<HostName>> {
        let mut text = String::new();
        let mut ends = Vec::with_capacity(list.len());
        for host in list.iter() {
            text.push_str(host.as_ref());
            if text.len() > MAX_TEXT {
                return None;
            }
            ends.push(text.len() as u32);
        }
        let names: Arc<str> = text.into();
        let mut start = 0;
        let hosts = ends.into_iter().map(|end| {
            let names = Some(names.clone());
            let host = HostName { names, start, end };
            start = end;
            host
        });
        Some(hosts.collect())
    }
}

impl From<&str> for HostName {
    fn from(name: &str) -> HostName {
        HostName {
            names: (!name.is_empty()).then(|| name.into()),
            start: 0,
            end: name.len() as u32,
        }
    }
}

impl Deref for HostName {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for HostName {
    fn eq(&self, other: &HostName) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for HostName {}

impl PartialEq<str> for HostName {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for HostName {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for HostName {
    fn partial_cmp(&self, other: &HostName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HostName {
    fn cmp(&self, other: &HostName) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl hash::Hash for HostName {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
