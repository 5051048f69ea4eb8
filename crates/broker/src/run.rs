//! Bringing one broker up and down: options, run directory, attributes, then [`crate::core`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use formats::hostlist::Hostlist;
use formats::idset::Idset;
use formats::taskmap::Taskmap;
use overlay::{Facts, Session, Topology};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use wire::Credentials;

use crate::attrs::Attrs;
use crate::boot::address::{AddressError, Hint};
use crate::boot::{Boot, Ground, Launcher, Place, Tbon};
use crate::config::Sources;
use crate::connector;
use crate::core::patience::Patience;
use crate::core::{Core, SERVICES, Setup};
use crate::directory::{self, Directory, FluxLink};
use crate::host::{Host, ModuleSpec};
use crate::program::{self, Program};
use crate::rc::{Script, Scripts};
use crate::router::{self, Input};

/// Options of `flux broker`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `-S NAME=VALUE`, in order.
    pub attrs: Vec<(String, String)>,
    /// `-c`: configuration file or directory.
    pub config_path: Option<PathBuf>,
    /// `--conf`: configuration given on the command line, `KEY=VALUE` or TOML, in order.
    pub conf: Vec<String>,
    /// The initial program and its arguments.
    pub command: Vec<String>,
}

/// The options make no sense.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Unknown option.
    #[error("unknown option {0:?}; known are -S NAME=VALUE, -c PATH, --conf VALUE, -v")]
    Unknown(String),
    /// Option without its value.
    #[error("option {0} needs a value")]
    Value(String),
}

impl Options {
    /// Parse the arguments of `flux broker` (without its name).
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                options.command = args.collect();
                break;
            }
            if !arg.starts_with('-') {
                options.command = std::iter::once(arg).chain(args).collect();
                break;
            }
            let (flag, inline) = match (arg.strip_prefix("--"), arg.split_once('=')) {
                (Some(_), Some((flag, value))) => (flag.to_owned(), Some(value.to_owned())),
                (Some(_), None) => (arg.clone(), None),
                (None, _) if arg.len() > 2 => (arg[..2].to_owned(), Some(arg[2..].to_owned())),
                (None, _) => (arg.clone(), None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| args.next())
                    .ok_or_else(|| UsageError::Value(arg.clone()))
            };
            match flag.as_str() {
                "-S" | "--setattr" => {
                    let text = value()?;
                    // A name alone is an attribute that is set, to nothing.
                    let (name, value) = text.split_once('=').unwrap_or((&text, ""));
                    options.attrs.push((name.to_owned(), value.to_owned()));
                }
                "-c" | "--config-path" => options.config_path = Some(value()?.into()),
                "--conf" => options.conf.push(value()?),
                "-v" | "--verbose" => {}
                _ => return Err(UsageError::Unknown(arg)),
            }
        }
        Ok(options)
    }
}

fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "localhost".to_owned(),
        |h| h.to_string_lossy().into_owned(),
    )
}

/// The address other hosts reach this one at, written as in a URI.
fn routable_address(hint: &str, hostname: &str) -> Result<String, AddressError> {
    // Any text is a hint: what is no other is the name of an interface.
    let Ok(parsed) = hint.parse::<Hint>();
    Ok(match parsed.resolve(hint, hostname)? {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    })
}

/// Environment of an enclosing Flux job, read before it is cleaned.
struct Enclosing {
    parent_uri: Option<String>,
    jobid: Option<String>,
    namespace: Option<String>,
    level: u32,
    path: String,
    /// Which brokers share a node, as PMI says it.
    mapping: Option<String>,
    /// The `tbon.interface-hint` of the instance the job is in.
    interface_hint: Option<String>,
}

impl Enclosing {
    fn from_env(launcher: &mut Launcher) -> Self {
        let jobid = std::env::var("FLUX_JOB_ID").ok();
        let parent_uri = jobid.as_ref().and_then(|_| std::env::var("FLUX_URI").ok());
        let level = launcher
            .get("flux.instance-level")
            .and_then(|text| text.parse().ok())
            .filter(|_| jobid.is_some())
            .unwrap_or(0);
        let path = match (std::env::var("FLUX_JOB_ID_PATH"), &jobid) {
            (Ok(path), Some(_)) => path,
            (Err(_), Some(id)) => format!("/{id}"),
            _ => "/".to_owned(),
        };
        let namespace = std::env::var("FLUX_KVS_NAMESPACE").ok();
        Self {
            parent_uri,
            namespace: namespace.filter(|_| jobid.is_some()),
            jobid,
            level,
            path,
            mapping: launcher.get("PMI_process_mapping"),
            interface_hint: launcher.get("flux.tbon-interface-hint"),
        }
    }
}

