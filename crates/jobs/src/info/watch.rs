//! `job-info.eventlog-watch`: the events of one of a job's eventlogs, as they come.
//!
//! The primary eventlog ends with `clean`. A path that begins with `guest.` is in the job's own
//! namespace while the job runs and is copied to the primary one, below `guest`, before that
//! namespace is removed; the watch moves along and no event is sent twice or lost.

use client::{Message, RpcError};
use formats::job_schema::JobKey;
use formats::{Event, JobId};
use kvs::client::{Watch, WatchItem};
use kvs::flags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;

/// Wait for the eventlog to be created.
const WAITCREATE: u32 = 1;
/// Send an empty response after what was there at first.
const INITIAL_SENTINEL: u32 = 2;

#[derive(Deserialize)]
struct Request {
    id: u64,
    path: String,
    flags: u32,
}

/// Runs a watch; returns the error that ends it.
pub(super) async fn run(shared: Shared, msg: &Message) -> RpcError {
    let result = async {
        let req: Request = msg.json()?;
        if req.flags & !(WAITCREATE | INITIAL_SENTINEL) != 0 {
            return Err(RpcError::proto(
                "eventlog-watch request rejected with invalid flag",
            ));
        }
        let id = JobId(req.id);
        shared.check(msg, id).await?;
        let mut out = Output {
            shared: &shared,
            msg,
            sent: 0,
            skip: 0,
            sentinel: false,
        };
        match req.path.strip_prefix("guest.") {
            Some(path) => guest(&mut out, id, path, req.flags).await,
            None => main_log(&mut out, id, &req.path, req.flags).await,
        }
    };
    match result.await {
        Ok(()) => RpcError::errno(libc::ENODATA),
        Err(e) => e,
    }
}

/// What is sent to the requester.
struct Output<'a> {
    shared: &'a Shared,
    msg: &'a Message,
    /// Events sent.
    sent: usize,
    /// Events that come next and were sent before.
    skip: usize,
    sentinel: bool,
}

impl Output<'_> {
    /// Sends the events in `data`, whole lines; tells each to `seen`, which may end it.
    fn send(&mut self, data: &[u8], mut seen: impl FnMut(&str) -> bool) -> Result<bool, RpcError> {
        let text = std::str::from_utf8(data)
            .map_err(|_| RpcError::proto("eventlog is not valid UTF-8"))?;
        if text.is_empty() {
            return Err(RpcError::new(libc::EINVAL, "illegal append of zero bytes"));
        }
        for line in text.split_inclusive('\n').filter(|l| l.ends_with('\n')) {
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.shared
                .handle
                .respond(self.msg, &json!({ "event": line }));
            self.sent += 1;
            if seen(line) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn send_sentinel(&mut self) {
        if !self.sentinel {
            self.sentinel = true;
            self.shared.handle.respond_ok(self.msg);
        }
    }
}

fn kvs_flags(flags: u32) -> u32 {
    let mut out = flags::WATCH_APPEND;
    if flags & WAITCREATE != 0 {
        out |= flags::WAITCREATE;
    }
    if flags & INITIAL_SENTINEL != 0 {
        out |= flags::WATCH_INITIAL_SENTINEL;
    }
    out
}

fn data_of(obj: &kvs::TreeObj) -> Result<Vec<u8>, RpcError> {
    obj.data()
        .ok_or_else(|| RpcError::proto("eventlog is not a value"))
}

/// Sends what a watch brings until it ends or `seen` ends it.
async fn copy(
    out: &mut Output<'_>,
    watch: &mut Watch,
    mut seen: impl FnMut(&str) -> bool,
) -> Result<(), RpcError> {
    while let Some(item) = watch.next_item().await {
        match item? {
            WatchItem::Sentinel => out.send_sentinel(),
            WatchItem::Object(obj) => {
                if out.send(&data_of(&obj)?, &mut seen)? {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// A log in the primary namespace. Only the job's own eventlog has a known end.
async fn main_log(out: &mut Output<'_>, id: JobId, path: &str, flags: u32) -> Result<(), RpcError> {
    let key = format!("{}.{path}", id.kvs_path());
    let handle = &out.shared.handle;
    let mut watch = kvs::client::watch(handle, Some(kvs::PRIMARY), &key, kvs_flags(flags));
    let ends = path == "eventlog";
    copy(out, &mut watch, |line| {
        ends && event_name(line).as_deref() == Some("clean")
    })
    .await?;
    if flags & INITIAL_SENTINEL != 0 {
        out.send_sentinel();
    }
    Ok(())
}

fn event_name(line: &str) -> Option<String> {
    Some(Event::decode(line).ok()?.name)
}

/// Where a job's guest logs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GuestPlace {
    /// The job has not started: there are none yet.
    NotYet,
    Namespace,
    /// The namespace was copied to the primary one, or will never be.
    Primary,
}

impl GuestPlace {
    fn after(self, event: &Event) -> GuestPlace {
        match event.name.as_str() {
            "start" => GuestPlace::Namespace,
            "release" if event.get("final").and_then(Value::as_bool) == Some(true) => {
                GuestPlace::Primary
            }
            _ => self,
        }
    }
}

async fn guest(out: &mut Output<'_>, id: JobId, path: &str, flags: u32) -> Result<(), RpcError> {
    let mut place = GuestPlace::NotYet;
    let log = out.shared.eventlog(id).await?;
    for line in log.lines() {
        if let Ok(event) = Event::decode(line) {
            place = place.after(&event);
        }
    }
    if place == GuestPlace::NotYet {
        wait_started(out.shared, id).await?;
        place = GuestPlace::Namespace;
    }
    if place == GuestPlace::Namespace {
        let (handle, name) = (&out.shared.handle, id.namespace());
        let flags = kvs_flags(flags) | flags::WATCH_EXISTING;
        let mut watch = kvs::client::watch(handle, Some(&name), path, flags);
        match copy(out, &mut watch, |_| false).await {
            // The namespace is gone, or never came: what was not sent yet is in the job's record.
            Err(e) if e.errno == libc::ENOTSUP => {}
            other => return other,
        }
    }
    out.skip = out.sent;
    let key = id.key(JobKey::InGuest(path));
    let mut watch = kvs::client::read_blobs(&out.shared.handle, Some(kvs::PRIMARY), &key);
    copy(out, &mut watch, |_| false).await?;
    if flags & INITIAL_SENTINEL != 0 {
        out.send_sentinel();
    }
    Ok(())
}

/// Waits for the job to start; ENODATA if it ends without.
async fn wait_started(shared: &Shared, id: JobId) -> Result<(), RpcError> {
    let key = id.key(JobKey::Eventlog);
    let mut watch = kvs::client::watch_append(&shared.handle, Some(kvs::PRIMARY), &key, false);
    while let Some(data) = watch.next().await {
        for line in String::from_utf8_lossy(&data?).lines() {
            match event_name(line).as_deref() {
                Some("start") => return Ok(()),
                Some("clean") => return Err(RpcError::errno(libc::ENODATA)),
                _ => {}
            }
        }
    }
    Err(RpcError::errno(libc::ENODATA))
}
