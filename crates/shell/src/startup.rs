//! Everything between `exec` of the shell and the first task: a [`Shell`] that is ready to run.
//!
//! All questions to the broker go out together and are waited for together, because start-up
//! latency is paid by every job.

use crate::{
    Fatal, affinity,
    environment::{self, Environment, Facts},
    files, hwloc,
    info::{JobInfo, map_by_scheme},
    initrc, input,
    kvslog::KvsLog,
    log::{Level, Logger, os_error},
    options::{Options, Sharing},
    output::{self, Output, Route, Sink},
    patience::Patience,
    plugins::{Job, Stack},
    remote::Remote,
    rlimit,
    template::{Scope, TaskTag},
};
use client::services::service::Add;
use client::{Handle, Inbox, Node, OpenError};
use formats::{Idset, JobId, Jobspec, ResourceSet, signed};
use serde_json::{Value, json};
use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};
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
    pub inbox: Inbox,
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
    pub bindings: Vec<Idset>,
}

fn fatal(what: &str, e: impl std::fmt::Display) -> Fatal {
    Fatal::new(format!("{what}: {e}"))
}

/// What the broker tells about itself and the job.
struct Answers {
    rank: u32,
    owner: Option<u32>,
    rundir: Option<String>,
    jobid_path: String,
    site: initrc::Site,
    jobspec: Jobspec,
    r: ResourceSet,
}

/// Why the shell does not know its job yet.
enum Setback {
    /// It will not.
    Fatal(Fatal),
    /// Something did not answer, which may be because the broker is away.
    Unanswered(String, RpcError),
}

impl From<Fatal> for Setback {
    fn from(fatal: Fatal) -> Setback {
        Setback::Fatal(fatal)
    }
}

/// What to do about an answer that does not come.
fn unanswered(what: &str) -> impl FnOnce(RpcError) -> Setback {
    move |e| Setback::Unanswered(what.to_owned(), e)
}

/// Jobspec and R of the job.
///
/// The jobspec is taken from the signed request `J`, because the copy under `jobspec` is stored
/// without the environment. Where `J` is not kept, that copy must do.
async fn look_up(handle: &Handle, id: JobId) -> Result<(Jobspec, ResourceSet), Setback> {
    let what = "fetching the job's jobspec and R";
    let ask = |key: &str| {
        let request = json!({"id": id, "keys": [key, "R"], "flags": 0});
        handle.rpc("job-info.lookup", Node::Any, &request)
    };
    let answer = match ask("J").await {
        Err(e) if e.errno == libc::ENOENT => ask("jobspec").await,
        answer => answer,
    };
    let job: Value = answer
        .map_err(unanswered(what))?
        .json()
        .map_err(|e| fatal(what, e))?;
    // Depending on the flags of the lookup, objects come as JSON text or as objects.
    let part = |key: &str| match job.get(key) {
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|e| fatal(&format!("job's {key}"), e))
        }
        Some(value @ Value::Object(_)) => Ok(value.clone()),
        _ => Err(Fatal::new(format!("the job has no {key}"))),
    };
    let jobspec: Value = match job.get("J").and_then(Value::as_str) {
        Some(j) => {
            let signed = signed::unwrap(j).map_err(|e| fatal("job's J", e))?;
            serde_json::from_slice(&signed.payload).map_err(|e| fatal("job's J", e))?
        }
        None => part("jobspec")?,
    };
    let jobspec = Jobspec::from_value(jobspec).map_err(|e| fatal("job", e))?;
    let r = ResourceSet::try_from(part("R")?).map_err(|e| fatal("job", e))?;
    Ok((jobspec, r))
}

