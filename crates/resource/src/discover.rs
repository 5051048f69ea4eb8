//! What the local node has: cores by hwloc, GPUs by what the kernel lists.
//!
//! Core ids are logical: 0 to n-1 over the cores this process may run on, which is what a job
//! shell counts too. The XML description of the node is made only when somebody asks for it,
//! since it takes far longer than counting cores.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use formats::{Idset, ResourceSet};
use hwloc2::{CpuBindFlags, ObjectType, Topology};

/// Resources of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub host: String,
    pub cores: Idset,
    pub gpus: Idset,
}

/// Why the node's resources are not known.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    #[error("hwloc cannot read this node's topology")]
    Topology,
    #[error("hwloc finds no core that this process may run on")]
    NoCores,
    #[error("the host has no name: {0}")]
    Hostname(#[from] nix::Error),
}

impl Local {
    /// The node as execution target `rank`.
    pub fn as_target(&self, rank: u32) -> ResourceSet {
        let mut set = ResourceSet::new();
        set.add(rank, &self.host, &self.cores, &self.gpus);
        set
    }
}

/// Name of this host; `FLUX_FAKE_HOSTNAME` overrides it in tests, as upstream's does.
pub fn hostname() -> Result<String, DiscoverError> {
    if let Ok(fake) = std::env::var("FLUX_FAKE_HOSTNAME") {
        return Ok(fake);
    }
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

/// Looks at the local node. Blocks for some milliseconds.
pub fn local() -> Result<Local, DiscoverError> {
    Ok(Local {
        host: hostname()?,
        cores: cores()?,
        gpus: gpus(),
    })
}

fn cores() -> Result<Idset, DiscoverError> {
    let topology = Topology::new().ok_or(DiscoverError::Topology)?;
    let bound = topology.get_cpubind(CpuBindFlags::CPUBIND_PROCESS);
    // Some virtual machines have processing units but no cores.
    let objects = match topology.objects_with_type(&ObjectType::Core) {
        Ok(cores) if !cores.is_empty() => cores,
        _ => topology
            .objects_with_type(&ObjectType::PU)
            .map_err(|_| DiscoverError::Topology)?,
    };
    let allowed = |object: &&hwloc2::TopologyObject| match (&bound, object.cpuset()) {
        (Some(bound), Some(cpus)) => cpus.into_iter().any(|cpu| bound.is_set(cpu)),
        _ => true,
    };
    match objects.iter().copied().filter(allowed).count() {
        0 => Err(DiscoverError::NoCores),
        n => Ok(Idset::from_range(0, n as u32 - 1)),
    }
}

/// GPUs the kernel drivers of NVIDIA and AMD list.
fn gpus() -> Idset {
    let entries = |dir: &str| {
        std::fs::read_dir(Path::new(dir))
            .into_iter()
            .flatten()
            .flatten()
    };
    let nvidia = entries("/proc/driver/nvidia/gpus").count();
    let amd = entries("/sys/class/kfd/kfd/topology/nodes")
        .filter(|node| {
            // CPU nodes have a gpu_id of 0.
            std::fs::read_to_string(node.path().join("gpu_id"))
                .is_ok_and(|id| id.trim().parse::<u32>().is_ok_and(|id| id != 0))
        })
        .count();
    (0..(nvidia + amd) as u32).collect()
}

/// Opaque types of the hwloc library, which the `hwloc2` crate links; it has no XML export.
mod ffi {
    use super::{c_char, c_int, c_void};

    unsafe extern "C" {
        pub(super) fn hwloc_topology_init(topology: *mut *mut c_void) -> c_int;
        pub(super) fn hwloc_topology_set_io_types_filter(
            topology: *mut c_void,
            filter: c_int,
        ) -> c_int;
        pub(super) fn hwloc_topology_load(topology: *mut c_void) -> c_int;
        pub(super) fn hwloc_topology_destroy(topology: *mut c_void);
        pub(super) fn hwloc_topology_export_xmlbuffer(
            topology: *mut c_void,
            buffer: *mut *mut c_char,
            length: *mut c_int,
            flags: u64,
        ) -> c_int;
        pub(super) fn hwloc_free_xmlbuffer(topology: *mut c_void, buffer: *mut c_char);
    }
}

/// hwloc's filter that keeps devices which matter, such as GPUs.
const KEEP_IMPORTANT: c_int = 3;

/// The node's topology as hwloc XML. Blocks.
pub fn xml() -> Result<String, DiscoverError> {
    let mut topology = std::ptr::null_mut();
    // SAFETY: `init` makes the topology that the other calls use; each is called once, in the
    // order hwloc documents, and the buffer is copied before it is freed.
    unsafe {
        if ffi::hwloc_topology_init(&mut topology) != 0 {
            return Err(DiscoverError::Topology);
        }
        let (mut buffer, mut length) = (std::ptr::null_mut(), 0);
        let ok = ffi::hwloc_topology_set_io_types_filter(topology, KEEP_IMPORTANT) == 0
            && ffi::hwloc_topology_load(topology) == 0
            && ffi::hwloc_topology_export_xmlbuffer(topology, &mut buffer, &mut length, 0) == 0;
        let text = ok.then(|| CStr::from_ptr(buffer).to_string_lossy().into_owned());
        if ok {
            ffi::hwloc_free_xmlbuffer(topology, buffer);
        }
        ffi::hwloc_topology_destroy(topology);
        text.ok_or(DiscoverError::Topology)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_node_has_cores() {
        let local = local().unwrap();
        assert!(!local.cores.is_empty());
        assert_eq!(local.cores.first(), Some(0));
        assert_eq!(local.as_target(3).ranks().to_string(), "3");
    }

    #[test]
    fn xml_names_the_machine() {
        assert!(xml().unwrap().contains("<topology"));
    }
}
