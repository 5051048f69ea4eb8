//! `flux modprobe`: load and unload modules with what they require, and run start-up and shutdown scripts.
//!
//! Modules are described in TOML files: one built in, then `modprobe.d/*.toml` of the search path
//! (`FLUX_MODPROBE_PATH`, by default the directory of the configuration, and `FLUX_MODPROBE_PATH_APPEND`). Scripts are
//! TOML as well (`load`, `remove`, `options`, `alternatives`, `tasks` with `run` lines for sh): the built-in ones, then
//! `rc1.d/*.toml`. Executables in `rc1.d` of the configuration and of `FLUX_RC_EXTRA` are run after all tasks, those of
//! `rc3.d` before all.
//!
//! A script in Python is given to Python's own Flux modules, if they are installed.

mod run;
mod solve;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use client::{Handle, Node, installation};
use serde::Deserialize;
use serde_json::{Value, json};

use self::run::Manner;
use self::solve::Solver;
use self::table::{Facts, Table};
use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::exec_path;
use crate::output::outln;

const MODULES: &str = include_str!("../../../../../etc/modprobe.toml");
const RC1: &str = include_str!("../../../../../etc/rc1.toml");
const RC3: &str = include_str!("../../../../../etc/rc3.toml");

/// Runs a Python script with the Flux modules of Python.
const PYTHON: &str = "
import os, sys
from flux.modprobe import Modprobe
m = Modprobe(verbose='-v' in sys.argv, dry_run='-n' in sys.argv)
m.configure_modules()
m.read_rcfile(sys.argv[1])
for name in os.environ.get('FLUX_MODPROBE_DISABLE', '').split(','):
    if name:
        m.disable(name)
m.run(m.get_deps(m.solve(m.active_tasks)))
sys.exit(m.exitcode)
";

/// Load and unload modules with what they require.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Load modules and what they require
    Load(Names),
    /// Unload modules and what only they required
    Remove(Names),
    /// Run a script
    Run(Script),
    /// Run the start-up script
    Rc1(Rc),
    /// Run the shutdown script
    Rc3(Rc),
    /// Print what is known of a module
    Show(Show),
    /// Print what a module requires, as a tree
    ListDependencies(List),
}

#[derive(Parser)]
struct Names {
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    #[arg(required = true, value_name = "MODULE")]
    modules: Vec<String>,
}

#[derive(Parser)]
struct Rc {
    /// Print tasks as they are begun
    #[arg(short, long)]
    verbose: bool,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print which task waits for which, as JSON
    #[arg(long)]
    show_deps: bool,
}

#[derive(Parser)]
struct Script {
    #[command(flatten)]
    rc: Rc,
    file: PathBuf,
}

#[derive(Parser)]
struct Show {
    /// Let MODULE provide the service NAME
    #[arg(short = 'S', long, value_name = "NAME=MODULE")]
    set_alternative: Vec<String>,
    /// Disable a module or service
    #[arg(short = 'D', long, value_name = "NAME")]
    disable: Vec<String>,
    module: String,
}

#[derive(Parser)]
struct List {
    #[command(flatten)]
    show: Show,
    /// Print again what was printed already
    #[arg(short, long)]
    full: bool,
}

pub(crate) fn run(args: Args) -> Outcome {
    let command = args.parse::<Options>()?.command;
    if let What::Run(script) = &command
        && script.file.extension().is_some_and(|e| e == "py")
    {
        return Err(python(script));
    }
    block_on(async {
        match command {
            What::Load(o) => load(o).await,
            What::Remove(o) => remove(o).await,
            What::Run(o) => {
                let text = std::fs::read_to_string(&o.file).context(o.file.display())?;
                let scripts = vec![(o.file, text)];
                Session::open().await?.script(&o.rc, scripts).await
            }
            What::Rc1(o) => {
                let session = Session::open().await?;
                let code = session.script(&o, scripts("rc1", RC1, &o)?).await?;
                python_scripts("rc1").await?;
                executables("rc1", &o).await?;
                Ok(code)
            }
            What::Rc3(o) => {
                // What is to be unloaded is unloaded whatever those say.
                let before = executables("rc3", &o).await;
                let before = before.and(python_scripts("rc3").await);
                let session = Session::open().await?;
                let code = session.script(&o, scripts("rc3", RC3, &o)?).await?;
                before.map(|()| code)
            }
            What::Show(o) => show(&o).await,
            What::ListDependencies(o) => list_dependencies(&o).await,
        }
    })
}

