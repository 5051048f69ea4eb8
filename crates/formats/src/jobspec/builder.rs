//! Jobspecs from submission options, equal to those of `flux submit`, `run`, `alloc`, `batch`.

use super::v1::CANONICAL;
use super::{Attributes, Count, Jobspec, Resource, Task, TaskCount};
use crate::Dependency;
use serde_json::{Map, Value, json};

/// Options that do not make a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum BuildError {
    #[error("job command is missing")]
    NoCommand,
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    #[error("node count must not be greater than task count")]
    MoreNodesThanTasks,
    #[error("exclusive can only be set with a node count")]
    ExclusiveWithoutNodes,
    #[error("number of cores cannot be less than the number of nodes")]
    FewerCoresThanNodes,
    #[error("number of cores must be evenly divisible by node count")]
    UnevenCores,
    #[error("gpus per node must be specified with a node count")]
    GpusWithoutNodes,
    #[error("node count needs a core count or exclusive")]
    NodesAlone,
    #[error("must specify node or core count with per-resource options")]
    NoResources,
    #[error("the resources hold no slot for the tasks")]
    NoSlot,
    #[error("batch script {0:?} does not appear to start with '#!'")]
    NotAScript(String),
}

/// How the slots of a job are asked for.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// A slot for each task.
    PerTask {
        tasks: u32,
        cores: u32,
        gpus: u32,
        nodes: Option<u32>,
        exclusive: bool,
    },
    /// Whole resources, with tasks counted per node or core.
    PerResource {
        cores: Option<u32>,
        nodes: Option<u32>,
        gpus_per_node: u32,
        exclusive: bool,
    },
    /// A request as it stands.
    Explicit(Vec<Resource>),
}

/// `--tasks-per-node`, `--tasks-per-core`: run `count` tasks on each resource of `kind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerResource {
    /// `node` or `core`.
    pub kind: String,
    /// Tasks on each.
    pub count: u32,
}

/// Collects submission options and builds the jobspec.
#[derive(Debug, Clone)]
pub struct JobspecBuilder {
    command: Vec<String>,
    shape: Shape,
    attributes: Attributes,
    script: Option<(String, String)>,
}

