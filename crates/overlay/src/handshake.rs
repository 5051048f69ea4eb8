//! Joining the tree: what a child says first and how its parent answers.
//!
//! A pure decision, so that version, place and configuration rules can be tested without a network.

use serde::{Deserialize, Serialize};

use crate::transport::Status;

/// Version of the broker-to-broker protocol. Brokers interoperate within a major version and one
/// minor version; what they speak is the lower minor of the two.
pub const PROTOCOL: (u16, u16) = (2, 1);

/// Minor version from which a peer answers a ping.
pub const MINOR_PING: u16 = 1;

/// First message of a child to its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the child.
    pub protocol: (u16, u16),
    /// Version of the child's program, for people.
    pub version: String,
    /// Rank of the child.
    pub rank: u32,
    /// Instance size as the child knows it.
    pub size: u32,
    /// The parent the child looks for.
    pub parent: u32,
    /// Host the child runs on.
    pub hostname: String,
    /// State of what is below the child.
    pub status: u8,
}

/// The parent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The child may take part.
    Welcome {
        /// Minor version both speak.
        minor: u16,
        /// The parent's life, in hexadecimal digits.
        session: String,
    },
    /// It may not, and why.
    Refused(String),
}

/// What a parent knows of the child whose hello it judges.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The rank its key belongs to, if keys tell.
    pub key_rank: Option<u32>,
    /// Our rank.
    pub rank: u32,
    /// Instance size.
    pub size: u32,
    /// Our children.
    pub children: &'a [u32],
    /// The host of the child's rank, if we know it.
    pub hostname: Option<&'a str>,
}

/// The minor version two brokers speak; `None` if they cannot.
pub fn negotiate(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let near = ours.0 == theirs.0 && ours.1.abs_diff(theirs.1) <= 1;
    near.then(|| ours.1.min(theirs.1))
}

/// Decide on `hello`: the minor version to speak and the child's status, or why it is refused.
pub fn judge(hello: &Hello, expected: &Expected<'_>) -> Result<(u16, Status), String> {
    let rank = hello.rank;
    let Some(minor) = negotiate(PROTOCOL, hello.protocol) else {
        return Err(format!(
            "rank {rank} (version {}) speaks overlay protocol {}.{}, which does not work with {}.{}",
            hello.version, hello.protocol.0, hello.protocol.1, PROTOCOL.0, PROTOCOL.1
        ));
    };
    if let Some(key) = expected.key_rank.filter(|key| *key != rank) {
        return Err(format!(
            "rank {rank} was announced with the key of rank {key}"
        ));
    }
    if let Some(host) = expected.hostname.filter(|host| *host != hello.hostname) {
        return Err(format!(
            "{host} is configured as rank {rank}, not {}: mismatched config?",
            hello.hostname
        ));
    }
    if !expected.children.contains(&rank) || hello.parent != expected.rank {
        return Err(format!(
            "rank {rank} is not a child of rank {}: mismatched config?",
            expected.rank
        ));
    }
    if hello.size != expected.size {
        return Err(format!(
            "rank {rank} has instance size {}, rank {} has {}: mismatched config?",
            hello.size, expected.rank, expected.size
        ));
    }
    match Status::try_from(hello.status) {
        Ok(status) if status.is_online() => Ok((minor, status)),
        _ => Err(format!("rank {rank} has no status {}", hello.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected<'_> = Expected {
        key_rank: Some(2),
        rank: 0,
        size: 4,
        children: &[1, 2, 3],
        hostname: Some("h2"),
    };

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL,
            version: "1".into(),
            rank: 2,
            size: 4,
            parent: 0,
            hostname: "h2".into(),
            status: Status::Partial as u8,
        }
    }

    #[test]
    fn verdicts() {
        assert_eq!(
            judge(&hello(), &EXPECTED),
            Ok((PROTOCOL.1, Status::Partial))
        );
        type Change = fn(&mut Hello);
        let change: [(Change, &str); 7] = [
            (
                |h| h.protocol.0 += 1,
                "rank 2 (version 1) speaks overlay protocol 3.1, which does not work with 2.1",
            ),
            (
                |h| h.protocol.1 += 2,
                "rank 2 (version 1) speaks overlay protocol 2.3, which does not work with 2.1",
            ),
            (
                |h| h.rank = 3,
                "rank 3 was announced with the key of rank 2",
            ),
            (
                |h| h.hostname = "x".into(),
                "h2 is configured as rank 2, not x: mismatched config?",
            ),
            (
                |h| h.parent = 1,
                "rank 2 is not a child of rank 0: mismatched config?",
            ),
            (
                |h| h.size = 5,
                "rank 2 has instance size 5, rank 0 has 4: mismatched config?",
            ),
            (|h| h.status = Status::Lost as u8, "rank 2 has no status 3"),
        ];
        for (change, why) in change {
            let mut bad = hello();
            change(&mut bad);
            assert_eq!(judge(&bad, &EXPECTED), Err(why.to_owned()));
        }
        let children = Expected {
            children: &[1],
            ..EXPECTED
        };
        assert!(judge(&hello(), &children).is_err());
    }

    #[test]
    fn neighbouring_minor_versions_meet_at_the_lower() {
        assert_eq!(negotiate((2, 1), (2, 1)), Some(1));
        assert_eq!(negotiate((2, 1), (2, 0)), Some(0));
        assert_eq!(negotiate((2, 1), (2, 2)), Some(1));
        assert_eq!(negotiate((2, 1), (2, 3)), None);
        assert_eq!(negotiate((2, 1), (1, 1)), None);
    }
}