fn python(script: &Script) -> Failure {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let mut words = vec![
        "-c".into(),
        PYTHON.into(),
        script.file.clone().into_os_string(),
    ];
    for (on, flag) in [(script.rc.verbose, "-v"), (script.rc.dry_run, "-n")] {
        if on {
            words.push(flag.into());
        }
    }
    exec_path::exec(Path::new(&python), words)
}

/// Run the Python scripts of `NAME.d`, one after the other.
async fn python_scripts(name: &str) -> Result<(), Failure> {
    let is_python = |p: &Path| p.extension().is_some_and(|e| e == "py");
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    for file in search_path()
        .iter()
        .flat_map(|dir| files(dir, name, is_python))
    {
        let mut cmd = tokio::process::Command::new(&python);
        let status = cmd.arg("-c").arg(PYTHON).arg(&file).status().await;
        if !status.context(file.display())?.success() {
            return Err(Failure::new(format!("{} failed", file.display())));
        }
    }
    Ok(())
}

fn dirs(variable: &str) -> Vec<PathBuf> {
    let list = std::env::var_os(variable).unwrap_or_default();
    let dirs = std::env::split_paths(&list);
    dirs.filter(|d| !d.as_os_str().is_empty()).collect()
}

/// Directories with `modprobe.d`, `rc1.d` and `rc3.d` of TOML files.
fn search_path() -> Vec<PathBuf> {
    let below = |key| installation::value(key).map(|dir| PathBuf::from(dir).join("modprobe"));
    let mut path = match std::env::var_os("FLUX_MODPROBE_PATH") {
        Some(_) => dirs("FLUX_MODPROBE_PATH"),
        None => ["datadir", "libexecdir", "confdir"]
            .into_iter()
            .filter_map(below)
            .collect(),
    };
    path.extend(dirs("FLUX_MODPROBE_PATH_APPEND"));
    let mut seen = HashSet::new();
    path.retain(|dir| seen.insert(dir.clone()));
    path
}

/// Say where files are looked for.
fn show_search(name: &str) {
    for dir in search_path() {
        for part in ["modprobe", name] {
            eprintln!("checking {}", dir.join(format!("{part}.d")).display());
        }
    }
}

/// Files of `NAME.d` that fit, sorted by name.
fn files(dir: &Path, name: &str, fits: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join(format!("{name}.d")));
    let entries = entries.into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| fits(p)).collect();
    files.sort();
    files
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "toml")
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The built-in script and those that add to it.
fn scripts(name: &str, builtin: &str, rc: &Rc) -> Result<Vec<(PathBuf, String)>, Failure> {
    if rc.verbose {
        show_search(name);
    }
    let mut scripts = vec![(PathBuf::from(name), builtin.to_owned())];
    for dir in search_path() {
        for file in files(&dir, name, is_toml) {
            let text = std::fs::read_to_string(&file).context(file.display())?;
            scripts.push((file, text));
        }
    }
    Ok(scripts)
}

/// Run the programs of `rc1.d` or `rc3.d`, all of them even if one fails.
async fn executables(name: &str, rc: &Rc) -> Result<(), Failure> {
    let mut all = vec![installation::confdir()];
    all.extend(dirs("FLUX_RC_EXTRA"));
    let mut failed = false;
    for file in all.iter().flat_map(|dir| files(dir, name, is_executable)) {
        if rc.show_deps {
            continue;
        }
        outln!("running {}", file.display());
        if rc.dry_run {
            continue;
        }
        let status = tokio::process::Command::new(&file).status().await;
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => {
                eprintln!("flux-modprobe: {}: {status}", file.display());
                failed = true;
            }
            Err(e) => {
                eprintln!("flux-modprobe: {}: {e}", file.display());
                failed = true;
            }
        }
    }
    match failed {
        true => Err(Failure::new(format!("one or more {name}.d scripts failed"))),
        false => Ok(()),
    }
}

fn invalid(file: &Path) -> impl Fn(String) -> Failure {
    let file = file.display().to_string();
    move |e| Failure::new(format!("{file}: {e}"))
}

