//! Ranks that are taken out of service, and brought back.

use client::{Message, RpcError};
use formats::Idset;
use formats::resource_event::{Drain, ResourceEvent};
use kvs::Txn;
use serde::Deserialize;
use serde_json::Map;

use super::{Done, Leader};
use crate::drain::{DrainError, Mode};
use crate::module::reslog::now;

#[derive(Deserialize)]
struct DrainRequest {
    targets: String,
    reason: Option<String>,
    mode: Option<String>,
}

fn drain_error(e: DrainError) -> RpcError {
    RpcError::new(e.errno(), e.to_string())
}

impl Leader {
    pub(super) fn handle_drain(&mut self, msg: &Message) -> Result<(), RpcError> {
        let req: DrainRequest = msg.json()?;
        let ranks = self.targets(&req.targets)?;
        let mode = Mode::parse(req.mode.as_deref(), "drain").map_err(drain_error)?;
        if mode == Mode::Refuse {
            self.inventory
                .drained
                .check_drain(&ranks, &self.inventory.excluded)
                .map_err(drain_error)?;
        }
        self.drain(ranks, req.reason, mode, Some(msg.clone()));
        Ok(())
    }

    pub(super) fn handle_undrain(&mut self, msg: &Message) -> Result<(), RpcError> {
        let req: DrainRequest = msg.json()?;
        let ranks = self.targets(&req.targets)?;
        let mode = Mode::parse(req.mode.as_deref(), "undrain").map_err(drain_error)?;
        let drained = &mut self.inventory.drained;
        if mode == Mode::Refuse {
            drained.check_undrain(&ranks).map_err(drain_error)?;
        }
        drained.undrain(&ranks);
        let event = self.drain_event(ranks, req.reason, mode);
        self.post_drain(ResourceEvent::Undrain(event), now(), Some(msg.clone()));
        Ok(())
    }

    /// Take ranks out of service; whoever asked is answered when that is stored.
    pub(super) fn drain(
        &mut self,
        ranks: Idset,
        reason: Option<String>,
        mode: Mode,
        asked: Option<Message>,
    ) {
        let time = now();
        let drained = &mut self.inventory.drained;
        drained.drain(&ranks, time, reason.as_deref(), mode.overwrite());
        let event = self.drain_event(ranks, reason, mode);
        self.post_drain(ResourceEvent::Drain(event), time, asked);
    }

    fn drain_event(&self, ranks: Idset, reason: Option<String>, mode: Mode) -> Drain {
        Drain {
            nodelist: Some(self.nodelist(&ranks)),
            idset: ranks,
            reason,
            overwrite: mode.overwrite(),
            extra: Map::new(),
        }
    }

    fn post_drain(&mut self, event: ResourceEvent, time: f64, asked: Option<Message>) {
        let stored = self.log.post(event.to_event(time), Txn::new(), None);
        self.work
            .push(Box::pin(async move { Done::Posted(asked, stored.await) }));
        self.notify();
    }
}
