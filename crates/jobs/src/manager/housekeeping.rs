//! Housekeeping (`[job-manager.housekeeping]`): a command on the nodes of a job that is over, before others get them.
//!
//! The job does not wait for it; its resources do. A node is given back when its command has ended: with all others of
//! the job, or, with `release-after`, as soon as that time is over since the first.
//!
//! What is held is stored with the event that frees the job, and what is given back is struck out before the scheduler
//! hears of it: a manager that comes back runs the command again where it may not have ended.

use std::collections::BTreeMap;
use std::time::Duration;

use formats::fsd;
use formats::idset::Idset;
use formats::jobid::JobId;
use formats::resource_set::ResourceSet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::batch::After;
use super::crew::{self, Duty, Order};
use super::{Done, LOG_ERR, Manager, log};
use crate::record::{self, RecordError};

/// Directory of the store with a key for each job.
const KEYS: &str = "housekeeping";

fn key(id: JobId) -> String {
    format!("{KEYS}.{}", id.dec())
}

/// What is configured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Config {
    command: Vec<String>,
    /// Nodes are given back one by one after this long.
    release_after: Option<Duration>,
}

/// Read the table; `exec.imp` runs housekeeping if it names no command.
pub(super) fn parse(config: &Value) -> Result<Option<Config>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Table {
        command: Option<Value>,
        release_after: Option<String>,
        /// For the script that systemd runs.
        #[serde(rename = "exit-on-first-error")]
        _exit_on_first_error: Option<bool>,
    }
    let Some(table) = config.pointer("/job-manager/housekeeping") else {
        return Ok(None);
    };
    let place = |why: String| format!("job-manager.housekeeping: {why}");
    let table = Table::deserialize(table).map_err(|e| place(e.to_string()))?;
    let imp = config.pointer("/exec/imp").and_then(Value::as_str);
    let command = match (&table.command, imp) {
        (Some(command), _) => crew::words(command, Duty::Housekeeping).map_err(place)?,
        (None, Some(imp)) => [imp, "run", "housekeeping"].map(str::to_owned).into(),
        (None, None) => {
            let why = "there is no command, and exec.imp is undefined";
            return Err(place(why.to_owned()));
        }
    };
    let release_after = match &table.release_after {
        None => None,
        Some(text) => {
            let bad = |why| place(format!("release-after: FSD parse error: {why}"));
            let after = fsd::parse(text).map_err(|e| bad(e.to_string()))?;
            // What is longer than any clock is never.
            Duration::try_from_secs_f64(after).ok()
        }
    };
    Ok(Some(Config {
        command,
        release_after,
    }))
}

/// How a job's nodes are given back before the last is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    /// All together.
    Together,
    /// One by one, once the first has been ready for this long.
    After(Duration),
    /// The time runs.
    Soon,
    /// One by one.
    Now,
}

/// What the store has of a job that is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    userid: u32,
    priority: i64,
    t_submit: f64,
    t_start: f64,
    /// What the job had.
    #[serde(rename = "R")]
    r: Value,
    /// Ranks that are not given back.
    ranks: Idset,
}

/// Resources of a job that is over.
#[derive(Debug)]
struct Allocation {
    order: Order,
    kept: Kept,
    /// What is not given back yet.
    rest: ResourceSet,
    /// Ranks on which the command runs.
    pending: Idset,
    release: Release,
}

impl Allocation {
    /// The command has ended on a rank; a time after which nodes are given back, if it begins now.
    fn ready(&mut self, rank: u32) -> Option<Duration> {
        self.pending.remove(rank);
        match self.release {
            Release::After(time) if time.is_zero() => self.release = Release::Now,
            Release::After(time) => {
                self.release = Release::Soon;
                return Some(time);
            }
            _ => {}
        }
        None
    }

    /// The resources that can be given back now.
    fn due(&mut self) -> Option<ResourceSet> {
        if self.release != Release::Now && !self.pending.is_empty() {
            return None;
        }
        let ready = self.rest.ranks().difference(&self.pending);
        if ready.is_empty() {
            return None;
        }
        let part = self.rest.on_ranks(&ready);
        self.rest.remove_ranks(&ready);
        self.kept.ranks = self.rest.ranks();
        Some(part)
    }
}

/// All housekeeping there is.
#[derive(Debug, Default)]
pub(super) struct Housekeeping {
    pub(super) config: Option<Config>,
    running: BTreeMap<JobId, Allocation>,
}

impl Housekeeping {
    /// What it holds.
    pub(super) fn held(&self) -> impl Iterator<Item = &ResourceSet> {
        self.running.values().map(|allocation| &allocation.rest)
    }

