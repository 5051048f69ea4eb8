//! The job as plugins see and change it.

use crate::{
    Fatal,
    environment::{self, Environment},
    info::JobInfo,
    log::{Level, Logger, Record},
    template::TaskTag,
};
use formats::{ResourceSet, job::WaitStatus};
use serde_json::{Map, Value, json};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, btree_map::Entry},
    rc::Rc,
};

/// A task, as callbacks about it see it. Before it is started they may change its environment and command.
#[derive(Debug, Clone)]
pub struct Task {
    pub tag: TaskTag,
    pub argv: Vec<String>,
    pub env: Environment,
    pub pid: Option<i32>,
    /// The wait status of a task that has ended.
    pub status: Option<i32>,
}

impl Task {
    /// What `flux_shell_task_get_info` tells.
    pub fn info(&self) -> Value {
        let state = match (self.pid, self.status) {
            (_, Some(_)) => "Exited",
            (Some(_), None) => "Running",
            (None, None) => "Init",
        };
        let mut info = json!({"localid": self.tag.index, "rank": self.tag.rank, "state": state});
        if let Some(pid) = self.pid {
            info["pid"] = json!(pid);
        }
        if let Some(status) = self.status {
            let wait = WaitStatus(status);
            info["wait_status"] = json!(status);
            info["signaled"] = json!(wait.signal().unwrap_or(0));
            info["exitcode"] = json!(wait.exit_code());
        }
        info
    }
}

/// The job: what it is, and what plugins make of it.
pub struct Job {
    pub logger: Logger,
    owner: Option<u32>,
    service: String,
    r: Value,
    hostlist: String,
    info: RefCell<Rc<JobInfo>>,
    options_changed: Cell<bool>,
    env: RefCell<Environment>,
    /// The task that callbacks are about at the moment.
    task: RefCell<Option<Task>>,
    said: RefCell<Vec<Record>>,
    last_words: RefCell<Option<Fatal>>,
    /// The local tasks, from when they are started.
    tasks: RefCell<Vec<Task>>,
    /// Contexts of events that are to come.
    contexts: RefCell<BTreeMap<String, Map<String, Value>>>,
    /// What keeps the shell from ending, with the number of times it has been asked to.
    references: RefCell<BTreeMap<String, u32>>,
    /// Methods and subtopics of events that plugins have asked for, with the plugins.
    services: RefCell<BTreeMap<String, String>>,
    wishes: RefCell<Vec<Wish>>,
}

/// What plugins want the shell to do when their callback has returned.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    Kill(i32),
    Raise {
        kind: String,
        severity: i32,
        note: String,
    },
    /// Ask the service of a shell; the answer comes to the plugin as `topic`.
    Rpc {
        plugin: String,
        method: String,
        shell_rank: u32,
        payload: Map<String, Value>,
        topic: String,
    },
}

impl Job {
    pub fn new(
        info: JobInfo,
        r: &ResourceSet,
        owner: Option<u32>,
        service: &str,
        logger: Logger,
    ) -> Job {
        let env = environment::of_jobspec(&info.jobspec);
        Job {
            logger,
            owner,
            service: service.to_owned(),
            r: r.to_value(),
            hostlist: r.nodelist().to_string(),
            info: RefCell::new(Rc::new(info)),
            options_changed: Cell::new(false),
            env: RefCell::new(env),
            task: RefCell::default(),
            said: RefCell::default(),
            last_words: RefCell::default(),
            tasks: RefCell::default(),
            contexts: RefCell::default(),
            references: RefCell::default(),
            services: RefCell::default(),
            wishes: RefCell::default(),
        }
    }

    pub fn info(&self) -> Rc<JobInfo> {
        self.info.borrow().clone()
    }

    pub fn change_info(&self, change: impl FnOnce(&mut JobInfo)) {
        change(Rc::make_mut(&mut self.info.borrow_mut()));
    }

    /// Whether plugins have set options.
    pub fn has_new_options(&self) -> bool {
        self.options_changed.get()
    }

