//! From the options of `flux submit`, `run`, `bulksubmit`, `alloc` and `batch` to a job request.
//!
//! The option structs are shared by those commands through clap; [`Tasks`] and [`Nested`] make the
//! two kinds of jobspecs (RFC 14, 25). Numbers stay text until then, since `--cc` and `bulksubmit`
//! fill in replacement fields first.

mod begin;
mod config;
mod environment;
mod files;
mod pattern;
pub(crate) mod progress;
mod rlimit;
mod shape;
pub(crate) mod template;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::str::FromStr;

use client::{Handle, Node, Rpc};
use formats::constraint::query::Syntax;
use formats::dependency::DependencyError;
use formats::idset::Idset;
use formats::jobspec::{JobspecBuilder, PerResource, parse_key_value};
use formats::{Dependency, JobId, Jobspec, Urgency};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Failure;
use environment::EnvRules;
use template::{Fields, TemplateError};

/// Options of every submission command.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Common {
    /// Charge the job to this bank
    #[arg(short = 'B', long)]
    bank: Option<String>,
    /// Submit to this queue
    #[arg(short, long, value_name = "NAME")]
    queue: Option<String>,
    /// Time limit: minutes, or a duration with unit
    #[arg(short, long, value_name = "MIN|FSD")]
    time_limit: Option<String>,
    /// 0 (hold) to 31 (expedite)
    #[arg(long, value_name = "N", default_value = "16")]
    urgency: String,
    /// Name of the job
    #[arg(long, value_name = "NAME")]
    pub(crate) job_name: Option<String>,
    /// Set a shell option; the value is 1 if left out
    #[arg(short = 'o', long, value_name = "OPT[=VAL]")]
    setopt: Vec<String>,
    /// Set a jobspec attribute; ^ATTR=FILE reads JSON from a file
    #[arg(short = 'S', long, value_name = "ATTR[=VAL]")]
    setattr: Vec<String>,
    /// Put a file into the job: [NAME[:PERMS]=]PATH, or text with line ends
    #[arg(long, value_name = "[NAME=]PATH")]
    add_file: Vec<String>,
    /// Wait for something first (RFC 26)
    #[arg(long, value_name = "URI")]
    dependency: Vec<String>,
    /// What the nodes must be (RFC 35)
    #[arg(long, alias = "require", value_name = "CONSTRAINT")]
    requires: Vec<String>,
    /// Do not start before this time
    #[arg(long, value_name = "+FSD|TIME", allow_hyphen_values = true)]
    begin_time: Vec<String>,
    #[command(flatten)]
    resources: shape::Resources,
    #[command(flatten)]
    env: EnvRules,
    /// Pass on a resource limit: NAME, NAME=VALUE, or -PATTERN not to
    #[arg(long, value_name = "RULE", allow_hyphen_values = true)]
    rlimit: Vec<String>,
    /// Read standard input from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<String>,
    /// Write standard output to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<String>,
    /// Write standard error to a file
    #[arg(long, value_name = "FILE")]
    error: Option<String>,
    /// Do not buffer input and output
    #[arg(short, long)]
    pub(crate) unbuffered: bool,
    /// Put the task rank before each line of output
    #[arg(short, long)]
    pub(crate) label_io: bool,
    /// Working directory of the job
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// debug, waitable, novalidate
    #[arg(long, value_name = "FLAGS")]
    flags: Vec<String>,
    /// Send a signal before the time limit
    #[arg(long, value_name = "[SIG][@TIME]")]
    signal: Option<String>,
    /// Print the jobspec instead of submitting
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not print the job id
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Say more; may be repeated
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Resources by task or by node, for jobs that run a command.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Tasks {
    /// How tasks are spread over nodes: SCHEME[:VALUE]
    #[arg(long, value_name = "URI")]
    taskmap: Option<String>,
    /// Number of nodes
    #[arg(short = 'N', long, value_name = "N")]
    nodes: Option<String>,
    /// With --nodes: whole nodes
    #[arg(short = 'x', long)]
    exclusive: bool,
    /// Number of tasks
    #[arg(short = 'n', long, value_name = "N")]
    ntasks: Option<String>,
    /// Cores for each task
    #[arg(short, long, value_name = "N")]
    cores_per_task: Option<String>,
    /// GPUs for each task
    #[arg(short, long, value_name = "N")]
    gpus_per_task: Option<String>,
    /// Number of cores
    #[arg(long, value_name = "N")]
    cores: Option<String>,
    /// Tasks on each node
    #[arg(long, value_name = "N")]
    tasks_per_node: Option<String>,
    /// Tasks on each core
    #[arg(long, value_name = "N")]
    tasks_per_core: Option<String>,
    /// With --nodes: GPUs of each node
    #[arg(long, value_name = "N")]
    gpus_per_node: Option<String>,
}

