//! How the other tasks of the broker speak to the router.

use std::sync::Arc;

use client::Handle;
use tokio::sync::mpsc::UnboundedSender;
use wire::Credentials;

use super::{EndpointId, Input, ModuleCard, Sink};

/// Sends to the router task.
#[derive(Clone)]
pub(crate) struct RouterHandle(pub(super) UnboundedSender<Input>, pub(super) u32);

impl RouterHandle {
    pub(crate) fn send(&self, input: Input) -> bool {
        self.0.send(input).is_ok()
    }

    /// This broker's rank.
    pub(crate) fn rank(&self) -> u32 {
        self.1
    }

    /// Put an entry (see [`crate::log::entry`]) into the broker's log.
    pub(crate) fn log(&self, entry: bytes::Bytes) {
        self.send(Input::Log(entry));
    }

    /// Wait until the router task has ended and dropped its transport.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }

    /// A handle for something in this process, registered with its services.
    pub(crate) fn attach(&self, cred: Credentials, services: Vec<String>) -> (EndpointId, Handle) {
        self.attach_module(cred, services, None)
    }

    /// As [`RouterHandle::attach`], for a module.
    pub(crate) fn attach_module(
        &self,
        cred: Credentials,
        services: Vec<String>,
        card: Option<Arc<ModuleCard>>,
    ) -> (EndpointId, Handle) {
        let id = new_id();
        let (router, from) = (self.clone(), id.clone());
        let (handle, deliver) =
            Handle::with_sink(move |msg| router.send(Input::FromEndpoint(from.clone(), msg)));
        self.send(Input::Attach {
            id: id.clone(),
            cred,
            sink: Sink::Module(deliver),
            services,
            card,
        });
        (id, handle)
    }
}

/// A fresh UUID (version 4 layout).
pub(crate) fn new_id() -> EndpointId {
    let bytes = (rand::random::<u128>() & !(0xf << 76) | (4 << 76)) & !(3 << 62) | (2 << 62);
    let hex = format!("{bytes:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-").into()
}
