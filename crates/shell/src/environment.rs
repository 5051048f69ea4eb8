//! The environment of the tasks.
//!
//! The jobspec's environment is the base; the shell adds what tells a task about its job. The
//! shell's own environment is not passed on.

use crate::{
    info::JobInfo,
    options::{Sharing, divide},
    template::{Scope, TaskTag},
};
use formats::{Idset, Jobspec};
use serde_json::Value;
use std::{collections::BTreeMap, env, path::Path};

/// Environment variables of a task.
pub type Environment = BTreeMap<String, String>;

/// What the shell has learnt besides the jobspec.
pub struct Facts<'a> {
    pub uri: &'a str,
    pub namespace: &'a str,
    /// The path of the enclosing instance's own job id, `/` for the outermost.
    pub jobid_path: &'a str,
    pub hostname: &'a str,
    pub tmpdir: &'a str,
    pub gpu_affinity: &'a Sharing,
    /// The library of tasks that do not speak PMI themselves; none where they are not served.
    pub pmi_library: Option<&'a Path>,
}

/// Whether this process may print characters beyond ASCII.
fn is_utf8_locale() -> bool {
    let set = |name| env::var(name).ok().filter(|v| !v.is_empty());
    let locale = set("LC_ALL")
        .or_else(|| set("LC_CTYPE"))
        .or_else(|| set("LANG"));
    locale.is_some_and(|l| {
        let l = l.to_ascii_lowercase();
        l.contains("utf-8") || l.contains("utf8")
    })
}

/// The job's id as users see it, in ASCII where the locale or the job's environment wants that.
pub fn show_id(info: &JobInfo) -> String {
    const FORCE: &str = "FLUX_F58_FORCE_ASCII";
    let forced =
        env::var_os(FORCE).is_some() || info.jobspec.environment().any(|(name, _)| name == FORCE);
    if is_utf8_locale() && !forced {
        info.id.f58()
    } else {
        info.id.f58_ascii()
    }
}

