//! Jobs that only pretend to run: `attributes.system.exec.test` (for tests and measurements).
//!
//! Keys: `run_duration` (FSD; the job's duration without it), `wait_status`, `mock_exception`
//! (`init` or `run`), `reattach_finish` (true: a job that is found again has ended meanwhile).

use std::time::{Duration, SystemTime};

use formats::eventlog;
use formats::fsd;
use formats::job_schema::{EXEC_EVENTLOG, JobKey};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Control, Reporter, Site, guest};
use crate::exec::job::Start;

/// Wait status of a job that was cancelled: killed by SIGKILL.
const CANCELLED: i32 = libc::SIGKILL;

/// What timers can tell apart: shorter runs end at once.
const TICK: Duration = Duration::from_millis(1);

/// The mock options of a jobspec, if it has any.
pub(super) fn options(jobspec: &Value) -> Option<&Value> {
    jobspec.pointer("/attributes/system/exec/test")
}

fn duration(jobspec: &Value, test: &Value) -> Duration {
    let own = match test.get("run_duration") {
        Some(Value::String(text)) => fsd::parse(text).ok(),
        Some(number) => number.as_f64(),
        None => None,
    };
    let whole = jobspec
        .pointer("/attributes/system/duration")
        .and_then(Value::as_f64);
    let seconds = own.or(whole).unwrap_or(0.0);
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Pretend to run a job.
pub(super) async fn run(
    site: &Site,
    report: &Reporter,
    start: &Start,
    control: &mut UnboundedReceiver<Control>,
) {
    let test = options(&start.jobspec).unwrap_or(&Value::Null);
    let mocked = test.get("mock_exception").and_then(Value::as_str);
    if mocked == Some("init") {
        report.exception("exec", "mock initialization exception generated");
        report.released();
        return;
    }
    let past = match start.reattach {
        true => {
            report.reattached();
            match test.get("reattach_finish") {
                None | Some(Value::Bool(false)) => since(start.starttime()),
                Some(number) if number.as_i64() == Some(0) => since(start.starttime()),
                Some(_) => Duration::MAX,
            }
        }
        false => {
            report.started();
            Duration::ZERO
        }
    };
    let mut status = test.get("wait_status").and_then(Value::as_i64).unwrap_or(0) as i32;
    if mocked == Some("run") {
        report.exception("exec", "mock run exception generated");
        status = CANCELLED;
    } else {
        let rest = duration(&start.jobspec, test).saturating_sub(past);
        match wait(rest, control).await {
            End::Over => {}
            End::Cancelled => status = CANCELLED,
            End::Left => return,
        }
    }
    let log = guest::encode(&[
        ("init", Value::Null),
        ("starting", Value::Null),
        ("complete", serde_json::json!({ "status": status })),
        ("done", Value::Null),
    ]);
    let mut txn = kvs::Txn::new();
    txn.put_raw(
        &start.id.key(JobKey::InGuest(EXEC_EVENTLOG)),
        log.as_bytes(),
    );
    let stored = kvs::client::commit(&site.handle, Some(kvs::PRIMARY), &txn);
    // Nothing reads the log before the job ends, so the job does not wait for it.
    report.finished(status);
    report.released();
    if let Err(e) = stored.await {
        eprintln!(
            "job-exec: {}: cannot store the exec eventlog: {e}",
            start.id.f58()
        );
    }
}

/// How the time of a job ends.
enum End {
    Over,
    Cancelled,
    /// The service ends; its next life goes on waiting.
    Left,
}

/// Time that has passed since `start`, in seconds since 1970.
fn since(start: f64) -> Duration {
    let now = eventlog::timestamp(SystemTime::now());
    Duration::try_from_secs_f64(now - start).unwrap_or_default()
}

/// Let `time` pass.
async fn wait(time: Duration, control: &mut UnboundedReceiver<Control>) -> End {
    if time < TICK {
        return End::Over;
    }
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return End::Over,
            message = control.recv() => match message {
                Some(Control::Barrier(_) | Control::Expiration(_) | Control::Critical(_)) => {}
                Some(Control::Cancel(_)) => return End::Cancelled,
                None => return End::Left,
            },
        }
    }
}
