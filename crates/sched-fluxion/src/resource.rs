//! Module `sched-fluxion-resource`: the graph as a service.
//!
//! Has the instance's resources as long as it is loaded (RFC 28). `schedule` is for the queue manager ([`crate::round`]);
//! everything else is for whoever asks: `match`, `match_multi`, `update`, `cancel`, `partial-cancel`, `info`, `find`,
//! `status` and more. `notify` goes on telling of resources to those that have a graph of their own.
//!
//! Without resources, because there is no such file or another scheduler has them, the module says so in the log and
//! ends; it takes no broker with it. So do those that follow it.

use client::module::{Context, ModuleError, ModuleResult};
use client::{Handle, Inbox};
use fluxion::Op;
use sched::acquire::Update;
use sched::manager::collect;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::machine::{Found, Machine, match_fault, now};
use crate::options::{Options, configuration};
use crate::round::Round;
use crate::source::{Source, Start, apply};
use crate::waiting::Queues;

/// Its name.
pub const NAME: &str = "sched-fluxion-resource";

struct Server {
    handle: Handle,
    options: Options,
    machine: Machine,
    queues: Queues,
    /// The queue manager's last `schedule`.
    manager: Option<Message>,
    /// Open `notify` requests.
    followers: Vec<Message>,
    /// R as it was acquired.
    resources: Option<Value>,
    /// Ranks that have gone.
    lost: formats::Idset,
    expiration: f64,
}

/// Entry point.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle,
        mut inbox,
        args,
        ..
    } = ctx;
    let options = Options::read(&configuration(&handle).await?, NAME, &args)?;
    let mut early = Vec::new();
    let started = tokio::select! {
        biased;
        // From here on the module counts as loaded: resources may take a while.
        () = collect(&mut inbox, &mut early) => return Ok(()),
        started = Source::open(&handle, &options, "resource.acquire") => started,
    };
    let Ok(started) = started.inspect_err(|e| handle.say(NAME, 3, &e.text)) else {
        return Ok(());
    };
    let Start {
        machine,
        mut source,
        resources,
        update,
    } = started;
    let mut server = Server {
        handle,
        options,
        machine,
        queues: Queues::default(),
        manager: None,
        followers: Vec::new(),
        expiration: resources
            .as_ref()
            .and_then(|r| r["execution"]["expiration"].as_f64())
            .unwrap_or(0.0),
        resources,
        lost: formats::Idset::new(),
    };
    if server.resources.is_some() {
        let all = server.machine.ranks();
        server.machine.mark(&all, false);
        server.update(&update)?;
    }
    early.iter().for_each(|msg| server.message(msg));
    server.run(&mut inbox, &mut source).await
}

impl Server {
    async fn run(&mut self, inbox: &mut Inbox, source: &mut Source) -> ModuleResult {
        loop {
            tokio::select! {
                msg = inbox.recv() => match msg {
                    Some(msg) => self.message(&msg),
                    None => return Ok(()),
                },
                update = source.next() => match update {
                    Ok(update) => self.update(&update.json()?)?,
                    Err(e) => {
                        self.handle.say(NAME, 3, &e.text);
                        return Ok(());
                    }
                },
            }
        }
    }

    fn update(&mut self, update: &Update) -> Result<(), ModuleError> {
        apply(&mut self.machine, update, true)?;
        if let Some(gone) = &update.shrink {
            let gone = gone
                .parse()
                .map_err(|e| ModuleError::new("resource.acquire: shrink", e))?;
            self.lost = self.lost.union(&gone);
        }
        self.expiration = update.expiration.unwrap_or(self.expiration);
        self.queues.resources_changed();
        for follower in &self.followers {
            self.handle.respond(follower, update);
        }
        Ok(())
    }

