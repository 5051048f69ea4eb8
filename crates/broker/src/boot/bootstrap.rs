//! The configuration table `[bootstrap]` (flux-config-bootstrap(5)): who the brokers are, and where.
//!
//! Pure: a table and a host name in, the hosts by rank out. Errors point at the place.

use std::collections::HashMap;
use std::fmt::Write as _;

use formats::hostlist::Hostlist;
use serde::Deserialize;
use serde_json::Value;

/// What is wrong with the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Config file error [bootstrap]: {place}{why}")]
pub(crate) struct BootstrapError {
    /// `hosts[2].bind: `, or nothing.
    place: String,
    why: String,
}

fn wrong(place: impl Into<String>, why: impl Into<String>) -> BootstrapError {
    let (mut place, why) = (place.into(), why.into());
    if !place.is_empty() {
        place.push_str(": ");
    }
    BootstrapError { place, why }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    enable_ipv6: bool,
    curve_cert: Option<String>,
    default_port: Option<i64>,
    default_bind: Option<String>,
    default_connect: Option<String>,
    #[serde(default)]
    hosts: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    host: String,
    bind: Option<String>,
    connect: Option<String>,
    parent: Option<String>,
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// Where it listens for its children.
    pub(crate) bind: Option<String>,
    /// Where its children find it.
    pub(crate) connect: Option<String>,
    /// Rank of its parent in a custom topology.
    pub(crate) parent: Option<u32>,
}

/// The table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bootstrap {
    pub(crate) rank: u32,
    pub(crate) hosts: Vec<Host>,
    pub(crate) curve_cert: Option<String>,
    pub(crate) ipv6: bool,
}

/// Put host and port into a template: `%h`, `%p`, `%%`.
fn expand(template: &str, host: &str, port: Option<u16>) -> String {
    let mut text = String::with_capacity(template.len());
    let mut chars = template.chars();
    while let Some(c) = chars.next() {
        match (c, c == '%') {
            (_, true) => match (chars.next(), port) {
                (Some('h'), _) => text.push_str(host),
                // Writing to a string cannot fail.
                (Some('p'), Some(port)) => drop(write!(text, "{port}")),
                (Some('%'), _) => text.push('%'),
                (Some(c), _) => text.extend(['%', c]),
                (None, _) => text.push('%'),
            },
            _ => text.push(c),
        }
    }
    text
}

/// Whether `uri` is an endpoint both ends can know beforehand.
fn check_endpoint(uri: &str) -> Result<(), String> {
    let rest = match uri.split_once("://") {
        Some(("ipc" | "tcp", rest)) => rest,
        Some((scheme, _)) => return Err(format!("{uri}: scheme {scheme} is neither tcp nor ipc")),
        None => return Err(format!("{uri} has no URI scheme")),
    };
    if rest.is_empty() {
        return Err(format!("{uri}: the address is empty"));
    }
    if uri.contains(":*") {
        return Err(format!("{uri}: the port must not be a wildcard"));
    }
    // The length of a UNIX socket's name.
    if uri.starts_with("ipc://") && rest.len() > 107 {
        return Err(format!("{uri}: a socket path has at most 107 bytes"));
    }
    Ok(())
}

/// Whether `host` is a domain name (RFC 1035, and names that begin with a digit).
fn check_name(host: &str) -> Result<(), String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match host.len() <= 253 && host.split('.').all(label) {
        true => Ok(()),
        false => Err(format!("{host:?} is not a host name")),
    }
}

