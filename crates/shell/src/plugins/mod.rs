//! The stack of plugins: what has registered for the callback topics of flux-shell-plugins(7).
//!
//! Plugins come from initrc files ([`crate::initrc`]). A name is there once: a plugin that is loaded later takes
//! the place of one of the same name. Callbacks run on the shell's one thread, in the order of loading, and see and change
//! the job through [`Job`].

mod job;
mod native;
mod requests;
mod upstream;

pub use job::{Job, Task, Wish};
pub use native::load;

use crate::Fatal;
use formats::Taskmap;
use plugin_sdk::Args;
use serde_json::Value;
use std::{cell::RefCell, rc::Rc};
use wire::Glob;

/// What is called for a topic.
pub type Callback = Rc<dyn Fn(&Job, &str, &mut Args) -> Result<(), String>>;

/// What makes a plugin.
pub trait Callbacks {
    fn handles(&self, topic: &str) -> bool;

    /// Is called for a topic it handles.
    fn call(&self, job: &Job, topic: &str, args: &mut Args) -> Result<(), String>;
}

/// A plugin made of callbacks for topics; the first that fits is called.
#[derive(Default)]
pub struct Plugin(Vec<(Glob, Callback)>);

impl Plugin {
    /// Adds a callback for topics that fit `glob`.
    pub fn on(
        mut self,
        glob: &str,
        callback: impl Fn(&Job, &str, &mut Args) -> Result<(), String> + 'static,
    ) -> Plugin {
        self.0.push((Glob::new(glob), Rc::new(callback)));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Callbacks for Plugin {
    fn handles(&self, topic: &str) -> bool {
        self.0.iter().any(|(glob, _)| glob.matches(topic))
    }

    fn call(&self, job: &Job, topic: &str, args: &mut Args) -> Result<(), String> {
        let found = self.0.iter().find(|(glob, _)| glob.matches(topic));
        found.map_or(Ok(()), |(_, callback)| callback(job, topic, args))
    }
}

/// A plugin in its place.
struct Entry {
    name: String,
    callbacks: Rc<dyn Callbacks>,
}

/// All plugins, in the order of loading.
pub struct Stack {
    job: Rc<Job>,
    plugins: RefCell<Vec<Entry>>,
}

impl Stack {
    pub fn new(job: Job) -> Stack {
        Stack {
            job: Rc::new(job),
            plugins: RefCell::default(),
        }
    }

    pub fn job(&self) -> &Rc<Job> {
        &self.job
    }

    /// Puts a plugin on top, in place of any of its name.
    pub fn push(&self, name: impl Into<String>, callbacks: impl Callbacks + 'static) {
        let entry = Entry {
            name: name.into(),
            callbacks: Rc::new(callbacks),
        };
        let mut plugins = self.plugins.borrow_mut();
        let replaced = plugins.iter().position(|other| other.name == entry.name);
        let replaced = replaced.map(|at| plugins.remove(at));
        plugins.push(entry);
        drop(plugins);
        // A plugin may say something when it goes.
        drop(replaced);
    }

    /// Whether any plugin is called for `topic`.
    pub fn handles(&self, topic: &str) -> bool {
        let plugins = self.plugins.borrow();
        plugins.iter().any(|plugin| plugin.callbacks.handles(topic))
    }

    /// Calls the plugins for `topic`; the first error ends that.
    pub fn call(&self, topic: &str, args: &mut Args) -> Result<(), Fatal> {
        // A callback may load plugins.
        let wanted: Vec<(String, Rc<dyn Callbacks>)> = self
            .plugins
            .borrow()
            .iter()
            .filter(|plugin| plugin.callbacks.handles(topic))
            .map(|plugin| (plugin.name.clone(), plugin.callbacks.clone()))
            .collect();
        for (name, callbacks) in wanted {
            let called = callbacks.call(&self.job, topic, args);
            if let Some(last_words) = self.job.last_words() {
                return Err(last_words);
            }
            called.map_err(|e| Fatal::new(format!("{topic}: plugin {name}: {e}")))?;
        }
        Ok(())
    }

    /// Calls one plugin about something it has asked for.
    pub fn call_one(&self, name: &str, topic: &str, args: &mut Args) -> Result<(), String> {
        let plugins = self.plugins.borrow();
        let found = plugins.iter().find(|plugin| plugin.name == name);
        let callbacks = found.map(|plugin| plugin.callbacks.clone());
        drop(plugins);
        match callbacks.filter(|callbacks| callbacks.handles(topic)) {
            Some(callbacks) => callbacks.call(&self.job, topic, args),
            None => Err(format!("plugin {name} has no handler for {topic}")),
        }
    }

    /// The task map of a scheme that a plugin knows.
    pub fn taskmap(
        &self,
        scheme: &str,
        value: &str,
        blocks: &Taskmap,
    ) -> Result<Option<Taskmap>, Fatal> {
        let topic = format!("taskmap.{scheme}");
        if !self.handles(&topic) {
            return Ok(None);
        }
        let mut args = Args::default();
        let text = blocks.to_wrapped().to_string();
        args.input.insert("taskmap".into(), text.into());
        args.input.insert("scheme".into(), scheme.into());
        args.input.insert("value".into(), value.into());
        self.call(&topic, &mut args)?;
        let fault = |e: &dyn std::fmt::Display| Fatal::new(format!("{topic}: {e}"));
        match args.output.get("taskmap").unwrap_or(&Value::Null) {
            Value::Null => Err(fault(&"the plugin has given no taskmap")),
            Value::String(text) => text.parse().map(Some).map_err(|e| fault(&e)),
            value => Taskmap::from_value(value).map(Some).map_err(|e| fault(&e)),
        }
    }

    /// Calls the plugins for `topic`, which has no arguments, and logs what they say.
    pub async fn run(&self, topic: &str) -> Result<(), Fatal> {
        let called = self.call(topic, &mut Args::default());
        self.log().await;
        called
    }

    /// Calls the plugins about `task`, which they may change.
    pub async fn run_for(&self, topic: &str, task: Task) -> Result<Task, Fatal> {
        self.job.enter(task);
        let called = self.run(topic).await;
        let task = self.job.leave();
        called.map(|()| task)
    }

    /// From now on plugins see what is logged, if any of them want to.
    pub fn watch_log(self: &Rc<Self>) {
        if !self.handles("shell.log") {
            return;
        }
        let stack = Rc::downgrade(self);
        self.job.logger.watch(Rc::new(move |context| {
            if let Some(stack) = stack.upgrade() {
                let mut args = Args::new(context.clone());
                // What plugins say to what is logged would never end, and an error neither.
                stack
                    .job
                    .unheard(|| drop(stack.call("shell.log", &mut args)));
            }
        }));
    }

    /// Logs what plugins have said.
    pub async fn log(&self) {
        for record in self.job.said() {
            self.job.logger.record(&record).await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        info::tests::{info, resources},
        log::Level,
    };
    use formats::jobspec::JobspecBuilder;

    pub(crate) fn job(builder: JobspecBuilder) -> Job {
        let r = resources(&["0-1", "0-1"], None);
        Job::new(
            info(builder, &r, 3),
            &r,
            Some(1000),
            "1000-shell-f",
            Default::default(),
        )
    }

    pub(crate) fn stack() -> Stack {
        let builder = JobspecBuilder::new(["app", "-x"]).slots(4, 1, 0, None, false);
        Stack::new(job(builder.environment([("PATH", "/bin"), ("FOO_A", "1")])))
    }

    fn says(word: &'static str) -> Plugin {
        Plugin::default().on("shell.*", move |job, topic, _| {
            job.say(Level::Notice, format!("{word} {topic}"));
            Ok(())
        })
    }

    fn said(stack: &Stack) -> Vec<String> {
        stack.job.said().into_iter().map(|r| r.message).collect()
    }

    #[test]
    fn the_last_of_a_name_is_called_in_the_order_of_loading() {
        let stack = stack();
        assert!(!stack.handles("shell.init"));
        stack.push("a", says("one"));
        stack.push("b", says("two"));
        stack.push("a", says("three"));
        assert!(stack.handles("shell.init") && !stack.handles("task.init"));
        stack.call("shell.init", &mut Args::default()).unwrap();
        assert_eq!(said(&stack), ["two shell.init", "three shell.init"]);
    }

    #[test]
    fn an_error_names_topic_and_plugin_and_keeps_those_after_it_from_being_called() {
        let stack = stack();
        stack.push(
            "bad",
            Plugin::default().on("shell.init", |_, _, _| Err("no".into())),
        );
        stack.push("b", says("two"));
        let e = stack.call("shell.init", &mut Args::default()).unwrap_err();
        assert_eq!(e.message, "shell.init: plugin bad: no");
        assert!(said(&stack).is_empty());
    }
}