/// Resources and brokers of a nested instance.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Nested {
    /// Configuration of the brokers: KEY=VAL, a file, a name or text
    #[arg(long)]
    conf: Vec<String>,
    /// Options for the brokers, separated by commas
    #[arg(
        long,
        alias = "broker-opt",
        value_name = "OPTS",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    pub(crate) broker_opts: Vec<String>,
    /// Archive the instance's content at its end
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "flux-{{jobid}}-dump.tgz")]
    dump: Option<String>,
    /// Number of slots
    #[arg(short, long, value_name = "N")]
    nslots: Option<u32>,
    /// Cores of each slot
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    cores_per_slot: u32,
    /// GPUs of each slot
    #[arg(short, long, value_name = "N")]
    gpus_per_slot: Option<u32>,
    /// Spread the slots over N nodes
    #[arg(short = 'N', long, value_name = "N")]
    nodes: Option<u32>,
    /// With --nodes: whole nodes
    #[arg(short = 'x', long)]
    exclusive: bool,
}

/// Flags of `job-ingest.submit`.
const FLAG_DEBUG: u32 = 2;
const FLAG_WAITABLE: u32 = 4;
const FLAG_NOVALIDATE: u32 = 8;

/// A job as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) jobspec: Jobspec,
    urgency: Urgency,
    flags: u32,
}

impl Request {
    /// What `--dry-run` prints.
    pub(crate) fn text(&self) -> String {
        crate::output::spaced_json(&self.jobspec)
    }

    /// Submit; the answer is read with [`submitted`].
    pub(crate) fn send(&self, handle: &Handle) -> Rpc {
        // A jobspec is plain data of ours.
        let text = serde_json::to_string(&self.jobspec).expect("a jobspec is JSON");
        send_text(handle, &text, self.urgency, self.flags)
    }
}

/// Submit a jobspec as it is written; the answer is read with [`submitted`].
pub(crate) fn send_text(handle: &Handle, jobspec: &str, urgency: Urgency, flags: u32) -> Rpc {
    let userid = nix::unistd::getuid().as_raw();
    let request = json!({
        "J": formats::signed::wrap_none(userid, jobspec.as_bytes()),
        "urgency": urgency,
        "flags": flags,
    });
    handle.rpc("job-ingest.submit", Node::Any, &request)
}

/// What a word of `--urgency` stands for.
pub(crate) fn parse_urgency(text: &str) -> Result<Urgency, Failure> {
    text.parse()
        .map_err(|e| Failure::new(format!("--urgency: {e}")))
}

/// The bits that comma-separated words of `--flags` stand for.
pub(crate) fn parse_flags<'a>(lists: impl IntoIterator<Item = &'a String>) -> Result<u32, Failure> {
    let mut flags = 0;
    for flag in lists.into_iter().flat_map(|list| list.split(',')) {
        flags |= match flag {
            "debug" => FLAG_DEBUG,
            "waitable" => FLAG_WAITABLE,
            "novalidate" => FLAG_NOVALIDATE,
            _ => return Err(Failure::new(format!("--flags: Unknown flag {flag}"))),
        };
    }
    Ok(flags)
}

