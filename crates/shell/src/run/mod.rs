//! Running the tasks: one loop that owns the state and takes everything that happens in turn.
//!
//! The shell ends when its tasks have ended and their output is delivered; the leader also
//! waits for the other shells' word that theirs have (`tasks-complete`), because it takes their
//! output. A shell that is lost (the `exception` method of job-exec) is not waited for.

mod service;

use crate::{
    Fatal, barrier,
    environment::{for_task, gpus_per_task},
    input::Input,
    log::{Level, Logger, os_error},
    options::{InputOptions, Warning},
    output::{self, Sink, Stream},
    pmi::{Entries, Gather, Outcome, Pmi, to_payload},
    startup::{self, Shell, task_tags},
    task,
    template::{Scope, TaskTag},
};
use client::Node;
use formats::{Idset, JobId, ResourceSet, fsd, job::WaitStatus};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{os::unix::process::ExitStatusExt, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::spawn_local,
};
use wire::Message;

/// What the helpers of the loop report. The queue is unbounded: each helper has at most one
/// report under way that nobody waits for.
enum Event {
    /// A task has exited and its streams are at their end.
    TaskDone {
        index: usize,
        status: i32,
    },
    Pmi {
        rank: u32,
        line: String,
    },
    Exchanged(Option<Entries>),
    Started(Result<(), Fatal>),
    Complaint(String),
    /// The time other tasks had after the first exit is over.
    Doom,
    /// The job will be out of time soon.
    Expiring(Warning),
}

/// A task of this shell.
struct Task {
    tag: TaskTag,
    pid: i32,
    /// The wait status, once the task is done.
    status: Option<i32>,
}

/// The first failure of the job, on the leader.
struct FirstExit {
    what: &'static str,
    rank: u32,
    host: String,
    status: Option<i32>,
}

struct Running {
    shell: Shell,
    events: UnboundedSender<Event>,
    tasks: Vec<Task>,
    input: Input,
    pmi: Option<Pmi>,
    /// Attributes of the broker are fetched when the first task uses PMI.
    pmi_informed: bool,
    gather: Gather,
    /// All shells have started their tasks.
    started: bool,
    /// Tasks that ended before: their ends come after `shell.start` in the log.
    early_exits: Vec<(usize, i32)>,
    /// The leader: shells whose tasks have not ended. Others: nothing.
    active_shells: Idset,
    first_exit: Option<FirstExit>,
    exit_reported: bool,
    /// A task has asked for the end of the job; what the others do then is no protocol error.
    aborted: bool,
}

/// Runs the job's part on this node and returns the exit code.
pub async fn run(id: JobId) -> i32 {
    let logger = Logger::default();
    let shell = match startup::prepare(id, &logger).await {
        Ok(shell) => shell,
        Err(e) => return end_early(id, &logger, e).await,
    };
    let (events, queue) = unbounded_channel();
    let mut running = Running::new(shell, events);
    match running.serve(queue).await {
        Ok(()) => running.finish().await,
        Err(e) => running.fail(e).await,
    }
}

/// Reports an error of the preparation, through a connection of its own if need be.
async fn end_early(id: JobId, logger: &Logger, e: Fatal) -> i32 {
    // The exception has the job's shells terminated; this one ends by itself, with its own exit code.
    let _deaf = signal(SignalKind::terminate());
    logger.log(Level::Fatal, &e.message).await;
    if let Ok(handle) = client::Handle::open(None).await
        && let Err(raise) = startup::raise(&handle, id, &e.message, None).await
    {
        eprintln!("flux-shell: ERROR: failed to raise job exception: {raise}");
    }
    e.code
}

