//! What plugins may ask of the manager, by name (docs/plugins.md has the list).

use formats::job::JobState;
use formats::jobid::JobId;
use plugin_sdk::Args;
use plugin_sdk::host::{Failure, Services};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::super::job::{Alloc, Exec, Job};
use super::super::{Manager, log};
use super::args;
use super::tap::Order;

/// The job that the innermost call is about, as a number.
const CURRENT: i64 = -1;

fn fail(errno: i32, why: impl Into<String>) -> Failure {
    Failure::new(errno, why)
}

fn params<T: for<'de> Deserialize<'de>>(method: &str, params: Value) -> Result<T, Failure> {
    T::deserialize(params).map_err(|e| Failure::invalid(format!("{method}: {e}")))
}

#[derive(Deserialize)]
struct Described {
    description: String,
    #[serde(default)]
    status: i64,
}

#[derive(Deserialize)]
struct Posted {
    name: String,
    #[serde(default)]
    context: Value,
}

impl Services for Manager {
    fn ask(&mut self, plugin: u64, method: &str, given: Value) -> Result<Value, Failure> {
        let id = given.get("id").cloned().unwrap_or_default();
        match method {
            "dependency_add" => self.ask_dependency(&id, method, given, true),
            "dependency_remove" => self.ask_dependency(&id, method, given, false),
            "job_lookup" => self.ask_lookup(&id),
            "job_id" => self.ask_id(&id),
            "job_result" => self.ask_result(&id),
            "event_posted" => self.ask_event_posted(&id, method, given),
            "event_post" => self.ask_event_post(&id, method, given),
            "raise" => self.ask_raise(&id, method, given),
            "set_flag" => self.ask_set_flag(&id, method, given),
            "jobspec_update" => self.ask_jobspec_update(&id, given),
            "subscribe" => self.ask_subscribe(&id, plugin, true),
            "unsubscribe" => self.ask_subscribe(&id, plugin, false),
            "prolog_start" => self.ask_perilog(&Value::Null, method, given, "prolog-start"),
            "prolog_finish" => self.ask_perilog(&id, method, given, "prolog-finish"),
            "epilog_start" => self.ask_perilog(&Value::Null, method, given, "epilog-start"),
            "epilog_finish" => self.ask_perilog(&id, method, given, "epilog-finish"),
            "reprioritize_all" => {
                self.reprioritize_all();
                Ok(Value::Null)
            }
            "reprioritize" => self.ask_reprioritize(&id, method, given),
            "call" => self.ask_call(&id, method, given),
            "config" => Ok(self.taps.config.clone()),
            "set_load_order" => self.ask_load_order(plugin, method, given),
            "service_register" | "respond" | "timer" => self.ask_service(plugin, method, given),
            _ => Err(fail(
                libc::ENOSYS,
                format!("the job manager has no {method}"),
            )),
        }
    }

    fn log(&mut self, plugin: u64, severity: i32, text: &str) {
        let text = match self.taps.stack.by_serial(plugin) {
            Some(tap) => format!("{}: {text}", tap.name),
            None => format!("{}: {text}", self.taps.loading),
        };
        log(&self.handle, severity.clamp(0, 7) as u8, &text);
    }
}

impl Manager {
    /// The id a plugin means: that of the innermost call, if it names none.
    fn job_named(&self, id: &Value) -> Result<JobId, Failure> {
        let is_current = id.is_null()
            || id.as_u64() == Some(plugin_sdk::jobtap::CURRENT)
            || id.as_i64() == Some(CURRENT);
        if is_current {
            let current = self.taps.current.last().copied();
            return current.ok_or_else(|| Failure::invalid("there is no current job"));
        }
        id.as_u64()
            .map(JobId)
            .ok_or_else(|| Failure::invalid(format!("not a job id: {id}")))
    }

    fn active_named(&self, id: &Value) -> Result<&Job, Failure> {
        let id = self.job_named(id)?;
        let job = self.jobs.get(&id);
        job.ok_or_else(|| fail(libc::ENOENT, format!("no active job {}", crate::shown(id))))
    }

