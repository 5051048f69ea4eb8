//! Prologs and epilogs (`[job-manager.prolog]`, `[job-manager.epilog]`): commands before a job's shells start and after
//! they have ended. What one of them comes to is in [`super::procedure`].
//!
//! While one runs, its `-start` event has no `-finish` event yet, and the job neither starts nor gives its resources
//! back. An epilog follows the `finish` event, or a prolog whose job is not to start any more.

use std::collections::HashMap;
use std::time::Duration;

use formats::idset::Idset;
use formats::job::JobState;
use formats::jobid::JobId;
use formats::resource_set::ResourceSet;
use serde_json::{Map, Value, json};

use super::crew::{self, Duty, End, Order};
use super::hush::Hush;
use super::job::Job;
use super::procedure::{Procedure, Run, Verdict};
use super::{Done, LOG_ERR, Manager, log};

/// What is configured, and what runs.
#[derive(Debug, Default)]
pub(super) struct Perilogs {
    pub(super) config: Config,
    /// At most one of a job, since an epilog follows a prolog.
    runs: HashMap<JobId, Active>,
}

/// What is configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Config {
    pub(super) prolog: Option<Procedure>,
    pub(super) epilog: Option<Procedure>,
    pub(super) hush: Hush,
}

/// A run, and its command once it was started.
#[derive(Debug)]
struct Active {
    run: Run,
    order: Option<Order>,
}

/// What a timer of a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Timeout,
    Kill,
}

fn description(duty: Duty) -> String {
    format!("job-manager.{duty}")
}

impl Perilogs {
    /// What is configured and what runs, for people.
    pub(super) fn describe(&self) -> Map<String, Value> {
        let config = |procedure: &Option<Procedure>| {
            procedure
                .as_ref()
                .map_or_else(|| json!({}), Procedure::describe)
        };
        let runs = self.runs.iter();
        let procs = runs.map(|(id, active)| (crate::shown(*id), active.run.describe()));
        let procs: Map<String, Value> = procs.collect();
        let conf = json!({
            "prolog": config(&self.config.prolog),
            "epilog": config(&self.config.epilog),
            "log-ignore": self.config.hush.patterns(),
        });
        Map::from_iter([
            ("conf".to_owned(), conf),
            ("procs".to_owned(), procs.into()),
        ])
    }
}

/// The ranks of a job's R.
pub(super) fn ranks(job: &Job) -> Idset {
    let set = job.r.as_deref().cloned().map(ResourceSet::try_from);
    set.and_then(Result::ok)
        .map(|set| set.ranks())
        .unwrap_or_default()
}

impl Manager {
    fn procedure(&self, duty: Duty) -> Option<Procedure> {
        let config = &self.perilogs.config;
        match duty {
            Duty::Prolog => config.prolog.clone(),
            Duty::Epilog => config.epilog.clone(),
            Duty::Housekeeping => None,
        }
    }

    /// A job has got its resources: its prolog is due, if there is one. It is launched when they are stored.
    pub(super) fn begin_prolog(&mut self, id: JobId) {
        if self.prepare(id, Duty::Prolog) {
            let context = json!({ "description": description(Duty::Prolog) });
            self.post(id, "prolog-start", context);
        }
    }

    /// The shells of a job have ended, or will not start any more: its epilog is due, if there is one.
    pub(super) fn begin_epilog(&mut self, id: JobId) {
        if self.prepare(id, Duty::Epilog) {
            let context = json!({ "description": description(Duty::Epilog) });
            self.post(id, "epilog-start", context);
            // What came before it must be stored: a new manager would run the prolog again.
            self.batch.after(super::After::Epilog(id));
        }
    }

    fn prepare(&mut self, id: JobId, duty: Duty) -> bool {
        let (Some(procedure), Some(job)) = (self.procedure(duty), self.jobs.get(&id)) else {
            return false;
        };
        let run = Run::new(duty, procedure, &ranks(job));
        self.perilogs.runs.insert(id, Active { run, order: None });
        true
    }

    /// Start the command that is due for a job; false if there is none.
    pub(super) fn launch_perilog(&mut self, id: JobId) -> bool {
        let (Some(active), Some(job)) = (self.perilogs.runs.get_mut(&id), self.jobs.get(&id))
        else {
            return false;
        };
        if active.order.is_some() {
            return true;
        }
        let run = &active.run;
        let command = &run.procedure.command;
        let order = Order::new(run.duty, command, id, job.userid, &ranks(job));
        let order = order.hushed(self.perilogs.config.hush.clone());
        active.order = Some(order.clone());
        let timeout = run.procedure.timeout;
        let on = run.active.clone();
        if run.is_over() {
            self.judge_perilog(id);
            return true;
        }
        for rank in on.iter() {
            self.employ(&order, rank);
        }
        if let Some(timeout) = timeout {
            self.limit_perilog(id, Limit::Timeout, timeout);
        }
        true
    }

    /// Run a command on a rank.
    pub(super) fn employ(&mut self, order: &Order, rank: u32) {
        let (handle, order) = (self.handle.clone(), order.clone());
        self.work.push(Box::pin(async move {
            let (duty, id) = (order.duty, order.id);
            Done::Ran(duty, id, rank, order.run(handle, rank).await)
        }));
    }

    fn limit_perilog(&mut self, id: JobId, limit: Limit, after: Duration) {
        let Some(active) = self.perilogs.runs.get(&id) else {
            return;
        };
        let duty = active.run.duty;
        self.work.push(Box::pin(async move {
            tokio::time::sleep(after).await;
            Done::Limit(duty, id, limit)
        }));
    }

