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
use formats::{JobId, Jobspec, ResourceSet, shared_shell, signed};
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
    let what = "fetching the job's jobspec and R";
    let ask = |key: &str| {
        let request = json!({"id": id, "keys": [key, "R"], "flags": 0});
        handle.rpc("job-info.lookup", Node::Any, &request)
    };
    let answer = match ask("J").await {
        Err(e) if e.errno == libc::ENOENT => ask("jobspec").await,
        answer => answer,
    };
    let job: Value = answer
        .map_err(unanswered(what))?
        .json()
        .map_err(|e| fatal(what, e))?;
    // Depending on the flags of the lookup, objects come as JSON text or as objects.
    let part = |key: &str| match job.get(key) {
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|e| fatal(&format!("job's {key}"), e))
        }
        Some(value @ Value::Object(_)) => Ok(value.clone()),
        _ => Err(Fatal::new(format!("the job has no {key}"))),
    };
    let jobspec: Value = match job.get("J").and_then(Value::as_str) {
        Some(j) => {
            let signed = signed::unwrap(j).map_err(|e| fatal("job's J", e))?;
            serde_json::from_slice(&signed.payload).map_err(|e| fatal("job's J", e))?
        }
        None => part("jobspec")?,
    };
    let jobspec = Jobspec::from_value(jobspec).map_err(|e| fatal("job", e))?;
    let r = ResourceSet::try_from(part("R")?).map_err(|e| fatal("job", e))?;
    Ok((jobspec, r))
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

/// What the broker says about the job, whose service it has from now on.
async fn ask(handle: &Handle, id: JobId, service: &str) -> Result<Answers, Setback> {
    let (job, initrc, plugins, added) = futures::join!(
        look_up(handle, id),
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
                    ask(&handle, id, &service),
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
            mail,
            signals,
        } => {
            let (handle, patience) = (common.handle.clone(), common.patience.clone());
            let answers = again(&patience, async || ask(&handle, id, &service).await).await?;
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
