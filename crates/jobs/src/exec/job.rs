//! One running job: shells on all its ranks, from start to release.

mod conclude;
mod force;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::Node;
use formats::job::WaitStatus;
use formats::jobid::JobId;
use formats::resource_set::ResourceSet;
use formats::shared_shell;
use formats::subprocess::{ExecRequest, OUTLIVES_BROKER, OUTLIVES_CLIENT};
use formats::{Idset, eventlog, fsd};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;
use wire::{Message, RpcError};

use super::barrier::Barrier;
use super::bulk::BulkExec;
use super::config::Config;
use super::ending::Ending;
use super::guest::{Addition, BEGINNING, Guest};
use super::lost::Places;
use super::sharing::{self, can_share};
use super::watch::{Keeper, ShellEvent, Watch, label};
use super::{Control, Orders, Reporter, Site, mock};
use crate::{rexec, shown};

/// A `start` request (RFC 32).
#[derive(Debug, Deserialize)]
pub(crate) struct Start {
    pub(super) id: JobId,
    pub(super) userid: u32,
    pub(super) jobspec: Value,
    #[serde(rename = "R")]
    r: Arc<Value>,
    /// Its shells were started in an earlier life of this service.
    #[serde(default)]
    pub(super) reattach: bool,
    /// It was not asked for before.
    #[serde(default)]
    fresh: bool,
}

impl Start {
    /// When the resources were given, in seconds since 1970; 0 if they do not say.
    pub(super) fn starttime(&self) -> f64 {
        let time = self.r.pointer("/execution/starttime");
        time.and_then(Value::as_f64).unwrap_or(0.0)
    }
}

/// Why jobs of others than the owner do not run: privileges are needed to start programs as another user.
const NO_IMP: &str = "only the owner of the instance can run programs here: there is no IMP";

/// State of one shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shell {
    Starting,
    Running(Keeper),
    Gone,
}

struct Job {
    site: Site,
    report: Reporter,
    guest: Guest,
    shells: HashMap<u32, Shell>,
    /// Its shell shares a process with those of other jobs.
    shares: bool,
    /// What such a shell has not stored, for this service to store at the end.
    handed: Vec<Addition>,
    barrier: Barrier,
    places: Places,
    started: bool,
    /// The shells were started before this service was.
    reattaches: bool,
    /// Largest wait status so far.
    status: i32,
    /// Signal to send to shells that start from now on.
    signal: Option<i32>,
    ending: Option<Ending>,
    /// Shells that have exited, with the context of their events, which the exec eventlog does not have yet.
    parting: Vec<(u32, Value)>,
    /// The job has a fatal exception, which may say how the job counts as ended.
    excepted: Option<Option<i32>>,
    /// When the shells that are left have had time enough after the end of the leader.
    leader_gone: Option<Instant>,
    failed: bool,
}

/// Run a job to its end; returns whether it has not come to it, and has a namespace.
pub(super) async fn run(site: Site, request: Message, start: Start, mut orders: Orders) -> bool {
    let report = Reporter::new(site.handle.clone(), request, start.id);
    if mock::options(&start.jobspec).is_some() {
        mock::run(&site, &report, &start, &mut orders).await;
        return false;
    }
    if start.userid != site.owner {
        // Its programs would do as the owner what another user wants.
        report.exception("exec", NO_IMP);
        report.released();
        return false;
    }
    let set = match ResourceSet::try_from((*start.r).clone()) {
        Ok(set) => set,
        Err(e) => {
            report.exception("exec", &e.to_string());
            report.released();
            return false;
        }
    };
    let ranks: Vec<u32> = set.ranks().iter().collect();
    let shared = match ranks[..] {
        // One that was asked for before may have a shell somewhere.
        [rank] if start.fresh && site.config.job_shell.is_none() && can_share(&start.jobspec) => {
            site.sharing.place(site.config.shared_shells, rank)
        }
        _ => None,
    };
    let promise = orders.promise();
    let mut guest = Guest::new(site.handle.clone(), start.id, start.userid, promise);
    let prepared = match (start.reattach, &shared) {
        (true, _) => guest.take_up().await,
        (false, None) => guest.create().await,
        (false, Some(_)) => {
            guest.defer();
            Ok(Vec::new())
        }
    };
    let exited = match prepared {
        Ok(exited) => exited,
        Err(e) => {
            unprepared(&report, &start, &e);
            return false;
        }
    };
    let bulk = match BulkExec::read(&start.jobspec) {
        Ok(bulk) => bulk,
        Err(note) => {
            site.handle
                .say("job-exec", 3, &format!("{}: {note}", shown(start.id)));
            report.exception("exec", &note);
            report.released();
            return false;
        }
    };
    if bulk.mock_exception.as_deref() == Some("init") {
        report.exception("exec", "mock initialization exception generated");
        report.released();
        return false;
    }
    let expiration = match start.reattach {
        true => set.expiration,
        false => fair(&site.config, start.starttime(), set.expiration),
    };
    let mut job = Job {
        report: report.clone(),
        shells: ranks.iter().map(|rank| (*rank, Shell::Starting)).collect(),
        shares: false,
        handed: Vec::new(),
        barrier: Barrier::new(
            ranks.iter().copied().collect(),
            bulk.barrier_timeout(&site.config),
        ),
        places: Places::new(&set, start.id, start.userid),
        guest,
        site,
        started: start.reattach,
        reattaches: start.reattach,
        status: 0,
        signal: None,
        ending: None,
        parting: Vec::new(),
        excepted: None,
        leader_gone: None,
        failed: false,
    };
    if bulk.mock_exception.as_deref() == Some("starting") {
        job.fail("exec", "mock starting exception generated");
    }
    for (rank, status) in exited {
        job.shells.insert(rank, Shell::Gone);
        job.status = job.status.max(status);
    }
    if !job
        .supervise(&start, &ranks, shared, expiration, &mut orders)
        .await
    {
        return job.guest.is_made();
    }
    let status = finish_status(job.status, job.excepted);
    job.conclude(status, &mut orders).await;
    false
}

