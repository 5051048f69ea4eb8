//! Running the tasks: one loop that owns the state and takes everything that happens in turn.
//!
//! The shell ends when its tasks have ended and their output is delivered; the leader also
//! waits for the other shells' word that theirs have (`tasks-complete`), because it takes their
//! output. A shell that is lost (the `exception` method of job-exec) is not waited for.

mod callbacks;
mod exchange;
mod exits;
mod pmix;
mod processes;
mod proctable;
mod service;

use crate::{
    Fatal,
    barrier::Barrier,
    environment::{for_task, gpus_per_task},
    gather::Gather,
    input::Input,
    kvslog::Logs,
    learn::{self, Learned},
    log::{Level, Logger, complain, os_error},
    options::{InputOptions, Warning},
    output::{self, Stream},
    patience::{Patience, Turn},
    plugins,
    pmi::{Entries, Pmi},
    pty::{Terminals, leader_session},
    seat::{Seat, Signals},
    startup::{self, Shell, task_tags},
    task,
    template::{Scope, TaskTag},
};
use callbacks::InTask;
use client::Node;
use exits::FirstExit;
use formats::{Idset, JobId, ResourceSet, job::WaitStatus};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    any::Any, collections::HashMap, os::unix::process::ExitStatusExt, sync::atomic::Ordering,
    time::Duration,
};
use subprocess::server::Server;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::spawn_local,
};
use wire::{Message, RpcError};

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
    Pmix(pmix::Happening),
    Started(Result<(), Fatal>),
    Complaint(String),
    /// What a plugin has asked another shell.
    Answer {
        plugin: String,
        topic: String,
        answer: Result<Value, RpcError>,
    },
    /// The time other tasks had after the first exit is over.
    Doom,
    /// The job will be out of time soon.
    Expiring(Warning),
    /// The connection to the broker was lost.
    Turn(Turn),
}

/// Signals that ask a job to end.
const ENDS: [Signal; 5] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGKILL,
];

/// A task of this shell.
struct Task {
    tag: TaskTag,
    pid: i32,
    /// The wait status, once the task is done.
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
    /// Others than the leader: PMI exchanges that were begun.
    exchanges: u64,
    /// The leader: the last batch of output from each other shell.
    written: HashMap<u32, u64>,
    /// Barriers this shell has passed.
    passed: u64,
    pmix: Option<pmix::Pmix>,
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
    /// Terminals of the tasks that have one.
    terminals: Terminals,
    /// Processes that are none of the job's tasks.
    processes: Server,
}

/// Runs the job's part on this node, in a process of its own, and returns the exit code.
pub async fn run(id: JobId) -> i32 {
    let patience = Patience::from_env();
    let logger = Logger::default();
    let code = match learn::learn(id, Seat::Own(patience.clone())).await {
        // A log of a process of its own holds nothing back.
        Ok(learned) => run_learned(id, learned, &logger).await.code,
        Err(e) => end_early(id, &logger, e).await,
    };
    let code = code.clamp(0, 255);
    patience.leave(code);
    code
}

/// How a shell has ended.
pub struct End {
    /// Its exit code.
    pub code: i32,
    /// What is left to store of the job's eventlogs.
    pub unstored: Logs,
    /// What the job needed on this node. It is cleared away when this is dropped.
    pub rest: Option<Box<dyn Any>>,
}

impl End {
    /// Of a shell that had made nothing yet.
    pub fn early(code: i32) -> End {
        End {
            code,
            unstored: Logs::new(),
            rest: None,
        }
    }
}

/// Runs the part of a job one knows about.
pub async fn run_learned(id: JobId, learned: Learned, logger: &Logger) -> End {
    let prepared = startup::prepare(learned, logger).await;
    let (events, queue) = unbounded_channel();
    let mut running = match prepared.and_then(|shell| Running::new(shell, events)) {
        Ok(running) => running,
        Err(e) => return End::early(end_early(id, logger, e).await),
    };
    match running.serve(queue).await {
        Ok(()) => running.finish().await,
        Err(e) => running.fail(e).await,
    }
}

