//! Invariants that look at the whole tree.

use std::collections::HashSet;
use std::time::Duration;

use overlay::Status;

use super::World;
use super::edges::NOTICE;
use crate::check::{Check, Violation, bounded};

impl World {
    /// No queue of a broker is over its bound.
    pub(super) fn queues_bounded(&self, rank: u32) -> Result<(), Violation> {
        let Some(life) = &self.nodes[rank as usize].life else {
            return Ok(());
        };
        let room = &self.plan.room;
        let (pending, held) = (life.switch.pending(), life.switch.held());
        bounded(rank, "requests under way", pending, room.router.pending)?;
        bounded(rank, "requests for the parent", held, room.router.held)?;
        let waiting = life.outbox.lock();
        let bound = room.peers.hard;
        bounded(rank, "bytes for the parent", waiting.up.bytes(), bound)?;
        for (_, queue) in waiting.down.values() {
            bounded(rank, "bytes for a child", queue.bytes(), bound)?;
        }
        Ok(())
    }

    /// A life that has ended is no longer joined, once its parent has had time to hear of it.
    pub(super) fn no_ended_life_joined(&self) -> Result<(), Violation> {
        let grace = NOTICE + Duration::from_millis(1);
        for child in 1..self.plan.size {
            let Some((ended, at)) = self.nodes[child as usize].ended else {
                continue;
            };
            let parent = self.topology.parent(child).unwrap_or(0);
            let node = &self.nodes[parent as usize];
            let heard = at.max(node.frozen) + grace;
            if let Some(life) = node.life.as_ref().filter(|_| heard < self.now)
                && life.tree.joined(child) == Some(ended)
            {
                let text = format!("rank {parent} has joined rank {child}, which ended at {at:?}");
                return Err(Check::NoLostOnline.violated(text));
            }
        }
        Ok(())
    }

    /// With `away` not there and all else calm: its parent knows, those above are not full, those
    /// below have no way in, and nobody else is touched.
    pub(super) fn no_lost_subtree_online(&self, away: u32) -> Result<(), Violation> {
        let wrong = |text: String| Err(Check::NoLostOnline.violated(text));
        let below: HashSet<u32> = self.topology.subtree(away).into_iter().collect();
        let up = |rank: &u32| self.topology.parent(*rank);
        let above: HashSet<u32> = std::iter::successors(up(&away), up).collect();
        for rank in 0..self.plan.size {
            let Some(life) = &self.nodes[rank as usize].life else {
                if below.contains(&rank) {
                    continue;
                }
                return wrong(format!(
                    "rank {rank} is not there, though only {away} is away"
                ));
            };
            let (status, admitted) = (life.tree.status(), life.tree.is_admitted());
            let full = status == Status::Full;
            if above.contains(&rank) && full {
                return wrong(format!("rank {rank} is full, though {away} is away"));
            }
            if !above.contains(&rank) && !below.contains(&rank) && !full {
                let status = status.name();
                return wrong(format!("rank {rank} is {status}, though not above {away}"));
            }
            let parent = up(&rank);
            if !below.contains(&rank) && !admitted && rank > 0 {
                return wrong(format!(
                    "rank {rank} is not admitted, though not below {away}"
                ));
            }
            if parent == Some(away) && admitted {
                return wrong(format!("rank {rank} is admitted by {away}, which is away"));
            }
            if life.tree.joined(away).is_some() {
                return wrong(format!("rank {rank} has joined {away}, which is away"));
            }
        }
        Ok(())
    }

    pub(super) fn membership(&self) -> Result<(), Violation> {
        let wrong = |text: String| Err(Check::Membership.violated(text));
        for rank in 0..self.plan.size {
            let Some(life) = &self.nodes[rank as usize].life else {
                return wrong(format!("rank {rank} is not there"));
            };
            if life.tree.status() != Status::Full {
                return wrong(format!("rank {rank} is {}", life.tree.status().name()));
            }
            for child in self.topology.children(rank) {
                let truth = self.nodes[*child as usize].life.as_ref().map(|l| l.session);
                let seen = life.tree.joined(*child);
                if truth != seen {
                    let text =
                        format!("rank {rank} has {seen:?} for rank {child}, which is {truth:?}");
                    return wrong(text);
                }
            }
        }
        Ok(())
    }

    /// Everything asked has ended, except what has no end. Below a broker that is `away`, requests
    /// wait for its return.
    pub(super) fn all_answered(&self, away: Option<u32>) -> Result<(), Violation> {
        let below = away.map_or_else(Vec::new, |away| self.topology.subtree(away));
        for (rank, node) in (0..).zip(&self.nodes) {
            let Some(life) = node.life.as_ref().filter(|_| !below.contains(&rank)) else {
                continue;
            };
            if let Some(asked) = life.programs.open() {
                let text = format!("{} asks for ever: {asked}", life.programs.client_id());
                return Err(Check::OneOutcome.violated(text));
            }
        }
        Ok(())
    }

    /// Nobody watches whose client is gone.
    pub(super) fn no_orphans(&self) -> Result<(), Violation> {
        let lives = self.nodes.iter().filter_map(|n| n.life.as_ref());
        let clients: HashSet<_> = lives.clone().map(|l| l.programs.client_id()).collect();
        for life in lives {
            if let Some(client) = life.programs.watchers().find(|c| !clients.contains(*c)) {
                let service = life.programs.client_id();
                let text = format!("{client} is gone, and watched beside {service}");
                return Err(Check::NoOrphans.violated(text));
            }
        }
        Ok(())
    }

    /// After all clients have gone: no request under way, no watcher.
    pub(super) fn nothing_pending(&self) -> Result<(), Violation> {
        for (rank, node) in self.nodes.iter().enumerate() {
            let Some(life) = &node.life else { continue };
            let (pending, watchers) = (life.switch.pending(), life.programs.watchers().count());
            if pending + watchers > 0 {
                let text = format!("rank {rank}: {pending} requests, {watchers} watchers");
                return Err(Check::NothingPending.violated(text));
            }
        }
        Ok(())
    }
}