impl JobspecBuilder {
    /// One task of one core; the counts are set by the methods below.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> JobspecBuilder {
        let mut system = Map::new();
        system.insert("duration".into(), json!(0));
        JobspecBuilder {
            command: command.into_iter().map(Into::into).collect(),
            shape: Shape::PerTask {
                tasks: 1,
                cores: 1,
                gpus: 0,
                nodes: None,
                exclusive: false,
            },
            attributes: Attributes {
                system,
                ..Attributes::default()
            },
            script: None,
        }
    }

    /// A nested instance (`flux alloc`): `command` becomes the initial program of brokers, one
    /// on each node of the slots.
    pub fn nested<S: Into<String>>(
        broker_opts: impl IntoIterator<Item = S>,
        command: impl IntoIterator<Item = S>,
    ) -> JobspecBuilder {
        let mut words: Vec<String> = vec!["flux".into(), "broker".into()];
        words.extend(broker_opts.into_iter().map(Into::into));
        words.extend(command.into_iter().map(Into::into));
        JobspecBuilder::new(words)
            .shell_option("per-resource.type", json!("node"))
            .shell_option("mpi", json!("none"))
            .shell_option("exit-timeout", json!("none"))
    }

    /// A batch job (`flux batch`): a nested instance whose initial program is `script`, carried
    /// in the jobspec. `name` is used in the error about a script without `#!`.
    pub fn batch<S: Into<String>>(
        broker_opts: impl IntoIterator<Item = S>,
        name: &str,
        script: &str,
        args: impl IntoIterator<Item = S>,
    ) -> JobspecBuilder {
        let command = std::iter::once("{{tmpdir}}/script".to_owned())
            .chain(args.into_iter().map(Into::into))
            .collect::<Vec<String>>();
        let opts = broker_opts
            .into_iter()
            .map(Into::into)
            .collect::<Vec<String>>();
        let mut builder = JobspecBuilder::nested(opts, command).name(name);
        builder.script = Some((name.to_owned(), script.to_owned()));
        builder
    }

    /// Slots by task (or, for `nested` and `batch`, by slot): `num_nodes` spreads them evenly.
    pub fn slots(
        mut self,
        tasks: u32,
        cores_per_task: u32,
        gpus_per_task: u32,
        nodes: Option<u32>,
        exclusive: bool,
    ) -> JobspecBuilder {
        let (cores, gpus) = (cores_per_task, gpus_per_task);
        self.shape = Shape::PerTask {
            tasks,
            cores,
            gpus,
            nodes,
            exclusive,
        };
        self
    }

    /// Whole cores or nodes (`--cores`, `--nodes`), with `per` tasks on each node or core.
    pub fn per_resource(
        mut self,
        cores: Option<u32>,
        nodes: Option<u32>,
        gpus_per_node: u32,
        exclusive: bool,
        per: Option<PerResource>,
    ) -> JobspecBuilder {
        self.shape = Shape::PerResource {
            cores,
            nodes,
            gpus_per_node,
            exclusive,
        };
        match per {
            Some(PerResource { kind, count }) => {
                self.shell_option("per-resource", json!({"type": kind, "count": count}))
            }
            None => self,
        }
    }

    /// A request that is taken as it stands, with a task for each slot.
    pub fn resources(mut self, resources: Vec<Resource>) -> JobspecBuilder {
        self.shape = Shape::Explicit(resources);
        self
    }

    /// The time limit in seconds.
    pub fn duration(mut self, seconds: f64) -> JobspecBuilder {
        self.attributes
            .system
            .insert("duration".into(), json!(seconds));
        self
    }

    /// Sets the environment of tasks.
    pub fn environment<K: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> JobspecBuilder {
        let map: Map<String, Value> = variables
            .into_iter()
            .map(|(k, v)| (k.into(), Value::String(v.into())))
            .collect();
        self.attributes
            .system
            .insert("environment".into(), map.into());
        self
    }

    /// Sets the working directory of tasks.
    pub fn cwd(mut self, path: &str) -> JobspecBuilder {
        self.attributes.system.insert("cwd".into(), json!(path));
        self
    }

    /// Sets the name of the job.
    pub fn name(self, name: &str) -> JobspecBuilder {
        self.attribute("job.name", json!(name))
    }

    /// Sets the queue.
    pub fn queue(self, queue: &str) -> JobspecBuilder {
        self.attribute("queue", json!(queue))
    }

    /// Sets the bank to charge.
    pub fn bank(self, bank: &str) -> JobspecBuilder {
        self.attribute("bank", json!(bank))
    }

    /// Resource limits by lower-case name; -1 is unlimited.
    pub fn rlimits(self, limits: Map<String, Value>) -> JobspecBuilder {
        if limits.is_empty() {
            self
        } else {
            self.shell_option("rlimit", limits.into())
        }
    }

    /// Reads standard input of all tasks from a file.
    pub fn input(self, path: &str) -> JobspecBuilder {
        self.file_stream("input", "stdin", path, false)
    }

    /// `--output`; `none` and `kvs` leave the default.
    pub fn output(self, path: &str, label: bool) -> JobspecBuilder {
        self.file_stream("output", "stdout", path, label)
    }

    /// `--error`; `none` and `kvs` leave the default.
    pub fn error(self, path: &str, label: bool) -> JobspecBuilder {
        self.file_stream("output", "stderr", path, label)
    }

    fn file_stream(self, io: &str, stream: &str, path: &str, label: bool) -> JobspecBuilder {
        if io == "output" && (path == "none" || path == "kvs") {
            return self;
        }
        let builder = self
            .shell_option(&format!("{io}.{stream}.type"), json!("file"))
            .shell_option(&format!("{io}.{stream}.path"), json!(path));
        match label {
            true => builder.shell_option(&format!("{io}.{stream}.label"), json!(true)),
            false => builder,
        }
    }

    /// Writes output as it comes, not line by line.
    pub fn unbuffered(self) -> JobspecBuilder {
        self.shell_option("output.stdout.buffer.type", json!("none"))
            .shell_option("output.stderr.buffer.type", json!("none"))
            .shell_option("output.batch-timeout", json!(0.05))
            .shell_option("input.batch-timeout", json!(0.0))
    }

    /// `--taskmap=SCHEME[:VALUE]`.
    pub fn taskmap(self, text: &str) -> JobspecBuilder {
        let (scheme, value) = text.split_once(':').unwrap_or((text, ""));
        self.shell_option("taskmap", json!({"scheme": scheme, "value": value}))
    }

    /// `--signal=SIG@TIME`, both already decoded.
    pub fn signal(self, signum: i32, timeleft: f64) -> JobspecBuilder {
        self.shell_option("signal", json!({"signum": signum, "timeleft": timeleft}))
    }

    /// Sets the dependencies, RFC 26; none are left out.
    pub fn dependencies(self, entries: &[Dependency]) -> JobspecBuilder {
        if entries.is_empty() {
            self
        } else {
            self.attribute("dependencies", json!(entries))
        }
    }

    /// Sets the constraint on resources, RFC 31.
    pub fn constraints(self, constraint: Value) -> JobspecBuilder {
        self.attribute("constraints", constraint)
    }

    /// A shell option by dotted path.
    pub fn shell_option(mut self, path: &str, value: Value) -> JobspecBuilder {
        self.attributes
            .set(&format!("system.shell.options.{path}"), value);
        self
    }

    /// An attribute by dotted path; see [`Attributes::set`].
    pub fn attribute(mut self, path: &str, value: Value) -> JobspecBuilder {
        self.attributes.set(path, value);
        self
    }

    /// A file carried in the jobspec (RFC 37), `data` being UTF-8 text or, for JSON files, any
    /// value; `mode` is the permission bits.
    pub fn file(mut self, path: &str, data: Value, mode: u32) -> JobspecBuilder {
        let mut entry = Map::new();
        entry.insert("mode".into(), json!(0o100000 | mode));
        let is_text = data.is_string();
        entry.insert("data".into(), data);
        if is_text {
            entry.insert("encoding".into(), json!("utf-8"));
        }
        // A file name may hold dots, so it is not set by path.
        let files = self
            .attributes
            .system
            .entry("files")
            .or_insert_with(|| json!({}));
        if let Value::Object(files) = files {
            files.insert(path.to_owned(), entry.into());
        }
        self
    }

    /// Makes the jobspec.
    pub fn build(mut self) -> Result<Jobspec, BuildError> {
        if self.command.is_empty() {
            return Err(BuildError::NoCommand);
        }
        if let Some((name, script)) = self.script.take() {
            if !script.starts_with("#!") {
                return Err(BuildError::NotAScript(name));
            }
            self = self.file("script", json!(script), 0o700);
        }
        let (resources, count) = self.shape.build()?;
        let slot = first_slot(&resources).ok_or(BuildError::NoSlot)?.to_owned();
        let mut jobspec = Jobspec {
            resources,
            tasks: vec![Task {
                command: self.command,
                slot,
                count,
                extra: Map::new(),
            }],
            attributes: self.attributes,
            version: 1,
        };
        if jobspec.check_v1().is_err() {
            jobspec.version = CANONICAL;
        }
        Ok(jobspec)
    }
}

