//! `flux start`: start an instance.
//!
//! Without `--test-size` this process becomes one broker, which finds its peers through the
//! launcher's PMI. With it, this process is the launcher: it starts all brokers on this host,
//! serves PMI to them ([`crate::launch`]) and reports how they ended.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use formats::hostlist::Hostlist;

use crate::args::Args;
use crate::error::{Context, Failure, Outcome};
use crate::exec_path;
use crate::launch::{self, ExitMode, Launch};

/// Start a Flux instance.
#[derive(Parser, Debug)]
struct Options {
    /// Set a broker attribute
    #[arg(short = 'S', long = "setattr", value_name = "ATTR=VAL")]
    setattr: Vec<String>,
    /// Read the broker configuration from PATH
    #[arg(short, long, value_name = "PATH")]
    config_path: Option<String>,
    /// Read the configuration of the system instance
    #[arg(long, conflicts_with = "config_path")]
    sysconfig: bool,
    /// Start an instance to mend what one that is down has left: its statedir, or an archive of flux-dump(1) (default:
    /// the system instance)
    #[arg(short, long, value_name = "TARGET", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    recovery: Option<String>,
    /// Change the broker configuration after it was read
    #[arg(long, value_name = "VALUE")]
    conf: Vec<String>,
    /// Options for the broker, separated by commas
    #[arg(
        short = 'o',
        long = "broker-opts",
        value_name = "OPTS",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    broker_opts: Vec<String>,
    /// Say what is done; twice: trace the brokers' bootstrap
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// As -v, by number
    #[arg(long = "verbose", value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    verbosity: Option<u8>,
    /// Start nothing
    #[arg(short = 'X', long)]
    noexec: bool,
    /// Run directory of the instance
    #[arg(long, value_name = "DIR")]
    rundir: Option<String>,
    /// Run the broker under another command, its words separated by commas
    #[arg(
        long,
        value_name = "ARGS",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    wrap: Vec<String>,
    /// Start N brokers on this host
    #[arg(short = 's', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    test_size: Option<u32>,
    /// Names the brokers take for their hosts'
    #[arg(long, value_name = "HOSTLIST")]
    test_hosts: Option<Hostlist>,
    /// Kill the other brokers this long after one ended
    #[arg(long, alias = "killer-timeout", value_name = "FSD", value_parser = launch::parse_duration)]
    test_exit_timeout: Option<f64>,
    /// Whose end starts that time: any or leader
    #[arg(long, value_name = "MODE")]
    test_exit_mode: Option<ExitMode>,
    /// Start all brokers or the leader only
    #[arg(long, value_name = "MODE")]
    test_start_mode: Option<StartMode>,
    /// Use an existing directory as run directory
    #[arg(long, value_name = "DIR")]
    test_rundir: Option<PathBuf>,
    /// Remove that directory at the end
    #[arg(long)]
    test_rundir_cleanup: bool,
    /// What brokers are told of who shares a node: none, single, per-broker or a task map
    #[arg(long, value_name = "MODE")]
    test_pmi_clique: Option<String>,
    /// The initial program; one word is a shell command line
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// `--test-start-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum StartMode {
    All,
    Leader,
}