/// The wait status of a job: the largest of its shells, unless a fatal exception says otherwise. A job with one has not
/// ended well.
pub(super) fn finish_status(status: i32, excepted: Option<Option<i32>>) -> i32 {
    match excepted {
        Some(Some(own)) => WaitStatus(own).exit_code() << 8,
        Some(None) if status == 0 => 1 << 8,
        _ => status,
    }
}

/// The guest namespace of a job cannot be made, or has gone with the instance the job was in.
fn unprepared(report: &Reporter, start: &Start, e: &RpcError) {
    let note = match start.reattach {
        true => format!("the job's shells went with the instance: {e}"),
        false => format!("cannot make the guest namespace: {e}"),
    };
    report.exception("exec", &note);
    if start.reattach {
        // It had started, so it has to finish.
        report.finished(LOST);
    }
    report.released();
}

/// When a job that starts now has to end. A start that was late at the cost of much of the job's time is made up for.
fn fair(config: &Config, start: f64, expiration: f64) -> f64 {
    let (delay, duration) = (
        eventlog::timestamp(SystemTime::now()) - start,
        expiration - start,
    );
    match expiration > 0.0 && start > 0.0 && delay / duration * 100.0 > config.max_start_delay {
        true => expiration + delay,
        false => expiration,
    }
}

/// Sleep until then; for ever without a time.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

/// Options of processes that stay when this service goes, or the broker for as long as it may be away.
pub(super) fn lasting(patience: Duration) -> Map<String, Value> {
    let mut opts = Map::from_iter([(OUTLIVES_CLIENT.to_owned(), "1".into())]);
    if !patience.is_zero() {
        let seconds = patience.as_secs().max(1).to_string();
        opts.insert(OUTLIVES_BROKER.to_owned(), seconds.into());
    }
    opts
}

/// Wait status of a job of which nothing is left: exit code 127.
const LOST: i32 = 127 << 8;

/// Sleep until `when` (seconds since 1970); for ever if it is 0.
async fn until(when: f64) {
    if when <= 0.0 {
        return std::future::pending().await;
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64());
    let left = Duration::try_from_secs_f64((when - now).max(0.0)).unwrap_or(Duration::MAX);
    tokio::time::sleep(left).await;
}