/// Reports an error of the preparation, through a connection of its own if need be.
pub async fn end_early(id: JobId, logger: &Logger, e: Fatal) -> i32 {
    // The exception has job-exec end the job's shells; this one ends with a code of its own.
    let _caught = signal(SignalKind::terminate());
    logger.log(Level::Fatal, &e.message).await;
    if let Ok(handle) = client::Handle::open(None).await
        && let Err(raise) = startup::raise(&handle, id, &e.message, None).await
    {
        complain(&format!("ERROR: failed to raise job exception: {raise}"));
    }
    e.code
}

impl Running {
    fn new(shell: Shell, events: UnboundedSender<Event>) -> Result<Running, Fatal> {
        let info = &shell.info;
        let active = if info.is_leader() {
            Idset::from_range(0, info.size() - 1)
        } else {
            Idset::new()
        };
        let uri = std::env::var("FLUX_URI").unwrap_or_default();
        let processes = Server::new(shell.handle.clone(), uri)
            .map_err(|e| Fatal::new(format!("watching child processes: {e}")))?;
        Ok(Running {
            processes,
            terminals: Terminals::new(&shell),
            input: Input::new(info, shell.options.input_limit),
            pmi: shell
                .options
                .pmi
                .serve
                .then(|| Pmi::new(info, &shell.options, shell.logger.clone())),
            pmi_informed: false,
            gather: Gather::new(info),
            exchanges: 0,
            written: HashMap::new(),
            passed: 0,
            pmix: None,
            tasks: Vec::new(),
            started: false,
            early_exits: Vec::new(),
            active_shells: active,
            first_exit: None,
            exit_reported: false,
            aborted: false,
            shell,
            events,
        })
    }

    fn is_leader(&self) -> bool {
        self.shell.info.is_leader()
    }

    async fn serve(&mut self, mut events: UnboundedReceiver<Event>) -> Result<(), Fatal> {
        let mut signals = match self.shell.signals.take() {
            Some(sent) => Signals::Sent(sent),
            None => Signals::of_process()?,
        };
        let heeded = self.shell.initrc.heed_signals();
        heeded.map_err(|e| Fatal::new(format!("watching signals: {e}")))?;

        // A signal before there are tasks ends the shell: there is nobody to pass it to.
        let killed = |n: i32| Fatal {
            code: 128 + n,
            ..Fatal::new("")
        };
        self.watch_connection();
        let barrier = Barrier::of(&self.shell);
        let mut met = std::pin::pin!(barrier.enter(0));
        // What is for tasks waits for them.
        let mut early = Vec::new();
        loop {
            tokio::select! {
                met = &mut met => {
                    met?;
                    break;
                }
                // A shell that warns of something comes to the barrier when the leader has heard it.
                message = self.shell.mail.recv() => match message {
                    Some(message) if message.method() != "write" => early.push(message),
                    message => self.received(message).await?,
                },
                signum = signals.next() => return Err(killed(signum)),
            }
        }
        self.passed = 1;
        self.shell.met.store(true, Ordering::Relaxed);
        if let Some(log) = &self.shell.log {
            let info = &self.shell.info;
            let mut context = json!({
                "service": self.shell.service,
                "leader-rank": info.leader_rank(),
                "size": info.size(),
            });
            if let Some(pty) = &self.shell.options.pty {
                leader_session(pty, &mut context);
            }
            let job = self.shell.plugins.job();
            job.complete_context("shell.init", &mut context);
            log.append("exec.eventlog", "shell.init", context).await;
        }
        if !self.shell.patience.is_noted(&self.shell.handle).await {
            return Err(Fatal::new(""));
        }
        self.start_pmix()?;
        self.shell.plugins.run("shell.post-init").await?;
        self.start_tasks().await?;
        self.shell.plugins.run("shell.start").await?;
        for message in early {
            self.message(message).await?;
        }
        self.second_barrier();
        self.watch_expiration();
        if self.tasks.is_empty() {
            self.tasks_complete().await?;
        }
        loop {
            self.fulfil_wishes().await?;
            if self.is_finished() {
                return Ok(());
            }
            tokio::select! {
                // The loop itself holds a sender, so the queue never ends.
                Some(event) = events.recv() => self.event(event).await?,
                message = self.shell.mail.recv() => self.received(message).await?,
                happening = self.terminals.server.next() => self.terminals.server.happened(happening),
                happening = self.processes.next() => self.processes.happened(happening),
                signum = signals.next() => match signum {
                    libc::SIGINT | libc::SIGTERM | libc::SIGALRM => self.kill_tasks(signum),
                    // What would end a process of the shell's own.
                    _ => return Err(killed(signum)),
                },
            }
        }
    }