impl Bootstrap {
    /// Check the table for the broker on `hostname`.
    pub(crate) fn parse(table: &Value, hostname: &str) -> Result<Self, BootstrapError> {
        let table: Table =
            serde_json::from_value(table.clone()).map_err(|e| wrong("", e.to_string()))?;
        let port = match table.default_port {
            None => None,
            Some(port) => Some(u16::try_from(port).map_err(|_| {
                let why = format!("must be in the range of 0-65535, found {port}");
                wrong("default_port", why)
            })?),
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (at, value) in table.hosts.iter().enumerate() {
            let place = || format!("hosts[{at}]");
            let entry: Entry =
                serde_json::from_value(value.clone()).map_err(|e| wrong(place(), e.to_string()))?;
            let names: Hostlist = entry
                .host
                .parse()
                .map_err(|e| wrong(format!("hosts[{at}].host"), format!("{e}")))?;
            for name in names.iter() {
                check_name(&name).map_err(|e| wrong(format!("hosts[{at}].host"), e))?;
                // A host named again gets what it lacks.
                if let Some(known) = ranks.get(&name) {
                    let known = &mut entries[*known];
                    known.bind = known.bind.take().or_else(|| entry.bind.clone());
                    known.connect = known.connect.take().or_else(|| entry.connect.clone());
                    known.parent = known.parent.take().or_else(|| entry.parent.clone());
                    continue;
                }
                ranks.insert(name.clone(), entries.len());
                let host = name;
                entries.push(Entry {
                    host,
                    ..entry.clone()
                });
            }
        }
        if entries.is_empty() {
            // No hosts: an instance of one.
            ranks.insert(hostname.to_owned(), 0);
            entries.push(Entry {
                host: hostname.to_owned(),
                bind: None,
                connect: None,
                parent: None,
            });
        }
        let endpoint = |own: &Option<String>, common: &Option<String>, host: &str, key: &str| {
            let Some(template) = own.as_ref().or(common.as_ref()) else {
                return Ok(None);
            };
            let uri = expand(template, host, port);
            check_endpoint(&uri).map_err(|e| wrong(format!("host {host}: {key}"), e))?;
            Ok(Some(uri))
        };
        let mut hosts = Vec::with_capacity(entries.len());
        for entry in &entries {
            let name = &entry.host;
            let parent = match &entry.parent {
                None => None,
                Some(parent) => {
                    let place = format!("host {name}: parent");
                    let rank = ranks.get(parent);
                    let rank = rank.ok_or_else(|| {
                        wrong(&*place, format!("{parent} is not among the hosts"))
                    })?;
                    if parent == name {
                        return Err(wrong(place, "a host cannot be its own parent"));
                    }
                    Some(*rank as u32)
                }
            };
            hosts.push(Host {
                bind: endpoint(&entry.bind, &table.default_bind, name, "bind")?,
                connect: endpoint(&entry.connect, &table.default_connect, name, "connect")?,
                name: name.clone(),
                parent,
            });
        }
        let Some(rank) = ranks.get(hostname) else {
            return Err(wrong("", format!("{hostname} not found in hosts")));
        };
        if hosts.len() > 1 && table.curve_cert.is_none() {
            let why = "must be defined for more than one host: make one with flux keygen";
            return Err(wrong("curve_cert", why));
        }
        Ok(Self {
            rank: *rank as u32,
            hosts,
            curve_cert: table.curve_cert,
            ipv6: table.enable_ipv6,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str, host: &str) -> Result<Bootstrap, String> {
        let table: Value = toml::from_str(toml).unwrap();
        Bootstrap::parse(&table, host).map_err(|e| e.to_string())
    }

    #[test]
    fn compact_hosts_with_templates() {
        let b = parse(
            r#"
            curve_cert = "/c"
            default_port = 8050
            default_bind = "tcp://en0:%p"
            default_connect = "tcp://e%h:%p"
            hosts = [
                { host = "test0", bind = "tcp://en4:9001", connect = "tcp://mgmt:9001" },
                { host = "test[1-3]" },
                { host = "test[2-3]", parent = "test1" },
            ]
            "#,
            "test2",
        )
        .unwrap();
        assert_eq!((b.rank, b.hosts.len()), (2, 4));
        let uris: Vec<_> = b
            .hosts
            .iter()
            .map(|h| h.connect.as_deref().unwrap())
            .collect();
        let want = [
            "tcp://mgmt:9001",
            "tcp://etest1:8050",
            "tcp://etest2:8050",
            "tcp://etest3:8050",
        ];
        assert_eq!(uris, want);
        assert_eq!(b.hosts[1].bind.as_deref(), Some("tcp://en0:8050"));
        let parents: Vec<_> = b.hosts.iter().map(|h| h.parent).collect();
        assert_eq!(parents, [None, None, Some(1), Some(1)]);
    }

    #[test]
    fn an_empty_table_is_an_instance_of_one() {
        let b = parse("", "me").unwrap();
        assert_eq!((b.rank, b.hosts.len(), &*b.hosts[0].name), (0, 1, "me"));
    }

    #[test]
    fn tokens() {
        assert_eq!(expand("%h:%p%%%x%", "a", Some(7)), "a:7%%x%");
        assert_eq!(expand("%p", "a", None), "%p");
    }

    #[test]
    fn mistakes() {
        let errors: Vec<String> = [
            "hosts = 42",
            "hosts = [42]",
            "hosts = [{ host = 'a', extra = 1 }]",
            "hosts = [{}]",
            "hosts = [{ host = 'foo[0-254}' }]",
            "hosts = [{ host = 'a_b' }]",
            "hosts = [{ host = 'me', parent = 'x' }]",
            "hosts = [{ host = 'me', parent = 'me' }]",
            "hosts = [{ host = 'other' }]",
            "hosts = [{ host = 'me' }, { host = 'you' }]",
            "default_port = 65536",
            "hosts = [{ host = 'me', bind = 'en0' }]",
            "hosts = [{ host = 'me', bind = 'tcp://en0:*' }]",
            "hosts = [{ host = 'me', connect = 'udp://x' }]",
            "hosts = [{ host = 'me', connect = 'ipc://' }]",
            "bogus = 1",
        ]
        .into_iter()
        .map(|toml| parse(toml, "me").unwrap_err())
        .map(|e| {
            e.trim_start_matches("Config file error [bootstrap]: ")
                .to_owned()
        })
        .collect();
        for (error, part) in errors.iter().zip([
            "invalid type",
            "hosts[0]: invalid type",
            "hosts[0]: unknown field `extra`",
            "hosts[0]: missing field `host`",
            "hosts[0].host: ",
            "hosts[0].host: \"a_b\" is not a host name",
            "host me: parent: x is not among the hosts",
            "host me: parent: a host cannot be its own parent",
            "me not found in hosts",
            "curve_cert: must be defined",
            "default_port: must be in the range of 0-65535, found 65536",
            "host me: bind: en0 has no URI scheme",
            "host me: bind: tcp://en0:*: the port must not be a wildcard",
            "host me: connect: udp://x: scheme udp is neither tcp nor ipc",
            "host me: connect: ipc://: the address is empty",
            "unknown field `bogus`",
        ]) {
            assert!(error.starts_with(part), "{error}\n{part}");
        }
    }
}