impl Running {
    fn new(shell: Shell, events: UnboundedSender<Event>) -> Running {
        let info = &shell.info;
        let active = if info.is_leader() {
            Idset::from_range(0, info.size() - 1)
        } else {
            Idset::new()
        };
        Running {
            input: Input::new(info),
            pmi: shell.options.pmi.then(|| Pmi::new(info, &shell.options)),
            pmi_informed: false,
            gather: Gather::new(info),
            tasks: Vec::new(),
            started: false,
            early_exits: Vec::new(),
            active_shells: active,
            first_exit: None,
            exit_reported: false,
            aborted: false,
            shell,
            events,
        }
    }

    fn is_leader(&self) -> bool {
        self.shell.info.is_leader()
    }

    async fn serve(&mut self, mut events: UnboundedReceiver<Event>) -> Result<(), Fatal> {
        let watch = |kind| signal(kind).map_err(|e| Fatal::new(format!("watching signals: {e}")));
        let mut interrupt = watch(SignalKind::interrupt())?;
        let mut terminate = watch(SignalKind::terminate())?;
        let mut alarm = watch(SignalKind::alarm())?;

        // A signal before there are tasks ends the shell: there is nobody to pass it to.
        let killed = |n: i32| Fatal {
            code: 128 + n,
            ..Fatal::new("")
        };
        let (handle, info) = (self.shell.handle.clone(), self.shell.info.clone());
        let mut met = std::pin::pin!(barrier::enter(&handle, &info));
        // What is for tasks waits for them.
        let mut early = Vec::new();
        loop {
            tokio::select! {
                met = &mut met => {
                    met?;
                    break;
                }
                // A shell that warns of something comes to the barrier when the leader has heard it.
                message = self.shell.inbox.recv() => match message {
                    Some(message) if message.method() != "write" => early.push(message),
                    message => self.received(message).await?,
                },
                _ = interrupt.recv() => return Err(killed(libc::SIGINT)),
                _ = terminate.recv() => return Err(killed(libc::SIGTERM)),
            }
        }
        if let Some(log) = &self.shell.log {
            let info = &self.shell.info;
            let context = json!({
                "service": self.shell.service,
                "leader-rank": info.leader_rank(),
                "size": info.size(),
            });
            log.append("exec.eventlog", "shell.init", context).await;
        }
        self.start_tasks()?;
        for message in early {
            self.message(message).await?;
        }
        self.second_barrier();
        self.watch_expiration();
        if self.tasks.is_empty() {
            self.tasks_complete().await;
        }
        while !self.is_finished() {
            tokio::select! {
                // The loop itself holds a sender, so the queue never ends.
                Some(event) = events.recv() => self.event(event).await?,
                message = self.shell.inbox.recv() => self.received(message).await?,
                _ = interrupt.recv() => self.kill_tasks(libc::SIGINT),
                _ = terminate.recv() => self.kill_tasks(libc::SIGTERM),
                _ = alarm.recv() => self.kill_tasks(libc::SIGALRM),
            }
        }
        Ok(())
    }

    async fn received(&mut self, message: Option<Message>) -> Result<(), Fatal> {
        match message {
            Some(message) => self.message(message).await,
            None => Err(Fatal::new("lost connection to the broker")),
        }
    }

    fn is_finished(&self) -> bool {
        let local = self.tasks.iter().all(|task| task.status.is_some());
        local && self.started && self.active_shells.is_empty()
    }

