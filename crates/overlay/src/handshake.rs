//! Joining the tree: what a child says first and how its parent answers.
//!
//! A pure decision, so that version and topology rules can be tested without a network.

use serde::{Deserialize, Serialize};

/// Version of the broker-to-broker protocol; peers of the same major version interoperate.
pub const PROTOCOL: (u16, u16) = (1, 0);

/// First message of a child to its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the child.
    pub protocol: (u16, u16),
    /// Rank of the child.
    pub rank: u32,
    /// Instance size as the child knows it.
    pub size: u32,
    /// Host the child runs on.
    pub hostname: String,
}

/// The parent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The child may take part.
    Welcome,
    /// It may not, and why.
    Refused(String),
}

/// Decide on `hello`, which came over the connection of `peer`, at a broker with `children`.
pub fn judge(hello: &Hello, peer: u32, children: &[u32], size: u32) -> Verdict {
    let refuse = |why: String| Verdict::Refused(why);
    if hello.protocol.0 != PROTOCOL.0 {
        return refuse(format!(
            "overlay protocol {}.{} does not work with {}.{}",
            hello.protocol.0, hello.protocol.1, PROTOCOL.0, PROTOCOL.1
        ));
    }
    if hello.rank != peer {
        return refuse(format!(
            "rank {} was announced over rank {peer}'s connection",
            hello.rank
        ));
    }
    if !children.contains(&hello.rank) {
        return refuse(format!(
            "rank {} is not a child of this broker: check tbon.topo",
            hello.rank
        ));
    }
    if hello.size != size {
        return refuse(format!(
            "instance size is {size}, rank {} has {}",
            hello.rank, hello.size
        ));
    }
    Verdict::Welcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let good = Hello {
            protocol: PROTOCOL,
            rank: 2,
            size: 4,
            hostname: "h".into(),
        };
        let judge = |h: &Hello| judge(h, 2, &[1, 2, 3], 4);
        assert_eq!(judge(&good), Verdict::Welcome);
        for bad in [
            Hello {
                protocol: (9, 0),
                ..good.clone()
            },
            Hello {
                rank: 3,
                ..good.clone()
            },
            Hello {
                size: 5,
                ..good.clone()
            },
        ] {
            assert!(matches!(judge(&bad), Verdict::Refused(_)), "{bad:?}");
        }
        assert!(matches!(
            super::judge(&good, 2, &[1], 4),
            Verdict::Refused(_)
        ));
    }
}