/// The table of all files.
fn table() -> Result<Table, Failure> {
    let mut table = Table::default();
    table
        .read(MODULES)
        .map_err(invalid(Path::new("modprobe.toml")))?;
    for file in search_path()
        .iter()
        .flat_map(|dir| files(dir, "modprobe", is_toml))
    {
        let text = std::fs::read_to_string(&file).context(file.display())?;
        table.read(&text).map_err(invalid(&file))?;
    }
    Ok(table)
}

/// Apply the table `modules` of the instance's configuration: changes of entries, and `alternatives`.
fn configure(table: &mut Table, config: &Value) -> Result<(), Failure> {
    let Some(modules) = config.get("modules") else {
        return Ok(());
    };
    let text = toml::to_string(modules).map_err(|e| Failure::new(format!("modules: {e}")))?;
    table
        .read(&text)
        .map_err(|e| Failure::new(format!("configuration: modules: {e}")))
}

fn disable(table: &mut Table, more: &[String]) -> Result<(), Failure> {
    let from_env = std::env::var("FLUX_MODPROBE_DISABLE").unwrap_or_default();
    let lists = std::iter::once(&from_env).chain(more);
    for name in lists
        .flat_map(|list| list.split(','))
        .filter(|n| !n.is_empty())
    {
        table.disable(name).map_err(Failure::new)?;
    }
    Ok(())
}

/// A broker, and what is known of it.
struct Session {
    handle: Handle,
    rank: u32,
    config: Value,
    attrs: BTreeMap<String, String>,
}

impl Session {
    async fn open() -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Names {
            names: Vec<String>,
        }
        let handle = Handle::open(None).await?;
        let (rank, _) = handle.locate().await?;
        let config = handle.call("config.get", Node::Any, &json!({})).await?;
        let Names { names } = handle.call("attr.list", Node::Any, &json!({})).await?;
        let values = names.iter().map(|name| handle.getattr(name));
        let values = futures::future::join_all(values).await;
        let set = names.into_iter().zip(values);
        let attrs = set.filter_map(|(name, v)| Some((name, v.ok()?))).collect();
        Ok(Self {
            handle,
            rank,
            config,
            attrs,
        })
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            rank: self.rank,
            config: &self.config,
            attrs: &self.attrs,
            env: &|name| std::env::var_os(name).is_some(),
        }
    }

    async fn loaded(&self) -> Result<Vec<String>, Failure> {
        #[derive(Deserialize)]
        struct Module {
            name: String,
        }
        #[derive(Deserialize)]
        struct Answer {
            mods: Vec<Module>,
        }
        let answer: Answer = self
            .handle
            .call("module.list", Node::Any, &json!({}))
            .await?;
        Ok(answer.mods.into_iter().map(|m| m.name).collect())
    }

    async fn script(&self, rc: &Rc, scripts: Vec<(PathBuf, String)>) -> Outcome {
        let mut table = table()?;
        configure(&mut table, &self.config)?;
        disable(&mut table, &[])?;
        let (mut active, mut remove) = (Vec::new(), Vec::new());
        for (file, text) in scripts {
            let (tasks, script) = table.read_script(&text).map_err(invalid(&file))?;
            active.extend(tasks);
            active.extend(script.load);
            remove.extend(script.remove);
        }
        if let Ok("none") = std::env::var("FLUX_SCHED_MODULE").as_deref() {
            active.retain(|name| name != "sched" && name != "feasibility");
        }
        let facts = self.facts();
        let loaded = self.loaded().await?;
        let solver = Solver {
            table: &table,
            facts: &facts,
        };
        let removed = match remove.is_empty() {
            true => BTreeSet::new(),
            false => solver.removable(&loaded, &remove).map_err(Failure::new)?,
        };
        let mut wanted = solver.wanted(&active, false).map_err(Failure::new)?;
        wanted.extend(removed.iter().cloned());
        let order = solver.order(&wanted, &removed).map_err(Failure::new)?;
        if rc.show_deps {
            outln!("{}", json!(order));
            return Ok(0);
        }
        let removed: Vec<String> = removed.into_iter().collect();
        table.set_remove(&removed).map_err(Failure::new)?;
        let manner = Manner {
            verbose: rc.verbose,
            dry_run: rc.dry_run,
        };
        run::all(&self.handle, &table, &order, manner).await?;
        Ok(0)
    }
}