fn plain_list(ids: &Idset) -> String {
    ids.iter()
        .map(|id| id.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

/// The variables the job came with.
pub fn of_jobspec(jobspec: &Jobspec) -> Environment {
    let variables = jobspec.environment();
    variables
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// The variables all tasks of this shell share: those of the job, `env`, and what tells of it.
pub fn for_job(mut env: Environment, info: &JobInfo, facts: &Facts) -> Environment {
    env.remove("FLUX_PROXY_REMOTE");
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    let id = show_id(info);
    let parent = if facts.jobid_path == "/" {
        ""
    } else {
        facts.jobid_path
    };
    set("FLUX_URI", facts.uri.to_owned());
    set("FLUX_KVS_NAMESPACE", facts.namespace.to_owned());
    set("FLUX_JOB_ID_PATH", format!("{parent}/{id}"));
    set("FLUX_JOB_ID", id);
    set("FLUX_JOB_SIZE", info.ntasks.to_string());
    set("FLUX_JOB_NNODES", info.size().to_string());
    set("FLUX_JOB_TMPDIR", facts.tmpdir.to_owned());
    if env.contains_key("HOSTNAME") {
        env.insert("HOSTNAME".into(), facts.hostname.to_owned());
    }
    if let Some(library) = facts.pmi_library {
        let dir = library.parent().unwrap_or(Path::new("/")).to_string_lossy();
        let path = match env.get("LD_LIBRARY_PATH") {
            Some(rest) if !rest.is_empty() => format!("{dir}:{rest}"),
            _ => dir.into_owned(),
        };
        env.insert("LD_LIBRARY_PATH".into(), path);
        let library = library.to_string_lossy().into_owned();
        env.insert("FLUX_PMI_LIBRARY_PATH".into(), library);
    }
    if *facts.gpu_affinity != Sharing::Off {
        // Tasks without GPUs of their own must not find those of others.
        let gpus = &info.here().gpus;
        let all = *facts.gpu_affinity == Sharing::On && !gpus.is_empty();
        let visible = if all {
            plain_list(gpus)
        } else {
            "-1".to_owned()
        };
        env.insert("CUDA_VISIBLE_DEVICES".into(), visible);
        env.entry("CUDA_DEVICE_ORDER".into())
            .or_insert_with(|| "PCI_BUS_ID".into());
    }
    env
}

/// Adds the variables of one task. `expand` is the `env-expand` shell option: templates by
/// variable name.
pub fn for_task(
    job: &Environment,
    scope: &Scope,
    task: TaskTag,
    gpus: Option<&Idset>,
    expand: Option<&Value>,
) -> Environment {
    let mut env = job.clone();
    env.insert("FLUX_TASK_RANK".into(), task.rank.to_string());
    env.insert("FLUX_TASK_LOCAL_ID".into(), task.index.to_string());
    if let Some(gpus) = gpus {
        env.insert("CUDA_VISIBLE_DEVICES".into(), plain_list(gpus));
    }
    for (name, template) in expand.and_then(Value::as_object).into_iter().flatten() {
        if let Some(template) = template.as_str() {
            env.insert(name.clone(), scope.render(template));
        }
    }
    env
}

/// The GPUs of each task where the option says so.
pub fn gpus_per_task(sharing: &Sharing, gpus: &Idset, ntasks: u32) -> Option<Vec<Idset>> {
    match sharing {
        Sharing::PerTask if gpus.is_empty() => None,
        Sharing::Off | Sharing::On => None,
        Sharing::PerTask => Some(divide(gpus, ntasks)),
        Sharing::Map(sets) => Some(sets.iter().cycle().take(ntasks as usize).cloned().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::{info, resources};
    use formats::jobspec::JobspecBuilder;
    use serde_json::json;

    #[test]
    fn variables() {
        let job = JobspecBuilder::new(["a"])
            .slots(4, 1, 0, None, false)
            .environment([
                ("A", "b"),
                ("FLUX_PROXY_REMOTE", "x"),
                ("HOSTNAME", "login"),
                ("LD_LIBRARY_PATH", "/a"),
            ]);
        let info = info(job, &resources(&["0-1", "0-1"], None), 4);
        let facts = Facts {
            uri: "local:///x",
            namespace: "job-1234",
            jobid_path: "/",
            hostname: "n1",
            tmpdir: "/run/tmp",
            gpu_affinity: &Sharing::On,
            pmi_library: Some(Path::new("/lib/flux/libpmi.so")),
        };
        let env = for_job(of_jobspec(&info.jobspec), &info, &facts);
        let task = TaskTag { rank: 3, index: 1 };
        let scope = Scope {
            info: &info,
            tmpdir: None,
            shell_rank: 1,
            task: Some(task),
        };
        let mut env = for_task(
            &env,
            &scope,
            task,
            None,
            Some(&json!({"R": "r{{task.rank}}"})),
        );
        let id = env.remove("FLUX_JOB_ID").unwrap();
        assert_eq!(env.remove("FLUX_JOB_ID_PATH"), Some(format!("/{id}")));
        assert_eq!(id.parse(), Ok(info.id));
        let want = [
            ("A", "b"),
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
            ("CUDA_VISIBLE_DEVICES", "-1"),
            ("FLUX_JOB_NNODES", "2"),
            ("FLUX_JOB_SIZE", "4"),
            ("FLUX_JOB_TMPDIR", "/run/tmp"),
            ("FLUX_KVS_NAMESPACE", "job-1234"),
            ("FLUX_PMI_LIBRARY_PATH", "/lib/flux/libpmi.so"),
            ("FLUX_TASK_LOCAL_ID", "1"),
            ("FLUX_TASK_RANK", "3"),
            ("FLUX_URI", "local:///x"),
            ("HOSTNAME", "n1"),
            ("LD_LIBRARY_PATH", "/lib/flux:/a"),
            ("R", "r3"),
        ];
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(env, want);
    }

    #[test]
    fn gpus() {
        let gpus: Idset = "0-3".parse().unwrap();
        let show = |a: Sharing, n| {
            gpus_per_task(&a, &gpus, n)
                .map(|v| v.iter().map(Idset::to_string).collect::<Vec<_>>().join(";"))
        };
        assert_eq!(show(Sharing::On, 2), None);
        assert_eq!(gpus_per_task(&Sharing::PerTask, &Idset::new(), 2), None);
        assert_eq!(show(Sharing::PerTask, 2).as_deref(), Some("0-1;2-3"));
        assert_eq!(
            show(
                Sharing::Map(vec!["3".parse().unwrap(), "1-2".parse().unwrap()]),
                3
            )
            .as_deref(),
            Some("3;1-2;3")
        );
    }
}
