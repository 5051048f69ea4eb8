//! One running job: shells on all its ranks, from start to release.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::{Node, RpcStream};
use formats::fsd;
use formats::job::WaitStatus;
use formats::jobid::JobId;
use formats::resource_set::ResourceSet;
use formats::subprocess::{AttachRequest, ExecRequest, ExecResponse, OUTLIVES_CLIENT, Target};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use wire::{Message, RpcError};

use super::barrier::Barrier;
use super::guest::Guest;
use super::lost::Places;
use super::{Control, Reporter, Site, mock};
use crate::rexec;

/// From SIGTERM to SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A `start` request (RFC 32).
#[derive(Debug, Deserialize)]
pub(crate) struct Start {
    pub(super) id: JobId,
    pub(super) userid: u32,
    pub(super) jobspec: Value,
    #[serde(rename = "R")]
    r: Value,
    /// Its shells were started in an earlier life of this service.
    #[serde(default)]
    pub(super) reattach: bool,
}

impl Start {
    /// When the resources were given, in seconds since 1970; 0 if they do not say.
    pub(super) fn starttime(&self) -> f64 {
        let time = self.r.pointer("/execution/starttime");
        time.and_then(Value::as_f64).unwrap_or(0.0)
    }
}

/// What the shell on a rank reports.
enum ShellEvent {
    Started(i32),
    Output(String),
    Exited(i32),
    /// It could not be started, or is out of reach.
    Failed(RpcError),
}

/// State of one shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shell {
    Starting,
    Running(i32),
    Gone,
}

struct Job {
    site: Site,
    report: Reporter,
    guest: Guest,
    shells: HashMap<u32, Shell>,
    barrier: Barrier,
    places: Places,
    started: bool,
    /// The shells were started before this service was.
    reattaches: bool,
    /// Largest wait status so far.
    status: i32,
    /// Signal to send to shells that start from now on.
    signal: Option<i32>,
    failed: bool,
}

