//! What plugins are called for while the job runs.

use super::{Event, Running, Task};
use crate::{
    Fatal,
    environment::Environment,
    log::Level,
    plugins::{self, Stack, Wish},
    task::BeforeExec,
    template::TaskTag,
};
use client::Node;
use plugin_sdk::Args;
use serde_json::{Value, json};
use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    rc::Rc,
};
use tokio::task::spawn_local;
use wire::{Message, RpcError};

/// The reference of answers that are still to come.
const PENDING: &str = "flux-shell.rpc";

/// Something for the child of a fork, which has one thread.
struct InChild<T>(T);

// SAFETY: the value is used by the child's only thread, and dropped by the thread that made it.
unsafe impl<T> Send for InChild<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for InChild<T> {}

/// What plugins do in a task's process, and where it is read why they failed at it.
pub(super) struct InTask {
    run: BeforeExec,
    failure: PipeReader,
}

impl InTask {
    fn new(stack: Rc<Stack>, task: plugins::Task) -> io::Result<InTask> {
        let (failure, told) = io::pipe()?;
        let run = before_exec(stack, task, told);
        Ok(InTask { run, failure })
    }

    /// Splits off what tells why plugins failed, once the task's process is there no more.
    pub(super) fn split(self) -> (BeforeExec, impl FnOnce() -> Option<String>) {
        let InTask { run, mut failure } = self;
        let read = move || {
            let mut text = String::new();
            let read = failure.read_to_string(&mut text);
            read.is_ok_and(|n| n > 0).then_some(text)
        };
        (run, read)
    }
}

/// What runs in the task's process, before its program.
fn before_exec(stack: Rc<Stack>, task: plugins::Task, told: PipeWriter) -> BeforeExec {
    let own = InChild((stack, task));
    Box::new(move || {
        let own = &own;
        let InChild((stack, task)) = own;
        let job = stack.job();
        job.enter(task.clone());
        let called = stack.call("task.exec", &mut Args::default());
        for record in job.said().iter().filter(|r| job.logger.is_on(r.level)) {
            // The log is the parent's; what is left is the task's own standard error.
            eprintln!("{}", record.line(Some(job.info().shell_rank)));
        }
        called.map_err(|e| {
            let _ = (&told).write_all(e.message.as_bytes());
            io::Error::from_raw_os_error(libc::ECANCELED)
        })
    })
}

impl Running {
    /// Lets plugins change a task before it is started. Also returns what they want to do in its process.
    pub(super) async fn about_to_start(
        &self,
        tag: TaskTag,
        argv: Vec<String>,
        env: Environment,
    ) -> Result<(plugins::Task, Option<InTask>), Fatal> {
        let stack = &self.shell.plugins;
        let mut task = plugins::Task {
            tag,
            argv,
            env,
            pid: None,
            status: None,
        };
        if stack.handles("task.init") {
            task = stack.run_for("task.init", task).await?;
        }
        let wanted = stack.handles("task.exec");
        let own = wanted.then(|| InTask::new(stack.clone(), task.clone()));
        let own = own.transpose();
        let own = own.map_err(|e| Fatal::new(format!("task.exec: making a pipe: {e}")))?;
        Ok((task, own))
    }

    /// Calls plugins about a task that has been started.
    pub(super) async fn call_about(&self, topic: &str, task: &Task) -> Result<(), Fatal> {
        let stack = &self.shell.plugins;
        stack.job().note_task(task.tag, task.pid, task.status);
        if !stack.handles(topic) {
            return Ok(());
        }
        let task = plugins::Task {
            tag: task.tag,
            argv: Vec::new(),
            env: Environment::new(),
            pid: Some(task.pid),
            status: task.status,
        };
        stack.run_for(topic, task).await.map(drop)
    }

