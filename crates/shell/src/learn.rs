//! What a shell asks before it makes anything: about its broker, its site and its job.
//!
//! All questions go out together and are waited for together, because start-up latency is paid by every job.

use crate::{
    Fatal, affinity, initrc,
    patience::Patience,
    seat::{Broker, Common, Mail, Seat},
    startup::fatal,
};
use client::services::service::Add;
use client::{Handle, Inbox, Node, OpenError};
use formats::{
    JobId, Jobspec, ResourceSet, iodata::base64_decode, job_schema::JobKey, shared_shell, signed,
};
use serde_json::{Value, json};
use std::rc::Rc;
use tokio::sync::mpsc::UnboundedReceiver;
use wire::RpcError;

/// What the broker tells about the site and the job.
pub(crate) struct Answers {
    pub(crate) site: initrc::Site,
    pub(crate) jobspec: Jobspec,
    pub(crate) r: ResourceSet,
}

/// What is known of a job before anything is made for it.
pub struct Learned {
    pub(crate) id: JobId,
    pub(crate) handle: Handle,
    pub(crate) patience: Patience,
    pub(crate) mail: Mail,
    pub(crate) signals: Option<UnboundedReceiver<i32>>,
    pub(crate) service: String,
    pub(crate) broker: Broker,
    /// What the process has in common with other shells.
    pub(crate) common: Option<Rc<Common>>,
    pub(crate) answers: Answers,
}

impl Learned {
    /// Whether neither the site nor the user makes more of this shell than it is, so that it needs no process of its own.
    pub fn is_plain(&self) -> bool {
        initrc::is_plain(&self.answers.jobspec, &self.answers.site)
    }
}

/// Why the shell does not know its job yet.
enum Setback {
    /// It will not.
    Fatal(Fatal),
    /// Something did not answer, which may be because the broker is away.
    Unanswered(String, RpcError),
}

impl From<Fatal> for Setback {
    fn from(fatal: Fatal) -> Setback {
        Setback::Fatal(fatal)
    }
}

/// What to do about an answer that does not come.
fn unanswered(what: &str) -> impl FnOnce(RpcError) -> Setback {
    move |e| Setback::Unanswered(what.to_owned(), e)
}

/// Jobspec and R of the job.
///
/// The jobspec is taken from the signed request `J`, because the copy under `jobspec` is stored
/// without the environment. Where `J` is not kept, that copy must do.
async fn look_up(handle: &Handle, id: JobId) -> Result<(Jobspec, ResourceSet), Setback> {
    let ask = |key: &str| {
        let request = json!({"id": id, "keys": [key, "R"], "flags": 0});
        handle.rpc("job-info.lookup", Node::Any, &request)
    };
    let answer = match ask("J").await {
        Err(e) if e.errno == libc::ENOENT => ask("jobspec").await,
        answer => answer,
    };
    let job: Value = answer
        .map_err(unanswered(FETCHING))?
        .json()
        .map_err(|e| fatal(FETCHING, e))?;
    // Depending on the flags of the lookup, objects come as JSON text or as objects.
    let part = |key: &str| match job.get(key) {
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|e| fatal(&format!("job's {key}"), e))
        }
        Some(value @ Value::Object(_)) => Ok(value.clone()),
        _ => Err(Fatal::new(format!("the job has no {key}"))),
    };
    let jobspec = match job.get("J").and_then(Value::as_str) {
        Some(j) => signed_jobspec(j)?,
        None => Jobspec::from_value(part("jobspec")?).map_err(|e| fatal("job", e))?,
    };
    Ok((jobspec, resources(part("R")?)?))
}

const FETCHING: &str = "fetching the job's jobspec and R";

/// The jobspec alone, by the instance's owner, who needs nobody's leave.
async fn look_up_as_owner(handle: &Handle, id: JobId) -> Result<Jobspec, Setback> {
    let ask = |key: JobKey| {
        let request = json!({"namespace": "primary", "key": id.key(key), "flags": 0});
        handle.rpc("kvs.lookup", Node::Any, &request)
    };
    let (answer, is_signed) = match ask(JobKey::J).await {
        Err(e) if e.errno == libc::ENOENT => (ask(JobKey::Jobspec).await, false),
        answer => (answer, true),
    };
    let found: Value = answer
        .map_err(unanswered(FETCHING))?
        .json()
        .map_err(|e| fatal(FETCHING, e))?;
    let data = found.pointer("/val/data").and_then(Value::as_str);
    let data = data.and_then(base64_decode);
    let data = data.ok_or_else(|| Fatal::new(format!("{FETCHING}: malformed value")))?;
    let text = String::from_utf8_lossy(&data);
    match is_signed {
        true => Ok(signed_jobspec(&text)?),
        false => {
            let jobspec = serde_json::from_str(&text).map_err(|e| fatal("job's jobspec", e))?;
            Ok(Jobspec::from_value(jobspec).map_err(|e| fatal("job", e))?)
        }
    }
}

/// The jobspec in a signed request.
fn signed_jobspec(j: &str) -> Result<Jobspec, Fatal> {
    let signed = signed::unwrap(j).map_err(|e| fatal("job's J", e))?;
    let jobspec = serde_json::from_slice(&signed.payload).map_err(|e| fatal("job's J", e))?;
    Jobspec::from_value(jobspec).map_err(|e| fatal("job", e))
}

fn resources(r: Value) -> Result<ResourceSet, Fatal> {
    ResourceSet::try_from(r).map_err(|e| fatal("job", e))
}

