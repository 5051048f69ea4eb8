//! Submitting many jobs at once: the options `submit` and `bulksubmit` share.
//!
//! Requests are sent without waiting for answers, at most [`WINDOW`] ahead of them; job ids are
//! printed in the order of the jobs. The exit code is the highest of all jobs waited for.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex};

use client::{Handle, Rpc};
use formats::idset::Idset;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::submit::progress::{Progress, Stage};
use crate::submit::template::Fields;
use crate::submit::watch::{Follow, Sink, follow};
use crate::submit::{Common, Request, Tasks, submitted};

/// Submissions in flight: enough to hide round trips, few enough to bound memory.
const WINDOW: usize = 1024;

/// Options about copies and waiting.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Bulk {
    /// Submit a copy for each id, which is in FLUX_JOB_CC
    #[arg(long, value_name = "IDSET")]
    cc: Option<String>,
    /// As --cc, without FLUX_JOB_CC
    #[arg(long, value_name = "IDSET")]
    bcc: Option<String>,
    /// Wait for this event of all jobs
    #[arg(long, value_name = "NAME")]
    wait_event: Option<String>,
    /// Wait for all jobs to end
    #[arg(long)]
    wait: bool,
    /// Show the output of all jobs, and wait for them
    #[arg(long)]
    watch: bool,
    /// Write messages to a file
    #[arg(long, value_name = "FILE")]
    log: Option<String>,
    /// Write error messages to a file
    #[arg(long, value_name = "FILE")]
    log_stderr: Option<String>,
    /// Show progress on a terminal
    #[arg(long)]
    progress: bool,
    /// With --progress: show jobs per second
    #[arg(long)]
    jps: bool,
}

/// A command line, before copies are made of it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) common: Common,
    pub(crate) tasks: Tasks,
    pub(crate) bulk: Bulk,
    pub(crate) command: Vec<String>,
}

/// One job to submit.
pub(crate) struct Copy {
    pub(crate) job: Job,
    /// Which copy, with `--cc` or `--bcc`.
    cc: Option<u32>,
}

impl Bulk {
    fn event(&self) -> Option<&str> {
        match &self.wait_event {
            Some(name) => Some(name),
            None if self.wait || self.watch => Some("clean"),
            None => None,
        }
    }
}

impl Job {
    /// Fill in replacement fields.
    pub(crate) fn fill(&mut self, fields: &Fields) -> Result<(), Failure> {
        let bulk = &mut self.bulk;
        let single = [
            &mut bulk.cc,
            &mut bulk.bcc,
            &mut bulk.wait_event,
            &mut bulk.log,
            &mut bulk.log_stderr,
        ];
        let texts = single.into_iter().flatten().chain(&mut self.command);
        let fill = || {
            texts.into_iter().try_for_each(|text| {
                *text = fields.fill(text)?;
                Ok(())
            })?;
            self.common.fill(fields)?;
            self.tasks.fill(fields)
        };
        fill().map_err(|e: crate::submit::template::TemplateError| Failure::new(e.to_string()))
    }

    /// The jobs this command line stands for.
    pub(crate) fn copies(&self) -> Result<Vec<Copy>, Failure> {
        if self.common.input_ranks().is_some() {
            return Err(Failure::new("per-task input not supported for submit"));
        }
        let ids = match (&self.bulk.cc, &self.bulk.bcc) {
            (Some(_), Some(_)) => {
                return Err(Failure::new("specify only one of --cc or --bcc"));
            }
            (Some(ids), None) | (None, Some(ids)) => ids,
            (None, None) => {
                let job = self.clone();
                return Ok(vec![Copy { job, cc: None }]);
            }
        };
        let ids: Idset = ids
            .parse()
            .map_err(|e| Failure::new(format!("--cc: {e}")))?;
        if ids.is_empty() {
            return Err(Failure::new("--cc: no ids"));
        }
        let copy = |cc: u32| {
            let mut job = self.clone();
            let named = vec![("cc", cc.to_string())];
            job.fill(&Fields { inputs: &[], named })?;
            Ok(Copy { job, cc: Some(cc) })
        };
        ids.iter().map(copy).collect()
    }
}