/// The job id a submission was answered with.
pub(crate) async fn submitted(rpc: Rpc) -> Result<JobId, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        id: JobId,
    }
    let answer: Answer = rpc.await?.json()?;
    Ok(answer.id)
}

fn number(name: &str, text: Option<&String>) -> Result<Option<u32>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let bad = || Failure::new(format!("--{name}: invalid int value '{text}'"));
    Ok(Some(text.trim().parse().map_err(|_| bad())?))
}

/// Seconds, or a duration with unit.
fn duration(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) => Ok(seconds),
        Err(_) => formats::fsd::parse(text).map_err(|e| e.to_string()),
    }
}

/// `[SIG][@TIME]`, by default SIGUSR1 a minute before.
fn signal(text: &str) -> Result<(i32, f64), Failure> {
    let fail = |why: String| Failure::new(format!("--signal={text}: {why}"));
    let (name, time) = text.split_once('@').unwrap_or((text, ""));
    let named = |name: &str| Signal::from_str(name).ok().map(|s| s as i32);
    let signum = match name {
        "" => libc::SIGUSR1,
        name => name
            .parse()
            .ok()
            .or_else(|| named(name))
            .or_else(|| named(&format!("SIG{name}")))
            .ok_or_else(|| fail(format!("signal '{name}' is invalid")))?,
    };
    if signum <= 0 {
        return Err(fail("signal must be > 0".into()));
    }
    let left = if time.is_empty() {
        60.
    } else {
        duration(time).map_err(fail)?
    };
    Ok((signum, left))
}

/// `KEY[=VALUE]`, or `^KEY=FILE` with JSON in the file.
fn key_value(option: &str, text: &str) -> Result<(String, Value), Failure> {
    let Some(rest) = text.strip_prefix('^') else {
        let (key, value) = parse_key_value(text);
        return Ok((key.to_owned(), value));
    };
    let fail = |why: String| Failure::new(format!("{option}: {why}"));
    let (key, path) = rest
        .split_once('=')
        .ok_or_else(|| fail(format!("{text}: no file")))?;
    let data = std::fs::read_to_string(path).map_err(|e| fail(format!("{path}: {e}")))?;
    let value = serde_json::from_str(&data).map_err(|e| fail(format!("{path}: {e}")))?;
    Ok((key.to_owned(), value))
}

impl Common {
    /// Whether `--input` names task ranks rather than a file.
    pub(crate) fn input_ranks(&self) -> Option<Idset> {
        self.input.as_deref().and_then(|text| text.parse().ok())
    }

    fn own_environment() -> BTreeMap<String, String> {
        // What is not UTF-8 cannot be put into a jobspec.
        let text = |(k, v): (std::ffi::OsString, std::ffi::OsString)| {
            Some((k.into_string().ok()?, v.into_string().ok()?))
        };
        std::env::vars_os().filter_map(text).collect()
    }

