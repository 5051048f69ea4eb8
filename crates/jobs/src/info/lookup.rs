//! `job-info.lookup`: values of a job's keys.

use client::{Message, RpcError};
use formats::{JobId, eventlog};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Shared, set_path};

/// Decode jobspec and R instead of passing their text.
const JSON_DECODE: u32 = 1;
/// Apply later updates to jobspec and R.
const CURRENT: u32 = 2;

#[derive(Deserialize)]
struct Request {
    id: u64,
    keys: Vec<String>,
    flags: u32,
}

pub(super) async fn run(shared: Shared, msg: Message) {
    let answer = async {
        let req: Request = msg.json()?;
        if req.flags & !(JSON_DECODE | CURRENT) != 0 {
            return Err(RpcError::proto("lookup request rejected with invalid flag"));
        }
        lookup(&shared, &msg, JobId(req.id), &req.keys, req.flags).await
    };
    let answer = answer.await;
    shared.handle.respond_result(&msg, answer);
}

/// `job-info.update-lookup`: the older form, for R only.
pub(super) async fn run_update(shared: Shared, msg: Message) {
    #[derive(Deserialize)]
    struct Request {
        id: u64,
        key: String,
        flags: u32,
    }
    let answer = async {
        let req: Request = msg.json()?;
        if req.flags != 0 {
            return Err(RpcError::proto(
                "update-lookup request rejected with invalid flag",
            ));
        }
        if req.key != "R" {
            return Err(RpcError::new(
                libc::EINVAL,
                "update-lookup unsupported key specified",
            ));
        }
        lookup(
            &shared,
            &msg,
            JobId(req.id),
            &[req.key],
            JSON_DECODE | CURRENT,
        )
        .await
    };
    let answer = answer.await;
    shared.handle.respond_result(&msg, answer);
}

async fn lookup(
    shared: &Shared,
    msg: &Message,
    id: JobId,
    keys: &[String],
    flags: u32,
) -> Result<Value, RpcError> {
    shared.check(msg, id).await?;
    let updated = |key: &str| flags & CURRENT != 0 && update_event(key).is_some();
    let log = async {
        match keys.iter().any(|key| updated(key)) {
            true => shared.eventlog(id).await,
            false => Ok(String::new()),
        }
    };
    let values = join_all(keys.iter().map(|key| shared.get(id, key)));
    let (log, values) = futures::join!(log, values);
    let log = log?;
    let mut answer = Map::from_iter([("id".to_owned(), json!(id.0))]);
    for (key, value) in keys.iter().zip(values) {
        let mut text = match value {
            Ok(text) => text,
            Err(e) if e.errno == libc::ENOENT => {
                // Say whether the job or only the key is missing.
                shared.eventlog(id).await?;
                return Err(RpcError::new(libc::ENOENT, format!("{key}: key not found")));
            }
            Err(e) => return Err(RpcError::new(e.errno, format!("{key}: {e}"))),
        };
        let decode = flags & JSON_DECODE != 0 && update_event(key).is_some();
        if !decode && !updated(key) {
            answer.insert(key.clone(), Value::String(text));
            continue;
        }
        let mut object: Value = serde_json::from_str(&text)
            .map_err(|e| RpcError::new(libc::EINVAL, format!("{key}: stored value: {e}")))?;
        if updated(key) {
            apply_log(&mut object, key, &log)?;
            text = object.to_string();
        }
        answer.insert(
            key.clone(),
            if decode { object } else { Value::String(text) },
        );
    }
    Ok(Value::Object(answer))
}

/// The event that updates a key's value, for keys that can be updated.
pub(super) fn update_event(key: &str) -> Option<&'static str> {
    match key {
        "R" => Some("resource-update"),
        "jobspec" => Some("jobspec-update"),
        _ => None,
    }
}

/// Applies all updates in the log; returns how many there were.
pub(super) fn apply_log(object: &mut Value, key: &str, log: &str) -> Result<usize, RpcError> {
    let events =
        eventlog::decode(log).map_err(|e| RpcError::new(libc::EINVAL, format!("eventlog: {e}")))?;
    let updates = events
        .iter()
        .filter(|e| Some(e.name.as_str()) == update_event(key));
    let mut n = 0;
    for event in updates {
        apply_update(object, key, event.context.as_ref());
        n += 1;
    }
    Ok(n)
}

/// Applies one update (RFC 21): of R only the expiration can change.
pub(super) fn apply_update(object: &mut Value, key: &str, context: Option<&Map<String, Value>>) {
    for (path, value) in context.into_iter().flatten() {
        match key {
            "R" if path == "expiration" => {
                set_path(object, "execution.expiration", value.clone());
            }
            "R" => {}
            _ => set_path(object, path, value.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_apply_in_order() {
        let log = "{\"timestamp\":1.0,\"name\":\"submit\",\"context\":{\"userid\":1}}\n\
            {\"timestamp\":2.0,\"name\":\"resource-update\",\"context\":{\"expiration\":5.0}}\n\
            {\"timestamp\":2.0,\"name\":\"jobspec-update\",\"context\":{\"attributes.system.duration\":9.0}}\n\
            {\"timestamp\":3.0,\"name\":\"resource-update\",\"context\":{\"expiration\":7.0,\"x\":1}}\n";
        let mut r = json!({"execution": {"expiration": 0.0}});
        assert_eq!(apply_log(&mut r, "R", log).unwrap(), 2);
        assert_eq!(r, json!({"execution": {"expiration": 7.0}}));
        let mut j = json!({"attributes": {"system": {"duration": 1.0}}});
        assert_eq!(apply_log(&mut j, "jobspec", log).unwrap(), 1);
        assert_eq!(j["attributes"]["system"]["duration"], 9.0);
        assert!(apply_log(&mut j, "R", "junk").is_err());
    }
}
