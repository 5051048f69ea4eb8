//! What implementations of MPI need of the shell.

use crate::plugins::{Job, Plugin, Stack};

/// Directories at the head of a variable that lists directories, once.
pub(super) fn prepend_path(job: &Job, name: &str, path: &str) {
    job.change_env(|env| match env.get(name) {
        Some(old) if old.split(':').any(|entry| entry == path) => {}
        Some(old) => {
            let new = format!("{path}:{old}");
            env.insert(name.to_owned(), new);
        }
        None => {
            env.insert(name.to_owned(), path.to_owned());
        }
    });
}

/// Open MPI keeps shared memory of a node in files whose names are not the job's own: they go to the job's directory, unless
/// option `mpi` is `none`.
pub(super) fn open_mpi(stack: &Stack) {
    let info = stack.job().info();
    if info
        .jobspec
        .shell_option("mpi")
        .is_some_and(|mpi| mpi == "none")
    {
        return;
    }
    let plugin = Plugin::default().on("shell.init", |job, _, _| {
        job.change_env(|env| {
            if let Some(dir) = env.get("FLUX_JOB_TMPDIR").cloned() {
                env.insert("OMPI_MCA_btl_vader_backing_directory".into(), dir);
            }
        });
        Ok(())
    });
    stack.push("openmpi", plugin);
}

/// Where Spectrum MPI is installed.
const SPECTRUM: &str = "/opt/ibm/spectrum_mpi/lib";
/// The stack it wants, in bytes.
const SPECTRUM_STACK: u64 = 10 << 20;

/// Spectrum MPI, which option `mpi=spectrum` asks for.
pub(super) fn spectrum(stack: &Stack) {
    let job = stack.job();
    job.change_env(|env| {
        env.retain(|name, _| !name.starts_with("PMIX_") && !name.starts_with("OMPI_"));
        for (name, value) in [
            ("osc", "pt2pt"),
            ("pml", "yalla"),
            ("btl", "self"),
            ("coll_hcoll_enable", "0"),
        ] {
            env.insert(format!("OMPI_MCA_{name}"), value.to_owned());
        }
    });
    prepend_path(job, "LD_LIBRARY_PATH", &format!("{SPECTRUM}/pami_port"));
    prepend_path(
        job,
        "LD_PRELOAD",
        &format!("{SPECTRUM}/libpami_cudahook.so"),
    );
    let plugin = Plugin::default()
        .on("shell.init", |_, _, _| {
            use nix::sys::resource::{Resource, getrlimit, setrlimit};
            let (_, hard) = getrlimit(Resource::RLIMIT_STACK).map_err(|e| e.to_string())?;
            let soft = SPECTRUM_STACK.min(hard);
            setrlimit(Resource::RLIMIT_STACK, soft, hard).map_err(|e| e.to_string())
        })
        .on("task.init", |job, _, _| {
            job.with_task(|task| {
                let rank = task.tag.rank.to_string();
                task.env.insert("OMPI_COMM_WORLD_RANK".into(), rank);
            });
            Ok(())
        });
    stack.push("spectrum", plugin);
}
