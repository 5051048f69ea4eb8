//! `shutdown.start`: whoever ends the instance follows its log until it has ended (flux-shutdown(1)).

use client::Handle;
use serde::Deserialize;
use serde_json::json;
use wire::{Message, RpcError};

use crate::log::plain;

/// The one who has asked for the end, and the least severe entry it wants.
#[derive(Default)]
pub(super) struct Ending(Option<(Message, i32)>);

impl Ending {
    /// Whether somebody follows the end already.
    pub(super) fn is_followed(&self) -> bool {
        self.0.is_some()
    }

    /// Tell this one of the end.
    pub(super) fn follow(&mut self, msg: &Message) {
        #[derive(Deserialize)]
        struct Request {
            loglevel: Option<i32>,
        }
        let level = msg.json::<Request>().ok().and_then(|r| r.loglevel);
        self.0 = Some((msg.clone(), level.unwrap_or(libc::LOG_ERR)));
    }

    /// An entry is logged.
    pub(super) fn log(&self, entry: &[u8], handle: &Handle) {
        let Some((request, level)) = &self.0 else {
            return;
        };
        if let Some((severity, text)) = plain(entry)
            && severity <= *level
        {
            handle.respond(request, &json!({ "log": format!("{text}\n") }));
        }
    }

    /// The instance has ended.
    pub(super) fn done(&mut self, handle: &Handle) {
        if let Some((request, _)) = self.0.take() {
            handle.respond_error(&request, &RpcError::errno(libc::ENODATA));
        }
    }

    /// A client is gone.
    pub(super) fn disconnect(&mut self, notice: &Message) {
        self.0
            .take_if(|(request, _)| request.is_same_rpc(notice, None));
    }
}