/// The label of the first slot, from the top down.
fn first_slot(level: &[Resource]) -> Option<&str> {
    level.iter().find_map(|resource| match &resource.label {
        Some(label) if resource.kind == "slot" => Some(label.as_str()),
        _ => first_slot(&resource.with),
    })
}

fn resource(kind: &str, count: u32, with: Vec<Resource>) -> Resource {
    Resource {
        kind: kind.into(),
        count: Count::Fixed(count),
        exclusive: None,
        with,
        label: None,
        unit: None,
        id: None,
        extra: Map::new(),
    }
}

/// Nodes (if any) over slots over cores and gpus.
fn tree(nodes: Option<u32>, exclusive: bool, slots: u32, cores: u32, gpus: u32) -> Resource {
    let mut children = vec![resource("core", cores, Vec::new())];
    if gpus > 0 {
        children.push(resource("gpu", gpus, Vec::new()));
    }
    let mut slot = resource("slot", slots, children);
    slot.label = Some("task".into());
    match nodes {
        None => slot,
        Some(n) => {
            let mut node = resource("node", n, vec![slot]);
            node.exclusive = exclusive.then_some(true);
            node
        }
    }
}

impl Shape {
    fn build(self) -> Result<(Vec<Resource>, TaskCount), BuildError> {
        match self {
            Shape::Explicit(resources) => Ok((resources, TaskCount::PerSlot(1))),
            Shape::PerTask {
                tasks,
                cores,
                gpus,
                nodes,
                exclusive,
            } => {
                let counts = [("task count", tasks), ("cores per task", cores)];
                let nodes_count = nodes.map(|n| ("node count", n));
                if let Some((what, _)) = counts.into_iter().chain(nodes_count).find(|c| c.1 == 0) {
                    return Err(BuildError::Zero(what));
                }
                let Some(n) = nodes else {
                    if exclusive {
                        return Err(BuildError::ExclusiveWithoutNodes);
                    }
                    let slots = tree(None, false, tasks, cores, gpus);
                    return Ok((vec![slots], TaskCount::PerSlot(1)));
                };
                if n > tasks {
                    return Err(BuildError::MoreNodesThanTasks);
                }
                // Uneven tasks leave slots unused, so the total must be said.
                let count = match tasks % n {
                    0 => TaskCount::PerSlot(1),
                    _ => TaskCount::Total(tasks),
                };
                let nodes = tree(nodes, exclusive, tasks.div_ceil(n), cores, gpus);
                Ok((vec![nodes], count))
            }
            Shape::PerResource {
                cores,
                nodes,
                gpus_per_node,
                exclusive,
            } => {
                if nodes.is_none() && exclusive {
                    return Err(BuildError::ExclusiveWithoutNodes);
                }
                if nodes.is_none() && gpus_per_node > 0 {
                    return Err(BuildError::GpusWithoutNodes);
                }
                let (slots, slot_cores) = match (nodes, cores) {
                    (Some(0), _) => return Err(BuildError::Zero("node count")),
                    (_, Some(0)) => return Err(BuildError::Zero("core count")),
                    (Some(n), Some(c)) if c < n => return Err(BuildError::FewerCoresThanNodes),
                    (Some(n), Some(c)) if c % n != 0 => return Err(BuildError::UnevenCores),
                    (Some(n), Some(c)) => (1, c / n),
                    (None, Some(c)) => (c, 1),
                    (Some(_), None) if exclusive => (1, 1),
                    (Some(_), None) => return Err(BuildError::NodesAlone),
                    (None, None) => return Err(BuildError::NoResources),
                };
                let resources = tree(nodes, exclusive, slots, slot_cores, gpus_per_node);
                Ok((vec![resources], TaskCount::PerSlot(1)))
            }
        }
    }
}

/// Splits `KEY[=VALUE]` of `--setopt` and `--setattr`: a value that is JSON is taken as such,
/// anything else as a string, and a missing value is 1.
pub fn parse_key_value(text: &str) -> (&str, Value) {
    match text.split_once('=') {
        None => (text, json!(1)),
        Some((key, value)) => (
            key,
            serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned())),
        ),
    }
}