    fn start_tasks(&mut self) -> Result<(), Fatal> {
        let shell = &self.shell;
        let info = &shell.info;
        let tags = task_tags(info);
        let tmpdir = shell.tmpdir.path().to_string_lossy();
        let gpus = gpus_per_task(
            &shell.options.gpu_affinity,
            &info.here().gpus,
            tags.len() as u32,
        );
        let expand = info.jobspec.shell_option("env-expand").cloned();
        for tag in tags {
            let index = tag.index as usize;
            let scope = Scope {
                info,
                tmpdir: Some(&tmpdir),
                shell_rank: info.shell_rank,
                task: Some(tag),
            };
            let gpus = gpus.as_ref().and_then(|all| all.get(index));
            let argv: Vec<String> = info
                .jobspec
                .command()
                .iter()
                .map(|arg| scope.render(arg))
                .collect();
            let started = task::start(task::Spec {
                argv: &argv,
                env: for_task(&shell.env, &scope, tag, gpus, expand.as_ref()),
                input: &shell.options.input,
                process_group: !shell.options.nosetpgrp,
                pmi: self.pmi.as_ref().map(|_| (tag.rank, info.ntasks)),
                cpus: shell.bindings.get(index),
            })
            .map_err(|e| Fatal {
                // What command interpreters use: not permitted, not found.
                code: match e.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => 126,
                    Some(libc::ENOENT) => 127,
                    _ => 1,
                },
                wait_status: None,
                message: format!(
                    "task {} on {}: cannot start {}: {}",
                    tag.rank,
                    shell.hostname,
                    argv.first().map_or("", String::as_str),
                    os_error(&e)
                ),
            })?;
            self.tasks.push(Task {
                tag,
                pid: started.pid,
                status: None,
            });
            if let Some(stdin) = started.stdin
                && shell.options.input == InputOptions::Service
            {
                self.input.attach(tag.rank, stdin);
            }
            if let Some((pmi, stream)) = self.pmi.as_mut().zip(started.pmi) {
                let events = self.events.clone();
                let rank = tag.rank;
                pmi.attach(rank, stream, move |line| {
                    let _ = events.send(Event::Pmi { rank, line });
                });
            }
            let pump = |stream, source: Source, line_buffered| {
                let events = self.events.clone();
                // `open` has made a sink for each stream of each local task.
                shell.output.sink(stream, tag.rank).map(|sink| {
                    source.pump(stream, tag.rank, line_buffered, sink, move |text| {
                        let _ = events.send(Event::Complaint(text));
                    })
                })
            };
            let options = &shell.options;
            let out = pump(
                Stream::Stdout,
                Source::Out(started.stdout),
                options.stdout.line_buffered,
            );
            let err = pump(
                Stream::Stderr,
                Source::Err(started.stderr),
                options.stderr.line_buffered,
            );
            let events = self.events.clone();
            let mut child = started.child;
            spawn_local(async move {
                let drained = futures::future::join_all([out, err].into_iter().flatten());
                let (status, _) = futures::join!(child.wait(), drained);
                // Waiting for one's own child fails only if something else has reaped it.
                let status = status.map_or(256, ExitStatusExt::into_raw);
                let _ = events.send(Event::TaskDone { index, status });
            });
        }
        Ok(())
    }

    /// Enters the second barrier beside the loop: tasks are served while it lasts.
    fn second_barrier(&self) {
        let (handle, info) = (self.shell.handle.clone(), self.shell.info.clone());
        let events = self.events.clone();
        spawn_local(async move {
            let met = barrier::enter(&handle, &info).await;
            let _ = events.send(Event::Started(met));
        });
    }

    /// Sets the clock for the warning signal, and again when the job's time changes.
    fn watch_expiration(&self) {
        let Some(warning) = self.shell.options.signal.filter(|_| self.is_leader()) else {
            return;
        };
        let (handle, events) = (self.shell.handle.clone(), self.events.clone());
        let (id, mut expiration) = (self.shell.info.id, self.shell.info.expiration);
        spawn_local(async move {
            let request = json!({"id": id, "key": "R", "flags": 0});
            let mut updates = handle.stream("job-info.update-watch", Node::Any, &request);
            let mut watching = true;
            loop {
                let wake = expiration - warning.timeleft - crate::kvslog::now();
                let sleep = Duration::try_from_secs_f64(wake.max(0.)).unwrap_or(Duration::MAX);
                tokio::select! {
                    () = tokio::time::sleep(sleep), if expiration > 0. => {
                        let _ = events.send(Event::Expiring(warning));
                        return;
                    }
                    update = updates.next(), if watching => match update {
                        Some(Ok(message)) => {
                            let r = message.json::<Value>().ok().and_then(|v| v.get("R").cloned());
                            let r = r.and_then(|r| ResourceSet::try_from(r).ok());
                            expiration = r.map_or(expiration, |r| r.expiration);
                        }
                        _ => watching = false,
                    },
                    else => return,
                }
            }
        });
    }

    async fn event(&mut self, event: Event) -> Result<(), Fatal> {
        match event {
            Event::TaskDone { index, status } if !self.started => {
                self.early_exits.push((index, status));
                Ok(())
            }
            Event::TaskDone { index, status } => self.task_done(index, status).await,
            Event::Pmi { rank, line } => self.pmi_line(rank, &line).await,
            Event::Exchanged(entries) => match &mut self.pmi {
                Some(pmi) => {
                    let outcomes = pmi.exchanged(entries).await;
                    self.pmi_outcomes(outcomes).await
                }
                None => Ok(()),
            },
            Event::Started(outcome) => {
                outcome?;
                self.started = true;
                if let Some(log) = &self.shell.log {
                    let context = json!({"taskmap": self.shell.info.taskmap.to_wrapped()});
                    log.append("exec.eventlog", "shell.start", context).await;
                }
                for (index, status) in std::mem::take(&mut self.early_exits) {
                    self.task_done(index, status).await?;
                }
                Ok(())
            }
            Event::Complaint(text) => {
                self.shell.logger.log(Level::Warning, &text).await;
                Ok(())
            }
            Event::Doom => self.doom_timeout(),
            Event::Expiring(warning) => {
                let name = Signal::try_from(warning.signum).map_or("signal", Signal::as_str);
                let left = warning.timeleft;
                let text = format!("job will expire in {left:.1}s, sending {name} to job");
                self.shell.logger.log(Level::Notice, &text).await;
                let request = json!({"id": self.shell.info.id, "signum": warning.signum});
                let _ = self
                    .shell
                    .handle
                    .rpc("job-manager.kill", Node::Any, &request)
                    .await;
                Ok(())
            }
        }
    }

    async fn task_done(&mut self, index: usize, status: i32) -> Result<(), Fatal> {
        let task = &mut self.tasks[index];
        task.status = Some(status);
        let wait = WaitStatus(status);
        let report = json!({
            "localid": task.tag.index,
            "rank": task.tag.rank,
            "state": "Exited",
            "pid": task.pid,
            "wait_status": status,
            "signaled": wait.signal().unwrap_or(0),
            "exitcode": wait.exit_code(),
        });
        if !self.exit_reported {
            if self.is_leader() {
                self.first_task_exit(report).await?;
            } else {
                self.exit_reported = true;
                let leader = Node::Rank(self.shell.info.leader_rank());
                let topic = format!("{}.doom", self.shell.service);
                self.shell.handle.notify(&topic, leader, &report);
            }
        }
        if self.tasks.iter().all(|task| task.status.is_some()) {
            self.tasks_complete().await;
        }
        Ok(())
    }

    /// The tasks of this shell have ended.
    async fn tasks_complete(&mut self) {
        let info = &self.shell.info;
        if info.is_leader() {
            self.active_shells.remove(0);
            return;
        }
        let topic = format!("{}.tasks-complete", self.shell.service);
        let request = json!({"shell_rank": info.shell_rank});
        // When the leader is gone the job is over anyway.
        let _ = self
            .shell
            .handle
            .rpc(&topic, Node::Rank(info.leader_rank()), &request)
            .await;
    }

    /// Records the first exit of a task in the whole job, and what follows from it.
    async fn first_task_exit(&mut self, report: Value) -> Result<(), Fatal> {
        if self.exit_reported {
            return Ok(());
        }
        self.exit_reported = true;
        let number = |key: &str| report.get(key).and_then(Value::as_i64);
        let rank = number("rank").unwrap_or(0) as u32;
        let status = number("wait_status").map(|s| s as i32);
        if let Some(log) = &self.shell.log {
            log.append("exec.eventlog", "shell.task-exit", report.clone())
                .await;
        }
        let info = &self.shell.info;
        let node = info.taskmap.node_of(rank);
        let host = node
            .and_then(|n| info.places.get(n as usize))
            .map(|p| p.host.clone());
        let host = host.unwrap_or_else(|| "unknown".into());
        self.check_exit(FirstExit {
            what: "task",
            rank,
            host,
            status,
        })
    }

    fn check_exit(&mut self, exit: FirstExit) -> Result<(), Fatal> {
        let failed = exit.status != Some(0);
        if failed && self.shell.options.exit_on_error {
            return Err(self.exit_failure(&exit, "failed", "exit-on-error is set"));
        }
        if let Some(seconds) = self.shell.options.exit_timeout
            && let Ok(timeout) = Duration::try_from_secs_f64(seconds)
        {
            let events = self.events.clone();
            spawn_local(async move {
                tokio::time::sleep(timeout).await;
                let _ = events.send(Event::Doom);
            });
        }
        self.first_exit = Some(exit);
        Ok(())
    }

    fn exit_failure(&self, exit: &FirstExit, did: &str, why: &str) -> Fatal {
        let name = self
            .shell
            .info
            .jobspec
            .command()
            .first()
            .map_or("", String::as_str);
        let name = name.rsplit('/').next().unwrap_or(name);
        let how = exit
            .status
            .map_or(String::new(), |s| format!(" ({})", describe_exit(s)));
        let FirstExit {
            what, rank, host, ..
        } = exit;
        Fatal {
            code: exit.status.map_or(1, |s| WaitStatus(s).exit_code()),
            message: format!("{what} {rank} of {name} on {host} {did}{how}; job ended, as {why}"),
            wait_status: exit.status,
        }
    }

    fn doom_timeout(&self) -> Result<(), Fatal> {
        let Some(exit) = &self.first_exit else {
            return Ok(());
        };
        let limit = fsd::format(self.shell.options.exit_timeout.unwrap_or(0.));
        Err(self.exit_failure(exit, "exited", &format!("exit-timeout={limit} has expired")))
    }

    async fn pmi_line(&mut self, rank: u32, line: &str) -> Result<(), Fatal> {
        let Some(pmi) = &mut self.pmi else {
            return Ok(());
        };
        if !self.pmi_informed {
            self.pmi_informed = true;
            let handle = &self.shell.handle;
            let (level, hint) = futures::join!(
                handle.getattr("instance-level"),
                handle.getattr("tbon.interface-hint")
            );
            pmi.set_instance(level.as_deref().ok(), hint.as_deref().ok());
        }
        if self.shell.logger.is_on(Level::Trace) {
            self.shell
                .logger
                .log(Level::Trace, &format!("{rank}: C: {line}"))
                .await;
        }
        let outcomes = pmi.line(rank, line).await;
        self.pmi_outcomes(outcomes).await
    }

    async fn pmi_outcomes(&mut self, outcomes: Vec<Outcome>) -> Result<(), Fatal> {
        for outcome in outcomes {
            match outcome {
                Outcome::Exchange(entries) if self.is_leader() => self.gather(entries, None),
                Outcome::Exchange(entries) => {
                    let topic = format!("{}.pmi-exchange", self.shell.service);
                    let leader = Node::Rank(self.shell.info.leader_rank());
                    let answer = self.shell.handle.rpc(&topic, leader, &to_payload(&entries));
                    let events = self.events.clone();
                    spawn_local(async move {
                        let entries = answer.await.and_then(|m| m.json()).ok();
                        let _ = events.send(Event::Exchanged(entries));
                    });
                }
                Outcome::Abort { message, .. } => {
                    // The job goes on until job-exec ends it, so that output is not lost.
                    self.aborted = true;
                    let note = format!("PMI_Abort: {message}");
                    let (handle, id) = (&self.shell.handle, self.shell.info.id);
                    if let Err(e) = startup::raise(handle, id, &note, None).await {
                        let text = format!("failed to raise job exception: {e}");
                        self.shell.logger.log(Level::Error, &text).await;
                    }
                }
                Outcome::Violation { rank, line } if !self.aborted => {
                    let text = format!("task {rank}: PMI-1 wire protocol error: {line:?}");
                    return Err(Fatal::new(text));
                }
                Outcome::Violation { .. } => {}
            }
        }
        Ok(())
    }

    /// The leader: one more shell has arrived at the PMI barrier.
    fn gather(&mut self, entries: Entries, request: Option<Message>) {
        let Some(all) = self.gather.add(entries, request) else {
            return;
        };
        let payload = to_payload(&all.entries);
        for request in &all.requests {
            self.shell.handle.respond(request, &payload);
        }
        if !self.tasks.is_empty() {
            let _ = self.events.send(Event::Exchanged(Some(all.entries)));
        }
    }

    /// Sends a signal to all tasks that run, with their process groups.
    fn kill_tasks(&self, signum: i32) {
        let Ok(signal) = Signal::try_from(signum) else {
            return;
        };
        for task in self.tasks.iter().filter(|t| t.status.is_none()) {
            let pid = Pid::from_raw(task.pid);
            // A task that has just ended cannot be signalled; that is no error.
            let _ = match self.shell.options.nosetpgrp {
                true => kill(pid, signal),
                false => killpg(pid, signal),
            };
        }
    }

    /// The ordered end: everything is stored before the shell exits.
    async fn finish(self) -> i32 {
        for (stream, limit) in &self.shell.output.limits {
            if let Some((cut, all)) = limit.excess() {
                let text = format!("{}: {cut} of {all} bytes truncated", stream.name());
                self.shell.logger.log(Level::Warning, &text).await;
            }
        }
        let codes = self
            .tasks
            .iter()
            .filter_map(|t| t.status)
            .map(|s| WaitStatus(s).exit_code());
        let code = codes.max().unwrap_or(0);
        self.flush().await;
        code
    }

    /// The end by an error of the shell: tasks are killed and the job gets an exception.
    async fn fail(self, e: Fatal) -> i32 {
        self.shell.logger.log(Level::Fatal, &e.message).await;
        self.kill_tasks(libc::SIGKILL);
        if !e.message.is_empty() {
            let (handle, id) = (&self.shell.handle, self.shell.info.id);
            let raised = startup::raise(handle, id, &e.message, e.wait_status).await;
            if let Err(raise) = raised {
                eprintln!("flux-shell: ERROR: failed to raise job exception: {raise}");
            }
        }
        self.flush().await;
        e.code
    }

    async fn flush(&self) {
        if let Some(log) = &self.shell.log
            && let Err(e) = log.flush().await
        {
            eprintln!("flux-shell: ERROR: not all events of the job were stored: {e}");
        }
    }
}

/// An output stream of a task.
enum Source {
    Out(tokio::process::ChildStdout),
    Err(tokio::process::ChildStderr),
}

impl Source {
    async fn pump(
        self,
        stream: Stream,
        rank: u32,
        line_buffered: bool,
        sink: Sink,
        complain: impl Fn(String),
    ) {
        match self {
            Source::Out(s) => output::pump(s, stream, rank, line_buffered, sink, complain).await,
            Source::Err(s) => output::pump(s, stream, rank, line_buffered, sink, complain).await,
        }
    }
}

/// How a task ended: the signal's name, or `Exit N`.
fn describe_exit(status: i32) -> String {
    match WaitStatus(status).signal() {
        Some(signal) => formats::signals::describe(signal),
        None => format!("Exit {}", WaitStatus(status).exit_code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits() {
        assert_eq!(describe_exit(512), "Exit 2");
        assert_eq!(describe_exit(139), "Segmentation fault");
    }
}
