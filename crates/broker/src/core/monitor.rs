//! The service `state-machine`: who asks for the broker's state, waits for it or follows it.

use std::time::Instant;

use client::Handle;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use crate::state::State;

/// Those who wait for the instance to run, and those who follow all states.
#[derive(Default)]
pub(super) struct Monitors {
    waiters: Vec<Message>,
    followers: Vec<(Message, i32)>,
}

/// The answer to who waits for the run state, once it is known.
fn verdict(state: State) -> Option<Result<(), RpcError>> {
    match state {
        State::Run => Some(Ok(())),
        s if s > State::Run => {
            let text = format!("the broker is past its run state: {s}");
            Some(Err(RpcError::new(libc::ENOENT, text)))
        }
        _ => None,
    }
}

/// Tell a follower; whether it wants to hear more.
fn tell(handle: &Handle, request: &Message, last: i32, state: State) -> bool {
    let number = state.number();
    if number <= last {
        handle.respond(request, &json!({ "state": number }));
    }
    if !request.is_streaming() {
        return false;
    }
    if number >= last {
        handle.respond_error(request, &RpcError::errno(libc::ENODATA));
    }
    number < last
}

impl Monitors {
    /// The broker has entered a state.
    pub(super) fn entered(&mut self, state: State, handle: &Handle) {
        if let Some(verdict) = verdict(state) {
            for request in std::mem::take(&mut self.waiters) {
                match &verdict {
                    Ok(()) => handle.respond_ok(&request),
                    Err(e) => handle.respond_error(&request, e),
                }
            }
        }
        self.followers
            .retain(|(request, last)| tell(handle, request, *last, state));
    }

    /// A request for `state-machine`, in a state entered at `since`; none if it is answered here or later.
    pub(super) fn request(
        &mut self,
        msg: &Message,
        (state, since): (State, Instant),
        handle: &Handle,
    ) -> Option<Result<Value, RpcError>> {
        match msg.method() {
            "get" => Some(Ok(json!({
                "state": state.name(),
                "duration": since.elapsed().as_secs_f64(),
            }))),
            "wait" => {
                let verdict = verdict(state);
                if verdict.is_none() {
                    self.waiters.push(msg.clone());
                }
                verdict.map(|v| v.map(|()| Value::Null))
            }
            "monitor" => {
                #[derive(Deserialize)]
                struct Request {
                    r#final: Option<i32>,
                }
                // Also without payload.
                let last = msg.json::<Request>().ok().and_then(|r| r.r#final);
                let last = last.unwrap_or(State::Exit.number());
                if tell(handle, msg, last, state) {
                    self.followers.push((msg.clone(), last));
                }
                None
            }
            "disconnect" => {
                self.waiters.retain(|r| !r.is_same_rpc(msg, None));
                self.followers.retain(|(r, _)| !r.is_same_rpc(msg, None));
                None
            }
            _ => Some(Err(super::no_method(msg))),
        }
    }
}
