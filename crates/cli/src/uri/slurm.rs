//! `slurm:JOBID`: the Flux instance that runs as a Slurm job.
//!
//! On a node of the job, Slurm knows its processes and one of them has FLUX_URI. Elsewhere the job's first node is
//! asked with srun.

use formats::hostlist::Hostlist;

use super::{output, pid, text, to_remote};
use crate::error::Failure;

pub(super) async fn resolve(job: &str) -> Result<String, Failure> {
    let listed = output(&["scontrol", "listpids", job]).await?;
    if !listed.status.success() {
        return from_elsewhere(job).await;
    }
    let found = main_processes(&String::from_utf8_lossy(&listed.stdout))
        .into_iter()
        .filter(|pid| *pid != std::process::id())
        .find_map(|pid| pid::of_process(&pid.to_string()).ok());
    match found {
        Some(uri) => Ok(to_remote(&uri)),
        None => Err(Failure::new(format!(
            "no process of Slurm job {job} has a FLUX_URI"
        ))),
    }
}

/// Processes Slurm itself started: the others may be of instances below the one that is wanted.
///
/// Lines are PID, JOBID, STEPID, LOCALID, GLOBALID.
fn main_processes(listing: &str) -> Vec<u32> {
    let process = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let local: i64 = fields.get(3)?.parse().ok()?;
        let pid = fields[0].parse().ok().filter(|pid| *pid > 0);
        pid.filter(|_| local == 0)
    };
    listing.lines().filter_map(process).collect()
}

async fn from_elsewhere(job: &str) -> Result<String, Failure> {
    let nodes = text(&["squeue", "-h", "-o", "%N", "-j", job], || {
        Failure::new(format!("cannot find the nodes of Slurm job {job}"))
    })
    .await?;
    let nodes: Hostlist = nodes
        .parse()
        .map_err(|e| Failure::new(format!("nodes of Slurm job {job}: {e}")))?;
    let first = nodes
        .iter()
        .next()
        .ok_or_else(|| Failure::new(format!("Slurm job {job} has no nodes")))?;
    let jobid = format!("--jobid={job}");
    let target = format!("slurm:{job}");
    let argv = [
        "srun",
        "--overlap",
        &jobid,
        "-w",
        &first,
        "-n1",
        "-N1",
        "flux",
        "uri",
        &target,
    ];
    text(&argv, || {
        Failure::new(format!("cannot find the instance of Slurm job {job}"))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings() {
        let listing = "PID  JOBID STEPID LOCALID GLOBALID\n\
                       101  7     0       0       0\n\
                       102  7     0       1       1\n\
                       -1   7     extern  0       0\n\
                       103  7     1       -       -\n\
                       104  7     1       0       0\n";
        assert_eq!(main_processes(listing), [101, 104]);
    }
}