impl Copy {
    /// The job as it is sent.
    pub(crate) fn request(&self) -> Result<Request, Failure> {
        let env = match (self.cc, &self.job.bulk.bcc) {
            (Some(cc), None) => vec![("FLUX_JOB_CC".to_owned(), cc.to_string())],
            _ => Vec::new(),
        };
        self.job
            .tasks
            .request(&self.job.common, &self.job.command, &env)
    }
}

/// Log files by name, opened once.
#[derive(Default)]
struct Logs(HashMap<String, Sink>);

impl Logs {
    fn open(&mut self, name: &str) -> Result<Sink, Failure> {
        if let Some(sink) = self.0.get(name) {
            return Ok(sink.clone());
        }
        let file = File::create(name).map_err(|e| Failure::new(format!("{name}: {e}")))?;
        let sink = Sink::File(Arc::new(Mutex::new(file)));
        self.0.insert(name.to_owned(), sink.clone());
        Ok(sink)
    }

    fn of(&mut self, bulk: &Bulk) -> Result<(Sink, Sink), Failure> {
        let (mut out, mut err) = (Sink::Stdout, Sink::Stderr);
        if let Some(name) = &bulk.log {
            out = self.open(name)?;
            err = out.clone();
        }
        if let Some(name) = &bulk.log_stderr {
            err = self.open(name)?;
        }
        Ok((out, err))
    }
}

/// The line of progress these jobs ask for: options of the whole command line are in all copies.
fn progress(copies: &[Copy]) -> Progress {
    match copies.first().map(|copy| &copy.job.bulk) {
        Some(bulk) if bulk.progress => {
            let is_unwatched = bulk.event().is_none();
            Progress::new("submit", copies.len(), bulk.jps, is_unwatched)
        }
        _ => Progress::default(),
    }
}

/// Submit all jobs and wait as their options say.
pub(crate) fn submit(copies: &[Copy]) -> Outcome {
    block_on(submit_all(copies))
}

struct Sent<'a> {
    copy: &'a Copy,
    rpc: Rpc,
    out: Sink,
    err: Sink,
}

async fn submit_all(copies: &[Copy]) -> Outcome {
    // Mistakes in the first job are found before an instance is asked for.
    let first = copies.first().map(Copy::request).transpose()?;
    let mut first = first.into_iter();
    let handle = Handle::open(None).await?;
    let mut logs = Logs::default();
    let progress = progress(copies);
    let mut code = 0;
    let mut sent = VecDeque::new();
    let mut followed = FuturesUnordered::new();
    let mut rest = copies.iter();
    let mut next = rest.next();
    while next.is_some() || !sent.is_empty() {
        if let Some(copy) = next
            && sent.len() < WINDOW
        {
            let request = match first.next() {
                Some(request) => request,
                None => copy.request()?,
            };
            let (out, err) = logs.of(&copy.job.bulk)?;
            let rpc = request.send(&handle);
            sent.push_back(Sent {
                copy,
                rpc,
                out,
                err,
            });
            next = rest.next();
            continue;
        }
        let Some(Sent {
            copy,
            rpc,
            out,
            err,
        }) = sent.pop_front()
        else {
            break;
        };
        let id = match submitted(rpc).await {
            Ok(id) => id,
            Err(e) => {
                let label = copy.cc.map_or_else(String::new, |cc| format!("cc={cc}: "));
                let text = format!("flux-submit: {label}{}\n", e.message);
                progress.write(&err, text.as_bytes());
                code = 1;
                progress.moves(None, Stage::Failed);
                continue;
            }
        };
        let common = &copy.job.common;
        if !common.quiet {
            let text = format!("{}\n", crate::jobid::shown(id));
            progress.write(&out, text.as_bytes());
        }
        progress.moves(None, Stage::Pending);
        let Some(event) = copy.job.bulk.event() else {
            continue;
        };
        let how = Follow {
            wait: event.to_owned(),
            watch: copy.job.bulk.watch,
            label: common.label_io,
            log_status: common.verbose > 0,
            log_events: common.verbose > 1,
            stdout: out,
            stderr: err,
            progress: progress.clone(),
        };
        let handle = &handle;
        followed.push(async move { follow(handle, id, Stage::Pending, &how).await });
    }
    while let Some(result) = followed.next().await {
        code = code.max(result?);
    }
    Ok(code)
}
