//! Module `sched-fluxion-feasibility`: whether a job could ever run.
//!
//! It has a graph of its own, in which everything is free and up, so that it answers while the scheduler is busy.

use client::Handle;
use client::module::{Context, ModuleError, ModuleResult};
use fluxion::{MatchError, Op};
use formats::Jobspec;
use sched::manager::collect;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::machine::{Machine, match_fault, now};
use crate::options::{Options, configuration};
use crate::source::{Source, Start, apply};

/// Its name.
pub const NAME: &str = "sched-fluxion-feasibility";

/// Entry point.
pub async fn main(ctx: Context) -> ModuleResult {
    let Context {
        handle,
        mut inbox,
        args,
        ..
    } = ctx;
    let mut options = Options::read(&configuration(&handle).await?, NAME, &args)?;
    // Whether there is a match does not depend on which one is best.
    options.policy = "first".into();
    let mut early = Vec::new();
    let topic = "sched-fluxion-resource.notify";
    let started = tokio::select! {
        biased;
        () = collect(&mut inbox, &mut early) => return Ok(()),
        started = Source::open(&handle, &options, topic) => started,
    };
    let say = |e: &ModuleError| handle.say(NAME, 3, &e.text);
    let Ok(started) = started.inspect_err(say) else {
        return Ok(());
    };
    let Start {
        mut machine,
        mut source,
        ..
    } = started;
    early
        .iter()
        .for_each(|msg| answer(&handle, &mut machine, msg));
    loop {
        tokio::select! {
            msg = inbox.recv() => match msg {
                Some(msg) => answer(&handle, &mut machine, &msg),
                None => return Ok(()),
            },
            update = source.next() => {
                let Ok(update) = update.inspect_err(say) else {
                    return Ok(());
                };
                apply(&mut machine, &update.json()?, false)?;
            }
        }
    }
}

fn answer(handle: &Handle, machine: &mut Machine, msg: &Message) {
    if !msg.is_request() || msg.method() == "disconnect" {
        return;
    }
    match msg.topic() {
        "feasibility.check" => handle.respond_result(msg, check(machine, msg)),
        _ => handle.respond_enosys(msg),
    }
}

fn check(machine: &mut Machine, msg: &Message) -> Result<Value, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        jobspec: Value,
    }
    let jobspec = Jobspec::from_value(msg.json::<Request>()?.jobspec)
        .map_err(|e| RpcError::new(libc::EINVAL, e.to_string()))?;
    let request = machine.request(&jobspec)?;
    match machine.find_for(Op::Satisfiability, -1, &request, now()) {
        Ok(_) => Ok(json!({})),
        Err(MatchError::Unsatisfiable) => Err(RpcError::new(libc::ENODEV, "Unsatisfiable request")),
        Err(e) => Err(match_fault(&e)),
    }
}
