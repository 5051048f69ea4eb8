//! Where rank 0 gets the resource set from.

use client::module::ModuleError;
use client::{Handle, Node, RpcError, RpcStream};
use formats::resource_event::Method;
use formats::{Event, Hostlist, JobId, ResourceSet};
use serde::Deserialize;
use serde_json::{Value, json};

use super::reslog::EVENTLOG;
use crate::config::ResourceConfig;
use crate::inventory::{fit_to_brokers, rerank_configured};
use crate::membership::Membership;

/// What rank 0 starts with.
pub(super) struct Start {
    pub(super) config: ResourceConfig,
    /// The queues that are made of hosts.
    pub(super) membership: Membership,
    /// Host of each rank.
    pub(super) hosts: Hostlist,
    /// Events of an earlier life.
    pub(super) events: Vec<Event>,
    /// The set, unless the ranks shall discover it.
    pub(super) defined: Option<(ResourceSet, Method)>,
    /// Expiration of the enclosing job, kept when its set is not used.
    pub(super) expiration: f64,
    /// The instance is a job of another: its brokers may be bound to a part of their nodes.
    pub(super) in_job: bool,
    /// The instance is there to be mended.
    pub(super) recovery: bool,
    /// Brokers have fixed places, which they can take again.
    pub(super) brokers_return: bool,
    /// Updates of the enclosing job's set.
    pub(super) parent: Option<Parent>,
}

/// A watch on the enclosing job's R. The handle is the connection the watch lives on.
pub(super) struct Parent {
    _handle: Handle,
    stream: RpcStream,
}

impl Parent {
    /// The next expiration time; `None` when the watch ends.
    pub(super) async fn next_expiration(&mut self) -> Option<f64> {
        let msg = self.stream.next().await?.ok()?;
        Some(msg.json::<UpdateAnswer>().ok()?.set.expiration)
    }
}

#[derive(Deserialize)]
struct UpdateAnswer {
    #[serde(rename = "R")]
    set: ResourceSet,
}

/// Finds out all that can be known without discovery.
pub(super) async fn find(handle: &Handle) -> Result<Start, ModuleError> {
    let config: Value = match handle.call("config.get", Node::Any, &json!({})).await {
        Ok(config) => config,
        Err(e) if e.errno == libc::ENOSYS => json!({}),
        Err(e) => return Err(ModuleError::new("reading the configuration", e)),
    };
    let has_bootstrap = config.get("bootstrap").is_some();
    let membership = Membership::from_config(&config).map_err(ModuleError::invalid)?;
    let config =
        ResourceConfig::from_config(&config).map_err(|e| ModuleError::invalid(e.to_string()))?;
    let hosts: Hostlist = match handle.getattr("hostlist").await {
        Ok(text) => text
            .parse()
            .map_err(|e| ModuleError::new("attribute hostlist", e))?,
        Err(_) => Hostlist::new(),
    };
    let mut start = Start {
        config,
        membership,
        hosts,
        events: read_eventlog(handle).await?,
        defined: None,
        expiration: 0.0,
        in_job: handle.getattr("jobid").await.is_ok(),
        recovery: handle.getattr("broker.recovery-mode").await.is_ok(),
        brokers_return: has_bootstrap,
        parent: None,
    };
    if let Some(set) = start
        .config
        .resources()
        .map_err(|e| ModuleError::invalid(e.to_string()))?
    {
        let set = if has_bootstrap {
            rerank_configured(set, &start.hosts)
        } else {
            set
        };
        start.defined = Some((set, Method::Configuration));
    } else if let Some(set) = read_stored(handle).await? {
        start.defined = Some((set, Method::Kvs));
    } else {
        ask_parent(handle, &mut start).await?;
    }
    Ok(start)
}

async fn read_eventlog(handle: &Handle) -> Result<Vec<Event>, ModuleError> {
    match kvs::client::get(handle, Some(kvs::PRIMARY), EVENTLOG).await {
        Ok(log) => formats::eventlog::decode(&String::from_utf8_lossy(&log))
            .map_err(|e| ModuleError::new(EVENTLOG, e)),
        Err(e) if e.errno == libc::ENOENT => Ok(Vec::new()),
        Err(e) => Err(ModuleError::new(EVENTLOG, e)),
    }
}

async fn read_stored(handle: &Handle) -> Result<Option<ResourceSet>, ModuleError> {
    match kvs::client::get(handle, Some(kvs::PRIMARY), "resource.R").await {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| ModuleError::new("KVS key resource.R", e)),
        Err(e) if e.errno == libc::ENOENT => Ok(None),
        Err(e) => Err(ModuleError::new("KVS key resource.R", e)),
    }
}

/// The set of the job this instance runs in, if it is one.
async fn ask_parent(handle: &Handle, start: &mut Start) -> Result<(), ModuleError> {
    let (Ok(uri), Ok(jobid)) = (
        handle.getattr("parent-uri").await,
        handle.getattr("jobid").await,
    ) else {
        return Ok(());
    };
    let id: JobId = jobid
        .parse()
        .map_err(|e| ModuleError::new("attribute jobid", e))?;
    let parent = Handle::open(Some(&uri))
        .await
        .map_err(|e| ModuleError::new("connecting to the enclosing instance", e))?;
    let request = json!({"id": id.0, "key": "R", "flags": 0});
    let mut stream = parent.stream("job-info.update-watch", Node::Any, &request);
    let answer = match stream.next().await {
        Some(answer) => answer,
        None => Err(RpcError::errno(libc::ENODATA)),
    };
    let mut set = match answer.and_then(|msg| msg.json::<UpdateAnswer>()) {
        Ok(answer) => {
            start.parent = Some(Parent {
                _handle: parent,
                stream,
            });
            answer.set
        }
        Err(e) if e.errno == libc::ENOSYS => lookup_in_parent(&parent, id).await?,
        Err(e) => return Err(ModuleError::new("R of the enclosing job", e)),
    };
    start.expiration = set.expiration;
    set.remove_local_properties();
    if !start.config.rediscover {
        start.defined =
            fit_to_brokers(&set, &start.hosts, handle.size()).map(|set| (set, Method::JobInfo));
    }
    Ok(())
}

async fn lookup_in_parent(parent: &Handle, id: JobId) -> Result<ResourceSet, ModuleError> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "R")]
        text: String,
    }
    let request = json!({"id": id.0, "keys": ["R"], "flags": 0});
    let answer: Answer = parent
        .call("job-info.lookup", Node::Any, &request)
        .await
        .map_err(|e| ModuleError::new("R of the enclosing job", e))?;
    answer
        .text
        .parse()
        .map_err(|e| ModuleError::new("R of the enclosing job", e))
}
