//! `flux module`: list, load, remove and look into the modules of a broker (RFC 5).

use clap::{Parser, Subcommand};
use client::{Handle, Node};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;

/// Manage broker modules.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// List modules
    List(List),
    /// Load a module
    Load(Load),
    /// Unload a module
    #[command(alias = "unload")]
    Remove(Remove),
    /// Unload a module and load it again
    Reload(Reload),
    /// Print a module's statistics
    Stats(Stats),
    /// Read or change a module's debug flags
    Debug(Debug),
    /// Print the messages of modules
    Trace(super::module_trace::Trace),
}

#[derive(Parser)]
struct List {
    /// Print paths too
    #[arg(short, long)]
    long: bool,
}

#[derive(Parser)]
struct Load {
    /// Load under another name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    process: Process,
    module: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// How a module that is not built in is run.
#[derive(Parser)]
struct Process {
    /// Run it as a process
    #[arg(long)]
    exec: bool,
    /// Let this flux command run it
    #[arg(long, value_name = "NAME")]
    loader: Option<String>,
}

#[derive(Parser)]
struct Remove {
    /// Not being loaded is no failure
    #[arg(short, long)]
    force: bool,
    /// Do not ask it to end, end it
    #[arg(long)]
    cancel: bool,
    module: String,
}

#[derive(Parser)]
struct Reload {
    /// Not being loaded is no failure
    #[arg(short, long)]
    force: bool,
    /// Do not ask it to end, end it
    #[arg(long)]
    cancel: bool,
    /// Load under another name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    process: Process,
    module: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Parser)]
struct Stats {
    /// Print only the member at this path (a.b.c)
    #[arg(short, long, value_name = "OBJNAME")]
    parse: Option<String>,
    /// Multiply a number by N
    #[arg(short, long, value_name = "N", default_value_t = 1.)]
    scale: f64,
    /// Print a number as int or double
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    kind: Option<NumberKind>,
    /// Print resource usage instead: self, children or thread
    #[arg(short = 'R', long, value_name = "WHO", num_args = 0..=1, require_equals = true, default_missing_value = "self")]
    rusage: Option<String>,
    /// Reset the statistics of this broker's module
    #[arg(short, long)]
    clear: bool,
    /// Reset them on all ranks
    #[arg(short = 'C', long)]
    clear_all: bool,
    module: String,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum NumberKind {
    Int,
    Double,
}

#[derive(Parser)]
struct Debug {
    /// Set all flags to this mask
    #[arg(short = 'S', long, value_name = "MASK", value_parser = mask)]
    set: Option<u32>,
    /// Clear all flags
    #[arg(short = 'C', long)]
    clear: bool,
    /// Set the flags of this mask
    #[arg(short, long, value_name = "MASK", value_parser = mask)]
    setbit: Option<u32>,
    /// Clear the flags of this mask
    #[arg(short, long, value_name = "MASK", value_parser = mask)]
    clearbit: Option<u32>,
    module: String,
}

fn mask(text: &str) -> Result<u32, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let command = args.parse::<Options>()?.command;
    block_on(async {
        let handle = Handle::open(None).await?;
        match command {
            What::List(o) => list(&handle, &o).await,
            What::Load(o) => load(&handle, &o.module, o.name.as_deref(), &o.args, &o.process).await,
            What::Remove(o) => remove(&handle, &o.module, o.force, o.cancel).await,
            What::Reload(o) => {
                // A name chooses between several modules of one file.
                let name = o.name.as_ref().unwrap_or(&o.module);
                remove(&handle, name, o.force, o.cancel).await?;
                load(&handle, &o.module, o.name.as_deref(), &o.args, &o.process).await
            }
            What::Stats(o) => stats(&handle, &o).await,
            What::Debug(o) => debug(&handle, &o).await,
            What::Trace(o) => super::module_trace::run(&handle, &o).await,
        }
    })
}

/// What the broker shall look for: a name, or the whole path of a file.
fn target(path: &str) -> String {
    let whole = path.contains('/').then(|| std::fs::canonicalize(path).ok());
    match whole.flatten() {
        Some(whole) => whole.to_string_lossy().into_owned(),
        None => path.to_owned(),
    }
}

#[derive(Deserialize)]
struct Module {
    name: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    idle: u64,
    status: u32,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    sendqueue: u64,
    #[serde(default)]
    recvqueue: u64,
}

impl Module {
    fn line(&self, long: bool) -> String {
        let state = match self.status {
            0 => 'I',
            1 => 'R',
            2 => 'F',
            3 => 'X',
            _ => '?',
        };
        let mut services: Vec<&str> = self.services.iter().map(String::as_str).collect();
        services.retain(|s| *s != self.name);
        services.sort_unstable();
        let services = services.join(",");
        let start = format!(
            "{:<24} {:>5}  {state} {:>5} {:>5} ",
            self.name,
            idle(self.idle),
            self.sendqueue,
            self.recvqueue
        );
        match long {
            false => format!("{start}{services}"),
            true if services.chars().count() > 8 => {
                let short: String = services.chars().take(7).collect();
                format!("{start}{short}+ {}", self.path)
            }
            true => format!("{start}{services:<8} {}", self.path),
        }
    }
}

/// Heartbeats or seconds of silence; long ones are just "idle".
fn idle(seconds: u64) -> String {
    if seconds < 100 {
        seconds.to_string()
    } else {
        "idle".to_owned()
    }
}