    fn ask_dependency(
        &mut self,
        id: &Value,
        method: &str,
        given: Value,
        add: bool,
    ) -> Result<Value, Failure> {
        let Described { description, .. } = params(method, given)?;
        let job = self.active_named(id)?;
        let id = job.id;
        if !matches!(job.state, JobState::New | JobState::Depend) {
            return Err(Failure::invalid(
                "the job does not wait for dependencies any more",
            ));
        }
        let is_it = |event: &formats::eventlog::Event, name: &str| {
            event.name == name && event.get("description") == Some(&json!(description))
        };
        let deferred = self.taps.deferred.iter().filter(|(job, _)| *job == id);
        let events = job.events.iter().chain(deferred.map(|(_, event)| event));
        let (mut added, mut removed) = (false, false);
        for event in events {
            added |= is_it(event, "dependency-add");
            removed |= is_it(event, "dependency-remove");
        }
        let name = match (add, added, removed) {
            (true, true, false) => return Ok(Value::Null),
            (true, true, true) => {
                let why = format!("dependency {description} was there already");
                return Err(fail(libc::EEXIST, why));
            }
            (true, false, _) => "dependency-add",
            (false, true, false) => "dependency-remove",
            (false, ..) => {
                let why = format!("the job has no dependency {description}");
                return Err(fail(libc::ENOENT, why));
            }
        };
        self.post(id, name, json!({ "description": description }));
        Ok(Value::Null)
    }

    fn ask_id(&self, id: &Value) -> Result<Value, Failure> {
        let id = self.job_named(id)?;
        // The current job may have left already.
        let is_there = self.jobs.contains_key(&id) || self.taps.is_busy(id);
        match is_there || self.past.get(id).is_some() {
            true => Ok(json!(id)),
            false => Err(fail(libc::ENOENT, "no such job")),
        }
    }

    fn ask_lookup(&self, id: &Value) -> Result<Value, Failure> {
        let id = self.job_named(id)?;
        if let Some(job) = self.jobs.get(&id) {
            return Ok(Value::Object(args::of(job).input));
        }
        let ended = self.past.get(id);
        let ended = ended.ok_or_else(|| fail(libc::ENOENT, "no such job"))?;
        Ok(json!({ "id": id, "userid": ended.userid, "state": JobState::Inactive.bit() }))
    }

    fn ask_result(&self, id: &Value) -> Result<Value, Failure> {
        let found = args::result(self.active_named(id)?);
        let early = || Failure::invalid("the job has no result yet");
        found.map(Value::from).ok_or_else(early)
    }

    fn ask_event_posted(&self, id: &Value, method: &str, given: Value) -> Result<Value, Failure> {
        let Posted { name, .. } = params(method, given)?;
        let events = &self.active_named(id)?.events;
        Ok(events.iter().any(|event| event.name == name).into())
    }

    fn ask_event_post(&mut self, id: &Value, method: &str, given: Value) -> Result<Value, Failure> {
        let Posted { name, context } = params(method, given)?;
        let job = self.active_named(id)?;
        if name == "alloc" && job.alloc == Alloc::Granted {
            // Upstream's plugins post it themselves, after R, which has been taken over with the event here.
            return Ok(Value::Null);
        }
        let id = job.id;
        let is_word = !name.is_empty() && !name.contains(char::is_whitespace);
        if !is_word || !(context.is_null() || context.is_object()) {
            return Err(Failure::invalid(
                "an event has a name, and an object as context",
            ));
        }
        self.post(id, &name, context);
        Ok(Value::Null)
    }

    /// `job-manager.post-event.post`: the instance's owner adds an event of their own to an active job's log.
    pub(in crate::manager) fn post_event_request(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        let given: Value = msg.json()?;
        let id = match given.get("id") {
            Some(id) if id.is_u64() => id.clone(),
            _ => {
                return Err(RpcError::new(
                    libc::EPROTO,
                    "post-event: id is missing or wrong",
                ));
            }
        };
        let done = self.ask_event_post(&id, "post-event", given);
        done.map(|_| ())
            .map_err(|e| RpcError::new(e.errno, e.message))
    }

    fn ask_raise(&mut self, id: &Value, method: &str, given: Value) -> Result<Value, Failure> {
        #[derive(Deserialize)]
        struct Raised {
            kind: String,
            severity: i64,
            note: String,
        }
        let raised: Raised = params(method, given)?;
        let id = self.active_named(id)?.id;
        super::super::raise::check(raised.severity, &raised.kind)
            .map_err(|e| Failure::invalid(e.to_string()))?;
        // SAFETY: asks for a number.
        let owner = unsafe { libc::getuid() };
        self.raise(id, &raised.kind, raised.severity, &raised.note, owner, None);
        Ok(Value::Null)
    }

    fn ask_set_flag(&mut self, id: &Value, method: &str, given: Value) -> Result<Value, Failure> {
        #[derive(Deserialize)]
        struct Flag {
            flag: String,
        }
        const FLAGS: [&str; 5] = [
            "alloc-bypass",
            "debug",
            "immutable",
            "novalidate",
            "waitable",
        ];
        let Flag { flag } = params(method, given)?;
        let id = self.active_named(id)?.id;
        if !FLAGS.contains(&flag.as_str()) {
            return Err(Failure::invalid(format!("jobs have no flag {flag}")));
        }
        self.post(id, "set-flags", json!({ "flags": [flag] }));
        if flag == "waitable" {
            self.waits.expect(id);
        }
        Ok(Value::Null)
    }

