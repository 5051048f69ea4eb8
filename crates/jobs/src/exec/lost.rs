//! Shells that end as they should not: by a signal, or with their node.
//!
//! The leader hears of it (method `exception` of its service), so that it waits for nothing from them. A job goes on
//! without a shell that is not critical; all are, unless its user says otherwise (`job-exec.critical-ranks`).

use client::{Handle, Node};
use formats::{Hostlist, Idset, JobId, ResourceSet};
use serde_json::json;

/// Severity of an exception that the job survives.
const CRITICAL: i64 = 2;

/// A job's shells, by their ranks among themselves.
pub(super) struct Places {
    /// Broker ranks and hosts; the first is the leader's.
    places: Vec<(u32, String)>,
    critical: Idset,
    /// The name of the shells' service.
    service: String,
}

/// What a loss means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) severity: i64,
    pub(super) note: String,
}

impl Places {
    pub(super) fn new(set: &ResourceSet, id: JobId, userid: u32) -> Self {
        let places = set.targets().iter();
        let places: Vec<_> = places.map(|t| (t.rank, t.host.to_string())).collect();
        Self {
            critical: (0..places.len() as u32).collect(),
            places,
            service: format!("{userid}-shell-{}", id.f58_ascii()),
        }
    }

    /// Say without which shells the job cannot go on.
    pub(super) fn set_critical(&mut self, ranks: Idset) {
        self.critical = ranks;
    }

    pub(super) fn critical(&self) -> &Idset {
        &self.critical
    }

    fn place(&self, rank: u32) -> (u32, &str) {
        let place = self.places.iter().position(|(r, _)| *r == rank);
        // Only shells of the job are lost.
        let place = place.unwrap_or_default();
        (
            place as u32,
            self.places.get(place).map_or("", |(_, host)| host),
        )
    }

    /// Whether the leader is on this broker.
    pub(super) fn is_leader(&self, rank: u32) -> bool {
        self.places
            .first()
            .is_some_and(|(leader, _)| *leader == rank)
    }

    /// Hosts of brokers, as a host list.
    pub(super) fn hosts(&self, ranks: &Idset) -> Hostlist {
        let here = self.places.iter().filter(|(rank, _)| ranks.contains(*rank));
        here.map(|(_, host)| host.as_str()).collect()
    }

    /// The shell on a broker was killed. The job ends if that was the leader.
    pub(super) fn killed(&self, rank: u32, signum: i32) -> Loss {
        let (shell, host) = self.place(rank);
        let how = formats::signals::describe(signum);
        Loss {
            severity: if shell == 0 { 0 } else { CRITICAL },
            note: format!("shell rank {shell} (on {host}): {how}"),
        }
    }

    /// A broker, and with it the shell, is out of reach. The job ends if that was critical.
    pub(super) fn unreachable(&self, rank: u32) -> Loss {
        let (shell, host) = self.place(rank);
        match self.critical.contains(shell) {
            true => Loss {
                severity: 0,
                note: format!("node failure on {host} (rank {rank})"),
            },
            false => Loss {
                severity: CRITICAL,
                note: format!("node failure on {host} (shell rank {shell})"),
            },
        }
    }

    /// Tell the leader that the shell on a broker does not count any more.
    pub(super) fn tell_leader(&self, handle: &Handle, rank: u32, loss: &Loss) {
        let (shell, _) = self.place(rank);
        let Some((leader, _)) = self.places.first().filter(|_| shell != 0) else {
            return;
        };
        let request = json!({
            "type": "lost-shell",
            "severity": loss.severity,
            "shell_rank": shell,
            "message": loss.note,
        });
        let topic = format!("{}.exception", self.service);
        handle.notify(&topic, Node::Rank(*leader), &request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_loss_means() {
        let mut set = ResourceSet::new();
        for (rank, host) in [(3, "a"), (5, "b"), (6, "c")] {
            set.add(rank, host, &Idset::from_range(0, 0), &Idset::new());
        }
        let mut places = Places::new(&set, JobId(1), 7);
        let loss = |severity, note: &str| Loss {
            severity,
            note: note.into(),
        };
        assert_eq!(places.killed(3, 9), loss(0, "shell rank 0 (on a): Killed"));
        assert_eq!(places.killed(5, 9), loss(2, "shell rank 1 (on b): Killed"));
        assert_eq!(places.unreachable(6), loss(0, "node failure on c (rank 6)"));
        places.set_critical(Idset::from_range(0, 1));
        assert_eq!(
            places.unreachable(6),
            loss(2, "node failure on c (shell rank 2)")
        );
        assert_eq!(places.unreachable(5).severity, 0);
    }
}