impl Options {
    /// An option that needs `--test-size`, if one was given.
    fn test_option(&self) -> Option<&'static str> {
        [
            (self.test_hosts.is_some(), "--test-hosts"),
            (self.test_exit_timeout.is_some(), "--test-exit-timeout"),
            (self.test_exit_mode.is_some(), "--test-exit-mode"),
            (self.test_start_mode.is_some(), "--test-start-mode"),
            (self.test_rundir.is_some(), "--test-rundir"),
            (self.test_rundir_cleanup, "--test-rundir-cleanup"),
            (self.test_pmi_clique.is_some(), "--test-pmi-clique"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    /// What every broker is started with: wrapper, program and options.
    fn broker_words(&self) -> Result<Vec<OsString>, Failure> {
        let mut words: Vec<OsString> = self.wrap.iter().map(OsString::from).collect();
        words.push(exec_path::broker()?.into());
        words.extend(self.setattr.iter().map(|a| format!("-S{a}").into()));
        let options = self.broker_opts.iter().filter(|o| !o.is_empty());
        words.extend(options.map(OsString::from));
        words.extend(self.config_path.iter().map(|c| format!("-c{c}").into()));
        let system = self.recovery.as_deref() == Some("");
        if let Some(target) = &self.recovery {
            words.extend(recovery_words(target)?);
        }
        if self.sysconfig || (system && self.config_path.is_none()) {
            let dir = client::installation::confdir().join("system/conf.d");
            words.push(format!("-c{}", dir.display()).into());
        }
        words.extend(self.conf.iter().map(|c| format!("--conf={c}").into()));
        words.extend(self.rundir.iter().map(|d| format!("-Srundir={d}").into()));
        Ok(words)
    }

    /// The initial program, kept apart from the broker's options.
    fn command_words(&self) -> Vec<OsString> {
        let dash = self.command.first().is_some_and(|w| w.starts_with('-'));
        let mark = dash.then(|| OsString::from("--"));
        mark.into_iter()
            .chain(self.command.iter().map(OsString::from))
            .collect()
    }
}

/// Where the system instance keeps its state.
const SYSTEM_STATEDIR: &str = "/var/lib/flux";
/// Its socket.
const SYSTEM_SOCKET: &str = "/run/flux/local";

/// The broker's options of a recovery (flux-start(1)).
fn recovery_words(target: &str) -> Result<Vec<OsString>, Failure> {
    let target = match target {
        "" if std::os::unix::net::UnixStream::connect(SYSTEM_SOCKET).is_ok() => {
            return Err(Failure::new(
                "the system instance is running: stop it first",
            ));
        }
        "" => SYSTEM_STATEDIR,
        target => target,
    };
    let meta = std::fs::metadata(target).context(target)?;
    let place = if meta.is_dir() {
        let store = PathBuf::from(target).join("content.sqlite");
        let open = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&store);
        open.context(store.display())?;
        format!("-Sstatedir={target}")
    } else {
        format!("-Scontent.restore={target}")
    };
    let modes = [
        "-Sbroker.recovery-mode=1",
        "-Sbroker.quorum=1",
        "-Sbroker.module-nopanic=1",
        "-Slog-stderr-level=5",
    ];
    Ok(modes
        .into_iter()
        .map(OsString::from)
        .chain([place.into()])
        .collect())
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    // Nothing that is started could tell where it is.
    std::env::current_dir().context("the working directory is gone")?;
    let verbose = options.verbosity.unwrap_or(options.verbose);
    let Some(size) = options.test_size else {
        if let Some(name) = options.test_option() {
            return Err(Failure::new(format!("{name} works only with --test-size")));
        }
        let mut words = options.broker_words()?;
        words.extend(options.command_words());
        if verbose > 0 {
            eprintln!("flux-start: {}", launch::shown(&words));
        }
        if options.noexec {
            return Ok(0);
        }
        let program = PathBuf::from(words.remove(0));
        // That there is no broker says nothing about the command.
        return Err(exec_path::exec(&program, words).code(1));
    };
    let hosts = match &options.test_hosts {
        Some(list) if list.len() != size as usize => {
            let text = format!("--test-hosts names {} hosts for {size} brokers", list.len());
            return Err(Failure::new(text));
        }
        Some(list) => list.iter().collect::<Vec<String>>(),
        None => Vec::new(),
    };
    let mapping = launch::process_mapping(options.test_pmi_clique.as_deref(), size)?;
    let rundir = match (&options.test_rundir, &options.rundir) {
        (Some(dir), _) => {
            let meta = dir.metadata().context(dir.display())?;
            if !meta.is_dir() {
                return Err(Failure::new(format!("{}: not a directory", dir.display())));
            }
            launch::RunDir::existing(dir.clone(), options.test_rundir_cleanup)
        }
        (None, Some(dir)) => {
            let dir = PathBuf::from(dir);
            let new = !dir.exists();
            std::fs::create_dir_all(&dir).context(dir.display())?;
            launch::RunDir::existing(dir, new)
        }
        (None, None) => launch::RunDir::temporary()?,
    };
    let mut common = options.broker_words()?;
    let path = rundir.path().as_os_str().to_string_lossy();
    common.push(format!("-Srundir={path}").into());
    common.push("-Sbroker.single-host=1".into());
    let brokers: Vec<Vec<OsString>> = (0..size as usize)
        .map(|rank| {
            let mut words = common.clone();
            words.extend(hosts.get(rank).map(|h| format!("-Shostname={h}").into()));
            if rank == 0 {
                words.extend(options.command_words());
            }
            words
        })
        .collect();
    if verbose > 0 {
        for (rank, words) in brokers.iter().enumerate() {
            eprintln!("flux-start: {rank}: {}", launch::shown(words));
        }
    }
    if options.noexec {
        return Ok(0);
    }
    let only_leader = options.test_start_mode == Some(StartMode::Leader);
    launch::run(Launch {
        brokers,
        start: if only_leader { 1 } else { size },
        mapping,
        exit_timeout: options.test_exit_timeout.unwrap_or(20.),
        exit_mode: options.test_exit_mode.unwrap_or(ExitMode::Any),
        verbose: verbose > 0,
        trace: verbose > 1,
        rundir,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        let words = line.split_whitespace();
        Options::try_parse_from(std::iter::once("start").chain(words)).unwrap()
    }

    #[test]
    fn options_before_the_command() {
        let o = parse("-s2 -o,-v -Sa=b --verbose=2 --wrap=strace,-f -- -x y");
        assert_eq!(o.test_size, Some(2));
        assert_eq!(o.broker_opts, ["", "-v"]);
        assert_eq!(o.wrap, ["strace", "-f"]);
        assert_eq!(o.verbosity, Some(2));
        assert_eq!(o.command_words(), ["--", "-x", "y"]);
        assert!(parse("--sysconfig x").sysconfig);
        let o = parse("-vv flux getattr -s rank");
        assert_eq!((o.verbose, o.test_size), (2, None));
        assert_eq!(o.command, ["flux", "getattr", "-s", "rank"]);
        assert_eq!(
            parse("--test-exit-timeout=1m").test_option(),
            Some("--test-exit-timeout")
        );
    }
}