    /// For a scheduler that says hello (RFC 27).
    pub(super) fn hello(&self) -> impl Iterator<Item = Value> {
        self.running.iter().map(|(id, allocation)| {
            let mut item = json!({
                "id": id,
                "priority": allocation.kept.priority,
                "userid": allocation.kept.userid,
                "t_submit": allocation.kept.t_submit,
                "R": allocation.kept.r,
            });
            let all = ResourceSet::try_from(allocation.kept.r.clone()).map(|set| set.ranks());
            let freed = all.unwrap_or_default().difference(&allocation.rest.ranks());
            if !freed.is_empty() {
                item["free"] = freed.to_string().into();
            }
            item
        })
    }

    pub(super) fn stats(&self) -> Value {
        let running = self.running.iter().map(|(id, allocation)| {
            let entry = json!({
                "t_start": allocation.kept.t_start,
                "pending": allocation.pending.to_string(),
                "allocated": allocation.rest.ranks().to_string(),
            });
            (crate::shown(*id), entry)
        });
        let running: Map<String, Value> = running.collect();
        let after = self.config.as_ref().and_then(|config| config.release_after);
        let command = self.config.as_ref().map(|config| config.command.join(" "));
        json!({
            "running": running,
            "config": {
                "release-after": after.map_or(-1.0, |after| after.as_secs_f64()),
                "command": command.unwrap_or_default(),
            },
        })
    }
}

impl Manager {
    /// A job needs its resources no more: they go to housekeeping, or back to the scheduler.
    pub(super) fn release(&mut self, id: JobId) {
        if self.jobs.get(&id).is_some_and(|job| job.bypass) {
            return;
        }
        let Some(config) = &self.housekeeping.config else {
            return self.free_all(id);
        };
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let Some(rest) = super::alloc::held(job).and_then(|r| ResourceSet::try_from(r).ok()) else {
            return;
        };
        let kept = Kept {
            userid: job.userid,
            priority: job.priority,
            t_submit: job.t_submit,
            t_start: super::now(),
            r: job.r.as_deref().cloned().unwrap_or_default(),
            ranks: rest.ranks(),
        };
        let config = config.clone();
        self.batch.set(key(id), json!(kept).to_string());
        self.hold(id, &config, kept, rest);
        self.batch.after(After::Housekeep(id));
    }

    /// Hold what a job had until the command has run there.
    fn hold(&mut self, id: JobId, config: &Config, kept: Kept, rest: ResourceSet) {
        let pending = rest.ranks();
        let order = Order::new(
            Duty::Housekeeping,
            &config.command,
            id,
            kept.userid,
            &pending,
        );
        let release = config.release_after;
        let allocation = Allocation {
            order,
            kept,
            rest,
            pending,
            release: release.map_or(Release::Together, Release::After),
        };
        self.housekeeping.running.insert(id, allocation);
    }

    /// It is stored that the job is over: run the command on its ranks.
    pub(super) fn housekeep(&mut self, id: JobId) {
        let Some(allocation) = self.housekeeping.running.get(&id) else {
            return;
        };
        let (order, pending) = (allocation.order.clone(), allocation.pending.clone());
        for rank in pending.iter() {
            self.employ(&order, rank);
        }
    }

    /// Take up what an earlier life has not ended.
    pub(super) async fn restore_housekeeping(&mut self) -> Result<(), RpcError> {
        for path in record::names(&self.handle, KEYS.to_owned()).await? {
            match kept(&self.handle, &path).await {
                Ok((id, kept, rest)) => match self.housekeeping.config.clone() {
                    Some(config) => {
                        self.hold(id, &config, kept, rest);
                        self.housekeep(id);
                    }
                    // No scheduler has been told that they are held.
                    None => self.batch.remove(path),
                },
                Err(RecordError::Lookup { source, .. }) => return Err(source),
                Err(e) => log(&self.handle, LOG_ERR, &e.to_string()),
            }
        }
        Ok(())
    }

    /// Housekeeping has ended on a rank, well or not.
    pub(super) fn housekept(&mut self, id: JobId, rank: u32) {
        let Some(allocation) = self.housekeeping.running.get_mut(&id) else {
            return;
        };
        if let Some(after) = allocation.ready(rank) {
            self.work.push(Box::pin(async move {
                tokio::time::sleep(after).await;
                Done::Release(id)
            }));
        }
        self.give_back(id);
    }

    /// From now on nodes are given back one by one.
    pub(super) fn release_ready(&mut self, id: JobId) {
        if let Some(allocation) = self.housekeeping.running.get_mut(&id) {
            allocation.release = Release::Now;
            self.give_back(id);
        }
    }

    fn give_back(&mut self, id: JobId) {
        let Some(allocation) = self.housekeeping.running.get_mut(&id) else {
            return;
        };
        let Some(part) = allocation.due() else {
            return;
        };
        let mut request = json!({ "id": id, "R": part.to_value() });
        if allocation.pending.is_empty() {
            request["final"] = true.into();
            self.housekeeping.running.remove(&id);
            self.batch.remove(key(id));
        } else {
            let kept = json!(allocation.kept).to_string();
            self.batch.set(key(id), kept);
        }
        self.handle
            .notify("sched.free", client::Node::Any, &request);
    }