    /// The environment of all tasks.
    pub fn env(&self) -> std::cell::Ref<'_, Environment> {
        self.env.borrow()
    }

    pub fn change_env<T>(&self, change: impl FnOnce(&mut Environment) -> T) -> T {
        change(&mut self.env.borrow_mut())
    }

    /// Sets a shell option by its dotted path; null removes it.
    pub fn set_option(&self, path: &str, value: Value) {
        self.options_changed.set(true);
        let mut info = self.info.borrow_mut();
        let jobspec = &mut Rc::make_mut(&mut info).jobspec;
        match (value, path.rsplit_once('.')) {
            (Value::Null, None) => {
                if let Some(options) = jobspec.shell_options().cloned() {
                    let kept = options.into_iter().filter(|(key, _)| key != path);
                    jobspec
                        .attributes
                        .set("system.shell.options", kept.collect::<Map<_, _>>().into());
                }
            }
            (value, _) => jobspec
                .attributes
                .set(&format!("system.shell.options.{path}"), value),
        }
    }

    /// Something for the shell's log, which is written when the callback has returned.
    pub fn say(&self, level: Level, message: impl Into<String>) {
        self.record(Record::new(level, message));
    }

    /// The same, with its source.
    pub fn record(&self, record: Record) {
        self.said.borrow_mut().push(record);
    }

    /// Does something whose words are not logged.
    pub fn unheard(&self, f: impl FnOnce()) {
        let before = self.said.take();
        f();
        *self.said.borrow_mut() = before;
    }

    pub fn said(&self) -> Vec<Record> {
        self.said.take()
    }

    /// Ends the job when the callback has returned, whatever it returns.
    pub fn die(&self, end: Fatal) {
        self.last_words.borrow_mut().get_or_insert(end);
    }

    /// What [`Job::die`] was told.
    pub fn last_words(&self) -> Option<Fatal> {
        self.last_words.take()
    }

    /// What callbacks do from now on is about `task`.
    pub fn enter(&self, task: Task) {
        *self.task.borrow_mut() = Some(task);
    }

    /// The end of [`Job::enter`].
    pub fn leave(&self) -> Task {
        self.task
            .take()
            .expect("callbacks leave the task in its place")
    }

    /// The task callbacks are about.
    pub fn with_task<T>(&self, look: impl FnOnce(&mut Task) -> T) -> Option<T> {
        self.task.borrow_mut().as_mut().map(look)
    }

    /// Something has happened to a task.
    pub fn note_task(&self, tag: TaskTag, pid: i32, status: Option<i32>) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|task| task.tag != tag);
        tasks.push(Task {
            tag,
            argv: Vec::new(),
            env: Environment::new(),
            pid: Some(pid),
            status,
        });
    }

    /// What `flux_shell_task_get_info` tells of a local task.
    pub fn task_info(&self, index: u32) -> Option<Value> {
        let tasks = self.tasks.borrow();
        if let Some(task) = tasks.iter().find(|task| task.tag.index == index) {
            return Some(task.info());
        }
        let info = self.info();
        let rank = *info.tasks.get(index as usize)?;
        Some(json!({"localid": index, "rank": rank, "state": "Init"}))
    }

    /// Puts more into the context of an event that is to come.
    pub fn add_context(&self, event: &str, context: Map<String, Value>) {
        let mut contexts = self.contexts.borrow_mut();
        contexts
            .entry(event.to_owned())
            .or_default()
            .extend(context);
    }

    /// The context of an event with what plugins have added.
    pub fn complete_context(&self, event: &str, context: &mut Value) {
        let more = self.contexts.borrow_mut().remove(event);
        if let Some((more, context)) = more.zip(context.as_object_mut()) {
            context.extend(more);
        }
    }

    pub fn add_reference(&self, name: &str) {
        let mut references = self.references.borrow_mut();
        *references.entry(name.to_owned()).or_default() += 1;
    }

    /// Takes back one [`Job::add_reference`]; false if there is none.
    pub fn remove_reference(&self, name: &str) -> bool {
        let mut references = self.references.borrow_mut();
        let Some(count) = references.get_mut(name) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            references.remove(name);
        }
        true
    }

    pub fn is_referenced(&self) -> bool {
        !self.references.borrow().is_empty()
    }

    /// Requests or events of this topic are for this plugin.
    pub fn register(&self, topic: String, plugin: &str) -> Result<(), String> {
        match self.services.borrow_mut().entry(topic) {
            Entry::Occupied(entry) => Err(format!("{} is taken", entry.key())),
            Entry::Vacant(entry) => {
                entry.insert(plugin.to_owned());
                Ok(())
            }
        }
    }

    /// The plugin that [`Job::register`] has for this topic.
    pub fn registered(&self, topic: &str) -> Option<String> {
        self.services.borrow().get(topic).cloned()
    }

    pub fn wish(&self, wish: Wish) {
        self.wishes.borrow_mut().push(wish);
    }

    pub fn wishes(&self) -> Vec<Wish> {
        self.wishes.take()
    }

    /// The hosts of the job by shell rank, RFC 29.
    pub fn hostlist(&self) -> &str {
        &self.hostlist
    }

    /// What `flux_shell_get_jobspec_info` tells.
    pub fn jobspec_info(&self) -> Value {
        let info = self.info();
        let version = info.jobspec.version;
        let Ok(counts) = info.jobspec.resource_counts() else {
            return json!({"version": version});
        };
        let or_unset = |n: Option<u32>| n.map_or(-1, i64::from);
        json!({
            "version": version,
            "ntasks": info.ntasks,
            "nslots": counts.nslots,
            "cores_per_slot": counts.slot_size,
            "gpus_per_slot": counts.slot_gpus,
            "nnodes": or_unset(Some(counts.nnodes).filter(|n| *n > 0)),
            "slots_per_node": or_unset(counts.slots_per_node()),
            "node_exclusive": counts.exclusive,
        })
    }

    /// What `flux_shell_get_info` tells.
    pub fn shell_info(&self) -> Value {
        let info = self.info();
        let jobspec = serde_json::to_value(&info.jobspec).unwrap_or_default();
        json!({
            "jobid": info.id,
            "instance_owner": self.owner,
            "rank": info.shell_rank,
            "size": info.size(),
            "ntasks": info.ntasks,
            "service": self.service,
            "options": {"verbose": self.logger.verbose()},
            "jobspec": jobspec,
            "R": self.r,
        })
    }

    /// What `flux_shell_get_rank_info` tells of a shell, this one if there is no rank.
    pub fn rank_info(&self, rank: Option<u32>) -> Option<Value> {
        let info = self.info();
        let rank = rank.unwrap_or(info.shell_rank);
        let place = info.places.get(rank as usize)?;
        let mut resources = json!({
            "ncores": place.cores.len(),
            "cores": place.cores.to_string(),
        });
        if !place.gpus.is_empty() {
            resources["gpus"] = json!(place.gpus.to_string());
        }
        Some(json!({
            "id": rank,
            "name": place.host,
            "broker_rank": place.broker_rank,
            "ntasks": info.taskmap.ntasks_on(rank),
            "taskids": info.taskmap.task_ids(rank).to_string(),
            "resources": resources,
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::plugins::tests::stack;
    use serde_json::json;

    #[test]
    fn options_are_set_and_removed() {
        let stack = stack();
        let job = stack.job();
        job.set_option("a.b", json!(1));
        job.set_option("c", json!("x"));
        let option = |path: &str| job.info().jobspec.shell_option(path).cloned();
        assert_eq!(
            (option("a"), option("c")),
            (Some(json!({"b": 1})), Some(json!("x")))
        );
        job.set_option("c", json!(null));
        assert_eq!((option("a.b"), option("c")), (Some(json!(1)), None));
    }

    #[test]
    fn places_of_the_job() {
        let stack = stack();
        let other = stack.job().rank_info(Some(1)).unwrap();
        assert_eq!(
            other,
            json!({"id": 1, "name": "n1", "broker_rank": 4, "ntasks": 2, "taskids": "2-3",
                   "resources": {"ncores": 2, "cores": "0-1"}})
        );
        assert_eq!(stack.job().rank_info(None).unwrap()["id"], json!(0));
        assert_eq!(stack.job().rank_info(Some(2)), None);
        let info = stack.job().shell_info();
        assert_eq!((&info["size"], &info["ntasks"]), (&json!(2), &json!(4)));
        assert_eq!(info["jobspec"]["tasks"][0]["command"], json!(["app", "-x"]));
    }
}
