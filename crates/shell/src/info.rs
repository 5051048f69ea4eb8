//! What the shell knows about its job: jobspec, resources, and which tasks run where.
//!
//! Tasks are first counted onto nodes ([`task_counts`]), which gives the block map, and the
//! `taskmap` shell option then permutes task ids over the same counts.

use crate::Fatal;
use formats::{
    Hostlist, Idset, JobId, Jobspec, ResourceSet, Taskmap,
    jobspec::{ResourceCounts, TaskCount},
};
use serde_json::Value;

/// One node of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub broker_rank: u32,
    pub host: String,
    pub cores: Idset,
    pub gpus: Idset,
}

/// The job as this shell sees it.
#[derive(Debug, Clone)]
pub struct JobInfo {
    pub id: JobId,
    pub jobspec: Jobspec,
    /// The nodes by shell rank.
    pub places: Vec<Place>,
    pub shell_rank: u32,
    pub ntasks: u32,
    pub taskmap: Taskmap,
    /// Ids of the tasks on this node, ascending.
    pub tasks: Vec<u32>,
    /// When the job's resources expire; 0 is never.
    pub expiration: f64,
    /// This node's cores are not all that R names: what the user should know of it.
    pub adjusted: Option<String>,
}

/// Slots the job holds, and the cores of each.
struct Slots {
    count: u32,
    cores: u32,
    gpus: u32,
}

fn slots(counts: Option<ResourceCounts>, r: &ResourceSet) -> Slots {
    let (ncores, ngpus) = (r.ncores() as u32, r.ngpus() as u32);
    let nnodes = r.nnodes() as u32;
    let count = match (r.nslots, counts) {
        (Some(n), _) if n > 0 => n,
        // The node count of the request may be a range; that of R is what was given.
        (_, Some(c)) => c
            .slots_per_node()
            .map_or(c.nslots, |per_node| per_node * nnodes),
        _ => nnodes,
    }
    .max(1);
    Slots {
        count,
        cores: ncores / count,
        gpus: ngpus / count,
    }
}

/// Deals `ntasks` over nodes with the given numbers of cores: in turn over the nodes, largest
/// first, each as long as it has room for `cores_per_task`. When all are full they are dealt to
/// again.
fn deal(cores: &[u32], ntasks: u32, cores_per_task: u32) -> Vec<u32> {
    let mut counts = vec![0; cores.len()];
    let mut order: Vec<usize> = (0..cores.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(cores[*i]));
    let smallest = cores.iter().copied().min().unwrap_or(0);
    let need = cores_per_task.min(smallest);
    let mut left = cores.to_vec();
    let mut queue: std::collections::VecDeque<usize> = order.iter().copied().collect();
    let mut assigned = 0;
    while assigned < ntasks && !order.is_empty() {
        let Some(node) = queue.pop_front() else {
            left = cores.to_vec();
            queue.extend(&order);
            continue;
        };
        if left[node] >= need {
            left[node] -= need;
            counts[node] += 1;
            assigned += 1;
            queue.push_back(node);
        }
    }
    counts
}

/// The number of tasks on each node.
fn task_counts(jobspec: &Jobspec, r: &ResourceSet, slots: &Slots) -> Result<Vec<u32>, Fatal> {
    let cores: Vec<u32> = r.targets().iter().map(|t| t.cores().len() as u32).collect();
    if let Some(option) = jobspec.shell_option("per-resource") {
        let count = match option.get("count") {
            None => 1,
            Some(n) => n
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0)
                .ok_or_else(|| Fatal::new("shell option per-resource.count must be positive"))?,
        };
        return match option.get("type").and_then(Value::as_str) {
            Some("node") => Ok(vec![count; cores.len()]),
            Some("core") => Ok(cores.iter().map(|n| n * count).collect()),
            _ => Err(Fatal::new(
                "shell option per-resource.type must be \"node\" or \"core\"",
            )),
        };
    }
    let ntasks = match jobspec.tasks.first().map(|task| &task.count) {
        Some(TaskCount::Total(n)) => *n,
        _ => jobspec.ntasks(slots.count),
    };
    if ntasks == 0 {
        return Err(Fatal::new("the job has no tasks"));
    }
    let cores_per_task = match slots.cores {
        0 => (cores.iter().sum::<u32>() / ntasks).max(1),
        n => n,
    };
    Ok(deal(&cores, ntasks, cores_per_task))
}

