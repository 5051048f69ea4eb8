//! Jobs with resources that are not the scheduler's: a plugin has set them (topic `job.state.sched`), or, with
//! `alloc-bypass.so`, the instance's owner in the jobspec (`attributes.system.alloc-bypass.R`).

use std::sync::Arc;

use formats::jobid::JobId;
use formats::resource_set::ResourceSet;
use serde_json::{Value, json};

use super::Manager;
use super::job::{Alloc, Job};
use super::jobtap::Builtin;

impl Manager {
    /// The resources that a job brings along.
    fn brought<'a>(&self, job: &'a Job) -> Option<&'a Value> {
        match self.taps.has(Builtin::AllocBypass) {
            true => job.system("alloc-bypass")?.get("R"),
            false => None,
        }
    }

    /// Why a new job may not bring its resources along, if it may not.
    pub(super) fn check_bypass(&self, job: &Job) -> Result<(), String> {
        let Some(r) = self.brought(job) else {
            return Ok(());
        };
        // SAFETY: asks for a number.
        if job.userid != unsafe { libc::getuid() } {
            return Err("Guest user cannot use alloc bypass".to_owned());
        }
        let set = ResourceSet::try_from(r.clone());
        set.map(drop)
            .map_err(|e| format!("alloc-bypass: invalid R: {e}"))
    }

    /// Give a job resources that are not the scheduler's; false if there are none for it.
    pub(super) fn allocate_beside(&mut self, id: JobId) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        if !matches!(job.alloc, Alloc::None | Alloc::Queued) || !job.is_eligible() {
            return false;
        }
        let brought = || self.brought(job).cloned().map(Arc::new);
        let Some(r) = job.r.clone().or_else(brought) else {
            return false;
        };
        if let Some(job) = self.jobs.get_mut(&id) {
            job.r = Some(r.clone());
        }
        self.batch.resources(id, r);
        self.post(id, "alloc", json!({ "bypass": true }));
        true
    }
}
