//! `kill`, `killall`, `urgency`, `memo`.

use formats::Urgency;
use formats::job::JobState;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::{Message, RpcError};

use super::batch::After;
use super::job::update_annotations;
use super::{Job, Manager};
use crate::ingest::check_urgency;

fn check_signal(signum: i32) -> Result<(), RpcError> {
    if (1..=64).contains(&signum) {
        return Ok(());
    }
    Err(RpcError::new(libc::EINVAL, "Invalid signal number"))
}

impl Manager {
    fn send_signal(&mut self, id: JobId, signum: i32) {
        self.publish(
            &format!("shell-{}.kill", id.dec()),
            json!({ "signum": signum }),
        );
    }

    pub(super) fn kill(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            signum: i32,
        }
        let Request { id, signum } = msg.json()?;
        check_signal(signum)?;
        let job = self.active(id)?;
        let refused = "guests may only send signals to their own jobs";
        msg.require_user(job.userid)
            .map_err(|_| RpcError::new(libc::EPERM, refused))?;
        if !matches!(job.state, JobState::Run | JobState::Cleanup) {
            return Err(RpcError::new(libc::EINVAL, "job is not running"));
        }
        self.send_signal(id, signum);
        Ok(Value::Null)
    }

    pub(super) fn kill_all(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            dry_run: bool,
            #[serde(deserialize_with = "super::raise::user")]
            userid: u32,
            signum: i32,
        }
        let Request {
            dry_run,
            userid,
            signum,
        } = msg.json()?;
        check_signal(signum)?;
        let refused = "guests can only kill their own jobs";
        let ids = self.select(msg, userid, JobState::Run.bit(), refused)?;
        if !dry_run {
            ids.iter().for_each(|id| self.send_signal(*id, signum));
        }
        Ok(json!({ "count": ids.len(), "errors": 0 }))
    }

    pub(super) fn urgency(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            urgency: Urgency,
        }
        let Request { id, urgency } = msg.json()?;
        let job = self.active(id)?;
        msg.require_user(job.userid)?;
        if urgency > job.urgency {
            check_urgency(urgency, msg.is_owner())?;
        }
        if matches!(job.state, JobState::Run | JobState::Cleanup) {
            let text = "urgency cannot be changed once resources are allocated";
            return Err(RpcError::new(libc::EINVAL, text));
        }
        let old = job.urgency;
        let context = json!({ "urgency": urgency, "userid": msg.userid() });
        self.post(id, "urgency", context);
        Ok(json!({ "old_urgency": old }))
    }

    pub(super) fn memo(&mut self, msg: &Message) -> Result<Option<Value>, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            #[serde(default)]
            volatile: bool,
            memo: Map<String, Value>,
        }
        let Request { id, volatile, memo } = msg.json()?;
        let refused = "guests can only add a memo to their own jobs";
        msg.require_user(self.active(id)?.userid)
            .map_err(|_| RpcError::new(libc::EPERM, refused))?;
        if !volatile {
            self.post(id, "memo", Value::Object(memo));
            self.batch.after(After::Respond(msg.clone(), Value::Null));
            return Ok(None);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            annotate_user(job, &memo);
        }
        Ok(Some(Value::Null))
    }
}

fn annotate_user(job: &mut Job, memo: &Map<String, Value>) {
    let update = Map::from_iter([("user".to_owned(), Value::Object(memo.clone()))]);
    update_annotations(&mut job.annotations, &update);
}
