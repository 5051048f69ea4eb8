//! What plugins are called for while the job runs.

use super::{Running, Task};
use crate::{
    Fatal,
    environment::Environment,
    log::line,
    plugins::{self, Stack},
    task::BeforeExec,
    template::TaskTag,
};
use plugin_sdk::Args;
use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    rc::Rc,
};

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
        for record in job.said() {
            // The log is the parent's; what is left is the task's own standard error.
            eprintln!(
                "{}",
                line(Some(job.info().shell_rank), record.level, &record.message)
            );
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
}