/// What the broker says about itself.
async fn ask_broker(handle: &Handle) -> Result<Broker, Setback> {
    let (rank, owner, rundir, path) = futures::join!(
        handle.getattr("rank"),
        handle.getattr("security.owner"),
        handle.getattr("rundir"),
        handle.getattr("jobid-path"),
    );
    let rank = rank.map_err(unanswered("fetching the broker's rank"))?;
    Ok(Broker {
        rank: rank.parse().map_err(|e| fatal("the broker's rank", e))?,
        owner: owner.ok().and_then(|o| o.parse().ok()),
        rundir: rundir.ok(),
        jobid_path: path.unwrap_or_else(|_| "/".to_owned()),
    })
}

/// What the broker says about the job, whose service it has from now on. `r` is what the job was allocated, if the shell knows
/// that already.
async fn ask(
    handle: &Handle,
    id: JobId,
    service: &str,
    r: Option<&ResourceSet>,
) -> Result<Answers, Setback> {
    let job = async {
        match r {
            None => look_up(handle, id).await,
            Some(r) => Ok((look_up_as_owner(handle, id).await?, r.clone())),
        }
    };
    let (job, initrc, plugins, added) = futures::join!(
        job,
        handle.getattr("conf.shell_initrc"),
        handle.getattr("conf.shell_pluginpath"),
        handle.ask(Node::Any, &Add { service }),
    );
    let (jobspec, r) = job?;
    // That it is registered may be the doing of this shell's connection before, which the broker has not missed yet.
    let added = added.map_err(|e| match e.errno {
        libc::EEXIST => RpcError::new(libc::ENOSYS, e.to_string()),
        _ => e,
    });
    added.map_err(unanswered(&format!("registering service {service}")))?;
    Ok(Answers {
        site: initrc::Site {
            initrc: initrc.ok(),
            plugin_path: plugins.ok(),
        },
        jobspec,
        r,
    })
}

async fn subscribe(handle: &Handle, events: &str) -> Result<(), Setback> {
    let subscribed = handle.subscribe(events).await;
    subscribed.map_err(unanswered(&format!("subscribing to {events}")))
}

/// Asks, again if the broker goes away meanwhile.
async fn again<T>(
    patience: &Patience,
    mut ask: impl AsyncFnMut() -> Result<T, Setback>,
) -> Result<T, Fatal> {
    let mut attempts = patience.attempts();
    loop {
        match ask().await {
            Ok(all) => return Ok(all),
            Err(Setback::Fatal(e)) => return Err(e),
            Err(Setback::Unanswered(what, e)) => {
                if !attempts.go_on_after(&e).await {
                    return Err(fatal(&what, e));
                }
            }
        }
    }
}

async fn open(patience: &Patience) -> Result<Handle, Setback> {
    let lost = |e: OpenError| RpcError::new(libc::ECONNRESET, e.to_string());
    let opened = patience.open().await.map_err(lost);
    opened.map_err(unanswered("connecting to the broker"))
}

/// The handle is new, so nobody has taken its inbox.
fn inbox(handle: &Handle) -> Result<Inbox, Fatal> {
    let inbox = handle.inbox();
    inbox.ok_or_else(|| Fatal::new("the handle has no inbox"))
}

/// Connects a process for the shells of many jobs.
pub async fn connect_shared(patience: &Patience) -> Result<(Common, Inbox), Fatal> {
    let service = shared_shell::NAME;
    let (handle, broker) = again(patience, async || {
        let handle = open(patience).await?;
        let added = handle.ask(Node::Any, &Add { service }).await;
        added.map_err(unanswered(&format!("registering service {service}")))?;
        subscribe(&handle, "shell-").await?;
        let broker = ask_broker(&handle).await?;
        Ok((handle, broker))
    })
    .await?;
    let inbox = inbox(&handle)?;
    let common = Common {
        handle,
        patience: patience.clone(),
        broker,
        machine: affinity::Machine::of_node(),
        cpus: affinity::bound().map_err(|e| fatal("asking for CPUs", e.desc()))?,
    };
    Ok((common, inbox))
}

/// The name of the shell's service.
pub fn service(id: JobId) -> String {
    let uid = nix::unistd::getuid().as_raw();
    format!("{uid}-shell-{}", id.f58_ascii())
}

/// Learns about the job.
pub async fn learn(id: JobId, seat: Seat) -> Result<Learned, Fatal> {
    let service = service(id);
    Ok(match seat {
        Seat::Own(patience) => {
            let events = format!("shell-{}.", id.0);
            let (handle, answers, broker) = again(&patience, async || {
                let handle = open(&patience).await?;
                let (answers, broker, subscribed) = futures::join!(
                    ask(&handle, id, &service, None),
                    ask_broker(&handle),
                    subscribe(&handle, &events),
                );
                let (answers, broker) = (answers?, broker?);
                subscribed?;
                Ok((handle, answers, broker))
            })
            .await?;
            Learned {
                id,
                mail: Mail::Own(inbox(&handle)?),
                handle,
                patience,
                signals: None,
                service,
                broker,
                common: None,
                answers,
            }
        }
        Seat::Shared {
            common,
            r,
            mail,
            signals,
        } => {
            let r = resources(r)?;
            let (handle, patience) = (common.handle.clone(), common.patience.clone());
            let ask = async || ask(&handle, id, &service, Some(&r)).await;
            let answers = again(&patience, ask).await?;
            Learned {
                id,
                mail: Mail::Sorted(mail, handle.clone()),
                handle,
                patience,
                signals: Some(signals),
                service,
                broker: common.broker.clone(),
                common: Some(common),
                answers,
            }
        }
    })
}