    /// Add everything but resources and command, and make the request.
    fn request(
        &self,
        builder: JobspecBuilder,
        taskmap: Option<&str>,
        extra_env: &[(String, String)],
    ) -> Result<Request, Failure> {
        let mut env = environment::filter(&self.env.0, &Self::own_environment())?;
        env.variables.extend(extra_env.iter().cloned());
        let cwd = match &self.cwd {
            Some(cwd) => cwd.clone(),
            None => std::env::current_dir()?.to_string_lossy().into_owned(),
        };
        let mut b = builder.environment(env.variables).cwd(&cwd);
        if let Some(resources) = self.resources.read()? {
            b = b.resources(resources);
        }
        if let Some(text) = &self.time_limit {
            let seconds = match text.parse::<f64>() {
                Ok(minutes) => minutes * 60.,
                Err(_) => formats::fsd::parse(text)
                    .map_err(|e| Failure::new(format!("--time-limit: {e}")))?,
            };
            b = b.duration(seconds);
        }
        if let Some(name) = &self.job_name {
            b = b.name(name);
        }
        if self.input_ranks().is_none()
            && let Some(path) = &self.input
        {
            b = b.input(path);
        }
        if let Some(path) = &self.output {
            b = b.output(path, self.label_io);
        }
        if let Some(path) = &self.error {
            b = b.error(path, self.label_io);
        }
        if self.unbuffered {
            b = b.unbuffered();
        }
        if let Some(queue) = &self.queue {
            b = b.queue(queue);
        }
        if let Some(bank) = &self.bank {
            b = b.bank(bank);
        }
        if !env.templates.is_empty() {
            b = b.shell_option("env-expand", json!(env.templates));
        }
        b = b.rlimits(rlimit::filter(&self.rlimit)?);
        if let Some(text) = &self.signal {
            let (signum, left) = signal(text)?;
            b = b.signal(signum, left);
        }
        if let Some(text) = taskmap {
            b = b.taskmap(text);
        }
        b = b.dependencies(&self.dependencies()?);
        if !self.requires.is_empty() {
            let text = self.requires.join(" ");
            let constraints = Syntax::requires().parse(&text);
            let fault = |e| Failure::new(format!("--requires='{text}': {e}"));
            b = b.constraints(constraints.map_err(fault)?);
        }
        for text in &self.setopt {
            let (key, value) = key_value("--setopt", text)?;
            b = b.shell_option(&key, value);
        }
        for text in &self.setattr {
            let (key, value) = key_value("--setattr", text)?;
            b = b.attribute(&key, value);
        }
        let mut jobspec = b.build().map_err(|e| Failure::new(e.to_string()))?;
        for text in &self.add_file {
            let (name, entry) = files::entry(text)?;
            let files = jobspec
                .attributes
                .system
                .entry("files")
                .or_insert(json!({}));
            // Only files put here and by the builder are below this key.
            files[name] = entry;
        }
        Ok(Request {
            jobspec,
            urgency: parse_urgency(&self.urgency)?,
            flags: parse_flags(&self.flags)?,
        })
    }

    fn dependencies(&self) -> Result<Vec<Dependency>, Failure> {
        let mut out = Vec::new();
        for uri in &self.dependency {
            let entry = uri.parse().map_err(|e: DependencyError| {
                Failure::new(format!("Invalid dependency URI \"{uri}\": {}", e.why))
            })?;
            out.push(entry);
        }
        let now = jiff::Zoned::now();
        for text in &self.begin_time {
            let at = begin::parse(text, &now).ok_or_else(|| {
                Failure::new(format!("--begin-time: Invalid datetime: \"{text}\""))
            })?;
            out.push(Dependency {
                scheme: "begin-time".into(),
                value: format!("{at:?}"),
                extra: serde_json::Map::new(),
            });
        }
        Ok(out)
    }

    /// Fill in replacement fields.
    pub(crate) fn fill(&mut self, fields: &Fields) -> Result<(), TemplateError> {
        let single = [
            &mut self.bank,
            &mut self.queue,
            &mut self.time_limit,
            &mut self.job_name,
            &mut self.input,
            &mut self.output,
            &mut self.error,
            &mut self.cwd,
            &mut self.signal,
        ];
        let single = single.into_iter().flatten().chain([&mut self.urgency]);
        let lists = [
            &mut self.setopt,
            &mut self.setattr,
            &mut self.dependency,
            &mut self.requires,
            &mut self.begin_time,
            &mut self.env.0,
            &mut self.flags,
        ];
        for text in single.chain(lists.into_iter().flatten()) {
            *text = fields.fill(text)?;
        }
        Ok(())
    }
}