fn keep_first(set: &Idset, n: u32) -> Idset {
    set.iter().take(n as usize).collect()
}

impl JobInfo {
    /// Works out the layout for the shell on `broker_rank`, with tasks in blocks.
    pub fn new(
        id: JobId,
        jobspec: Jobspec,
        r: &ResourceSet,
        broker_rank: u32,
    ) -> Result<JobInfo, Fatal> {
        let shell_rank = r
            .targets()
            .iter()
            .position(|target| target.rank == broker_rank)
            .ok_or_else(|| {
                let ranks = r.ranks();
                Fatal::new(format!(
                    "broker rank {broker_rank} is not in the job's R ({ranks})"
                ))
            })? as u32;
        let request = jobspec.resource_counts().ok();
        let slots = slots(request, r);
        let counts = task_counts(&jobspec, r, &slots)?;
        let taskmap = Taskmap::from_counts(&counts);
        let ntasks = taskmap.ntasks();
        let mut places: Vec<Place> = r
            .targets()
            .iter()
            .map(|target| Place {
                broker_rank: target.rank,
                host: target.host.to_string(),
                cores: target.cores().clone(),
                gpus: target.gpus().clone(),
            })
            .collect();
        // Version 1 can only ask for equal nodes: an uneven task count leaves slots over on
        // some of them. Without this their tasks would get more cores than the others.
        let uneven = jobspec.version == 1
            && jobspec.shell_option("per-resource").is_none()
            && request.is_some_and(|c| c.nnodes > 0 && !c.exclusive)
            && places.len() > 1
            && slots.count > ntasks;
        let named = places[shell_rank as usize].cores.clone();
        if uneven {
            for (place, n) in places.iter_mut().zip(taskmap.counts()) {
                place.cores = keep_first(&place.cores, n * slots.cores);
                place.gpus = keep_first(&place.gpus, n * slots.gpus);
            }
        }
        let Place { host, cores, .. } = &places[shell_rank as usize];
        let adjusted =
            (*cores != named).then(|| format!("{host}: adjusted cores from {named} to {cores}"));
        let tasks = taskmap.task_ids(shell_rank).iter().collect();
        let expiration = r.expiration;
        Ok(JobInfo {
            id,
            jobspec,
            places,
            shell_rank,
            ntasks,
            taskmap,
            tasks,
            expiration,
            adjusted,
        })
    }

    /// Scheme and value of option `taskmap`.
    pub fn taskmap_scheme(&self) -> Result<Option<(&str, &str)>, Fatal> {
        let Some(option) = self.jobspec.shell_option("taskmap") else {
            return Ok(None);
        };
        let text = |key| option.get(key).and_then(Value::as_str);
        let scheme = text("scheme").or(option.as_str());
        let missing = || Fatal::new("shell option taskmap has no scheme");
        let scheme = scheme.ok_or_else(missing)?;
        Ok(Some((scheme, text("value").unwrap_or(""))))
    }

    /// Maps the tasks in another way.
    pub fn set_taskmap(&mut self, taskmap: Taskmap) {
        self.tasks = taskmap.task_ids(self.shell_rank).iter().collect();
        self.taskmap = taskmap;
    }

    pub fn size(&self) -> u32 {
        self.places.len() as u32
    }

    pub fn is_leader(&self) -> bool {
        self.shell_rank == 0
    }

    /// This shell's node.
    pub fn here(&self) -> &Place {
        // `new` has found the shell rank among the places.
        &self.places[self.shell_rank as usize]
    }

    /// The broker rank of the leader's node.
    pub fn leader_rank(&self) -> u32 {
        self.places[0].broker_rank
    }
}