    fn ask_jobspec_update(&mut self, id: &Value, given: Value) -> Result<Value, Failure> {
        let updates = match given.get("updates") {
            Some(Value::Object(updates)) if !updates.is_empty() => updates.clone(),
            _ => {
                return Err(Failure::invalid(
                    "updates must be an object that is not empty",
                ));
            }
        };
        if updates.keys().any(|key| !key.starts_with("attributes.")) {
            return Err(Failure::invalid("only attributes of a job can be updated"));
        }
        let job = self.active_named(id)?;
        let (job, state) = (job.id, job.state);
        if matches!(
            state,
            JobState::Run | JobState::Cleanup | JobState::Inactive
        ) {
            return Err(Failure::invalid("the job runs, or has run"));
        }
        match (self.taps.current.last() == Some(&job), id.is_null()) {
            (true, true) => self.taps.updates.extend(updates),
            (true, false) => {
                let why = "that is the current job: it is updated when the call returns";
                return Err(Failure::invalid(why));
            }
            (false, _) => self.post(job, "jobspec-update", Value::Object(updates)),
        }
        Ok(Value::Null)
    }

    fn ask_subscribe(&mut self, id: &Value, plugin: u64, want: bool) -> Result<Value, Failure> {
        let id = self.active_named(id)?.id;
        let subscribers = self.taps.subscribers.entry(id).or_default();
        match want {
            true => subscribers.insert(plugin),
            false => subscribers.remove(&plugin),
        };
        Ok(Value::Null)
    }

    fn ask_perilog(
        &mut self,
        id: &Value,
        method: &str,
        given: Value,
        event: &str,
    ) -> Result<Value, Failure> {
        let Described {
            description,
            status,
        } = params(method, given)?;
        let job = self.active_named(id)?;
        let is_late = match event {
            "prolog-start" => job.exec != Exec::None || job.state == JobState::Cleanup,
            "prolog-finish" => job.exec != Exec::None,
            _ => job.state != JobState::Cleanup,
        };
        if is_late {
            let why = format!("{event} is not possible in this state of the job");
            return Err(Failure::invalid(why));
        }
        let context = match event.ends_with("-start") {
            true => json!({ "description": description }),
            false => json!({ "description": description, "status": status }),
        };
        let id = job.id;
        self.post(id, event, context);
        let waits = |job: &Job| job.state == JobState::Run && job.perilogs == 0;
        if event == "prolog-finish" && self.jobs.get(&id).is_some_and(waits) {
            self.batch.after(super::super::batch::After::Start(id));
        }
        Ok(Value::Null)
    }

    fn ask_reprioritize(
        &mut self,
        id: &Value,
        method: &str,
        given: Value,
    ) -> Result<Value, Failure> {
        #[derive(Deserialize)]
        struct Given {
            priority: u32,
        }
        let Given { priority } = params(method, given)?;
        let id = self.active_named(id)?.id;
        self.reprioritize(id, priority.into());
        Ok(Value::Null)
    }

    fn ask_call(&mut self, id: &Value, method: &str, given: Value) -> Result<Value, Failure> {
        #[derive(Deserialize)]
        struct Given {
            topic: String,
            #[serde(default, rename = "in")]
            input: Map<String, Value>,
            #[serde(default)]
            out: Map<String, Value>,
        }
        let Given { topic, input, out } = params(method, given)?;
        if topic.starts_with("job.") {
            return Err(Failure::invalid(
                "topics that begin with job. are the manager's",
            ));
        }
        let id = self.active_named(id)?.id;
        let mut args = Args::new(input);
        args.output = out;
        let code = self.call_plugins(Some(id), &topic, &mut args);
        self.settle_deferred(id);
        Ok(json!({ "return": code, "out": args.output }))
    }

    fn ask_load_order(
        &mut self,
        plugin: u64,
        method: &str,
        given: Value,
    ) -> Result<Value, Failure> {
        #[derive(Deserialize)]
        struct Given {
            mode: String,
        }
        let Given { mode } = params(method, given)?;
        let order = match mode.as_str() {
            "none" => Order::None,
            "state" => Order::State,
            "-state" => Order::Reverse,
            _ => return Err(Failure::invalid(format!("there is no order {mode:?}"))),
        };
        self.taps.orders.insert(plugin, order);
        Ok(Value::Null)
    }
}
