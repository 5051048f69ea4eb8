//! Where a graph comes from: a file, or an instance that goes on telling about it.

use client::module::ModuleError;
use client::{Handle, Node, RpcStream};
use fluxion::read::rv1::Execution;
use sched::acquire::{Update, ranks};
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::machine::{Machine, Topologies, has_graph};
use crate::options::Options;

/// What goes on telling about a graph.
pub(crate) struct Source {
    topic: &'static str,
    /// Nothing if the graph came from a file.
    stream: Option<RpcStream>,
}

/// A graph at its beginning.
pub(crate) struct Start {
    pub(crate) machine: Machine,
    pub(crate) source: Source,
    /// The R it was made of.
    pub(crate) resources: Option<Value>,
    /// What came with it.
    pub(crate) update: Update,
}

impl Source {
    /// Makes the graph.
    pub(crate) async fn open(
        handle: &Handle,
        options: &Options,
        topic: &'static str,
    ) -> Result<Start, ModuleError> {
        if let Some(path) = &options.load_file {
            let text = std::fs::read_to_string(path).map_err(|e| {
                let cause = RpcError::errno(e.raw_os_error().unwrap_or(libc::EIO));
                let text = format!("opening {path}: {cause}");
                ModuleError {
                    errno: cause.errno,
                    text,
                }
            })?;
            let machine = Machine::from_text(&text, options).map_err(|e| {
                ModuleError::new(
                    &format!("error in reading {} string of {path}", options.load_format),
                    e,
                )
            })?;
            let source = Source {
                topic,
                stream: None,
            };
            return Ok(Start {
                machine,
                source,
                resources: None,
                update: Update::default(),
            });
        }
        let mut stream = handle.stream(topic, Node::Any, &json!({}));
        let first = match stream.next().await {
            Some(first) => first.map_err(|e| failure(topic, &e))?,
            None => return Err(failure(topic, &RpcError::errno(libc::ENODATA))),
        };
        let mut update: Update = first.json()?;
        let resources = update.resources.take();
        let r = resources.clone().ok_or_else(|| {
            ModuleError::invalid(format!("{topic}: the first answer has no resources"))
        })?;
        let topologies = match options.load_format == "hwloc" && !has_graph(&r, options) {
            true => Some(topologies(handle, &r).await?),
            false => None,
        };
        let machine = Machine::from_r(r, topologies.as_ref(), options);
        let machine = machine.map_err(|e| ModuleError::new(topic, e))?;
        let source = Source {
            topic,
            stream: Some(stream),
        };
        Ok(Start {
            machine,
            source,
            resources,
            update,
        })
    }

    /// What comes next. Of a file nothing does.
    pub(crate) async fn next(&mut self) -> Result<Message, ModuleError> {
        let Some(stream) = &mut self.stream else {
            return std::future::pending().await;
        };
        let ended = || RpcError::errno(libc::ENODATA);
        let next = stream.next().await.unwrap_or_else(|| Err(ended()));
        next.map_err(|e| failure(self.topic, &e))
    }
}

/// What hwloc sees on each rank of an R.
async fn topologies(handle: &Handle, r: &Value) -> Result<Topologies, ModuleError> {
    let topic = "resource.topo-get";
    let ranks = Execution::of(r).map_err(|e| ModuleError::new("resource.acquire", e))?;
    let answers = handle
        .rpc_group(topic, ranks.ranks(), &json!({}))
        .all()
        .await;
    let answers = answers.map_err(|(rank, e)| {
        let why = format!("rank {rank}: {e}; load-format=hwloc needs all nodes to be up");
        failure(topic, &RpcError::new(e.errno, why))
    })?;
    let text = |(rank, answer): (u32, Message)| {
        let text = answer.text().unwrap_or_default().to_owned();
        (rank, text)
    };
    Ok(answers.into_iter().map(text).collect())
}

pub(crate) fn failure(topic: &str, error: &RpcError) -> ModuleError {
    let cause = RpcError::explained(error.errno, error);
    ModuleError {
        errno: error.errno,
        text: format!("exiting due to {topic} failure: {cause}"),
    }
}

/// Brings a graph up to date. `marks` says whether nodes are marked, too.
pub(crate) fn apply(
    machine: &mut Machine,
    update: &Update,
    marks: bool,
) -> Result<(), ModuleError> {
    for (text, up) in [(&update.down, false), (&update.up, true)] {
        if let Some(text) = text.as_ref().filter(|_| marks) {
            machine.mark(&ranks(text, || machine.ranks())?, up);
        }
    }
    if let Some(text) = &update.shrink {
        machine.shrink(&ranks(text, || machine.ranks())?)?;
    }
    if let Some(end) = update.expiration {
        machine.set_expiration(end);
    }
    Ok(())
}
