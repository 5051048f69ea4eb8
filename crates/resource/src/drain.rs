//! Drained targets: which, since when, and why (RFC 44 events `drain` and `undrain`).

use std::collections::BTreeMap;

use formats::resource_event::{Overwrite, ResourceEvent};
use formats::{Event, Hostlist, Idset};
use serde_json::{Map, Value, json};

/// Why and since when a target is drained.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    pub timestamp: f64,
    pub reason: Option<String>,
}

/// What to do with targets that are drained already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is an error, unless they have no reason yet.
    Refuse,
    /// Leave those that have a reason as they are.
    Update,
    /// Replace the reason.
    Overwrite,
    /// Replace reason and time.
    ForceOverwrite,
}

/// Why a drain or undrain request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    #[error("rank{} {ranks} {}", plural(.ranks), .what)]
    Refused {
        ranks: Idset,
        what: &'static str,
        exists: bool,
    },
    #[error("invalid {request} mode '{mode}': expected update, overwrite or force-overwrite")]
    Mode { request: &'static str, mode: String },
}

fn plural(ranks: &Idset) -> &'static str {
    if ranks.len() > 1 { "s" } else { "" }
}

impl DrainError {
    /// The errno a requester sees.
    pub fn errno(&self) -> i32 {
        match self {
            DrainError::Refused { exists: true, .. } => libc::EEXIST,
            DrainError::Refused { .. } | DrainError::Mode { .. } => libc::EINVAL,
        }
    }
}

impl Mode {
    /// The mode of a request; none means to refuse.
    pub fn parse(mode: Option<&str>, request: &'static str) -> Result<Mode, DrainError> {
        match mode {
            None => Ok(Mode::Refuse),
            Some("update") => Ok(Mode::Update),
            Some("overwrite") => Ok(Mode::Overwrite),
            Some("force-overwrite") => Ok(Mode::ForceOverwrite),
            Some(mode) => Err(DrainError::Mode {
                request,
                mode: mode.to_owned(),
            }),
        }
    }

    /// What events say of the mode.
    pub fn overwrite(self) -> Overwrite {
        match self {
            Mode::Refuse | Mode::Update => Overwrite::Nothing,
            Mode::Overwrite => Overwrite::Reason,
            Mode::ForceOverwrite => Overwrite::ReasonAndTime,
        }
    }
}

/// All drained targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drained {
    ranks: BTreeMap<u32, Info>,
}

impl Drained {
    /// Drained ranks.
    pub fn ranks(&self) -> Idset {
        self.ranks.keys().copied().collect()
    }

    /// Whether these ranks may be drained.
    pub fn check_drain(&self, ranks: &Idset, exclude: &Idset) -> Result<(), DrainError> {
        let drained: Idset = ranks
            .iter()
            .filter(|r| self.ranks.get(r).is_some_and(|i| i.reason.is_some()))
            .collect();
        let excluded = ranks.intersection(exclude);
        let what = match (drained.is_empty(), excluded.is_empty()) {
            (true, true) => return Ok(()),
            (false, true) => "already drained",
            (true, false) => "excluded",
            (false, false) => "already drained or excluded",
        };
        let exists = !drained.is_empty();
        Err(DrainError::Refused {
            ranks: drained.union(&excluded),
            what,
            exists,
        })
    }

    /// Whether these ranks may be undrained: all must be drained.
    pub fn check_undrain(&self, ranks: &Idset) -> Result<(), DrainError> {
        let not = ranks.difference(&self.ranks());
        if not.is_empty() {
            return Ok(());
        }
        Err(DrainError::Refused {
            ranks: not,
            what: "not drained",
            exists: true,
        })
    }

    /// Drains ranks.
    pub fn drain(
        &mut self,
        ranks: &Idset,
        timestamp: f64,
        reason: Option<&str>,
        overwrite: Overwrite,
    ) {
        for rank in ranks.iter() {
            let old = self.ranks.get(&rank);
            if overwrite == Overwrite::Nothing && old.is_some_and(|i| i.reason.is_some()) {
                continue;
            }
            let since = match old {
                Some(info) if overwrite != Overwrite::ReasonAndTime => info.timestamp,
                _ => timestamp,
            };
            let reason = reason.map(str::to_owned);
            self.ranks.insert(
                rank,
                Info {
                    timestamp: since,
                    reason,
                },
            );
        }
    }

    /// Undrains ranks.
    pub fn undrain(&mut self, ranks: &Idset) {
        for rank in ranks.iter() {
            self.ranks.remove(&rank);
        }
    }