impl Tasks {
    /// The job that runs `command`.
    pub(crate) fn request(
        &self,
        common: &Common,
        command: &[String],
        env: &[(String, String)],
    ) -> Result<Request, Failure> {
        if command.is_empty() {
            return Err(Failure::new("job command and arguments are missing"));
        }
        let nodes = number("nodes", self.nodes.as_ref())?;
        let ntasks = number("ntasks", self.ntasks.as_ref())?;
        let cores_per_task = number("cores-per-task", self.cores_per_task.as_ref())?;
        let gpus_per_task = number("gpus-per-task", self.gpus_per_task.as_ref())?;
        let cores = number("cores", self.cores.as_ref())?;
        let gpus_per_node = number("gpus-per-node", self.gpus_per_node.as_ref())?;
        let per = self.per_resource()?;
        if gpus_per_node.is_some_and(|n| n > 0) && nodes.is_none() {
            return Err(Failure::new("--gpus-per-node requires --nodes"));
        }
        let builder = JobspecBuilder::new(command.iter().cloned());
        let builder = if per.is_some() || gpus_per_node.is_some() || cores.is_some() {
            if ntasks.is_some() || cores_per_task.is_some() || gpus_per_task.is_some() {
                let text = "Per-resource options can't be used with per-task options. \
                            (See --help for details)";
                return Err(Failure::new(text));
            }
            let whole = nodes.is_some() && cores.is_none();
            let exclusive = self.exclusive || whole;
            builder.per_resource(cores, nodes, gpus_per_node.unwrap_or(0), exclusive, per)
        } else {
            let whole = nodes.is_some() && ntasks.is_none();
            let tasks = ntasks.or(nodes).unwrap_or(1);
            let gpus = gpus_per_task.unwrap_or(0);
            let exclusive = self.exclusive || whole;
            builder.slots(tasks, cores_per_task.unwrap_or(1), gpus, nodes, exclusive)
        };
        common.request(builder, self.taskmap.as_deref(), env)
    }

    fn per_resource(&self) -> Result<Option<PerResource>, Failure> {
        let by_node = number("tasks-per-node", self.tasks_per_node.as_ref())?;
        let by_core = number("tasks-per-core", self.tasks_per_core.as_ref())?;
        let (kind, count) = match (by_node, by_core) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let text = "Do not specify both the number of tasks per node and per core";
                return Err(Failure::new(text));
            }
            (Some(count), None) => ("node", count),
            (None, Some(count)) => ("core", count),
        };
        if count == 0 {
            return Err(Failure::new(format!("--tasks-per-{kind} must be >= 1")));
        }
        let kind = kind.to_owned();
        Ok(Some(PerResource { kind, count }))
    }

    /// Fill in replacement fields.
    pub(crate) fn fill(&mut self, fields: &Fields) -> Result<(), TemplateError> {
        let all = [
            &mut self.taskmap,
            &mut self.nodes,
            &mut self.ntasks,
            &mut self.cores_per_task,
            &mut self.gpus_per_task,
            &mut self.cores,
            &mut self.tasks_per_node,
            &mut self.tasks_per_core,
            &mut self.gpus_per_node,
        ];
        for text in all.into_iter().flatten() {
            *text = fields.fill(text)?;
        }
        Ok(())
    }
}

/// What a nested instance runs first.
pub(crate) enum Initial<'a> {
    /// A command; none is a shell.
    Command(&'a [String]),
    /// A script carried in the job, with its arguments.
    Script {
        name: &'a str,
        text: &'a str,
        args: &'a [String],
    },
}