async fn ask(handle: &Handle, id: JobId, service: &str) -> Result<Answers, Setback> {
    let events = format!("shell-{id}.", id = id.0);
    let (job, rank, owner, rundir, path, initrc, plugins, added, subscribed) = futures::join!(
        look_up(handle, id),
        handle.getattr("rank"),
        handle.getattr("security.owner"),
        handle.getattr("rundir"),
        handle.getattr("jobid-path"),
        handle.getattr("conf.shell_initrc"),
        handle.getattr("conf.shell_pluginpath"),
        handle.ask(Node::Any, &Add { service }),
        handle.subscribe(&events),
    );
    let (jobspec, r) = job?;
    // That it is registered may be the doing of this shell's connection before, which the broker has not missed yet.
    let added = added.map_err(|e| match e.errno {
        libc::EEXIST => RpcError::new(libc::ENOSYS, e.to_string()),
        _ => e,
    });
    added.map_err(unanswered(&format!("registering service {service}")))?;
    subscribed.map_err(unanswered(&format!("subscribing to {events}")))?;
    let rank = rank.map_err(unanswered("fetching the broker's rank"))?;
    Ok(Answers {
        rank: rank.parse().map_err(|e| fatal("the broker's rank", e))?,
        owner: owner.ok().and_then(|o| o.parse().ok()),
        rundir: rundir.ok(),
        jobid_path: path.unwrap_or_else(|_| "/".to_owned()),
        site: initrc::Site {
            initrc: initrc.ok(),
            plugin_path: plugins.ok(),
        },
        jobspec,
        r,
    })
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

/// Changes to the job's directory, or to /tmp when it is not there.
async fn enter_cwd(info: &JobInfo, logger: &Logger) -> Result<(), Fatal> {
    let Some(cwd) = info.jobspec.cwd() else {
        return Ok(());
    };
    if let Err(e) = env::set_current_dir(cwd) {
        let e = os_error(&e);
        let message = format!("cannot change to directory {cwd}: {e}; going to /tmp instead");
        logger.log(Level::Warning, &message).await;
        env::set_current_dir("/tmp").map_err(|e| fatal("changing to /tmp", os_error(&e)))?;
    }
    Ok(())
}

/// Binds the shell to its cores and returns the bindings of the tasks that differ.
async fn bind(info: &JobInfo, options: &Options, logger: &Logger) -> Vec<Idset> {
    let affinity = &options.cpu_affinity;
    if affinity.sharing == Sharing::Off {
        return Vec::new();
    }
    let Some(machine) = affinity::Machine::read(Path::new("/sys/devices/system/cpu")) else {
        return Vec::new();
    };
    let plan = affinity::plan(
        &machine,
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
    if !binding.all
        && let Err(e) = affinity::bind(&binding.cpus)
    {
        let text = format!("cannot bind to the job's cores: {}", e.desc());
        logger.log(Level::Debug, &text).await;
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

/// Connects and asks, again if the broker goes away meanwhile.
async fn connect(
    id: JobId,
    patience: &Patience,
    service: &str,
) -> Result<(Handle, Answers), Fatal> {
    let mut attempts = patience.attempts();
    loop {
        let asked = async {
            let lost = |e: OpenError| RpcError::new(libc::ECONNRESET, e.to_string());
            let opened = patience.open().await.map_err(lost);
            let handle = opened.map_err(unanswered("connecting to the broker"))?;
            let answers = ask(&handle, id, service).await?;
            Ok((handle, answers))
        };
        match asked.await {
            Ok(all) => return Ok(all),
            Err(Setback::Fatal(e)) => return Err(e),
            Err(Setback::Unanswered(what, e)) => {
                if !attempts.go_on_after(&e).await {
                    return Err(fatal(&what, e));
                }
            }
        }
    }
}

/// Connects and prepares. Errors before output is set up are reported by the caller.
pub async fn prepare(id: JobId, patience: &Patience, logger: &Logger) -> Result<Shell, Fatal> {
    let uid = nix::unistd::getuid().as_raw();
    let service = format!("{uid}-shell-{}", id.f58_ascii());
    let (handle, answers) = connect(id, patience, &service).await?;
    // The handle is new, so nobody has taken its inbox.
    let inbox = handle
        .inbox()
        .ok_or_else(|| Fatal::new("the handle has no inbox"))?;
    let r = answers.r;
    let info = JobInfo::new(id, answers.jobspec, &r, answers.rank)?;
    logger.set_place(info.shell_rank, Options::verbose(&info)?);
    enter_cwd(&info, logger).await?;
    let job = Job::new(info, &r, answers.owner, &service, logger.clone());
    let plugins = Rc::new(Stack::new(job));
    let read = initrc::read(&plugins, answers.site);
    plugins.watch_log();
    let laid_out = read.and_then(|initrc| lay_out(&plugins, &r, answers.rank).map(|()| initrc));
    if laid_out.is_err() {
        plugins.log().await;
    }
    let initrc = laid_out?;
    let info = plugins.job().info();
    let options = Options::read(&info)?;

    let namespace = env::var("FLUX_KVS_NAMESPACE").unwrap_or_else(|_| id.namespace());
    let log = info
        .is_leader()
        .then(|| KvsLog::start(handle.clone(), patience.clone(), namespace.clone()));
    let temporary = temporary(&plugins.job().env());
    let parent = temporary.as_deref().unwrap_or("/tmp");
    let tmpdir = make_tmpdir(&info, answers.rundir.as_deref(), parent)?;
    let tmp = tmpdir.path().to_string_lossy().into_owned();
    input::check(&options.input)?;

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
    let limit = default_limit(answers.owner, uid);
    // These may be about where output goes, so they do not go there.
    let remarks = options.remarks.iter().chain(&info.adjusted);
    for remark in remarks.chain(temporary.as_ref().err()) {
        logger.log(Level::Warning, remark).await;
    }
    let output = Output::open(&options, scope, &tasks, &route, limit)?;
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
    if let Some(limits) = info.jobspec.shell_option("rlimit") {
        for complaint in rlimit::apply(limits) {
            logger.log(Level::Warning, &complaint).await;
        }
    }
    let bindings = bind(&info, &options, logger).await;
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
        jobid_path: &answers.jobid_path,
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
        patience: patience.clone(),
        met,
        inbox,
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
        bindings,
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