    async fn received(&mut self, message: Option<Message>) -> Result<(), Fatal> {
        match message {
            Some(message) => self.message(message).await,
            None => Err(Fatal::new("lost connection to the broker")),
        }
    }

    fn is_finished(&self) -> bool {
        let local = self.tasks.iter().all(|task| task.status.is_some());
        let all = local && self.started && self.active_shells.is_empty();
        all && self.terminals.server.is_empty() && !self.shell.plugins.job().is_referenced()
    }

    async fn start_tasks(&mut self) -> Result<(), Fatal> {
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
            let mut env = for_task(
                &shell.plugins.job().env(),
                &scope,
                tag,
                gpus,
                expand.as_ref(),
            );
            self.admit_to_pmix(tag.rank, &mut env)?;
            let (plugins::Task { argv, env, .. }, own) =
                self.about_to_start(tag, argv, env).await?;
            let (before_exec, failure) = own.map(InTask::split).unzip();
            let terminal = self.terminals.open(shell.options.pty.as_ref(), tag.rank)?;
            let (terminal, captured) = terminal.map(|t| (t.pty, t.output)).unzip();
            let started = task::start(task::Spec {
                terminal,
                argv: &argv,
                env,
                input: &shell.options.input,
                dir: &shell.dir,
                limits: &shell.limits,
                process_group: !shell.options.nosetpgrp,
                pmi: self.pmi.as_ref().map(|_| (tag.rank, info.ntasks)),
                cpus: shell.bindings.get(index),
                unbound: shell.unbound.as_ref(),
                oom_adjust: shell.options.oom_adjust,
                before_exec,
                stopped: shell.options.stop_in_exec,
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
                    failure
                        .and_then(|read| read())
                        .unwrap_or_else(|| os_error(&e))
                ),
            })?;
            if let Some(adjust) = shell.options.oom_adjust
                && !task::has_oom_score(started.pid, adjust)
            {
                let text = format!("oom.adjust={adjust} is not permitted");
                let _ = self.events.send(Event::Complaint(text));
            }
            self.tasks.push(Task {
                tag,
                pid: started.pid,
                status: None,
            });
            self.call_about("task.fork", &self.tasks[index]).await?;
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
            let mut pumps = Vec::new();
            let mut pump = |stream, source, line_buffered| {
                let events = self.events.clone();
                // `open` has made a sink for each stream of each local task.
                if let Some(sink) = shell.output.sink(stream, tag.rank) {
                    pumps.push(output::pump(
                        source,
                        stream,
                        tag.rank,
                        line_buffered,
                        sink,
                        move |text| {
                            let _ = events.send(Event::Complaint(text));
                        },
                    ));
                }
            };
            let options = &shell.options;
            if let Some(stdout) = captured.flatten().or(started.stdout) {
                pump(Stream::Stdout, stdout, options.output.stdout.line_buffered);
            }
            if let Some(stderr) = started.stderr {
                pump(Stream::Stderr, stderr, options.output.stderr.line_buffered);
            }
            let events = self.events.clone();
            let mut child = started.child;
            spawn_local(async move {
                let drained = futures::future::join_all(pumps);
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
        let (barrier, events) = (Barrier::of(&self.shell), self.events.clone());
        spawn_local(async move {
            let met = barrier.enter(1).await;
            let _ = events.send(Event::Started(met));
        });
    }

    /// Tell the loop when the connection to the broker is lost, and what becomes of it.
    fn watch_connection(&self) {
        let (handle, patience) = (self.shell.handle.clone(), self.shell.patience.clone());
        let (service, events) = (self.shell.service.clone(), self.events.clone());
        spawn_local(patience.keep_service(handle, service, move |turn| {
            let _ = events.send(Event::Turn(turn));
        }));
    }

    /// Sets the clock for the warning signal, and again when the job's time changes.
    fn watch_expiration(&self) {
        let Some(warning) = self.shell.options.signal.filter(|_| self.is_leader()) else {
            return;
        };
        let (handle, events) = (self.shell.handle.clone(), self.events.clone());
        let patience = self.shell.patience.clone();
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
                        Some(Err(e)) if patience.attempts().go_on_after(&e).await => {
                            updates = handle.stream("job-info.update-watch", Node::Any, &request);
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
            Event::Turn(Turn::Back) => {
                let (barrier, passed) = (Barrier::of(&self.shell), self.passed);
                spawn_local(async move { barrier.passed(passed).await });
                Ok(())
            }
            Event::Turn(Turn::Abandoned) => Err(Fatal::new("lost connection to the broker")),
            Event::Pmix(happening) => self.pmix_happening(happening).await,
            Event::Started(outcome) => {
                outcome?;
                self.passed = 2;
                self.started = true;
                if let Some(log) = &self.shell.log {
                    let mut context = json!({"taskmap": self.shell.info.taskmap.to_wrapped()});
                    if self.shell.options.stop_in_exec {
                        // Debuggers wait for this before they attach.
                        context["sync"] = json!(true);
                    }
                    let job = self.shell.plugins.job();
                    job.complete_context("shell.start", &mut context);
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
            Event::Answer {
                plugin,
                topic,
                answer,
            } => self.plugin_answer(&plugin, &topic, answer),
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

    /// Sends a signal to all tasks that run, with their process groups.
    fn kill_tasks(&mut self, signum: i32) {
        let Ok(signal) = Signal::try_from(signum) else {
            return;
        };
        if ENDS.contains(&signal) {
            // Nobody is going to look at a job that is to end.
            self.terminals.server.hurry();
        }
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
    async fn finish(mut self) -> End {
        self.end_processes().await;
        self.stop_pmix();
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
        let mut code = codes.max().unwrap_or(0);
        if let Err(e) = self.shell.plugins.run("shell.exit").await {
            self.shell.logger.log(Level::Error, &e.message).await;
            code = code.max(e.code);
        }
        if !self.is_leader() && self.shell.plugins.handles("shell.exit") {
            self.tell_leader_of_completion().await;
        }
        self.ended(code).await
    }

    /// The end by an error of the shell: tasks are killed and the job gets an exception.
    async fn fail(mut self, e: Fatal) -> End {
        self.shell.logger.log(Level::Fatal, &e.message).await;
        self.kill_tasks(libc::SIGKILL);
        self.processes.stop(libc::SIGKILL);
        if !e.message.is_empty() {
            let (handle, id) = (&self.shell.handle, self.shell.info.id);
            let raised = startup::raise(handle, id, &e.message, e.wait_status).await;
            if let Err(raise) = raised {
                complain(&format!("ERROR: failed to raise job exception: {raise}"));
            }
        }
        self.ended(e.code).await
    }

    async fn ended(self, code: i32) -> End {
        End {
            code,
            unstored: self.close_log().await,
            rest: Some(Box::new(self)),
        }
    }

    /// Waits until all is stored that is not held back.
    async fn close_log(&self) -> Logs {
        let Some(log) = &self.shell.log else {
            // What was sent before, such as the ends of processes, is with the broker when this is answered.
            let _ = self.shell.handle.getattr("rank").await;
            return Logs::new();
        };
        log.close().await.unwrap_or_else(|e| {
            complain(&format!(
                "ERROR: not all events of the job were stored: {e}"
            ));
            Logs::new()
        })
    }
}
