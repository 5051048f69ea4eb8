//! What this node has, for `flux R encode --local`.
//!
//! The kernel's tables are read instead of linking hwloc into every `flux` command: cores are
//! sets of logical CPUs, of which this process must be allowed to use one. As upstream's does,
//! the variable `FLUX_HWLOC_XMLFILE` puts a topology file in the place of the node, to be
//! restricted to this process's CPUs unless `FLUX_HWLOC_XMLFILE_NOT_THISSYSTEM` is set.

use std::collections::BTreeSet;
use std::path::Path;

use formats::Idset;
use formats::resource_set::hwloc::Node;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::named;
use crate::error::Failure;

/// The logical CPUs this process may use.
fn allowed() -> Result<Idset, Failure> {
    let set = named("CPU affinity", sched_getaffinity(Pid::from_raw(0)))?;
    let cpus = 0..CpuSet::count();
    let usable = cpus.filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    Ok(usable.map(|cpu| cpu as u32).collect())
}

/// The sets of CPUs that are a core, of the CPUs given. A CPU whose siblings are not known is a
/// core of its own.
fn cores(sys: &Path, cpus: &Idset) -> Vec<Idset> {
    let core = |cpu: u32| {
        let topology = sys.join(format!("cpu{cpu}/topology"));
        let files = ["core_cpus_list", "thread_siblings_list"];
        let text = files
            .iter()
            .find_map(|f| std::fs::read_to_string(topology.join(f)).ok());
        let siblings = text.and_then(|t| t.trim().parse().ok());
        siblings.unwrap_or(Idset::from(cpu))
    };
    let cores: BTreeSet<Idset> = cpus.iter().map(core).collect();
    cores.into_iter().collect()
}

/// GPUs that the kernel drivers of NVIDIA and AMD list.
fn gpus() -> u32 {
    let entries = |dir: &str| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let nvidia = entries("/proc/driver/nvidia/gpus").count();
    let amd = entries("/sys/class/kfd/kfd/topology/nodes").filter(|node| {
        // Nodes without GPU have the id 0.
        let id = std::fs::read_to_string(node.path().join("gpu_id"));
        id.is_ok_and(|id| id.trim().parse::<u32>().is_ok_and(|id| id != 0))
    });
    (nvidia + amd.count()) as u32
}

/// The topology file of the environment, if it can be read.
fn from_file(cpus: &Idset) -> Option<Node> {
    let path = std::env::var_os("FLUX_HWLOC_XMLFILE")?;
    let mut node = Node::parse(&std::fs::read_to_string(path).ok()?).ok()?;
    if std::env::var_os("FLUX_HWLOC_XMLFILE_NOT_THISSYSTEM").is_none() {
        node.restrict(cpus);
    }
    Some(node)
}

/// What this node has.
pub(super) fn node() -> Result<Node, Failure> {
    let cpus = allowed()?;
    Ok(from_file(&cpus).unwrap_or_else(|| Node {
        host: None,
        cores: cores(Path::new("/sys/devices/system/cpu"), &cpus),
        gpus: gpus(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_core_are_one() {
        let sys = tempfile::tempdir().unwrap();
        for (cpu, siblings) in [(0, "0,2"), (2, "0,2"), (1, "1,3\n")] {
            let dir = sys.path().join(format!("cpu{cpu}/topology"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("core_cpus_list"), siblings).unwrap();
        }
        let count = |cpus: &str| cores(sys.path(), &cpus.parse().unwrap()).len();
        assert_eq!((count("0-2"), count("0,2"), count("0-2,8-9")), (2, 1, 4));
    }
}