/// The map of one of the schemes that are built in; `hosts` reads the file of scheme `hostfile`.
pub fn map_by_scheme(
    (scheme, value): (&str, &str),
    blocks: &Taskmap,
    nodes: &Hostlist,
    hosts: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<Taskmap, String> {
    if scheme != "hostfile" {
        return blocks.with_scheme(scheme, value).map_err(|e| e.to_string());
    }
    let list = hosts(value).map_err(|e| e.to_string())?;
    let mut hosts = Hostlist::new();
    for line in list.lines().map(str::trim).filter(|l| !l.is_empty()) {
        hosts.append_str(line).map_err(|e| e.to_string())?;
    }
    if hosts.is_empty() {
        return Err("the file names no hosts".into());
    }
    Taskmap::from_hosts(blocks.ntasks(), nodes, &hosts).map_err(|e| e.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use formats::jobspec::JobspecBuilder;
    use serde_json::json;

    pub(crate) fn resources(nodes: &[&str], nslots: Option<u32>) -> ResourceSet {
        let mut r = ResourceSet::new();
        for (i, cores) in nodes.iter().enumerate() {
            let cores: Idset = cores.parse().unwrap();
            r.add(i as u32 + 3, &format!("n{i}"), &cores, &Idset::new());
        }
        r.nslots = nslots;
        r
    }

    pub(crate) fn info(builder: JobspecBuilder, r: &ResourceSet, rank: u32) -> JobInfo {
        let jobspec = builder.build().unwrap();
        let mut info = JobInfo::new(JobId(1234), jobspec, r, rank).unwrap();
        map(&mut info, r, "n1\nn0\n").unwrap();
        info
    }

    fn map(info: &mut JobInfo, r: &ResourceSet, hosts: &str) -> Result<(), Fatal> {
        if let Some(scheme) = info.taskmap_scheme()? {
            let map = map_by_scheme(scheme, &info.taskmap, &r.nodelist(), |_| Ok(hosts.into()));
            info.set_taskmap(map.map_err(Fatal::new)?);
        }
        Ok(())
    }

    fn layout(builder: JobspecBuilder, r: &ResourceSet) -> String {
        info(builder, r, 3).taskmap.to_raw()
    }

    fn job(tasks: u32, cores: u32, nodes: Option<u32>) -> JobspecBuilder {
        JobspecBuilder::new(["a"]).slots(tasks, cores, 0, nodes, false)
    }

    #[test]
    fn layouts() {
        let two = resources(&["0-3", "0-3"], None);
        assert_eq!(layout(job(8, 1, None), &two), "0-3;4-7");
        assert_eq!(layout(job(4, 2, Some(2)), &two), "0-1;2-3");
        assert_eq!(
            layout(job(4, 2, Some(2)).taskmap("cyclic"), &two),
            "0,2;1,3"
        );
        assert_eq!(
            layout(job(4, 2, Some(2)).taskmap("hostfile:x"), &two),
            "1,3;0,2"
        );
        let uneven = resources(&["0", "0-2"], Some(4));
        assert_eq!(layout(job(4, 1, None), &uneven), "0;1-3");
        let per_core =
            job(1, 1, None).shell_option("per-resource", json!({"type": "core", "count": 2}));
        assert_eq!(layout(per_core, &uneven), "0-1;2-7");
        let per_node = job(1, 1, None).shell_option("per-resource.type", json!("node"));
        assert_eq!(layout(per_node, &uneven), "0;1");
    }

    #[test]
    fn leftover_slots_are_not_used() {
        let two = resources(&["0-3", "0-3"], Some(4));
        let info = info(job(3, 2, Some(2)), &two, 4);
        assert_eq!((info.shell_rank, info.size(), info.ntasks), (1, 2, 3));
        assert_eq!(info.taskmap.to_raw(), "0-1;2");
        assert_eq!(info.here().cores.to_string(), "0-1");
        assert_eq!(info.places[0].cores.to_string(), "0-3");
        assert_eq!(info.tasks, [2]);
        assert_eq!((info.here().broker_rank, info.leader_rank()), (4, 3));
    }

    #[test]
    fn faults() {
        let r = resources(&["0-3"], None);
        let new = |b: JobspecBuilder, rank| {
            JobInfo::new(JobId(1), b.build().unwrap(), &r, rank)
                .and_then(|mut info| map(&mut info, &r, ""))
                .unwrap_err()
                .message
        };
        assert_eq!(
            new(job(1, 1, None), 9),
            "broker rank 9 is not in the job's R (3)"
        );
        assert_eq!(
            new(job(1, 1, None).taskmap("x"), 3),
            "taskmap: unknown scheme 'x'; use block, cyclic, hostfile or manual"
        );
        assert_eq!(
            new(job(1, 1, None).taskmap("hostfile:f"), 3),
            "the file names no hosts"
        );
    }
}
