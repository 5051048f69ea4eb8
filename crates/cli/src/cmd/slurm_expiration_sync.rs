//! `flux slurm-expiration-sync`: an instance in a Slurm job ends when that job ends, also if Slurm changes its mind.
//!
//! squeue is asked again and again how much time the job has left; the instance hears of it when that is news.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use clap::Parser;
use client::{Handle, Node};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::jobs::now;

/// Tell the instance how long the Slurm job it runs in will last.
#[derive(Parser)]
struct Options {
    /// Ask squeue every so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = period)]
    poll_interval: Duration,
    /// The Slurm job; SLURM_JOB_ID unless given
    #[arg(short, long)]
    jobid: Option<String>,
    /// Say what the instance is told
    #[arg(short, long)]
    verbose: bool,
}

fn period(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(period) if !period.is_zero() => Ok(period),
        _ => Err("must be more than 0".to_owned()),
    }
}

/// squeue has whole seconds, and takes its time: a difference up to this is none.
const TOLERANCE: f64 = 5.;

/// Seconds since 1970; the protocol has 0 for "no end".
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expiration {
    Never,
    At(f64),
}

impl Expiration {
    fn differs(self, other: Expiration) -> bool {
        match (self, other) {
            (Expiration::Never, Expiration::Never) => false,
            (Expiration::At(a), Expiration::At(b)) => (a - b).abs() > TOLERANCE,
            _ => true,
        }
    }

    fn seconds(self) -> f64 {
        match self {
            Expiration::Never => 0.,
            Expiration::At(time) => time,
        }
    }
}

/// The time left as squeue's `%L` has it: `[[DAYS-]HOURS:]MINUTES:SECONDS`, or UNLIMITED, which is `None`.
fn timeleft(text: &str) -> Result<Option<f64>, Failure> {
    if text == "UNLIMITED" {
        return Ok(None);
    }
    let invalid = || Failure::new(format!("squeue: '{text}' is no time"));
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (days.parse::<u32>().map_err(|_| invalid())?, rest),
        None => (0, text),
    };
    let parts = rest.split(':').map(str::parse::<u32>);
    let parts = parts
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| invalid())?;
    if !(2..=3).contains(&parts.len()) {
        return Err(invalid());
    }
    let day = parts.iter().fold(0., |sum, n| sum * 60. + f64::from(*n));
    Ok(Some(f64::from(days) * 86400. + day))
}

async fn ask(jobid: u32) -> Result<Expiration, Failure> {
    let output = Command::new("squeue")
        .args(["--noheader", "--format=%L", &format!("--jobs={jobid}")])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| match e.kind() {
            ErrorKind::NotFound => Failure::new("squeue not found in PATH"),
            _ => Failure::new(format!("squeue: {e}")),
        })?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why.trim();
        return Err(Failure::new(format!(
            "squeue failed: {}: {why}",
            output.status
        )));
    }
    let left = timeleft(String::from_utf8_lossy(&output.stdout).trim())?;
    Ok(left.map_or(Expiration::Never, |left| Expiration::At(now() + left)))
}

async fn tell(handle: &Handle, expiration: Expiration) -> Result<(), Failure> {
    let request = json!({ "expiration": expiration.seconds() });
    let topic = "resource.expiration-update";
    let told = handle.call::<Option<Value>>(topic, Node::Rank(0), &request);
    told.await.context(topic).map(|_| ())
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    let jobid = options.jobid.clone();
    let jobid = jobid
        .or_else(|| std::env::var("SLURM_JOB_ID").ok())
        .ok_or_else(|| Failure::new("no Slurm job: give --jobid, or set SLURM_JOB_ID"))?;
    let jobid = jobid
        .parse()
        .map_err(|_| Failure::new(format!("invalid Slurm job id '{jobid}'")))?;
    block_on(sync(&options, jobid))
}

async fn sync(options: &Options, jobid: u32) -> Outcome {
    let handle = Handle::open(None).await?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut ended = signal(SignalKind::terminate())?;
    let mut period = interval(options.poll_interval);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tokio::select! {
            _ = period.tick() => {}
            _ = interrupted.recv() => return Ok(0),
            _ = ended.recv() => return Ok(0),
        }
        let expiration = match (ask(jobid).await, told) {
            (Ok(expiration), _) => expiration,
            (Err(e), None) => return Err(e),
            // Slurm may be away for a while.
            (Err(e), Some(_)) => {
                eprintln!("flux-slurm-expiration-sync: {}", e.message);
                continue;
            }
        };
        if told.is_some_and(|told| !expiration.differs(told)) {
            continue;
        }
        tell(&handle, expiration).await?;
        told = Some(expiration);
        if options.verbose {
            let seconds = expiration.seconds();
            eprintln!("flux-slurm-expiration-sync: expiration is {seconds:.3}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_left() {
        let seconds = |text| timeleft(text).map_err(|e| e.message);
        assert_eq!(seconds("0:09"), Ok(Some(9.)));
        assert_eq!(seconds("59:59"), Ok(Some(3599.)));
        assert_eq!(seconds("2:00:01"), Ok(Some(7201.)));
        assert_eq!(seconds("1-01:00:00"), Ok(Some(90000.)));
        assert_eq!(seconds("UNLIMITED"), Ok(None));
        for bad in ["", "INVALID", "7", "1:2:3:4", "x-1:00", "1:-2"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn small_differences_are_none() {
        use Expiration::{At, Never};
        assert!(!At(100.).differs(At(104.)));
        assert!(At(100.).differs(At(106.)));
        assert!(At(100.).differs(Never));
        assert!(!Never.differs(Never));
    }
}