impl Job {
    /// Start the shells, or find them again, and attend to them until all are gone; false if the service ends before.
    async fn supervise(
        &mut self,
        start: &Start,
        ranks: &[u32],
        shared: Option<sharing::Ending>,
        mut expiration: f64,
        orders: &mut Orders,
    ) -> bool {
        let events: &[_] = match start.reattach {
            true => &[("re-starting", Value::Null)],
            false => &BEGINNING,
        };
        let (linked, begun) = (self.guest.link(), self.guest.append(events));
        let command = Arc::new(self.command(start));
        let (tx, mut events) = unbounded_channel();
        // Nothing is followed any more when this ends.
        let mut watches = JoinSet::new();
        let away = |rank: &&u32| self.shells.get(rank) == Some(&Shell::Starting);
        for rank in ranks.iter().filter(away) {
            let watch = Watch {
                handle: self.site.handle.clone(),
                rank: *rank,
                id: start.id,
                patience: self.site.patience(),
                events: tx.clone(),
                sharing: self.site.sharing.clone(),
                shared: shared.clone(),
                r: start.r.clone(),
            };
            match (start.reattach, start.fresh) {
                (true, _) => watches.spawn(watch.find()),
                (false, true) => watches.spawn(watch.start(&command)),
                (false, false) => watches.spawn(watch.find_or_start(&command)),
            };
        }
        let mut found = start.reattach;
        self.start_if_all_have();
        if let (Err(e), _) | (_, Err(e)) = futures::join!(linked, begun) {
            self.fail("exec", &format!("cannot write the exec eventlog: {e}"));
        }
        while self.shells.values().any(|shell| *shell != Shell::Gone) {
            if found && self.shells.values().all(|shell| *shell != Shell::Starting) {
                found = false;
                self.report.reattached();
                // For those who look on.
                let _ = self.guest.append(&[("re-started", Value::Null)]).await;
            }
            tokio::select! {
                // `tx` lives here, so the channel stays open.
                Some((rank, event)) = events.recv() => self.shell_event(rank, event).await,
                message = orders.recv() => match message {
                    // The service ends; its next life finds the shells.
                    None => return false,
                    Some(message) => match message {
                    Control::Cancel(signum, status) => {
                        self.excepted = Some(status);
                        self.end(signum);
                    }
                    Control::Stats(tell) => {
                        // Whoever asked may be gone.
                        let _ = tell.send(self.stats(expiration));
                    }
                    Control::Override(request) => {
                        let e = RpcError::new(libc::EINVAL, "Job not in exec override mode");
                        self.site.handle.respond_error(&request, &e);
                    }
                    Control::Barrier(request) => self.barrier.enter(&self.site.handle, request),
                    Control::Expiration(when) => expiration = when,
                    Control::Critical(ranks) => self.places.set_critical(ranks),
                    Control::Namespace(request) => self.make_namespace(&request).await,
                    // It has left nothing yet.
                    Control::Recorded => {}
                    },
                },
                () = until(expiration) => {
                    expiration = 0.0;
                    let limit = start.jobspec.pointer("/attributes/system/duration");
                    let note = match limit.and_then(Value::as_f64) {
                        Some(limit) if limit > 0.0 => {
                            format!("resource allocation expired after {}", fsd::format(limit))
                        }
                        _ => "resource allocation expired".to_owned(),
                    };
                    // The manager's exception event comes back as Cancel.
                    self.report.exception("timeout", &note);
                }
                () = at(self.ending.as_ref().map(Ending::due)) => self.escalate(start).await,
                () = at(self.barrier.deadline()) => self.barrier_expired(start.id).await,
                () = at(self.leader_gone) => self.left_alone().await,
            }
        }
        true
    }

    /// Somebody asks for the job's namespace.
    async fn make_namespace(&mut self, request: &Message) {
        let made = self.guest.make().await;
        if let Err(e) = &made {
            self.fail("exec", &format!("cannot make the guest namespace: {e}"));
        }
        let answer = made.map(|()| json!({}));
        self.site.handle.respond_result(request, answer);
    }

    fn command(&self, start: &Start) -> ExecRequest {
        let shell = start
            .jobspec
            .pointer("/attributes/system/exec/job_shell")
            .and_then(Value::as_str)
            .or(self.site.config.job_shell.as_deref())
            .unwrap_or(&self.site.shell);
        let mut env = rexec::environment();
        env.insert("FLUX_KVS_NAMESPACE".into(), self.guest.name().to_owned());
        let cmdline = vec![shell.to_owned(), start.id.dec()];
        let opts = lasting(self.site.patience());
        rexec::request(cmdline, env, label(start.id), opts)
    }