/// Run one broker to its end; the result is the process's exit code.
pub async fn run(options: Options, modules: Vec<ModuleSpec>, hooks: Hooks) -> anyhow::Result<i32> {
    let mut attrs = Attrs::default();
    for (name, value) in &options.attrs {
        attrs.set_by_user(name, value)?;
    }
    let path = options.config_path.clone();
    let sources = Sources {
        path: path.or_else(|| std::env::var_os("FLUX_CONF_DIR").map(PathBuf::from)),
        arguments: options.conf.clone(),
    };
    let config = sources.read().context("configuration")?;
    if let Some(path) = &sources.path {
        attrs.fix("config.path", path.to_string_lossy());
    }
    let mut launcher = Launcher::from_env(attrs.get("broker.boot-method"), &config)?;
    let enclosing = Enclosing::from_env(&mut launcher);
    let host = attrs.get("hostname").map_or_else(hostname, str::to_owned);
    let boot = Boot::choose(attrs.get("broker.boot-method"), &config, &host, launcher)?;
    let (rank, size) = (boot.rank(), boot.size());
    if let Some(hint) = &enclosing.interface_hint {
        attrs.set_default("tbon.interface-hint", hint);
    }
    let tbon = Tbon::read(&mut attrs, &config, rank)?;
    let topology = boot.topology(tbon.shape)?;
    // Set by `flux start --test-size` and shells of one node: all brokers share this host.
    let single_host = attrs.get("broker.single-host").is_some() && !tbon.prefer_tcp;
    let rundir = Directory::make(&mut attrs, "rundir", "/tmp")?;
    let statedir = match rank {
        0 => Some(Directory::make(&mut attrs, "statedir", "/var/tmp")?),
        _ => None,
    };
    let flux = FluxLink::make(rundir.path());
    let owner = nix::unistd::getuid().as_raw();

    let method = boot.method();
    // Only brokers that a launcher brings together choose addresses, and only if there are several hosts.
    let address = if single_host || size == 1 || method == "config" {
        String::new()
    } else {
        let hint = attrs.get("tbon.interface-hint").unwrap_or("default-route");
        routable_address(hint, &host)?
    };
    let place = boot.join(
        &topology,
        &Ground {
            rundir: rundir.path(),
            single_host,
            address: &address,
            hostname: &host,
            sockets: tbon.sockets,
        },
    )?;
    let Place {
        bound,
        endpoint,
        parent,
        keys,
        hostnames,
    } = place;

    let default = || format!("local://{}/local-{rank}", rundir.path());
    let local_uri = attrs.get("local-uri").map_or_else(default, str::to_owned);
    let socket = directory::socket(&local_uri)?;
    set_attributes(&mut attrs, rank, &topology);
    check_critical_ranks(&attrs, size)?;
    attrs.fix("local-uri", &local_uri);
    attrs.fix("hostname", &host);
    let children = topology.children(rank).iter();
    let hosts = children.map(|child| (*child, hostnames[*child as usize].clone()));
    let facts = Facts {
        rank,
        topology: topology.clone(),
        hostname: host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hosts: hosts.collect(),
        session: Session(rand::random()),
    };
    let hostlist: Hostlist = hostnames.into_iter().collect();
    attrs.fix("hostlist", hostlist.to_string());
    attrs.fix("broker.boot-method", method);
    attrs.fix("instance-level", enclosing.level.to_string());
    attrs.fix("jobid-path", &enclosing.path);
    if let Some(endpoint) = endpoint {
        attrs.fix("tbon.endpoint", endpoint);
    }
    if let Some(parent) = &parent {
        attrs.fix("tbon.parent-endpoint", &parent.uri);
    }
    if let Some(id) = &enclosing.jobid {
        attrs.fix("jobid", id);
    }
    if let Some(uri) = &enclosing.parent_uri {
        attrs.fix("parent-uri", uri);
    }
    if let Some(namespace) = &enclosing.namespace {
        attrs.fix("parent-kvs-namespace", namespace);
    }
    // A launcher may know none, or say it in its own way.
    let mapping = enclosing.mapping.as_deref().map(Taskmap::from_pmi);
    if let Some(Ok(mapping)) = mapping {
        attrs.fix("broker.mapping", mapping.to_value().to_string());
    }

    let cred = Credentials::owner(owner);
    let (router, peers) = router::start(rank, cred, topology.clone());
    let services = SERVICES.iter().map(|s| (*s).to_owned()).collect();
    let (_, handle) = router.attach(cred, services);
    handle.set_place(rank, size);
    // `attach` made the handle just now, so nobody else has its inbox.
    let inbox = handle.inbox().expect("a fresh handle has its inbox");
    let (ended_tx, ended) = unbounded_channel();
    let modules = Host::new(modules, router.clone(), cred, (rank, size), ended_tx);
    let mut program_env = vec![("FLUX_URI".to_owned(), Some(local_uri))];
    program_env.push(("FLUX_URI_PARENT".to_owned(), None));
    program_env.push(("FLUX_ENCLOSING_ID".to_owned(), enclosing.jobid.clone()));
    let scripts = Scripts::new(&mut attrs, &config);
    let patience = Patience::read(&mut attrs, size)?;
    let hooks = match scripts.rc1 {
        Script::Builtin => hooks,
        _ => Hooks {
            running: hooks.running_scripted,
            ..hooks
        },
    };
    let setup = Setup {
        rank,
        topology,
        limits: tbon.limits,
        patience,
        attrs,
        scripts,
        program: Program::from_args(options.command),
        program_env,
        hooks,
    };
    let config = (config, sources);
    let mut core = Core::new(setup, config, handle, router.clone(), modules)?;
    core.load_modules();
    remove_stale(&socket);
    let connections = connector::listen(&socket, core.door(owner), router.clone())
        .with_context(|| format!("local-uri: cannot listen on {}", socket.display()))?;
    let to_router = router.clone();
    let link = bound.start(facts, tbon.limits, parent, keys, move |incoming| {
        to_router.send(Input::FromPeer(incoming));
    })?;
    router.send(Input::SetTransport(Box::new(link)));
    let code = core.run(inbox, peers, ended, signals()?).await;
    router.send(Input::Stop);
    let _ = std::fs::remove_file(&socket);
    // The router drops the transport, which sends what is queued, before its channel closes.
    router.closed().await;
    connections.drained().await;
    drop((flux, rundir, statedir));
    if program::leads_job() {
        program::end_group();
    }
    Ok(code)
}