async fn list(handle: &Handle, options: &List) -> Outcome {
    #[derive(Deserialize)]
    struct Answer {
        mods: Vec<Module>,
    }
    let answer: Answer = handle.call("module.list", Node::Any, &json!({})).await?;
    let title = if options.long {
        "Service  Path"
    } else {
        "Service"
    };
    outln!("{:<24} {:>5}  S Sendq Recvq {title}", "Module", "Idle");
    for module in &answer.mods {
        outln!("{}", module.line(options.long));
    }
    Ok(0)
}

async fn load(
    handle: &Handle,
    path: &str,
    name: Option<&str>,
    args: &[String],
    process: &Process,
) -> Outcome {
    let mut request = json!({ "path": target(path), "args": args, "exec": process.exec });
    if let Some(loader) = &process.loader {
        request["loader"] = loader.as_str().into();
    }
    if let Some(name) = name {
        request["name"] = name.into();
    }
    let what = format!("load {path}");
    handle
        .rpc("module.load", Node::Any, &request)
        .await
        .context(what)?;
    Ok(0)
}

async fn remove(handle: &Handle, name: &str, force: bool, cancel: bool) -> Outcome {
    let request = json!({ "name": target(name), "cancel": cancel });
    match handle.rpc("module.remove", Node::Any, &request).await {
        Err(e) if force && e.errno == libc::ENOENT => Ok(0),
        result => {
            result.context(format!("remove {name}"))?;
            Ok(0)
        }
    }
}

async fn stats(handle: &Handle, options: &Stats) -> Outcome {
    let module = &options.module;
    if options.clear {
        let topic = format!("{module}.stats-clear");
        handle
            .rpc(&topic, Node::Any, &json!({}))
            .await
            .context(&topic)?;
        return Ok(0);
    }
    if options.clear_all {
        let topic = format!("{module}.stats-clear");
        handle
            .publish_raw(&topic, None, false)
            .await
            .context(&topic)?;
        return Ok(0);
    }
    let (topic, request) = match &options.rusage {
        Some(who) => (format!("{module}.rusage"), json!({ "who": who })),
        None => (format!("{module}.stats-get"), json!({})),
    };
    let answer: Value = handle
        .call(&topic, Node::Any, &request)
        .await
        .context(&topic)?;
    let mut value = &answer;
    if let Some(path) = &options.parse {
        for name in path.split('.') {
            value = value.get(name).ok_or_else(|| {
                Failure::new(format!("'{path}' is not in the statistics of {module}"))
            })?;
        }
    }
    outln!("{}", number(value, options));
    Ok(0)
}

/// A number as C prints it, scaled and of the type asked for; anything else as indented JSON.
fn number(value: &Value, options: &Stats) -> String {
    let scaled = value.as_f64().unwrap_or(0.) * options.scale;
    match options.kind {
        Some(NumberKind::Int) => format!("{}", scaled as i64),
        _ if value.is_i64() || value.is_u64() => format!("{}", scaled as i64),
        Some(NumberKind::Double) => format!("{scaled:.6}"),
        None if value.is_f64() => format!("{scaled:.6}"),
        None => indented(value),
    }
}

/// JSON with one blank per level.
fn indented(value: &Value) -> String {
    use serde::Serialize as _;
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut writer = serde_json::Serializer::with_formatter(&mut out, format);
    // Writing a value to memory cannot fail, and JSON is UTF-8.
    value.serialize(&mut writer).expect("JSON goes to memory");
    String::from_utf8(out).expect("JSON is UTF-8")
}

async fn debug(handle: &Handle, options: &Debug) -> Outcome {
    #[derive(Deserialize)]
    struct Answer {
        flags: u32,
    }
    let (op, flags) = match options {
        Debug { clear: true, .. } => ("clr", 0),
        Debug { set: Some(m), .. } => ("set", *m),
        Debug {
            setbit: Some(m), ..
        } => ("setbit", *m),
        Debug {
            clearbit: Some(m), ..
        } => ("clrbit", *m),
        // Setting no bit only reads them.
        _ => ("setbit", 0),
    };
    let topic = format!("{}.debug", options.module);
    let request = json!({ "op": op, "flags": flags });
    let answer: Answer = handle
        .call(&topic, Node::Any, &request)
        .await
        .context(&topic)?;
    outln!("{:#x}", answer.flags);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let module = |services: &[&str]| Module {
            name: "sched-simple".into(),
            path: "builtin".into(),
            idle: 3,
            status: 1,
            services: services.iter().map(|s| (*s).to_owned()).collect(),
            sendqueue: 0,
            recvqueue: 1,
        };
        let m = module(&["sched", "feasibility", "sched-simple"]);
        insta::assert_snapshot!([m.line(false), m.line(true), module(&[]).line(true)].join("\n"), @r"
        sched-simple                 3  R     0     1 feasibility,sched
        sched-simple                 3  R     0     1 feasibi+ builtin
        sched-simple                 3  R     0     1          builtin
        ");
    }

    #[test]
    fn names() {
        assert_eq!(target("kvs"), "kvs");
        assert_eq!(target("/bin/../nonexistent"), "/bin/../nonexistent");
        assert_eq!(mask("0x10"), Ok(16));
    }
}