    /// Applies an event of an earlier life of the instance. Hosts may have other ranks now:
    /// `hosts` maps ranks to hosts. Targets that are gone are left out.
    pub fn replay(&mut self, event: &Event, hosts: &Hostlist) {
        let typed = ResourceEvent::try_from(event);
        let Ok(ResourceEvent::Drain(change) | ResourceEvent::Undrain(change)) = &typed else {
            return;
        };
        let ranks: Idset = change
            .idset
            .iter()
            .enumerate()
            .filter_map(
                |(i, rank)| match change.nodelist.as_ref().and_then(|l| l.nth(i)) {
                    Some(host) if hosts.nth(rank as usize).as_ref() != Some(&host) => {
                        hosts.find(&host).map(|r| r as u32)
                    }
                    _ => (rank < hosts.len() as u32).then_some(rank),
                },
            )
            .collect();
        match &typed {
            Ok(ResourceEvent::Drain(change)) => {
                let reason = change.reason.as_deref();
                self.drain(&ranks, event.timestamp, reason, change.overwrite);
            }
            _ => self.undrain(&ranks),
        }
    }

    /// Drained targets as `resource.status` reports them: grouped by time and reason.
    pub fn to_value(&self) -> Value {
        let mut groups: Vec<(i64, &str, Idset)> = Vec::new();
        for (rank, info) in &self.ranks {
            let (time, reason) = (info.timestamp.round() as i64, info.reason.as_deref());
            let reason = reason.unwrap_or("");
            match groups
                .iter_mut()
                .find(|(t, r, _)| (*t, *r) == (time, reason))
            {
                Some((_, _, ranks)) => drop(ranks.insert(*rank)),
                None => groups.push((time, reason, Idset::from(*rank))),
            }
        }
        let map: Map<String, Value> = groups
            .into_iter()
            .map(|(time, reason, ranks)| {
                (
                    ranks.to_string(),
                    json!({"timestamp": time as f64, "reason": reason}),
                )
            })
            .collect();
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Idset {
        text.parse().unwrap()
    }

    #[test]
    fn drain_and_undrain() {
        let mut d = Drained::default();
        d.drain(&ids("1-2"), 10.4, Some("broken"), Overwrite::Nothing);
        d.drain(&ids("4"), 20.0, None, Overwrite::Nothing);
        insta::assert_snapshot!(d.to_value(), @r#"{"1-2":{"timestamp":10.0,"reason":"broken"},"4":{"timestamp":20.0,"reason":""}}"#);
        let e = d.check_drain(&ids("0-2"), &ids("5")).unwrap_err();
        assert_eq!(
            (e.to_string().as_str(), e.errno()),
            ("ranks 1-2 already drained", libc::EEXIST)
        );
        let e = d.check_drain(&ids("5"), &ids("5")).unwrap_err();
        assert_eq!(
            (e.to_string().as_str(), e.errno()),
            ("rank 5 excluded", libc::EINVAL)
        );
        // One without reason may get one.
        assert_eq!(d.check_drain(&ids("4"), &ids("")), Ok(()));
        d.drain(&ids("1,4"), 30.0, Some("later"), Overwrite::Nothing);
        d.drain(&ids("2"), 30.0, Some("other"), Overwrite::Reason);
        insta::assert_snapshot!(d.to_value(), @r#"{"1":{"timestamp":10.0,"reason":"broken"},"2":{"timestamp":10.0,"reason":"other"},"4":{"timestamp":20.0,"reason":"later"}}"#);
        d.drain(&ids("2"), 30.0, Some("other"), Overwrite::ReasonAndTime);
        assert_eq!(d.ranks[&2].timestamp, 30.0);
        assert!(
            d.check_undrain(&ids("1,3"))
                .unwrap_err()
                .to_string()
                .contains("rank 3 not drained")
        );
        d.undrain(&ids("1-4"));
        assert_eq!(d, Drained::default());
        assert!(Mode::parse(Some("x"), "drain").is_err());
    }

    #[test]
    fn replay_follows_hosts_to_their_new_ranks() {
        let hosts: Hostlist = "b,a,c".parse().unwrap();
        let mut d = Drained::default();
        let event = Event::new(1.0, "drain").with_context(
            json!({"idset": "0-1,7", "nodelist": "a,gone,x", "reason": "r", "overwrite": 0}),
        );
        d.replay(&event, &hosts);
        assert_eq!(d.ranks().to_string(), "1");
        d.replay(
            &Event::new(2.0, "undrain").with_context(json!({"idset": "1", "nodelist": "a"})),
            &hosts,
        );
        assert!(d.ranks().is_empty());
    }
}
