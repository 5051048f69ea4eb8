//! The end of a job: what its shells have left is stored, and its resources are released.

use client::Node;
use formats::shared_shell::Of;
use formats::subprocess::Target;
use serde_json::{Value, json};
use wire::RpcError;

use super::super::Orders;
use super::super::watch::label;
use super::{Job, shared};

impl Job {
    /// Shells that have exited since this was asked last, and the events that say so.
    pub(super) fn exits(&mut self) -> (Vec<u32>, Vec<(&'static str, Value)>) {
        std::mem::take(&mut self.parting)
            .into_iter()
            .map(|(rank, context)| (rank, ("shell-exit", context)))
            .unzip()
    }

    /// Append the exits of shells to the exec eventlog.
    pub(super) async fn write_exits(&mut self) -> Result<(), RpcError> {
        let (ranks, events) = self.exits();
        let appended = self.guest.append(&events).await;
        self.forget(&ranks);
        appended
    }

    /// Finish with this status and release, with all stored that is left to store: by the job manager with the job's events if
    /// there is no namespace.
    pub(super) async fn conclude(mut self, status: i32, orders: &mut Orders) {
        let (ranks, mut events) = self.exits();
        events.push(("complete", json!({ "status": status })));
        events.push(("done", Value::Null));
        let handed = std::mem::take(&mut self.handed);
        if let Some(record) = self.guest.record(&handed, &events) {
            self.report.finished(status);
            self.report.released_with(&record);
            if orders.until_recorded().await {
                self.guest.recorded();
                self.forget(&ranks);
            }
            return;
        }
        let stored = self.guest.finish(handed, &events);
        self.report.finished(status);
        if let Err(e) = stored.await {
            self.report
                .exception("exec", &format!("cannot store the guest namespace: {e}"));
        }
        self.forget(&ranks);
        self.report.released();
    }

    /// The ends of these shells are stored: they need not be kept by anybody else.
    pub(super) fn forget(&self, ranks: &[u32]) {
        let (handle, id) = (&self.site.handle, self.report.id());
        for rank in ranks {
            let rank = Node::Rank(*rank);
            match self.shares {
                true => handle.notify(&shared("wait"), rank, &Of { id }),
                false => handle.notify("rexec.wait", rank, &Target::label(label(id))),
            }
        }
    }
}
