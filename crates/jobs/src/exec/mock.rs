//! Jobs that only pretend to run: `attributes.system.exec.test` (for tests and measurements).
//!
//! Keys: `run_duration` (FSD; the job's duration without it; 0 has no end), `wait_status`, `mock_exception`
//! (`init` or `run`), `reattach_finish` (not 0: a job that is found again has ended meanwhile), `override` (not 0: the job
//! begins and ends when `job-exec.override {jobid, event, status}` says so, with the events `start` and `finish`).

use std::time::{Duration, SystemTime};

use formats::eventlog;
use formats::fsd;
use formats::job_schema::{EXEC_EVENTLOG, JobKey};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::job::{Start, finish_status};
use super::{Control, Orders, Reporter, Site, guest};
use crate::shown;

/// What timers can tell apart: shorter runs end at once.
const TICK: Duration = Duration::from_millis(1);

/// The time of jobs that do not end by themselves.
const ENDLESS: Duration = Duration::MAX;

/// The mock options of a jobspec, if it has any.
pub(super) fn options(jobspec: &Value) -> Option<&Value> {
    jobspec.pointer("/attributes/system/exec/test")
}

#[derive(Debug, Default, Deserialize)]
struct Options {
    run_duration: Option<String>,
    #[serde(default, rename = "override")]
    by_hand: i64,
    #[serde(default)]
    reattach_finish: i64,
    #[serde(default)]
    wait_status: i32,
    mock_exception: Option<String>,
}

impl Options {
    /// How long to run: without an end if it is said to be 0, not at all if nothing is said.
    fn duration(&self, jobspec: &Value) -> Result<Duration, String> {
        let limit = jobspec.pointer("/attributes/system/duration");
        let said = match &self.run_duration {
            Some(text) => Some(fsd::parse(text).map_err(|e| format!("run_duration: {e}"))?),
            None => limit.and_then(Value::as_f64),
        };
        Ok(match said {
            None => Duration::ZERO,
            Some(0.0) => ENDLESS,
            Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(ENDLESS),
        })
    }
}

/// Pretend to run a job.
pub(super) async fn run(site: &Site, report: &Reporter, start: &Start, orders: &mut Orders) {
    let options = options(&start.jobspec).map(Options::deserialize);
    let options = options.transpose().map_err(|e| e.to_string());
    let read = options.and_then(|options| {
        let options = options.unwrap_or_default();
        let duration = options.duration(&start.jobspec)?;
        Ok((options, duration))
    });
    let is_guest = start.userid != site.owner;
    let refused = match &read {
        Err(e) => Some(format!("attributes.system.exec.test: {e}")),
        Ok(_) if is_guest && !site.config.mocks_for_guests => {
            Some("guests may not have jobs that only pretend to run".to_owned())
        }
        Ok((options, _)) if options.mock_exception.as_deref() == Some("init") => {
            Some("mock initialization exception generated".to_owned())
        }
        Ok(_) => None,
    };
    let (options, duration) = match (read, refused) {
        (Ok(read), None) => read,
        (_, refused) => {
            report.exception("exec", &refused.unwrap_or_default());
            return report.released();
        }
    };
    let mut mock = Mock {
        site,
        report,
        by_hand: options.by_hand != 0,
        rest: Some(duration),
        runs: start.reattach,
    };
    if start.reattach {
        report.reattached();
        mock.rest = match options.reattach_finish {
            0 => Some(duration.saturating_sub(since(start.starttime()))),
            _ => Some(Duration::ZERO),
        };
    } else if mock.by_hand {
        mock.rest = None;
    } else {
        mock.begin();
    }
    let status = if options.mock_exception.as_deref() == Some("run") {
        report.exception("exec", "mock run exception generated");
        Some(site.config.ending.term_signal)
    } else {
        let ended = mock.wait(duration, orders).await;
        ended.map(|ended| ended.unwrap_or(options.wait_status))
    };
    if let Some(status) = status {
        end(site, report, start, status).await;
    }
}

/// Record the end of a job.
async fn end(site: &Site, report: &Reporter, start: &Start, status: i32) {
    let log = guest::encode(&[
        ("init", Value::Null),
        ("starting", Value::Null),
        ("complete", json!({ "status": status })),
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
        let text = format!("{}: cannot store the exec eventlog: {e}", shown(start.id));
        site.handle.say("job-exec", 3, &text);
    }
}

/// Time that has passed since `start`, in seconds since 1970.
fn since(start: f64) -> Duration {
    let now = eventlog::timestamp(SystemTime::now());
    Duration::try_from_secs_f64(now - start).unwrap_or_default()
}

/// A job that pretends.
struct Mock<'a> {
    site: &'a Site,
    report: &'a Reporter,
    by_hand: bool,
    /// What is left of its time, once it has begun.
    rest: Option<Duration>,
    runs: bool,
}

impl Mock<'_> {
    fn begin(&mut self) {
        self.runs = true;
        self.report.started();
    }

    /// Let its time pass. `Some(None)` when it is over, `Some(Some(status))` when something else has ended the job, `None`
    /// when the service ends: its next life goes on waiting.
    async fn wait(&mut self, duration: Duration, orders: &mut Orders) -> Option<Option<i32>> {
        let mut end = self.rest.map(|rest| Box::pin(tokio::time::sleep(rest)));
        if self.rest.is_some_and(|rest| rest < TICK) {
            return Some(None);
        }
        loop {
            let over = async {
                match &mut end {
                    Some(end) => end.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return Some(None),
                message = orders.recv() => match message? {
                    // Such a job has no namespace.
                    Control::Barrier(_) | Control::Expiration(_) | Control::Critical(_) | Control::Namespace(_) | Control::Recorded => {}
                    Control::Stats(tell) => {
                        let stats = json!({ "implementation": "testexec", "running": i32::from(self.runs) });
                        // Whoever asked may be gone.
                        let _ = tell.send(stats);
                    }
                    Control::Cancel(signum, status) => {
                        return Some(Some(finish_status(signum, Some(status))));
                    }
                    Control::Override(request) => {
                        let outcome = self.told(&request);
                        let (ended, answer) = match outcome {
                            Ok(ended) => (ended, Ok(json!({}))),
                            Err(e) => (None, Err(e)),
                        };
                        self.site.handle.respond_result(&request, answer);
                        if ended.is_some() {
                            return Some(ended);
                        }
                        if end.is_none() && self.runs {
                            end = Some(Box::pin(tokio::time::sleep(duration)));
                        }
                    }
                },
            }
        }
    }

    /// What a request says; a wait status if it ends the job.
    fn told(&mut self, request: &Message) -> Result<Option<i32>, RpcError> {
        #[derive(Deserialize)]
        struct Told {
            event: String,
            #[serde(default)]
            status: i32,
        }
        let Told { event, status } = request.json()?;
        let wrong = |text: &str| Err(RpcError::new(libc::EINVAL, text));
        match event.as_str() {
            _ if !self.by_hand => wrong("Job not in exec override mode"),
            "start" if self.runs => wrong("Job already running"),
            "start" => {
                self.begin();
                Ok(None)
            }
            "finish" if !self.runs => wrong("Job not running"),
            "finish" => Ok(Some(status)),
            _ => wrong("Invalid event"),
        }
    }
}
