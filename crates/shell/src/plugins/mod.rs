//! The stack of plugins: what has registered for the callback topics of flux-shell-plugins(7).
//!
//! Plugins come from initrc files ([`crate::initrc`]). A name is there once: a plugin that is loaded later takes
//! the place of one of the same name. Callbacks run on the shell's one thread, in the order of loading, and see and change
//! the job through [`Job`].

mod job;

pub use job::{Job, Task};

use crate::{Fatal, log::Record};
use formats::Taskmap;
use plugin_sdk::Args;
use serde_json::Value;
use std::{cell::RefCell, rc::Rc};
use wire::Glob;

/// What is called for a topic.
pub type Callback = Rc<dyn Fn(&Job, &str, &mut Args) -> Result<(), String>>;

/// A plugin by its name, with its callbacks.
pub struct Plugin {
    pub name: String,
    pub handlers: Vec<(Glob, Callback)>,
}

impl Plugin {
    pub fn new(name: impl Into<String>) -> Plugin {
        Plugin {
            name: name.into(),
            handlers: Vec::new(),
        }
    }

    /// Adds a callback for topics that fit `glob`.
    pub fn on(
        mut self,
        glob: &str,
        callback: impl Fn(&Job, &str, &mut Args) -> Result<(), String> + 'static,
    ) -> Plugin {
        self.handlers.push((Glob::new(glob), Rc::new(callback)));
        self
    }
}

/// All plugins, in the order of loading.
pub struct Stack {
    job: Rc<Job>,
    plugins: RefCell<Vec<Plugin>>,
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
    pub fn push(&self, plugin: Plugin) {
        let mut plugins = self.plugins.borrow_mut();
        plugins.retain(|other| other.name != plugin.name);
        plugins.push(plugin);
    }

    /// Whether any plugin is called for `topic`.
    pub fn handles(&self, topic: &str) -> bool {
        let fits = |plugin: &Plugin| plugin.handlers.iter().any(|(glob, _)| glob.matches(topic));
        self.plugins.borrow().iter().any(fits)
    }

    /// Calls the plugins for `topic`; the first error ends that.
    pub fn call(&self, topic: &str, args: &mut Args) -> Result<(), Fatal> {
        // A callback may load plugins.
        let wanted: Vec<(String, Callback)> = self
            .plugins
            .borrow()
            .iter()
            .flat_map(|plugin| plugin.handlers.iter().map(move |entry| (plugin, entry)))
            .filter(|(_, (glob, _))| glob.matches(topic))
            .map(|(plugin, (_, callback))| (plugin.name.clone(), callback.clone()))
            .collect();
        for (name, callback) in wanted {
            let called = callback(&self.job, topic, args);
            if let Some(last_words) = self.job.last_words() {
                return Err(last_words);
            }
            called.map_err(|e| Fatal::new(format!("{topic}: plugin {name}: {e}")))?;
        }
        Ok(())
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

    /// Logs what plugins have said.
    pub async fn log(&self) {
        for Record { level, message } in self.job.said() {
            self.job.logger.log(level, &message).await;
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

    fn says(name: &str, word: &'static str) -> Plugin {
        Plugin::new(name).on("shell.*", move |job, topic, _| {
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
        stack.push(says("a", "one"));
        stack.push(says("b", "two"));
        stack.push(says("a", "three"));
        assert!(stack.handles("shell.init") && !stack.handles("task.init"));
        stack.call("shell.init", &mut Args::default()).unwrap();
        assert_eq!(said(&stack), ["two shell.init", "three shell.init"]);
    }

    #[test]
    fn an_error_names_topic_and_plugin_and_keeps_those_after_it_from_being_called() {
        let stack = stack();
        stack.push(Plugin::new("bad").on("shell.init", |_, _, _| Err("no".into())));
        stack.push(says("b", "two"));
        let e = stack.call("shell.init", &mut Args::default()).unwrap_err();
        assert_eq!(e.message, "shell.init: plugin bad: no");
        assert!(said(&stack).is_empty());
    }
}
