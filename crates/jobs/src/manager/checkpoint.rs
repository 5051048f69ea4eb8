//! What outlives the job manager beside the jobs: the key `checkpoint.job-manager` of the store.
//!
//! It is written whenever a queue changes, and when the module ends.

use client::module::{ModuleError, ModuleResult};
use serde::{Deserialize, Serialize};

use super::Manager;
use super::queues::Saved;

const KEY: &str = "checkpoint.job-manager";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    version: u32,
    max_jobid: u64,
    queue: Vec<Saved>,
}

impl Manager {
    /// Store the state of the queues with the next batch.
    pub(super) fn save_queues(&mut self) {
        let checkpoint = Checkpoint {
            version: VERSION,
            max_jobid: self.max_id,
            queue: self.queues.save(),
        };
        self.batch
            .set(KEY, serde_json::json!(checkpoint).to_string());
    }

    /// Take over what an earlier life has left, if there was one.
    pub(super) async fn restore_queues(&mut self, stop: bool) -> ModuleResult {
        let bytes = match kvs::client::get(&self.handle, Some(kvs::PRIMARY), KEY).await {
            Ok(bytes) => bytes,
            Err(e) if e.errno == libc::ENOENT => return Ok(()),
            Err(e) => return Err(ModuleError::new(KEY, e)),
        };
        match serde_json::from_slice::<Checkpoint>(&bytes) {
            Ok(found) if found.version <= VERSION => {
                self.max_id = self.max_id.max(found.max_jobid);
                self.queues.restore(found.queue, stop);
                Ok(())
            }
            Ok(found) => {
                let why = format!("version {} is not known", found.version);
                Err(ModuleError::new(KEY, why))
            }
            Err(e) => Err(ModuleError::new(KEY, e)),
        }
    }
}