    /// `housekeeping-kill`: send a signal to the commands of a job or of all, on some ranks or all.
    pub(super) fn housekeeping_kill(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            signum: i32,
            jobid: Option<JobId>,
            ranks: Option<String>,
        }
        msg.require_owner()?;
        let Request {
            signum,
            jobid,
            ranks,
        } = msg.json()?;
        let parsed = ranks.map(|text| text.parse::<Idset>()).transpose();
        let ranks = parsed.map_err(|e| RpcError::new(libc::EINVAL, format!("ranks: {e}")))?;
        let is_meant = |id: &JobId| jobid.is_none_or(|meant| meant == *id);
        for (_, allocation) in self
            .housekeeping
            .running
            .iter()
            .filter(|(id, _)| is_meant(id))
        {
            let on = match &ranks {
                Some(ranks) => allocation.pending.intersection(ranks),
                None => allocation.pending.clone(),
            };
            allocation.order.kill(&self.handle, &on, signum);
        }
        Ok(Value::Null)
    }
}

/// What an earlier life has left at this key: the job, and what it still holds.
async fn kept(
    handle: &client::Handle,
    path: &str,
) -> Result<(JobId, Kept, ResourceSet), RecordError> {
    let text = record::text(handle, path).await?;
    let kept: Kept = serde_json::from_str(&text).map_err(|e| RecordError::content(path, e))?;
    let id = path.rsplit('.').next().and_then(|id| id.parse().ok());
    let id = id.ok_or_else(|| RecordError::content(path, "this is no job id"))?;
    let set = ResourceSet::try_from(kept.r.clone());
    let set = set.map_err(|e| RecordError::content(path, e))?;
    let rest = set.on_ranks(&kept.ranks);
    Ok((id, kept, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(release: Release) -> Allocation {
        let mut rest = ResourceSet::new();
        for rank in 0..3 {
            rest.add(rank, "n", &Idset::from_range(0, 1), &Idset::new());
        }
        let pending = rest.ranks();
        Allocation {
            order: Order::new(Duty::Housekeeping, &[], JobId(1), 0, &pending),
            kept: Kept {
                userid: 0,
                priority: 16,
                t_submit: 1.0,
                t_start: 2.0,
                r: rest.to_value(),
                ranks: rest.ranks(),
            },
            rest,
            pending,
            release,
        }
    }

    fn due(allocation: &mut Allocation) -> Option<String> {
        allocation.due().map(|set| set.ranks().to_string())
    }

    #[test]
    fn together() {
        let mut nodes = allocation(Release::Together);
        for rank in [2, 0] {
            assert_eq!(nodes.ready(rank), None);
            assert_eq!(due(&mut nodes), None);
        }
        assert_eq!(nodes.ready(1), None);
        assert_eq!(due(&mut nodes).as_deref(), Some("0-2"));
    }

    #[test]
    fn at_once() {
        let mut nodes = allocation(Release::After(Duration::ZERO));
        for rank in [2, 0, 1] {
            assert_eq!(nodes.ready(rank), None);
            assert_eq!(due(&mut nodes), Some(rank.to_string()));
        }
    }

    #[test]
    fn after_a_time() {
        let time = Duration::from_secs(5);
        let mut nodes = allocation(Release::After(time));
        assert_eq!(nodes.ready(2), Some(time));
        assert_eq!(nodes.ready(0), None);
        assert_eq!(due(&mut nodes), None);
        nodes.release = Release::Now;
        assert_eq!(due(&mut nodes).as_deref(), Some("0,2"));
        assert_eq!(due(&mut nodes), None);
        let mut housekeeping = Housekeeping::default();
        housekeeping.running.insert(JobId(1), nodes);
        let hello: Vec<Value> = housekeeping.hello().collect();
        assert_eq!((hello.len(), &hello[0]["free"]), (1, &json!("0,2")));
        assert_eq!(housekeeping.stats()["running"]["ƒ2"]["allocated"], "1");
    }

    #[test]
    fn tables() {
        let of = |table: Value| parse(&json!({"job-manager": {"housekeeping": table}}));
        let config = of(json!({"command": ["x"], "release-after": "1m"})).unwrap();
        assert_eq!(config.unwrap().release_after, Some(Duration::from_secs(60)));
        assert_eq!(parse(&json!({})), Ok(None));
        for (table, want) in [
            (json!({}), "exec.imp is undefined"),
            (
                json!({"command": ["x"], "release-after": "y"}),
                "FSD parse error",
            ),
            (json!({"xyz": 1}), "unknown field `xyz`"),
        ] {
            let why = of(table).unwrap_err();
            assert!(why.contains(want), "{why}");
        }
    }
}
