//! The brokers' hostnames, compressed as a hostlist where ranks follow each other.

/// `host[1-3]`-style text of `names` in rank order, via the hostlist format (RFC 29).
pub(crate) fn hostlist(names: &[String]) -> String {
    names
        .iter()
        .cloned()
        .collect::<formats::hostlist::Hostlist>()
        .to_string()
}