async fn load(options: Names) -> Outcome {
    let session = Session::open().await?;
    let mut table = table()?;
    configure(&mut table, &session.config)?;
    let facts = session.facts();
    let solver = Solver {
        table: &table,
        facts: &facts,
    };
    let mut wanted = solver
        .wanted(&options.modules, true)
        .map_err(Failure::new)?;
    let loaded = session.loaded().await?;
    wanted.retain(|name| !loaded.contains(name));
    if wanted.is_empty() {
        eprintln!("flux-modprobe: All modules and dependencies are already loaded");
        return Ok(0);
    }
    let order = solver
        .order(&wanted, &BTreeSet::new())
        .map_err(Failure::new)?;
    let manner = Manner {
        dry_run: options.dry_run,
        ..Manner::default()
    };
    run::all(&session.handle, &table, &order, manner).await?;
    Ok(0)
}

async fn remove(options: Names) -> Outcome {
    let session = Session::open().await?;
    let mut table = table()?;
    configure(&mut table, &session.config)?;
    let facts = session.facts();
    let loaded = session.loaded().await?;
    let solver = Solver {
        table: &table,
        facts: &facts,
    };
    let gone = solver
        .removable(&loaded, &options.modules)
        .map_err(Failure::new)?;
    let order = solver.order(&gone, &gone).map_err(Failure::new)?;
    let names: Vec<String> = gone
        .into_iter()
        .filter(|n| table.find(n).is_some())
        .collect();
    table.set_remove(&names).map_err(Failure::new)?;
    let manner = Manner {
        dry_run: options.dry_run,
        ..Manner::default()
    };
    run::all(&session.handle, &table, &order, manner).await?;
    Ok(0)
}

fn prepared(show: &Show, config: &Value) -> Result<Table, Failure> {
    let mut table = table()?;
    configure(&mut table, config)?;
    for entry in &show.set_alternative {
        let pair = entry.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, module) = pair.ok_or_else(|| {
            Failure::new(format!(
                "--set-alternative: expected NAME=MODULE, found '{entry}'"
            ))
        })?;
        table.choose(name, module).map_err(Failure::new)?;
    }
    disable(&mut table, &show.disable)?;
    Ok(table)
}

async fn show(options: &Show) -> Outcome {
    let session = Session::open().await?;
    let table = prepared(options, &session.config)?;
    let facts = session.facts();
    let solver = Solver {
        table: &table,
        facts: &facts,
    };
    let task = solver.resolve(&options.module).map_err(Failure::new)?;
    outln!("{}", task.to_json());
    Ok(0)
}

async fn list_dependencies(options: &List) -> Outcome {
    let session = Session::open().await?;
    let table = prepared(&options.show, &session.config)?;
    let facts = session.facts();
    let solver = Solver {
        table: &table,
        facts: &facts,
    };
    let mut seen = BTreeSet::new();
    let lines = tree(&solver, &options.show.module, options.full, &mut seen)?;
    lines.iter().for_each(|line| outln!("{line}"));
    Ok(0)
}

/// A module and what it requires, each line indented under what requires it.
fn tree(
    solver: &Solver<'_>,
    name: &str,
    full: bool,
    seen: &mut BTreeSet<String>,
) -> Result<Vec<String>, Failure> {
    let task = solver.resolve(name).map_err(Failure::new)?;
    let label = match task.name == name {
        true => name.to_owned(),
        false => format!("{name} ({})", task.name),
    };
    seen.insert(task.name.clone());
    let fresh: Vec<&String> = task
        .requires
        .iter()
        .filter(|dep| full || seen.insert((*dep).clone()))
        .collect();
    let mut lines = vec![label];
    for (index, dep) in fresh.iter().enumerate() {
        let last = index + 1 == fresh.len();
        let below = tree(solver, dep, full, seen)?;
        for (row, line) in below.iter().enumerate() {
            let lead = match (row, last) {
                (0, false) => "├── ",
                (0, true) => "└── ",
                (_, false) => "│   ",
                (_, true) => "    ",
            };
            lines.push(format!("{lead}{line}"));
        }
    }
    Ok(lines)
}
