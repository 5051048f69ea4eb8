//! Exceptions (RFC 21): `raise`, `raiseall`; cancellation is one of them.

use formats::job::JobState;
use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError, json_payload};

use super::{Done, Manager};

#[derive(Deserialize)]
struct Selection {
    dry_run: bool,
    #[serde(deserialize_with = "user")]
    userid: u32,
    states: u32,
    severity: i64,
    #[serde(rename = "type")]
    kind: String,
    note: Option<String>,
}

/// User id that stands for all users.
const ANY_USER: u32 = u32::MAX;

/// A user id; clients write "all users" as -1 or as the largest id.
pub(super) fn user<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    match i64::deserialize(d)? {
        -1 => Ok(ANY_USER),
        id => u32::try_from(id).map_err(|_| serde::de::Error::custom("userid out of range")),
    }
}

impl Manager {
    /// Post an exception and publish it as an event for the services that act on it.
    pub(super) fn raise(
        &mut self,
        id: JobId,
        kind: &str,
        severity: i64,
        note: &str,
        userid: u32,
        wait_status: Option<i32>,
    ) {
        let mut context =
            json!({ "type": kind, "severity": severity, "note": note, "userid": userid });
        if let Some(status) = wait_status {
            context["wait_status"] = status.into();
        }
        let running = self
            .jobs
            .get(&id)
            .is_some_and(|job| job.state == JobState::Run);
        self.post(id, "exception", context);
        if severity == 0 {
            self.cancel_perilog(id);
        }
        // Only the execution service listens, and it has running jobs only.
        if running {
            let mut event = json!({ "id": id, "type": kind, "severity": severity });
            if let Some(status) = wait_status {
                event["wait_status"] = status.into();
            }
            self.publish("job-exception", event);
        }
    }

    /// Publish an event; its order among others is that of the calls.
    pub(super) fn publish(&mut self, topic: &str, payload: Value) {
        let (handle, topic) = (self.handle.clone(), topic.to_owned());
        self.work.push(Box::pin(async move {
            // The event goes through this broker's own router, which outlives the module.
            let _ = handle
                .publish_raw(&topic, json_payload(&payload).ok(), false)
                .await;
            Done::Nothing
        }));
    }

    pub(super) fn raise_request(&mut self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            id: JobId,
            severity: i64,
            #[serde(rename = "type")]
            kind: String,
            note: Option<String>,
            wait_status: Option<i32>,
        }
        let Request {
            id,
            severity,
            kind,
            note,
            wait_status,
        } = msg.json()?;
        check(severity, &kind)?;
        let job = self.active(id)?;
        msg.require_user(job.userid)?;
        self.raise(
            id,
            &kind,
            severity,
            note.as_deref().unwrap_or(""),
            msg.userid(),
            wait_status,
        );
        Ok(Value::Null)
    }

    pub(super) fn raise_all(&mut self, msg: &Message) -> Result<Value, RpcError> {
        let Selection {
            dry_run,
            userid,
            states,
            severity,
            kind,
            note,
        } = msg.json()?;
        check(severity, &kind)?;
        let refused = "guests can only raise exceptions on their own jobs";
        let ids = self.select(msg, userid, states, refused)?;
        if !dry_run {
            for id in &ids {
                let note = note.as_deref().unwrap_or("");
                self.raise(*id, &kind, severity, note, msg.userid(), None);
            }
        }
        Ok(json!({ "count": ids.len(), "errors": 0 }))
    }

    /// Active jobs of `userid` in one of `states`, which the sender may act on; otherwise `refused` says why not.
    pub(super) fn select(
        &self,
        msg: &Message,
        userid: u32,
        states: u32,
        refused: &str,
    ) -> Result<Vec<JobId>, RpcError> {
        let may = match userid {
            ANY_USER => msg.require_owner(),
            userid => msg.require_user(userid),
        };
        may.map_err(|_| RpcError::new(libc::EPERM, refused))?;
        let mut ids: Vec<JobId> = self
            .jobs
            .values()
            .filter(|job| userid == ANY_USER || job.userid == userid)
            .filter(|job| job.state.bit() & states != 0)
            .map(|job| job.id)
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// The active job `id`, or why there is none.
    pub(super) fn active(&self, id: JobId) -> Result<&super::Job, RpcError> {
        self.jobs.get(&id).ok_or_else(|| match self.past.get(id) {
            Some(_) => RpcError::new(libc::EINVAL, "job is inactive"),
            None => RpcError::new(libc::ENOENT, "unknown job id"),
        })
    }
}

/// Severity and type of an exception (RFC 21).
pub(super) fn check(severity: i64, kind: &str) -> Result<(), RpcError> {
    if !(0..=7).contains(&severity) {
        let text = format!("exception severity must be from 0 to 7, found {severity}");
        return Err(RpcError::new(libc::EPROTO, text));
    }
    if kind.is_empty() || kind.contains(char::is_whitespace) {
        let text = format!("exception type must be one word, found {kind:?}");
        return Err(RpcError::new(libc::EPROTO, text));
    }
    Ok(())
}
