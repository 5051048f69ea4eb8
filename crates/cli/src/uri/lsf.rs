//! `lsf:JOBID`: the Flux instance that runs as an LSF job on a cluster managed by CSM.
//!
//! CSM tells the job's compute nodes; the first one is asked over ssh (`lsf:JOBID?is_compute`) and finds the broker
//! among its processes.

use std::ffi::OsString;

use formats::hostlist::Hostlist;

use super::{pid, text, to_remote};
use crate::error::Failure;

pub(super) async fn resolve(job: &str, here: bool) -> Result<String, Failure> {
    if here {
        let broker = broker_of(job).await?;
        return Ok(to_remote(&pid::of_process(&broker)?));
    }
    let query = variable(
        "CSM_ALLOCATION_QUERY",
        "/opt/ibm/csm/bin/csm_allocation_query",
    );
    let no_node = || Failure::new(format!("cannot find a compute node of LSF job {job}"));
    let allocation = text(&[&query, "-j", job], no_node).await?;
    let host = first_node(&allocation).ok_or_else(no_node)?;
    let ssh = variable("FLUX_SSH", "ssh");
    let here = std::env::current_exe().unwrap_or_else(|_| "flux".into());
    let flux = variable("FLUX_SSH_RCMD", &here.to_string_lossy());
    let target = format!("lsf:{job}?is_compute");
    text(&[&ssh, &host, &flux, "uri", "--remote", &target], || {
        Failure::new(format!("cannot find the instance of LSF job {job}"))
    })
    .await
}

fn variable(name: &str, or: &str) -> String {
    let value = std::env::var_os(name).unwrap_or_else(|| OsString::from(or));
    value.to_string_lossy().into_owned()
}

/// The first, in order of names, of the `compute_nodes` in CSM's YAML: a hostlist, or a list with one a line.
fn first_node(allocation: &str) -> Option<String> {
    let mut lines = allocation.lines().map(str::trim);
    let inline = lines.find_map(|line| line.strip_prefix("compute_nodes:"))?;
    let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    let mut nodes = vec![unquoted(inline)];
    nodes.extend(lines.map_while(|line| line.strip_prefix('-')).map(unquoted));
    nodes.retain(|node| !node.is_empty());
    let nodes: Hostlist = nodes.join(",").parse().ok()?;
    let mut nodes: Vec<String> = nodes.iter().map(|host| host.to_string()).collect();
    nodes.sort();
    nodes.into_iter().next()
}

/// The broker of rank 0 that runs for the job on this host.
async fn broker_of(job: &str) -> Result<String, Failure> {
    let user = nix::unistd::getuid().to_string();
    let none = || Failure::new(format!("no broker of LSF job {job} runs on this host"));
    let listing = text(&["ps", "-Ho", "pid,comm", "-u", &user], none).await?;
    let brokers = listing
        .lines()
        .filter(|line| line.contains("flux-broker-0"));
    let mut pids = brokers.filter_map(|line| line.split_whitespace().next());
    let wanted = format!("LSB_JOBID={job}");
    let belongs = |pid: &&str| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|env| env.split(|b| *b == 0).any(|var| var == wanted.as_bytes()))
    };
    Ok(pids.find(belongs).ok_or_else(none)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations() {
        for (yaml, want) in [
            (
                "---\nTOTAL: 1\ncompute_nodes:\n - n7\n - n3\nstate: x\n- z",
                Some("n3"),
            ),
            ("compute_nodes: 'n[2-4]'\n", Some("n2")),
            ("compute_nodes:\nother: 1\n", None),
            ("nothing: 1", None),
        ] {
            assert_eq!(first_node(yaml).as_deref(), want, "{yaml}");
        }
    }
}
