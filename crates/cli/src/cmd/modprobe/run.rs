//! Doing tasks: each as soon as those before it are done, several at a time.

use std::collections::BTreeSet;

use client::{Handle, Node};
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;

use super::solve::Order;
use super::table::{Action, Table, Task};
use crate::error::{Context as _, Failure};
use crate::output::outln;

/// What the user wants to see or not to happen.
#[derive(Clone, Copy, Default)]
pub(super) struct Manner {
    pub(super) verbose: bool,
    pub(super) dry_run: bool,
}

/// Do all tasks; after a failure no further one is begun.
pub(super) async fn all(
    handle: &Handle,
    table: &Table,
    order: &Order,
    manner: Manner,
) -> Result<(), Failure> {
    let (mut begun, mut done) = (BTreeSet::new(), BTreeSet::new());
    let mut running = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if failure.is_none() {
            let ready = order
                .iter()
                .filter(|(name, first)| !begun.contains(*name) && first.is_subset(&done));
            let ready: Vec<String> = ready.map(|(name, _)| name.clone()).collect();
            for name in ready {
                begun.insert(name.clone());
                // The order is made of tasks of this table.
                let Some(task) = table.find(&name) else {
                    done.insert(name);
                    continue;
                };
                running.push(async move { (name, one(handle, task, manner).await) });
            }
        }
        match running.next().await {
            Some((name, Ok(()))) => drop(done.insert(name)),
            Some((_, Err(e))) => drop(failure.get_or_insert(e)),
            None if done.len() == begun.len() && begun.len() < order.len() && failure.is_none() => {
            }
            None => break,
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn one(handle: &Handle, task: &Task, manner: Manner) -> Result<(), Failure> {
    if manner.verbose || manner.dry_run {
        let verb = match task.action {
            Action::Load { .. } => "load",
            Action::Remove => "remove",
            Action::Run(_) | Action::Cleanup(_) => "run",
        };
        outln!("{verb} {}", task.name);
    }
    if manner.dry_run {
        return Ok(());
    }
    let name = &task.name;
    match &task.action {
        Action::Load { exec } => {
            let request = json!({
                "path": task.module, "name": name, "args": task.args, "exec": exec,
            });
            match handle.rpc("module.load", Node::Any, &request).await {
                Err(e) if e.errno == libc::EEXIST => Ok(()),
                result => result.map(drop).context(format!("load {name}")),
            }
        }
        Action::Remove => {
            let request = json!({ "name": name });
            match handle.rpc("module.remove", Node::Any, &request).await {
                Err(e) if e.errno == libc::ENOENT => Ok(()),
                result => result.map(drop).context(format!("remove {name}")),
            }
        }
        Action::Cleanup(commands) => {
            let request = json!({ "name": "cleanup", "commands": commands });
            let result = handle.rpc("runat.push", Node::Any, &request).await;
            result.map(drop).context(name)
        }
        Action::Run(line) => shell(name, line).await,
    }
}

/// Run a command line.
pub(super) async fn shell(name: &str, line: &str) -> Result<(), Failure> {
    let status = tokio::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(line)
        .status()
        .await
        .context(name)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::new(format!(
            "{name}: exited with exit code {code}"
        ))),
        None => Err(Failure::new(format!("{name}: was killed by a signal"))),
    }
}
