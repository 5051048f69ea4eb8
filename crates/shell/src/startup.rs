//! Everything between what the shell has learnt of its job and the first task: a [`Shell`] that is ready to run.

use crate::{
    Fatal, affinity,
    environment::{self, Environment, Facts},
    files, hwloc,
    info::{JobInfo, map_by_scheme},
    initrc, input,
    kvslog::KvsLog,
    learn::Learned,
    log::{Level, Logger, os_error},
    options::{Options, Sharing},
    output::{self, Output, Route, Sink},
    patience::Patience,
    plugins::{Job, Stack},
    remote::Remote,
    rlimit::Limits,
    seat::{Common, Dir, Mail},
    template::{Scope, TaskTag},
};
use client::{Handle, Node};
use formats::{Idset, JobId, ResourceSet};
use serde_json::json;
use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::RpcError;

/// A directory that goes away with the shell.
pub struct TmpDir(PathBuf);

impl TmpDir {
    fn create(path: PathBuf) -> io::Result<TmpDir> {
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(TmpDir(path)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TmpDir {
    fn drop(&mut self) {
        // A directory that cannot be removed is left to whoever cleans up the run directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The shell, prepared.
pub struct Shell {
    pub handle: Handle,
    pub patience: Patience,
    /// Whether the shells of the job have met.
    pub met: Arc<AtomicBool>,
    pub mail: Mail,
    /// Signals, where they are not those of the process.
    pub signals: Option<UnboundedReceiver<i32>>,
    pub info: Rc<JobInfo>,
    pub options: Options,
    pub logger: Logger,
    pub plugins: Rc<Stack>,
    pub initrc: Rc<initrc::Reader>,
    /// The name of the service on every shell's broker.
    pub service: String,
    /// The job's eventlogs; only the leader writes them.
    pub log: Option<KvsLog>,
    pub output: Output,
    pub tmpdir: TmpDir,
    pub hostname: String,
    pub dir: Dir,
    /// What the process does not have already.
    pub limits: Limits,
    /// The CPUs of tasks that are bound to others than the process.
    pub bindings: Vec<Idset>,
    /// What the process is to be bound to when a task has its own, if it has a say.
    pub unbound: Option<Idset>,
}

pub(crate) fn fatal(what: &str, e: impl std::fmt::Display) -> Fatal {
    Fatal::new(format!("{what}: {e}"))
}

/// Works out the layout again with the options that plugins have set, and maps the tasks.
fn lay_out(plugins: &Stack, r: &ResourceSet, rank: u32) -> Result<(), Fatal> {
    let job = plugins.job();
    if job.has_new_options() {
        let info = JobInfo::new(job.info().id, job.info().jobspec.clone(), r, rank)?;
        job.change_info(|old| *old = info);
    }
    let info = job.info();
    if let Some((scheme, value)) = info.taskmap_scheme()? {
        let cwd = Path::new(info.jobspec.cwd().unwrap_or_default());
        let hosts = |path: &str| fs::read_to_string(cwd.join(path));
        let map = match plugins.taskmap(scheme, value, &info.taskmap)? {
            Some(map) => Ok(map),
            None => map_by_scheme((scheme, value), &info.taskmap, &r.nodelist(), hosts),
        };
        let map = map.map_err(|e| fatal(&format!("taskmap={scheme}:{value}"), e))?;
        job.change_info(|info| info.set_taskmap(map));
    }
    Ok(())
}

/// The directory for temporary files that the job's environment names, made if it is not there yet.
fn temporary(env: &Environment) -> Result<String, String> {
    let Some(path) = env.get("TMPDIR") else {
        return Ok("/tmp".to_owned());
    };
    if Path::new(path).is_dir() {
        return Ok(path.clone());
    }
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map(|()| path.clone()).map_err(|e| {
        format!(
            "TMPDIR={path} cannot be created ({}): tasks get TMPDIR=/tmp",
            os_error(&e)
        )
    })
}

/// The job's directory below the broker's run directory, or below `tmp` where that is not
/// allowed (a guest in a system instance).
fn make_tmpdir(info: &JobInfo, rundir: Option<&str>, tmp: &str) -> Result<TmpDir, Fatal> {
    let name = format!("jobtmp-{}-{}", info.shell_rank, environment::show_id(info));
    if let Some(rundir) = rundir
        && let Ok(dir) = TmpDir::create(Path::new(rundir).join(&name))
    {
        return Ok(dir);
    }
    let path = Path::new(tmp).join(&name);
    TmpDir::create(path.clone())
        .map_err(|e| fatal(&format!("creating {}", path.display()), os_error(&e)))
}

/// Whether a process may have this directory for its own.
fn admits(dir: &Path) -> io::Result<()> {
    match fs::metadata(dir)?.is_dir() {
        true => Ok(nix::unistd::access(dir, nix::unistd::AccessFlags::X_OK)?),
        false => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    }
}

/// The job's directory, or /tmp when it is not there. A process that is the shell's own changes to it.
async fn enter_cwd(info: &JobInfo, is_own: bool, logger: &Logger) -> Result<Dir, Fatal> {
    let enter = |dir: &str| match is_own {
        true => env::set_current_dir(dir).map(|()| Dir::default()),
        false => admits(Path::new(dir)).map(|()| Dir(Some(dir.into()))),
    };
    let Some(cwd) = info.jobspec.cwd() else {
        return Ok(Dir::default());
    };
    match enter(cwd) {
        Ok(dir) => Ok(dir),
        Err(e) => {
            let e = os_error(&e);
            let message = format!("cannot change to directory {cwd}: {e}; going to /tmp instead");
            logger.log(Level::Warning, &message).await;
            enter("/tmp").map_err(|e| fatal("changing to /tmp", os_error(&e)))
        }
    }
}

/// Works out the bindings of the tasks that differ from that of the process, which is bound to the job's cores if it is the
/// shell's own.
async fn bind(
    info: &JobInfo,
    options: &Options,
    common: Option<&Common>,
    logger: &Logger,
) -> Vec<Idset> {
    let affinity = &options.cpu_affinity;
    if affinity.sharing == Sharing::Off {
        return Vec::new();
    }
    let read;
    let machine = match common {
        Some(common) => common.machine.as_ref(),
        None => {
            read = affinity::Machine::of_node();
            read.as_ref()
        }
    };
    let Some(machine) = machine else {
        return Vec::new();
    };
    let plan = affinity::plan(
        machine,
        &affinity.sharing,
        &info.here().cores,
        info.tasks.len() as u32,
    );
    let binding = match plan {
        Ok(binding) => binding,
        Err(complaint) => {
            // Made-up resources are common in tests: not worth a message to every user.
            logger.log(Level::Debug, &complaint).await;
            return Vec::new();
        }
    };
    if affinity.verbose {
        let say = async |text: String| logger.log(Level::Notice, &text).await;
        say(format!("cpu-affinity: cpus: {}", binding.cpus)).await;
        for (task, cpus) in info.tasks.iter().zip(&binding.tasks) {
            say(format!("cpu-affinity: task {task}: cpus: {cpus}")).await;
        }
    }
    if affinity.dry_run {
        return Vec::new();
    }
    match common {
        _ if binding.all => {}
        None => {
            if let Err(e) = affinity::bind(&binding.cpus) {
                let text = format!("cannot bind to the job's cores: {}", e.desc());
                logger.log(Level::Debug, &text).await;
            }
        }
        Some(_) if binding.tasks.is_empty() => return vec![binding.cpus; info.tasks.len()],
        Some(_) => {}
    }
    binding.tasks
}

/// Bytes of a stream the KVS takes by default: in an instance of one's own more than in one
/// that is shared.
fn default_limit(owner: Option<u32>, uid: u32) -> u64 {
    if owner == Some(uid) {
        1 << 30
    } else {
        10 << 20
    }
}

/// Prepares. Errors before output is set up are reported by the caller.
pub async fn prepare(learned: Learned, logger: &Logger) -> Result<Shell, Fatal> {
    let Learned {
        id,
        handle,
        patience,
        mail,
        signals,
        service,
        broker,
        common,
        answers,
    } = learned;
    let common = common.as_deref();
    let uid = nix::unistd::getuid().as_raw();
    let r = answers.r;
    let info = JobInfo::new(id, answers.jobspec, &r, broker.rank)?;
    logger.set_place(info.shell_rank, Options::verbose(&info)?);
    let dir = enter_cwd(&info, common.is_none(), logger).await?;
    let job = Job::new(info, &r, broker.owner, &service, logger.clone());
    let plugins = Rc::new(Stack::new(job));
    let read = initrc::read(&plugins, answers.site);
    plugins.watch_log();
    let laid_out = read.and_then(|initrc| lay_out(&plugins, &r, broker.rank).map(|()| initrc));
    if laid_out.is_err() {
        plugins.log().await;
    }
    let initrc = laid_out?;
    let info = plugins.job().info();
    let options = Options::read(&info)?;

    let given = env::var("FLUX_KVS_NAMESPACE").ok();
    let namespace = given.filter(|_| common.is_none());
    let namespace = namespace.unwrap_or_else(|| id.namespace());
    let hold = common.map(|_| formats::shared_shell::HOLD);
    let log = info
        .is_leader()
        .then(|| KvsLog::start(handle.clone(), patience.clone(), namespace.clone(), hold));
    let temporary = temporary(&plugins.job().env());
    let parent = temporary.as_deref().unwrap_or("/tmp");
    let tmpdir = make_tmpdir(&info, broker.rundir.as_deref(), parent)?;
    let tmp = tmpdir.path().to_string_lossy().into_owned();
    input::check(&options.input, &dir)?;

    let tasks = task_tags(&info);
    let scope = Scope {
        info: &info,
        tmpdir: Some(&tmp),
        shell_rank: info.shell_rank,
        task: None,
    };
    if let Some(log) = &log {
        for (name, context) in input::opening_events(&options.input) {
            log.append("input", name, context).await;
        }
        for (name, context) in output::opening_events(&options, scope) {
            log.append("output", name, context).await;
        }
    }
    let met = Arc::new(AtomicBool::new(false));
    let route = match &log {
        Some(log) => Route::Leader(log.clone()),
        None => {
            let topic = format!("{service}.write");
            let (leader, rank) = (info.leader_rank(), info.shell_rank);
            Route::Remote(Sink::Leader(Remote::start(
                handle.clone(),
                patience.clone(),
                topic,
                leader,
                rank,
                met.clone(),
            )))
        }
    };
    let limit = default_limit(broker.owner, uid);
    // These may be about where output goes, so they do not go there.
    let remarks = options.remarks.iter().chain(&info.adjusted);
    for remark in remarks.chain(temporary.as_ref().err()) {
        logger.log(Level::Warning, remark).await;
    }
    let output = Output::open(&options, &dir, scope, &tasks, &route, limit)?;
    logger.set_output(&output);
    plugins.log().await;

    if let Some(archive) = info.jobspec.system("files") {
        files::extract(tmpdir.path(), archive).map_err(|e| fatal("jobspec files", e))?;
    }
    if let Some(stage_in) = &options.stage_in {
        stage_in
            .run(&handle, tmpdir.path(), info.is_leader(), logger)
            .await?;
    }
    if let Some(remark) = options.pty.as_ref().and_then(|pty| pty.remark())
        && info.is_leader()
    {
        logger.log(Level::Warning, remark).await;
    }
    let (mut limits, mut complaints) = match info.jobspec.shell_option("rlimit") {
        Some(option) => Limits::read(option),
        None => Default::default(),
    };
    if common.is_none()
        && let Err(e) = std::mem::take(&mut limits).set()
    {
        complaints.push(format!("setrlimit: {}", e.desc()));
    }
    for complaint in complaints {
        logger.log(Level::Warning, &complaint).await;
    }
    let bindings = bind(&info, &options, common, logger).await;
    let hostname = nix::unistd::gethostname().map_or_else(
        |_| info.here().host.clone(),
        |h| h.to_string_lossy().into_owned(),
    );
    let uri = env::var("FLUX_URI").unwrap_or_default();
    let pmi_library = client::installation::pmi_library();
    let facts = Facts {
        pmi_library: options.pmi.serve.then_some(pmi_library.as_path()),
        uri: &uri,
        namespace: &namespace,
        jobid_path: &broker.jobid_path,
        hostname: &hostname,
        tmpdir: &tmp,
        gpu_affinity: &options.gpu_affinity,
    };
    let job = plugins.job();
    job.change_env(|env| {
        *env = environment::for_job(std::mem::take(env), &info, &facts);
        if temporary.is_err() {
            env.insert("TMPDIR".into(), "/tmp".into());
        }
    });
    if options.hwloc.xmlfile {
        let path = hwloc::export(
            &handle,
            &info.here().cores,
            options.hwloc.restrict,
            tmpdir.path(),
        )
        .await?;
        job.change_env(|env| {
            env.remove("HWLOC_COMPONENTS");
            env.insert("HWLOC_XMLFILE".into(), path);
        });
    }
    plugins.run("shell.init").await?;
    Ok(Shell {
        handle,
        patience,
        met,
        mail,
        signals,
        info,
        options,
        logger: logger.clone(),
        plugins,
        initrc,
        service,
        log,
        output,
        tmpdir,
        hostname,
        dir,
        limits,
        bindings,
        unbound: common.map(|common| common.cpus.clone()),
    })
}

/// The local tasks as templates see them.
pub fn task_tags(info: &JobInfo) -> Vec<TaskTag> {
    let tag = |(index, rank): (usize, &u32)| TaskTag {
        rank: *rank,
        index: index as u32,
    };
    info.tasks.iter().enumerate().map(tag).collect()
}

/// Raises an exception of the job.
pub async fn raise(
    handle: &Handle,
    id: JobId,
    note: &str,
    wait_status: Option<i32>,
) -> Result<(), RpcError> {
    let mut request = json!({"id": id, "type": "exec", "severity": 0, "note": note});
    if let Some(status) = wait_status {
        request["wait_status"] = json!(status);
    }
    handle
        .rpc("job-manager.raise", Node::Any, &request)
        .await
        .map(drop)
}