impl Nested {
    /// The job that is a nested instance.
    pub(crate) fn request(
        &self,
        common: &Common,
        initial: Initial,
        shell_options: &[(&str, Value)],
    ) -> Result<Request, Failure> {
        let whole = self.nslots.unwrap_or(0) == 0;
        let slots = match (
            self.nslots.filter(|n| *n > 0),
            self.nodes.filter(|n| *n > 0),
        ) {
            (Some(slots), _) => slots,
            (None, Some(nodes)) => nodes,
            (None, None) if common.resources.given() => 1,
            (None, None) => {
                return Err(Failure::new(
                    "Number of slots to allocate must be specified",
                ));
            }
        };
        let mut opts = self.broker_opts.clone();
        if let Some(file) = &self.dump {
            opts.push(format!("-Scontent.dump={file}"));
        }
        let conf = config::collect(&self.conf)?;
        if conf.is_some() {
            opts.push("-c{{tmpdir}}/conf.json".to_owned());
        }
        let mut builder = match initial {
            Initial::Command(command) => JobspecBuilder::nested(opts, command.to_vec()),
            Initial::Script { name, text, args } => {
                JobspecBuilder::batch(opts, name, text, args.to_vec())
            }
        };
        let gpus = self.gpus_per_slot.unwrap_or(0);
        let exclusive = self.exclusive || whole;
        builder = builder.slots(slots, self.cores_per_slot, gpus, self.nodes, exclusive);
        for (name, value) in shell_options {
            builder = builder.shell_option(name, value.clone());
        }
        if let Some(conf) = conf {
            builder = builder.file("conf.json", conf, 0o600);
        }
        common.request(builder, None, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Sample {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        tasks: Tasks,
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    }

    fn request(line: &str) -> Result<Value, String> {
        let fixed = ["x", "--env=-*", "--rlimit=-*", "--cwd=/w"];
        let s = Sample::parse_from(fixed.into_iter().chain(line.split_whitespace()));
        let request = s
            .tasks
            .request(&s.common, &s.command, &[])
            .map_err(|e| e.message)?;
        Ok(serde_json::to_value(&request.jobspec).unwrap())
    }

    #[test]
    fn options_reach_the_jobspec() {
        let spec =
            request("-n2 -t5 -o a.b=1 -S user.x=[1] --requires=p --urgency=hold cmd -n9").unwrap();
        assert_eq!(spec["tasks"][0]["command"], json!(["cmd", "-n9"]));
        let system = &spec["attributes"]["system"];
        assert_eq!(system["duration"], json!(300.));
        assert_eq!(system["shell"]["options"], json!({"a": {"b": 1}}));
        assert_eq!(system["constraints"], json!({"properties": ["p"]}));
        assert_eq!(spec["attributes"]["user"], json!({"x": [1]}));
        let spec = request("-N2 cmd").unwrap();
        assert_eq!(spec["resources"][0]["exclusive"], json!(true));
    }

    #[test]
    fn faults() {
        let fault = |line| request(line).unwrap_err();
        insta::assert_snapshot!(
            [
                "", "-nx a", "-n2 --cores=2 a", "--tasks-per-node=1 --tasks-per-core=1 a", "-tx a",
                "--signal=FOO a", "--flags=x a", "--urgency=high a", "--begin-time=never a",
                "--dependency=:a a", "-N2 -n1 a",
            ]
            .map(fault).join("\n"),
            @r#"
        job command and arguments are missing
        --ntasks: invalid int value 'x'
        Per-resource options can't be used with per-task options. (See --help for details)
        Do not specify both the number of tasks per node and per core
        --time-limit: 'x' is not a duration; give a number with an optional unit ms, s, m, h or d, or infinity
        --signal=FOO: signal 'FOO' is invalid
        --flags: Unknown flag x
        --urgency: 'high' is not a number from 0 to 31, hold, default or expedite
        --begin-time: Invalid datetime: "never"
        Invalid dependency URI ":a": a dependency is written SCHEME:VALUE[?KEY=VALUE…]
        node count must not be greater than task count
        "#
        );
    }

    #[test]
    fn signals() {
        assert_eq!(signal("").unwrap(), (libc::SIGUSR1, 60.));
        assert_eq!(signal("TERM@2m").unwrap(), (libc::SIGTERM, 120.));
        assert_eq!(signal("SIGINT").unwrap(), (libc::SIGINT, 60.));
        assert_eq!(signal("10@30").unwrap(), (10, 30.));
    }
}
