//! Binding of tasks to the cores of the job.
//!
//! R names logical cores. On a machine without SMT the nth logical core is the nth online CPU;
//! with SMT it is the nth set of sibling CPUs, ordered by package and first CPU. When R names a
//! core the machine does not have (as in tests with made-up resources), nothing is bound.

use crate::options::{Sharing, divide};
use formats::Idset;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::{fs, path::Path};

/// The CPUs of each logical core of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    cores: Vec<Idset>,
}

impl Machine {
    /// That of this node.
    pub fn of_node() -> Option<Machine> {
        Machine::read(Path::new("/sys/devices/system/cpu"))
    }

    /// Reads the machine's topology below `/sys/devices/system/cpu`.
    pub fn read(root: &Path) -> Option<Machine> {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let list = |path: &str| text(path)?.trim().parse::<Idset>().ok();
        let online = list("online")?;
        if text("smt/active").is_none_or(|t| t.trim() != "1") {
            return Some(Machine {
                cores: online.iter().map(Idset::from).collect(),
            });
        }
        let mut left = online.clone();
        let mut cores: Vec<(u32, Idset)> = Vec::new();
        while let Some(cpu) = left.first() {
            let siblings = list(&format!("cpu{cpu}/topology/thread_siblings_list"))?;
            let package = text(&format!("cpu{cpu}/topology/physical_package_id"))?;
            let siblings = siblings.intersection(&online);
            left = left.difference(&siblings);
            left.remove(cpu);
            cores.push((package.trim().parse().ok()?, siblings));
        }
        cores.sort_by_key(|(package, cpus)| (*package, cpus.first()));
        Some(Machine {
            cores: cores.into_iter().map(|(_, cpus)| cpus).collect(),
        })
    }

    /// The CPUs of a set of cores; `None` when the machine lacks one of them.
    pub fn cpus(&self, cores: &Idset) -> Option<Idset> {
        let each: Option<Vec<&Idset>> = cores.iter().map(|c| self.cores.get(c as usize)).collect();
        Some(
            each?
                .into_iter()
                .fold(Idset::new(), |all, cpus| all.union(cpus)),
        )
    }
}

/// What to bind: the shell, and the tasks where theirs differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// The CPUs of the job's cores.
    pub cpus: Idset,
    /// The job has the whole machine, so the shell need not be bound.
    pub all: bool,
    pub tasks: Vec<Idset>,
}

/// Works out the binding for `ntasks` tasks on `cores`.
pub fn plan(
    machine: &Machine,
    sharing: &Sharing,
    cores: &Idset,
    ntasks: u32,
) -> Result<Binding, String> {
    if *sharing == Sharing::Off {
        return Ok(Binding::default());
    }
    let cpus = machine
        .cpus(cores)
        .filter(|c| !c.is_empty())
        .ok_or_else(|| format!("unable to get cpuset for cores {cores}. Disabling affinity"))?;
    let all = machine
        .cores
        .iter()
        .fold(Idset::new(), |all, c| all.union(c));
    let all = cpus == all;
    let tasks = match sharing {
        Sharing::Off | Sharing::On => Vec::new(),
        Sharing::PerTask => divide(cores, ntasks)
            .iter()
            .filter_map(|part| machine.cpus(part))
            .collect(),
        Sharing::Map(sets) => sets.iter().cycle().take(ntasks as usize).cloned().collect(),
    };
    Ok(Binding { cpus, all, tasks })
}

/// Binds this process; children that it starts inherit the binding.
pub fn bind(cpus: &Idset) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter() {
        set.set(cpu as usize)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// The CPUs this process is bound to.
pub fn bound() -> nix::Result<Idset> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let is_set = |cpu: &usize| set.is_set(*cpu).unwrap_or(false);
    let cpus = (0..CpuSet::count()).filter(is_set);
    Ok(cpus.map(|cpu| cpu as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(smt: bool) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("online", "0-7\n");
        put("smt/active", if smt { "1\n" } else { "0\n" });
        for cpu in 0..8 {
            let siblings = format!("{},{}\n", cpu % 4, cpu % 4 + 4);
            put(
                &format!("cpu{cpu}/topology/thread_siblings_list"),
                &siblings,
            );
            put(
                &format!("cpu{cpu}/topology/physical_package_id"),
                &format!("{}\n", cpu % 2),
            );
        }
        Machine::read(dir.path()).unwrap()
    }

    fn set(text: &str) -> Idset {
        text.parse().unwrap()
    }

    #[test]
    fn cores_of_a_machine() {
        assert_eq!(machine(false).cores.len(), 8);
        let smt = machine(true);
        // Packages 0 and 1 hold the even and the odd CPUs.
        assert_eq!(smt.cores, [set("0,4"), set("2,6"), set("1,5"), set("3,7")]);
        assert_eq!(smt.cpus(&set("1-2")), Some(set("1-2,5-6")));
        assert_eq!(smt.cpus(&set("3-4")), None);
    }

    #[test]
    fn plans() {
        let m = machine(false);
        let plan = |a: Sharing, cores: &str, n| plan(&m, &a, &set(cores), n);
        assert_eq!(plan(Sharing::Off, "0-1", 1), Ok(Binding::default()));
        let on = |cpus, all| {
            let (cpus, tasks) = (set(cpus), vec![]);
            Ok(Binding { cpus, all, tasks })
        };
        assert_eq!(plan(Sharing::On, "0-7", 2), on("0-7", true));
        assert_eq!(plan(Sharing::On, "2-3", 2), on("2-3", false));
        let tasks = |a, cores, n| plan(a, cores, n).unwrap().tasks;
        assert_eq!(tasks(Sharing::PerTask, "1-5", 2), [set("1-2"), set("3-5")]);
        assert_eq!(
            tasks(Sharing::PerTask, "1-2", 4),
            [set("1"), set("1"), set("2"), set("2")]
        );
        let map = Sharing::Map(vec![set("0-1"), set("4-7")]);
        assert_eq!(tasks(map, "0-7", 3), [set("0-1"), set("4-7"), set("0-1")]);
        assert!(plan(Sharing::On, "7-8", 1).is_err());
    }
}
