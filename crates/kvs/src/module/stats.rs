//! `kvs.stats-get`.

use serde_json::{Value, json};

use super::Module;
use super::tally::Tally;

/// What is counted while the module runs.
#[derive(Default)]
pub(super) struct Stats {
    /// Objects that had to be loaded.
    pub(super) faults: u64,
    /// Operations of each commit that reached rank 0.
    pub(super) ops: Tally,
    /// Roots made.
    pub(super) updates: u64,
}

impl Module {
    pub(super) fn stats_object(&self) -> Value {
        let bytes: usize = self.store.sizes().sum();
        let sizes: Tally = self.store.sizes().map(|n| n as f64 / 1024.).collect();
        let namespaces: serde_json::Map<String, Value> = self
            .table
            .map
            .values()
            .map(|ns| {
                let value = json!({
                    "#versionwaiters": ns.waiters.len(),
                    "#no-op stores": ns.noop_stores,
                    "#transactions": ns.queue.len() + ns.in_flight.len(),
                    "#readytransactions": ns.queue.len(),
                    "store revision": ns.seq,
                });
                (ns.name.clone(), value)
            })
            .collect();
        json!({
            "cache": {
                "obj size total (MiB)": bytes as f64 / 1048576.0,
                "obj size (KiB)": sizes.to_json(),
                "#obj dirty": 0,
                "#obj incomplete": self.loads.len(),
                "#faults": self.stats.faults,
            },
            "namespace": namespaces,
            "transaction-opcount": { "commit": self.stats.ops.to_json() },
            "root-updates": self.stats.updates,
            "gc": self.gc.to_json(),
            "pending_requests": self.pending(),
        })
    }

    /// Requests that were taken and are not answered.
    fn pending(&self) -> usize {
        let namespaces = self.table.map.values();
        let waiting = namespaces.map(|ns| ns.waiters.len() + ns.queue.len() + ns.in_flight.len());
        waiting.sum::<usize>() + self.parked() + self.relayed + self.syncing
    }
}