    fn message(&mut self, msg: &Message) {
        if !msg.is_request() {
            return;
        }
        if msg.method() == "disconnect" {
            return self.gone(msg);
        }
        match self.dispatch(msg) {
            Ok(Some(answer)) => self.handle.respond(msg, &answer),
            Ok(None) => {}
            Err(e) => self.handle.respond_error(msg, &e),
        }
    }

    /// `None` if there is nothing more to answer.
    fn dispatch(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        if !matches!(msg.method(), "stats-get" | "params" | "status" | "find") {
            msg.require_owner()?;
        }
        let answer = match msg.method() {
            "schedule" => return self.schedule(msg).map(|()| None),
            "match" => self.match_one(msg)?,
            "match_multi" => return self.match_many(msg).map(|()| None),
            "update" => self.update_job(msg)?,
            "cancel" => self.cancel(msg)?,
            "partial-cancel" => self.cancel_part(msg)?,
            "info" => self.machine.info(msg.json::<Job>()?.jobid)?,
            "next_jobid" => json!({ "jobid": self.machine.next_job()? }),
            "stats-get" => self.machine.stats(),
            "stats-clear" => {
                self.machine.clear_stats();
                self.handle.respond_ok(msg);
                return Ok(None);
            }
            "params" => json!({ "params": self.options.to_value() }),
            "find" => self.find(msg)?,
            "status" => self.machine.status()?,
            "set_status" => return self.set_status(msg).map(|()| None),
            "set_property" => self.set_property(msg)?,
            "remove_property" => self.remove_property(msg)?,
            "get_property" => self.get_property(msg)?,
            "ns-info" => self.number(msg)?,
            "add_subgraph" => self.add(msg)?,
            "remove_subgraph" => self.remove(msg)?,
            "notify" => return self.notify(msg).map(|()| None),
            _ => return Err(RpcError::errno(libc::ENOSYS)),
        };
        Ok(Some(answer))
    }

    fn gone(&mut self, msg: &Message) {
        self.followers.retain(|f| !f.is_same_rpc(msg, None));
        if self.manager.take_if(|m| m.is_same_rpc(msg, None)).is_some() {
            self.queues.close(&mut self.machine);
        }
    }

    fn schedule(&mut self, msg: &Message) -> Result<(), RpcError> {
        let round: Round = msg.json()?;
        let known = self
            .manager
            .as_ref()
            .is_some_and(|m| m.is_same_rpc(msg, None));
        if round.open.is_some() {
            self.manager = Some(msg.clone());
        } else if !known {
            let why = "schedule: another queue manager has opened its queues since";
            return Err(RpcError::new(libc::EPERM, why));
        }
        let outcome = self.queues.run(&mut self.machine, round, now());
        let outcome = outcome.map_err(|why| RpcError::new(libc::EINVAL, why))?;
        self.handle.respond(msg, &outcome);
        Ok(())
    }

    fn found(
        &mut self,
        cmd: &str,
        job: i64,
        request: &fluxion::request::Request,
    ) -> Result<Value, RpcError> {
        let op = Op::from_name(cmd).ok_or_else(|| {
            RpcError::new(libc::EINVAL, format!("cmd: unknown match command {cmd:?}"))
        })?;
        let now = now();
        let Found { found, r, overhead } = self
            .machine
            .find_for(op, job, request, now)
            .map_err(|e| match_fault(&e))?;
        let status = match op {
            Op::WithoutAllocating | Op::WithoutAllocatingFuture => "MATCHED",
            _ if found.reserved => "RESERVED",
            _ => "ALLOCATED",
        };
        Ok(told(job, status, overhead, r, found.start))
    }