/// Run a job to its end.
pub(super) async fn run(
    site: Site,
    request: Message,
    start: Start,
    mut control: UnboundedReceiver<Control>,
) {
    let report = Reporter::new(site.handle.clone(), request, start.id);
    if mock::options(&start.jobspec).is_some() {
        mock::run(&site, &report, &start, &mut control).await;
        return;
    }
    let guest = Guest::new(site.handle.clone(), start.id);
    let set = match ResourceSet::try_from(start.r.clone()) {
        Ok(set) => set,
        Err(e) => {
            report.exception("exec", &e.to_string());
            report.released();
            return;
        }
    };
    let prepared = match start.reattach {
        true => match guest.restore(start.userid).await {
            Ok(()) => guest.exited().await,
            Err(e) => Err(e),
        },
        false => guest.create(start.userid).await.map(|()| Vec::new()),
    };
    let exited = match prepared {
        Ok(exited) => exited,
        Err(e) => return unprepared(&report, &start, &e),
    };
    let ranks: Vec<u32> = set.ranks().iter().collect();
    let mut job = Job {
        report: report.clone(),
        shells: ranks.iter().map(|rank| (*rank, Shell::Starting)).collect(),
        barrier: Barrier::new(ranks.len()),
        places: Places::new(&set, start.id, start.userid),
        guest,
        site,
        started: start.reattach,
        reattaches: start.reattach,
        status: 0,
        signal: None,
        failed: false,
    };
    for (rank, status) in exited {
        job.shells.insert(rank, Shell::Gone);
        job.status = job.status.max(status);
    }
    if !job.supervise(&start, &ranks, set.expiration, control).await {
        return;
    }
    let log = job.guest.append(&[
        ("complete", json!({ "status": job.status })),
        ("done", Value::Null),
    ]);
    job.report.finished(job.status);
    let ended = async {
        log.await?;
        job.guest.finish().await
    };
    if let Err(e) = ended.await {
        job.report
            .exception("exec", &format!("cannot store the guest namespace: {e}"));
    }
    job.report.released();
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
        mut expiration: f64,
        mut control: UnboundedReceiver<Control>,
    ) -> bool {
        let events: &[_] = match start.reattach {
            true => &[("re-starting", Value::Null)],
            false => &[("init", Value::Null), ("starting", Value::Null)],
        };
        let begun = self.guest.append(events);
        let (topic, request) = match start.reattach {
            true => ("rexec.attach", json!(attach(start.id))),
            false => ("rexec.exec", json!(self.command(start))),
        };
        let (tx, mut events) = unbounded_channel();
        // Nothing is followed any more when this ends.
        let mut watches = JoinSet::new();
        let away = |rank: &&u32| self.shells.get(rank) == Some(&Shell::Starting);
        for rank in ranks.iter().filter(away) {
            let stream = self.site.handle.stream(topic, Node::Rank(*rank), &request);
            watches.spawn(watch(*rank, stream, tx.clone()));
        }
        let mut found = start.reattach;
        if let Err(e) = begun.await {
            self.fail("exec", &format!("cannot write the exec eventlog: {e}"));
        }
        let mut escalation: Option<std::pin::Pin<Box<tokio::time::Sleep>>> = None;
        while self.shells.values().any(|shell| *shell != Shell::Gone) {
            let was_signalled = self.signal.is_some();
            if found && self.shells.values().all(|shell| *shell != Shell::Starting) {
                found = false;
                self.report.reattached();
                // For those who look on.
                let _ = self.guest.append(&[("re-started", Value::Null)]).await;
            }
            tokio::select! {
                // `tx` lives here, so the channel stays open.
                Some((rank, event)) = events.recv() => self.shell_event(rank, event).await,
                message = control.recv() => match message {
                    // The service ends; its next life finds the shells.
                    None => return false,
                    Some(message) => match message {
                    Control::Cancel(signum) => self.signal_all(signum),
                    Control::Barrier(request) => self.barrier.enter(&self.site.handle, request),
                    Control::Expiration(when) => expiration = when,
                    Control::Critical(ranks) => self.places.set_critical(ranks),
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
                () = async { match escalation.as_mut() {
                    Some(timer) => timer.await,
                    None => std::future::pending().await,
                } } => {
                    self.signal_all(libc::SIGKILL);
                    escalation = Some(Box::pin(tokio::time::sleep(KILL_TIMEOUT)));
                }
            }
            if !was_signalled && self.signal.is_some() {
                escalation = Some(Box::pin(tokio::time::sleep(KILL_TIMEOUT)));
            }
        }
        true
    }

    fn command(&self, start: &Start) -> ExecRequest {
        let shell = start
            .jobspec
            .pointer("/attributes/system/exec/job_shell")
            .and_then(Value::as_str)
            .unwrap_or(&self.site.shell);
        let mut env = rexec::environment();
        env.insert("FLUX_KVS_NAMESPACE".into(), self.guest.name().to_owned());
        let cmdline = vec![shell.to_owned(), start.id.dec()];
        // The shells stay when this service goes.
        let opts = Map::from_iter([(OUTLIVES_CLIENT.to_owned(), "1".into())]);
        rexec::request(cmdline, env, label(start.id), opts)
    }

    async fn shell_event(&mut self, rank: u32, event: ShellEvent) {
        match event {
            ShellEvent::Started(pid) => {
                self.shells.insert(rank, Shell::Running(pid));
                if let Some(signum) = self.signal {
                    self.signal(rank, pid, signum);
                }
                let all = self.shells.values().all(|shell| *shell != Shell::Starting);
                if all && !self.started && !self.failed {
                    self.started = true;
                    self.report.started();
                }
            }
            ShellEvent::Output(text) => {
                let context = json!({
                    "stream": "stderr", "rank": rank.to_string(),
                    "component": "flux-shell", "data": text,
                });
                // Losing a shell's complaint must not lose the job.
                let _ = self.guest.append(&[("log", context)]).await;
            }
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
                let context = json!({ "rank": rank, "wait_status": status });
                let _ = self.guest.append(&[("shell-exit", context)]).await;
                // From now on the eventlog knows: rexec need not.
                let request = Target::label(label(self.report.id()));
                self.site
                    .handle
                    .notify("rexec.wait", Node::Rank(rank), &request);
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
                    libc::ENOENT if self.reattaches => {
                        format!("job shell on rank {rank} is not there any more")
                    }
                    _ => format!("job shell could not be run on rank {rank}: {e}"),
                };
                self.gone(rank, LOST);
                self.fail("exec", &note);
            }
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
        self.signal_all(libc::SIGTERM);
    }

    fn signal_all(&mut self, signum: i32) {
        self.signal = Some(signum);
        for (rank, shell) in &self.shells {
            if let Shell::Running(pid) = shell {
                self.signal(*rank, *pid, signum);
            }
        }
    }

    fn signal(&self, rank: u32, pid: i32, signum: i32) {
        let request = json!({ "pid": pid, "signum": signum });
        self.site
            .handle
            .notify("rexec.kill", Node::Rank(rank), &request);
    }
}

/// What a job's shells are called in rexec.
fn label(id: JobId) -> String {
    format!("shell-{}", id.dec())
}

/// The request that finds a shell again.
fn attach(id: JobId) -> AttachRequest {
    AttachRequest {
        target: Target::label(label(id)),
        flags: rexec::OUTPUT,
    }
}

/// Report what becomes of the shell on `rank`.
async fn watch(rank: u32, mut stream: RpcStream, tx: UnboundedSender<(u32, ShellEvent)>) {
    // The receiver lives as long as the job's task; after it nobody wants to know.
    let send = |event| drop(tx.send((rank, event)));
    let mut status = None;
    while let Some(answer) = stream.next().await {
        match answer.and_then(|msg| msg.json()) {
            Ok(ExecResponse::Started { pid } | ExecResponse::Attached { pid, .. }) => {
                send(ShellEvent::Started(pid));
            }
            Ok(ExecResponse::Output { io, .. }) if !io.data.is_empty() => {
                let text = String::from_utf8_lossy(&io.data).into_owned();
                send(ShellEvent::Output(text));
            }
            Ok(ExecResponse::Finished { status: code }) => status = Some(code),
            Ok(_) => {}
            Err(e) => return send(ShellEvent::Failed(e)),
        }
    }
    match status {
        Some(code) => send(ShellEvent::Exited(code)),
        None => send(ShellEvent::Failed(RpcError::errno(libc::ECONNRESET))),
    }
}
