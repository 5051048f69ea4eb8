//! `job-info.update-watch`: R or the jobspec of a job, and again after each update to it.

use client::{Message, RpcError};
use formats::job_schema::JobKey;
use formats::{Event, JobId};
use kvs::client::WatchItem;
use kvs::flags;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Shared;
use super::lookup::{apply_update, update_event};

#[derive(Deserialize)]
struct Request {
    id: u64,
    key: String,
    flags: u32,
}

/// Runs a watch; returns the error that ends it.
pub(super) async fn run(shared: Shared, msg: &Message) -> RpcError {
    match watch(&shared, msg).await {
        Ok(()) => RpcError::errno(libc::ENODATA),
        Err(e) => e,
    }
}

async fn watch(shared: &Shared, msg: &Message) -> Result<(), RpcError> {
    let req: Request = msg.json()?;
    if req.flags != 0 {
        return Err(RpcError::proto(
            "update-watch request rejected with invalid flag",
        ));
    }
    let Some(update) = update_event(&req.key) else {
        return Err(RpcError::new(
            libc::EINVAL,
            "update-watch unsupported key specified",
        ));
    };
    let id = JobId(req.id);
    shared.check(msg, id).await?;
    let text = shared.get(id, &req.key).await?;
    let mut object: Value = serde_json::from_str(&text)
        .map_err(|e| RpcError::new(libc::EINVAL, format!("{}: stored value: {e}", req.key)))?;
    let key = id.key(JobKey::Eventlog);
    let flags = flags::WATCH_APPEND | flags::WATCH_INITIAL_SENTINEL;
    let mut log = kvs::client::watch(&shared.handle, Some(kvs::PRIMARY), &key, flags);
    // The log so far is taken in as a whole before the first answer.
    let (mut caught_up, mut ended) = (false, false);
    while let Some(item) = log.next_item().await {
        let mut news = false;
        match item? {
            WatchItem::Sentinel => (caught_up, news) = (true, true),
            WatchItem::Object(obj) => {
                let data = obj.data().unwrap_or_default();
                let lines = String::from_utf8_lossy(&data);
                for event in lines.lines().filter_map(|line| Event::decode(line).ok()) {
                    if event.name == update {
                        apply_update(&mut object, &req.key, event.context.as_ref());
                        news = true;
                    }
                    ended |= event.name == "clean";
                }
            }
        }
        if caught_up && news {
            let answer = Map::from_iter([(req.key.clone(), object.clone())]);
            shared.handle.respond(msg, &answer);
        }
        if caught_up && ended {
            return Ok(());
        }
    }
    Ok(())
}