    /// A command has ended on a rank.
    pub(super) fn perilog_ran(&mut self, duty: Duty, id: JobId, rank: u32, end: &End) {
        let runs = &mut self.perilogs.runs;
        let Some(active) = runs.get_mut(&id).filter(|active| active.run.duty == duty) else {
            return;
        };
        if active.run.is_over() {
            return;
        }
        active.run.ended(rank, end);
        if active.run.is_over() {
            self.judge_perilog(id);
        }
    }

    /// A job has a fatal exception.
    pub(super) fn cancel_perilog(&mut self, id: JobId) {
        let Some(active) = self.perilogs.runs.get_mut(&id) else {
            return;
        };
        if !active.run.is_over() && active.run.cancel() {
            self.stop_perilog(id);
        }
    }

    /// A time has run down.
    pub(super) fn perilog_limit(&mut self, duty: Duty, id: JobId, limit: Limit) {
        let runs = &mut self.perilogs.runs;
        let Some(active) = runs.get_mut(&id).filter(|active| active.run.duty == duty) else {
            return;
        };
        if active.run.is_over() {
            return;
        }
        match limit {
            Limit::Timeout if active.run.time_out() => self.stop_perilog(id),
            Limit::Timeout => {}
            Limit::Kill => {
                active.run.give_up();
                self.judge_perilog(id);
            }
        }
    }

    /// Tell a command to end, and see that it does.
    fn stop_perilog(&mut self, id: JobId) {
        let Some(Active { run, order }) = self.perilogs.runs.get_mut(&id) else {
            return;
        };
        let after = run.procedure.kill_timeout;
        match order {
            Some(order) => order.kill(&self.handle, &run.active, libc::SIGTERM),
            // It was not started yet, and will not be.
            None => {
                run.active = Idset::new();
                return;
            }
        }
        self.limit_perilog(id, Limit::Kill, after);
    }

    /// A run is over: drain what failed, then go on with its job.
    fn judge_perilog(&mut self, id: JobId) {
        let Some(active) = self.perilogs.runs.get(&id) else {
            return;
        };
        let verdict = active.run.verdict();
        let handle = self.handle.clone();
        self.work.push(Box::pin(async move {
            if let Some(why) = &verdict.drain {
                let request = json!({
                    "targets": verdict.failed.to_string(),
                    "reason": format!("{why} for job {}", crate::shown(id)),
                    "mode": "update",
                });
                let drained = handle.rpc("resource.drain", client::Node::Rank(0), &request);
                if let Err(e) = drained.await {
                    let ranks = &verdict.failed;
                    log(
                        &handle,
                        LOG_ERR,
                        &format!("rank {ranks} cannot be drained: {e}"),
                    );
                }
            }
            let hosts = crew::hosts(&handle, &verdict.failed).await;
            Done::Judged(id, hosts, Box::new(verdict))
        }));
    }

    /// What failed is drained.
    pub(super) fn finish_perilog(&mut self, id: JobId, hosts: &str, verdict: &Verdict) {
        let Some(Active { run, .. }) = self.perilogs.runs.remove(&id) else {
            return;
        };
        if let Some(fault) = &verdict.fault {
            let severity = if run.duty == Duty::Prolog { 0 } else { 2 };
            let note = format!("{fault} on {hosts} (rank {})", verdict.failed);
            let userid = self.owner(id);
            self.raise(id, &run.duty.to_string(), severity, &note, userid, None);
        }
        self.conclude_perilog(id, run.duty, verdict.status);
    }

    /// Post the end of a run; what waited for it goes on.
    fn conclude_perilog(&mut self, id: JobId, duty: Duty, status: i32) {
        let is_in = |job: Option<&Job>, state| job.is_some_and(|job| job.state == state);
        let context = json!({ "description": description(duty), "status": status });
        if duty == Duty::Epilog {
            return self.post(id, "epilog-finish", context);
        }
        // Before the prolog's end, so that the resources are not given back in between.
        if is_in(self.jobs.get(&id), JobState::Cleanup) {
            self.begin_epilog(id);
        }
        self.post(id, "prolog-finish", context);
        if is_in(self.jobs.get(&id), JobState::Run) {
            self.batch.after(super::After::Start(id));
        }
    }

    /// Take up again what an earlier life has begun: prologs and epilogs run anew.
    pub(super) fn resume_perilog(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.perilogs > 0) else {
            return;
        };
        let posted = |name: &str| job.events.iter().any(|event| event.name == name);
        let cut_short = job.state == JobState::Cleanup;
        let duty = match posted("prolog-start") && !posted("prolog-finish") {
            true => Duty::Prolog,
            false => Duty::Epilog,
        };
        let is_moot = duty == Duty::Prolog && cut_short;
        if is_moot || !self.prepare(id, duty) {
            return self.conclude_perilog(id, duty, 0);
        }
        self.launch_perilog(id);
    }
}

/// The values that `[job-manager]` and `exec.imp` give.
pub(super) fn parse(config: &Value) -> Result<Config, String> {
    let imp = config.pointer("/exec/imp").and_then(Value::as_str);
    let of = |duty: Duty| {
        let table = config.pointer(&format!("/job-manager/{duty}"));
        table
            .map(|table| Procedure::parse(duty, table, imp))
            .transpose()
    };
    Ok(Config {
        prolog: of(Duty::Prolog)?,
        epilog: of(Duty::Epilog)?,
        hush: Hush::parse(config)?,
    })
}