fn set_attributes(attrs: &mut Attrs, rank: u32, topology: &Topology) {
    let now = formats::eventlog::timestamp(SystemTime::now());
    attrs.fix("rank", rank.to_string());
    attrs.fix("size", topology.size().to_string());
    attrs.set("version", env!("CARGO_PKG_VERSION"));
    attrs.fix("security.owner", nix::unistd::getuid().to_string());
    attrs.fix("broker.pid", std::process::id().to_string());
    attrs.fix("broker.starttime", format!("{:.2}", now));
    attrs.fix("broker.uuid", router::new_id().to_string());
    attrs.fix("tbon.level", topology.level(rank).to_string());
    attrs.fix("tbon.maxlevel", topology.max_level().to_string());
    attrs.fix("tbon.descendants", topology.descendants(rank).to_string());
    // Programs are installed side by side; the job shell is one of them.
    let shell = std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("flux-shell"));
    let shell = shell.unwrap_or_else(|| PathBuf::from("flux-shell"));
    attrs.set_default("conf.shell_path", &shell.to_string_lossy());
    let critical: Idset = topology.interior().into_iter().collect();
    attrs.set_default("broker.critical-ranks", &critical.to_string());
    attrs.set_default("content.hash", "sha1");
    attrs.set_default("log-ring-size", "1024");
    attrs.set_default("log-level", "7");
    attrs.set_default("log-stderr-level", "3");
    attrs.set_default("log-forward-level", "3");
    attrs.set_default("log-critical-level", "2");
    attrs.set_default("log-stderr-mode", "leader");
}

/// Critical ranks are ranks of this instance.
fn check_critical_ranks(attrs: &Attrs, size: u32) -> anyhow::Result<()> {
    let name = "broker.critical-ranks";
    let text = attrs.get(name).unwrap_or_default();
    let ranks: Idset = text.parse().with_context(|| format!("{name}: {text:?}"))?;
    anyhow::ensure!(
        ranks.last().is_none_or(|last| last < size),
        "{name}: {text} goes beyond the last rank, {}",
        size - 1
    );
    Ok(())
}

/// Remove a socket nobody listens on: a broker that was killed leaves its own behind.
fn remove_stale(socket: &Path) {
    use std::io::ErrorKind::ConnectionRefused;
    let refused = std::os::unix::net::UnixStream::connect(socket).map_err(|e| e.kind());
    if matches!(refused, Err(ConnectionRefused)) {
        // If it cannot be removed, listening on it says why.
        let _ = std::fs::remove_file(socket);
    }
}

/// Signals that reach the broker, as numbers.
fn signals() -> std::io::Result<UnboundedReceiver<i32>> {
    let (tx, rx) = unbounded_channel();
    for number in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGALRM,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        let mut stream = signal(SignalKind::from_raw(number))?;
        let tx = tx.clone();
        tokio::spawn(
            async move { while stream.recv().await.is_some() && tx.send(number).is_ok() {} },
        );
    }
    Ok(rx)
}

pub use crate::core::{Hook, Hooks};

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, UsageError> {
        Options::parse(args.iter().map(|s| (*s).to_owned()))
    }

    #[test]
    fn options() {
        let o = parse(&["-Sa=b", "-S", "c=d=e", "--setattr=f=", "-v", "cmd", "-x"]).unwrap();
        let want = [("a", "b"), ("c", "d=e"), ("f", "")];
        assert_eq!(o.attrs, want.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(o.command, ["cmd", "-x"]);
        assert!(matches!(parse(&["-S"]), Err(UsageError::Value(_))));
        assert_eq!(
            parse(&["-Sx"]).unwrap().attrs,
            [("x".to_owned(), String::new())]
        );
        assert!(matches!(parse(&["--bogus"]), Err(UsageError::Unknown(_))));
    }
}
