//! Programs that submit jobs and change their minds about them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Handle, Node};
use formats::jobid::JobId;
use rand::Rng;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::RpcError;

/// User id of all programs.
pub(super) const OWNER: u32 = 1000;

/// What programs have done, over all lives of their broker.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Jobs that each program has to submit yet.
    pub(super) left: Vec<u32>,
    /// In the order in which they were acknowledged.
    pub(super) acknowledged: Vec<JobId>,
    /// What should not be.
    pub(super) violation: Option<String>,
}

/// [`Done`], for all.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Done>>);

impl Shared {
    pub(super) fn get(&self) -> MutexGuard<'_, Done> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One life of a program.
pub(super) struct Program {
    pub(super) number: usize,
    pub(super) handle: Handle,
    pub(super) shared: Shared,
    pub(super) ranks: u32,
    pub(super) rng: StdRng,
}

impl Program {
    pub(super) async fn run(mut self) {
        while self.shared.get().left[self.number] > 0 {
            if let Ok(id) = self.submit().await {
                let mut done = self.shared.get();
                done.acknowledged.push(id);
                done.left[self.number] -= 1;
            }
            let change = self.change().await;
            if change.is_err() {
                let pause = self.rng.random_range(10..200);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    fn jobspec(&mut self) -> Value {
        let (slots, cores) = (
            self.rng.random_range(1..=self.ranks),
            self.rng.random_range(1..=2),
        );
        let mut system = json!({ "duration": 0, "cwd": "/" });
        if self.rng.random_bool(0.3) {
            let time = format!("{}ms", self.rng.random_range(0..300));
            system["exec"] = json!({ "test": { "run_duration": time } });
        }
        let before = self.some_job();
        if let Some(id) = before.filter(|_| self.rng.random_bool(0.3)) {
            let schemes = ["after", "afterany", "afterok", "afternotok"];
            let scheme = schemes[self.rng.random_range(0..schemes.len())];
            system["dependencies"] = json!([{ "scheme": scheme, "value": id.dec() }]);
        }
        json!({
            "version": 1,
            "resources": [{
                "type": "slot", "count": slots, "label": "task",
                "with": [{ "type": "core", "count": cores }],
            }],
            "tasks": [{ "command": ["app"], "slot": "task", "count": { "per_slot": 1 } }],
            "attributes": { "system": system },
        })
    }

    fn some_job(&mut self) -> Option<JobId> {
        let done = self.shared.get();
        let jobs = &done.acknowledged;
        (!jobs.is_empty()).then(|| jobs[self.rng.random_range(0..jobs.len())])
    }

    async fn submit(&mut self) -> Result<JobId, RpcError> {
        #[derive(Deserialize)]
        struct Answer {
            id: JobId,
        }
        let jobspec = self.jobspec().to_string();
        let signed = formats::signed::wrap_none(OWNER, jobspec.as_bytes());
        let urgency = if self.rng.random_bool(0.1) { 0 } else { 16 };
        let flags = if self.rng.random_bool(0.5) { 4 } else { 0 };
        let request = json!({ "J": signed, "urgency": urgency, "flags": flags });
        let answer: Answer = self
            .handle
            .call("job-ingest.submit", Node::Any, &request)
            .await?;
        Ok(answer.id)
    }

    /// Does something to one of the jobs, or to none.
    async fn change(&mut self) -> Result<(), RpcError> {
        let Some(id) = self.some_job() else {
            return Ok(());
        };
        let (method, request) = match self.rng.random_range(0..12) {
            0 => (
                "raise",
                json!({ "id": id, "severity": 0, "type": "cancel", "note": "" }),
            ),
            1 => (
                "raise",
                json!({ "id": id, "severity": 3, "type": "test", "note": "" }),
            ),
            2 | 3 => {
                let urgency = self.rng.random_range(0..=31);
                ("urgency", json!({ "id": id, "urgency": urgency }))
            }
            4 => ("memo", json!({ "id": id, "memo": { "a": 1 } })),
            5 => return self.wait(id).await,
            _ => return Ok(()),
        };
        let topic = format!("job-manager.{method}");
        let changed = self.handle.rpc(&topic, Node::Any, &request);
        changed.await.map(drop)
    }

    /// Waits for a job, for a while.
    async fn wait(&self, id: JobId) -> Result<(), RpcError> {
        let request = json!({ "id": id });
        let wait = self.handle.rpc("job-manager.wait", Node::Any, &request);
        let Ok(result) = tokio::time::timeout(Duration::from_millis(500), wait).await else {
            return Ok(());
        };
        let told: Value = result?.json()?;
        if told["id"] != json!(id) {
            self.shared.get().violation =
                Some(format!("who waited for {} was told {told}", id.dec()));
        }
        Ok(())
    }
}
