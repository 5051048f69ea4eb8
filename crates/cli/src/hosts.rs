//! Operations on lists of hosts that keep their order.

use std::collections::HashSet;

use formats::Hostlist;

/// A list of single hosts.
pub(crate) fn list<S: AsRef<str>>(hosts: impl IntoIterator<Item = S>) -> Hostlist {
    let mut out = Hostlist::new();
    hosts.into_iter().for_each(|host| out.push(host.as_ref()));
    out
}

/// Names in order: by what stands before the number at the end, then by the number; padded numbers
/// stand with those of their length.
pub(crate) fn sort(hosts: &mut [String]) {
    hosts.sort_by_cached_key(|host| {
        let prefix = host.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &host[prefix.len()..];
        let number: Option<u64> = digits.parse().ok();
        (prefix.to_owned(), digits.len(), number)
    });
}

/// Each host once, in order.
pub(crate) fn unique(mut hosts: Vec<String>) -> Vec<String> {
    sort(&mut hosts);
    hosts.dedup();
    hosts
}

/// The hosts of `a` that are (or are not) in `b`.
pub(crate) fn select(a: &[String], b: &[String], wanted: bool) -> Vec<String> {
    let b: HashSet<&String> = b.iter().collect();
    let kept = a.iter().filter(|host| b.contains(host) == wanted);
    kept.cloned().collect()
}

/// `a` with one occurrence less of each host of `b`.
pub(crate) fn subtract(mut a: Vec<String>, b: &[String]) -> Vec<String> {
    for host in b {
        if let Some(at) = a.iter().position(|h| h == host) {
            a.remove(at);
        }
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<String> {
        text.parse::<Hostlist>().unwrap().iter().collect()
    }

    #[test]
    fn order_and_sets() {
        let mut mixed = hosts("foo10,bar,foo[2,01],foo");
        sort(&mut mixed);
        assert_eq!(mixed, ["bar", "foo", "foo2", "foo01", "foo10"]);
        assert_eq!(unique(hosts("b,a,b")), hosts("a,b"));
        assert_eq!(select(&hosts("a,b,a"), &hosts("a"), true), hosts("a,a"));
        assert_eq!(select(&hosts("a,b,a"), &hosts("a"), false), hosts("b"));
        assert_eq!(subtract(hosts("a,b,a"), &hosts("a,c")), hosts("b,a"));
    }
}