    /// Does what plugins have asked for in their callbacks, and logs what they have said.
    pub(super) async fn fulfil_wishes(&mut self) -> Result<(), Fatal> {
        self.shell.plugins.log().await;
        if let Some(last_words) = self.shell.plugins.job().last_words() {
            return Err(last_words);
        }
        for wish in self.shell.plugins.job().wishes() {
            match wish {
                Wish::Kill(signum) => self.kill_tasks(signum),
                Wish::Raise {
                    kind,
                    severity,
                    note,
                } => {
                    let request = json!({
                        "id": self.shell.info.id,
                        "type": kind,
                        "severity": severity,
                        "note": note,
                    });
                    let handle = self.shell.handle.clone();
                    let logger = self.shell.logger.clone();
                    spawn_local(async move {
                        let raised = handle.rpc("job-manager.raise", Node::Any, &request).await;
                        if let Err(e) = raised {
                            let text = format!("failed to raise job exception: {e}");
                            logger.log(Level::Error, &text).await;
                        }
                    });
                }
                Wish::Rpc {
                    plugin,
                    method,
                    shell_rank,
                    payload,
                    topic,
                } => {
                    // The shell stays until the plugin has its answer.
                    self.shell.plugins.job().add_reference(PENDING);
                    let place = &self.shell.info.places[shell_rank as usize];
                    let method = format!("{}.{method}", self.shell.service);
                    let node = Node::Rank(place.broker_rank);
                    let answer = self.shell.handle.rpc(&method, node, &payload);
                    let events = self.events.clone();
                    spawn_local(async move {
                        let answer = answer.await.and_then(|message| message.json());
                        let _ = events.send(Event::Answer {
                            plugin,
                            topic,
                            answer,
                        });
                    });
                }
            }
        }
        Ok(())
    }

    /// Gives a plugin the answer it has asked for.
    pub(super) fn plugin_answer(
        &self,
        plugin: &str,
        topic: &str,
        answer: Result<Value, RpcError>,
    ) -> Result<(), Fatal> {
        self.shell.plugins.job().remove_reference(PENDING);
        let mut args = Args::default();
        match answer {
            Ok(payload) => drop(args.input.insert("payload".into(), payload)),
            Err(e) => {
                args.input.insert("errnum".into(), e.errno.into());
                args.input.insert("errmsg".into(), e.to_string().into());
            }
        }
        let called = self.shell.plugins.call_one(plugin, topic, &mut args);
        called.map_err(|e| Fatal::new(format!("{topic}: plugin {plugin}: {e}")))
    }

    /// Answers a request that is for a plugin; false if it is for none.
    pub(super) fn plugin_request(&self, method: &str, payload: &Value, request: &Message) -> bool {
        let topic = format!("service.{method}");
        let plugins = &self.shell.plugins;
        let Some(plugin) = plugins.job().registered(&topic) else {
            return false;
        };
        let mut args = Args::default();
        args.input.insert("payload".into(), payload.clone());
        let handle = &self.shell.handle;
        let called = plugins.call_one(&plugin, &topic, &mut args);
        let said = args.output.get("payload").cloned();
        match called {
            Ok(()) => handle.respond(request, &said.unwrap_or_else(|| json!({}))),
            Err(e) => {
                let errno = args.output.get("errnum").and_then(Value::as_i64);
                let errno = errno
                    .and_then(|n| n.try_into().ok())
                    .unwrap_or(libc::EINVAL);
                let why = args.output.get("errmsg").and_then(Value::as_str);
                let e = RpcError::new(errno, why.map_or(e, str::to_owned));
                handle.respond_error(request, &e);
            }
        }
        true
    }

    /// Passes an event on to the plugin that has asked for it.
    pub(super) async fn plugin_event(&self, subtopic: &str, payload: Value) {
        let topic = format!("event.{subtopic}");
        let plugins = &self.shell.plugins;
        let Some(plugin) = plugins.job().registered(&topic) else {
            return;
        };
        let mut args = Args::default();
        args.input.insert("payload".into(), payload);
        if let Err(e) = plugins.call_one(&plugin, &topic, &mut args) {
            let text = format!("{topic}: plugin {plugin}: {e}");
            self.shell.logger.log(Level::Warning, &text).await;
        }
    }
}