    async fn shell_event(&mut self, rank: u32, event: ShellEvent) {
        match event {
            ShellEvent::Started(keeper) => {
                self.shells.insert(rank, Shell::Running(keeper));
                self.shares = keeper == Keeper::Shared;
                // One that was found again says all it has to say.
                self.handed.clear();
                if let Some(signum) = self.signal {
                    self.signal(rank, keeper, signum);
                }
                self.start_if_all_have();
            }
            ShellEvent::Output(text) => {
                let context = json!({
                    "stream": "stderr", "rank": rank.to_string(),
                    "component": "flux-shell", "data": text,
                });
                // Losing a shell's complaint must not lose the job.
                let _ = self.guest.append(&[("log", context)]).await;
            }
            ShellEvent::Unstored(addition) => self.handed.push(addition),
            ShellEvent::Exited(status) => {
                self.gone(rank, status);
                // One that was told to end is not lost.
                if let Some(signum) = WaitStatus(status).signal()
                    && self.signal.is_none()
                {
                    let loss = self.places.killed(rank, signum);
                    self.places.tell_leader(&self.site.handle, rank, &loss);
                    if loss.severity == 0 {
                        self.fail("exec", &loss.note);
                    }
                }
                let mut context = json!({ "rank": rank, "wait_status": status });
                let left = self.left();
                if self.places.is_leader(rank) && !left.is_empty() {
                    context["active_ranks"] = left.to_string().into();
                    let timeout = self.site.config.shell_exit_timeout;
                    self.leader_gone = timeout
                        .filter(|_| self.ending.is_none())
                        .and_then(|t| Instant::now().checked_add(t));
                }
                self.parting.push((rank, context));
                // The exit of the last is stored with the end of the job.
                if !left.is_empty() {
                    let _ = self.write_exits().await;
                }
            }
            ShellEvent::Failed(e) if e.errno == libc::EHOSTUNREACH && self.started => {
                let loss = self.places.unreachable(rank);
                self.gone(rank, LOST);
                self.places.tell_leader(&self.site.handle, rank, &loss);
                match loss.severity {
                    0 => self.fail("exec", &loss.note),
                    severity => self
                        .report
                        .mild_exception("node-failure", severity, &loss.note),
                }
            }
            ShellEvent::Failed(e) => {
                let note = match e.errno {
                    libc::ENOENT if self.reattaches || self.started => {
                        format!("job shell on rank {rank} is not there any more")
                    }
                    _ => format!("job shell could not be run on rank {rank}: {e}"),
                };
                self.gone(rank, LOST);
                self.fail("exec", &note);
            }
        }
    }

    /// Say that the job has started if that is so.
    fn start_if_all_have(&mut self) {
        let all = self.shells.values().all(|shell| *shell != Shell::Starting);
        if all && !self.started && !self.failed {
            self.started = true;
            self.report.started();
        }
    }

    fn gone(&mut self, rank: u32, status: i32) {
        self.shells.insert(rank, Shell::Gone);
        self.status = self.status.max(status);
        let stranded = self.barrier.is_waited_for();
        self.barrier.fail(&self.site.handle);
        if stranded && self.signal.is_none() {
            self.fail(
                "exec",
                &format!("shell on rank {rank} exited before all tasks had started"),
            );
        }
    }

    /// Raise an exception and end the job.
    fn fail(&mut self, kind: &str, note: &str) {
        if !self.failed {
            self.failed = true;
            self.report.exception(kind, note);
        }
        self.end(self.site.config.ending.term_signal);
    }

    /// How it is, by upstream's names.
    fn stats(&self, expiration: f64) -> Value {
        let timeout = self.site.config.ending.kill_timeout;
        let (tasks, shells, pause) = match &self.ending {
            Some(ending) => ending.attempts(),
            None => (0, 0, timeout),
        };
        let running = self.shells.values().all(|s| *s != Shell::Starting);
        json!({
            "implementation": "bulk-exec",
            "ns": self.guest.name(),
            "critical_ranks": self.places.critical().to_string(),
            "active_ranks": self.left().to_string(),
            "exception_in_progress": i32::from(self.ending.is_some()),
            "started": i32::from(self.started),
            "running": i32::from(running),
            "expiration": expiration,
            "kill_timeout": pause.as_secs_f64(),
            "kill_count": tasks,
            "kill_shell_count": shells,
        })
    }

    /// Ranks whose shells have not ended.
    fn left(&self) -> Idset {
        let left = self.shells.iter().filter(|(_, s)| **s != Shell::Gone);
        left.map(|(rank, _)| *rank).collect()
    }

    fn log(&self, text: &str) {
        self.site.handle.say("job-exec", 7, text);
    }

    async fn drain(&self, ranks: &Idset, reason: &str) {
        let request = json!({"targets": ranks.to_string(), "reason": reason, "mode": "update"});
        let drained = self
            .site
            .handle
            .rpc("resource.drain", Node::Rank(0), &request);
        if let Err(e) = drained.await {
            let text = format!("ranks {ranks} cannot be drained: {reason}: {e}");
            self.site.handle.say("job-exec", 3, &text);
        }
    }
}

/// The topic of a method of the shared shells.
fn shared(method: &str) -> String {
    format!("{}.{method}", shared_shell::NAME)
}