    fn match_one(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            cmd: String,
            jobid: i64,
            jobspec: String,
        }
        let Request {
            cmd,
            jobid,
            jobspec,
        } = msg.json()?;
        let keeps = !matches!(
            cmd.as_str(),
            "without_allocating" | "without_allocating_future"
        );
        let request = self.machine.parse(&jobspec)?;
        self.found(&cmd, if keeps { jobid } else { -1 }, &request)
    }

    /// Answers for each job; the first failure ends it.
    fn match_many(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct One {
            jobid: i64,
            jobspec: Box<RawValue>,
        }
        #[derive(Deserialize)]
        struct Request {
            cmd: String,
            jobs: Vec<One>,
        }
        msg.require_streaming()?;
        let Request { cmd, jobs } = msg.json()?;
        for One { jobid, jobspec } in jobs {
            let request = self.machine.parse(jobspec.get());
            let found = request.and_then(|request| self.found(&cmd, jobid, &request));
            let found = found.map_err(|e| RpcError::new(e.errno, format!("jobid={jobid}: {e}")))?;
            self.handle.respond(msg, &found);
        }
        Err(RpcError::errno(libc::ENODATA))
    }

    fn update_job(&mut self, msg: &Message) -> Result<Value, RpcError> {
        let Part { jobid, r } = msg.json()?;
        let text = r;
        let r: Value = parsed(&text)?;
        if let Ok(known) = self.machine.info(jobid) {
            if !self.machine.has(jobid, &r)? {
                let why = format!("job {jobid} has other resources than these");
                return Err(RpcError::new(libc::EINVAL, why));
            }
            let (status, at) = (
                known["status"].as_str().unwrap_or_default(),
                known["at"].as_i64(),
            );
            return Ok(told(jobid, status, 0.0, text, at.unwrap_or_default()));
        }
        let Found { found, r, overhead } = self.machine.restore(jobid, &r)?;
        Ok(told(jobid, "ALLOCATED", overhead, r, found.start))
    }

    fn cancel(&mut self, msg: &Message) -> Result<Value, RpcError> {
        let Job { jobid } = msg.json()?;
        self.machine.info(jobid)?;
        self.machine.cancel(jobid);
        self.queues.resources_changed();
        Ok(json!({}))
    }

    fn cancel_part(&mut self, msg: &Message) -> Result<Value, RpcError> {
        let Part { jobid, r } = msg.json()?;
        if self.machine.info(jobid)?["status"] != "ALLOCATED" {
            let why = format!(
                "job {jobid} has a reservation: only what is allocated is given back in parts"
            );
            return Err(RpcError::new(libc::ENOENT, why));
        }
        let gone = self.machine.release(jobid, &parsed(&r)?)?;
        self.queues.resources_changed();
        Ok(json!({ "full-removal": u8::from(gone) }))
    }

    fn find(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            criteria: String,
            format: Option<String>,
        }
        let Request { criteria, format } = msg.json()?;
        let format = format.as_deref().unwrap_or("rv1_nosched");
        Ok(json!({ "R": self.machine.find(&criteria, format)? }))
    }

    fn set_status(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            resource_path: String,
            status: String,
        }
        let invalid = |why: String| RpcError::new(libc::EINVAL, why);
        let Request {
            resource_path,
            status,
        } = msg.json()?;
        let up = match status.to_ascii_lowercase().as_str() {
            "up" => true,
            "down" => false,
            _ => return Err(invalid(format!("unrecognized status '{status}'"))),
        };
        let marked = self.machine.set_status(&resource_path, up);
        marked.map_err(|_| {
            invalid(format!(
                "could not find path '{resource_path}' in resource graph"
            ))
        })?;
        self.handle.respond_ok(msg);
        self.changed();
        Ok(())
    }

    /// Has the queue manager look again.
    fn changed(&mut self) {
        self.queues.resources_changed();
        for follower in &self.followers {
            self.handle.respond(follower, &json!({}));
        }
    }

    fn set_property(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            sp_resource_path: Value,
            sp_keyval: String,
        }
        let Request {
            sp_resource_path,
            sp_keyval,
        } = unpacked(msg)?;
        let paths = paths(&sp_resource_path)?;
        let parts = sp_keyval
            .split_once('=')
            .filter(|(k, v)| !k.is_empty() && !v.is_empty());
        let (name, value) = parts.ok_or_else(|| {
            let why =
                format!("Incorrect format {sp_keyval:?}: a property is set with PROPERTY=VALUE");
            RpcError::new(libc::EINVAL, why)
        })?;
        self.machine.set_property(&paths, name, value)?;
        self.queues.resources_changed();
        Ok(json!({}))
    }

    fn remove_property(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            resource_path: Value,
            key: String,
        }
        let Request { resource_path, key } = unpacked(msg)?;
        self.machine
            .remove_property(&paths(&resource_path)?, &key)?;
        self.queues.resources_changed();
        Ok(json!({}))
    }

    fn get_property(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            gp_resource_path: String,
            gp_key: String,
        }
        let Request {
            gp_resource_path,
            gp_key,
        } = unpacked(msg)?;
        Ok(json!({ "values": self.machine.property(&gp_resource_path, &gp_key)? }))
    }

    fn number(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            #[serde(rename = "type-name")]
            kind: String,
            id: i64,
        }
        let Request { kind, id } = msg.json()?;
        Ok(json!({ "id": self.machine.renumbered(&kind, id)? }))
    }

    fn add(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            subgraph: String,
        }
        self.machine.add(&msg.json::<Request>()?.subgraph)?;
        self.changed();
        Ok(json!({}))
    }

    fn remove(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            subgraph_path: String,
        }
        self.machine.remove(&msg.json::<Request>()?.subgraph_path)?;
        self.changed();
        Ok(json!({}))
    }

    /// The resources, then how they are, then all that changes.
    fn notify(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_streaming()?;
        let Some(resources) = &self.resources else {
            let why = "the graph came from a file: others have to read it themselves";
            return Err(RpcError::new(libc::ENODATA, why));
        };
        self.handle.respond(msg, &json!({ "resources": resources }));
        let graph = self.machine.context().graph();
        let [mut up, mut down] = [formats::Idset::new(), formats::Idset::new()];
        for rank in graph.ranks() {
            if let Ok(id) = u32::try_from(rank) {
                let is_up = graph.of_rank(rank).iter().all(|v| graph.is_up(*v));
                if is_up { &mut up } else { &mut down }.insert(id);
            }
        }
        let text = |set: &formats::Idset| (!set.is_empty()).then(|| set.to_string());
        let update = Update {
            resources: None,
            up: text(&up),
            down: text(&down),
            shrink: text(&self.lost),
            expiration: Some(self.expiration),
        };
        self.handle.respond(msg, &update);
        self.followers.push(msg.clone());
        Ok(())
    }
}

#[derive(Deserialize)]
struct Job {
    jobid: i64,
}

/// A job and resources, as text.
#[derive(Deserialize)]
struct Part {
    jobid: i64,
    #[serde(rename = "R")]
    r: String,
}

fn unpacked<T: serde::de::DeserializeOwned>(msg: &Message) -> Result<T, RpcError> {
    msg.json()
        .map_err(|e| RpcError::new(e.errno, format!("could not unpack payload: {e}")))
}

fn parsed(r: &str) -> Result<Value, RpcError> {
    serde_json::from_str(r).map_err(|e| RpcError::new(libc::EINVAL, format!("R: {e}")))
}

fn told(job: i64, status: &str, overhead: f64, r: String, at: i64) -> Value {
    json!({ "jobid": job, "status": status, "overhead": overhead, "R": r, "at": at })
}

/// One path or several.
fn paths(value: &Value) -> Result<Vec<String>, RpcError> {
    let wrong = || {
        RpcError::new(
            libc::EINVAL,
            "a resource path is a text, or a list of such that is not empty",
        )
    };
    match value {
        Value::String(path) => Ok(vec![path.clone()]),
        Value::Array(list) if !list.is_empty() => {
            let texts = list.iter().map(|p| p.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}
