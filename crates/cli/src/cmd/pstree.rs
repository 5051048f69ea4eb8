<<<<<<< HEAD
//! `flux pstree`: the jobs of an instance and of the instances among them, as a tree.
//!
//! Leaves that look the same are drawn once with their number. A job is a parent if it runs an
//! instance; one that cannot be asked is drawn without children.

use std::collections::HashMap;

use clap::Parser;
use client::{Handle, Node};
use formats::job::JobState;
=======
//! `flux pstree`: jobs and the jobs of the instances they run, as a tree.

use clap::Parser;
use client::Handle;
>>>>>>> cli2
use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::cmd::jobs::{add_instances, reachable};
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::format::{Format, cut};
use crate::jobid::JobIdArg;
use crate::jobs::{Filter, HEADINGS, Job, Query};
<<<<<<< HEAD
use crate::output::outln;

/// Show jobs as a tree.
#[derive(Parser)]
struct Options {
    /// Jobs in all states
    #[arg(short, long)]
    all: bool,
    /// At most N jobs of each instance
    #[arg(short, long, value_name = "N", default_value_t = 1000)]
    count: i64,
    /// Jobs in these states or with these results
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Option<String>,
    /// Print details before the tree
    #[arg(short = 'x', long)]
    extended: bool,
    /// Do not cut lines off at the terminal's width
    #[arg(short, long)]
    long: bool,
    /// Descend N levels only
    #[arg(short = 'L', long, value_name = "N", default_value_t = 999)]
    level: u32,
    /// Put job ids before the labels of instances
    #[arg(short, long)]
    parent_ids: bool,
    /// No headings over details
    #[arg(short, long)]
    no_header: bool,
    /// Draw like jobs one by one
    #[arg(short = 'X', long)]
    no_combine: bool,
    /// What is shown of a job
    #[arg(short = 'o', long, value_name = "FORMAT")]
    label: Option<String>,
    /// What is shown of an instance
    #[arg(long, value_name = "FORMAT")]
    parent_label: Option<String>,
    /// What is shown before the tree
    #[arg(long, value_name = "FORMAT")]
    detail_format: Option<String>,
    /// Details by name: default, resources, progress, stats
    #[arg(short, long, value_name = "NAME")]
    details: Option<String>,
    /// Narrow lines
    #[arg(short = 'C', long, conflicts_with = "ascii")]
    compact: bool,
    /// Lines of ASCII characters
    #[arg(long)]
    ascii: bool,
    /// Leave the enclosing instance out: yes or no
    #[arg(long, value_name = "[yes|no]")]
    skip_root: Option<YesNo>,
    /// Only these jobs
    jobid: Vec<JobIdArg>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum YesNo {
    Yes,
    No,
}

=======
use crate::output;

/// Details by name.
>>>>>>> cli2
const DETAILS: [(&str, &str); 4] = [
    (
        "default",
        "{id.f58:>12} {username:<8.8} {status_abbrev:>2.2} {ntasks:>6h} {nnodes:>6h} \
         {runtime!F:>8h}",
    ),
    (
        "resources",
<<<<<<< HEAD
        "{id.f58:>12} {instance.resources.all.nnodes:>5} \
         {instance.resources.allocated.nnodes:>5} {instance.resources.all.ncores:>5} \
         {instance.resources.allocated.ncores:>5} {instance.resources.all.ngpus:>5} \
         {instance.resources.allocated.ngpus:>5}",
=======
        "{id.f58:>12} {instance.resources.all.nnodes:>5} {instance.resources.allocated.nnodes:>5} \
         {instance.resources.all.ncores:>5} {instance.resources.allocated.ncores:>5} \
         {instance.resources.all.ngpus:>5} {instance.resources.allocated.ngpus:>5}",
>>>>>>> cli2
    ),
    (
        "progress",
        "{id.f58:>12} {ntasks:>6h} {instance.stats.total:>6} {instance.progress!P:>5} \
         {instance.utilization!P:>5} {instance.gpu_utilization!P:>5} {runtime!H:>10}",
    ),
    ("stats", "{id.f58:>12} {instance.stats:^25} {runtime!H:>10}"),
];

<<<<<<< HEAD
/// The characters of a tree: beside later siblings, before a child, before the last, nothing.
struct Style {
    pipe: &'static str,
    tee: &'static str,
    elbow: &'static str,
    blank: &'static str,
}

const BOX: Style = Style {
    pipe: "│   ",
    tee: "├── ",
    elbow: "└── ",
    blank: "    ",
};
const COMPACT: Style = Style {
    pipe: "│ ",
    tee: "├─",
    elbow: "└─",
    blank: "  ",
};
const ASCII: Style = Style {
    pipe: "|   ",
    tee: "|-- ",
    elbow: "`-- ",
    blank: "    ",
};

/// A part of the tree.
#[derive(Debug, Clone, PartialEq, Default)]
struct Tree {
    /// Details with a blank after them, or nothing.
    prefix: String,
    label: String,
    /// How many like leaves this one stands for.
    number: usize,
    children: Vec<Tree>,
}

/// One tree for all leaves that look the same, at the place of the first.
fn combine(trees: Vec<Tree>) -> Vec<Tree> {
    let mut out: Vec<Tree> = Vec::new();
    let mut leaves: HashMap<(String, String), usize> = HashMap::new();
    for tree in trees {
        if tree.children.is_empty() {
            let key = (tree.prefix.clone(), tree.label.clone());
            if let Some(at) = leaves.get(&key) {
                out[*at].number += 1;
                continue;
            }
            leaves.insert(key, out.len());
        }
        out.push(tree);
    }
    out
}

impl Tree {
    fn text(&self) -> String {
        match self.number {
            0 | 1 => self.label.clone(),
            n => format!("{n}*[{}]", self.label),
        }
    }

    fn lines(&self, style: &Style, lead: &str, connector: &str, out: &mut Vec<String>) {
        out.push(format!("{}{lead}{connector}{}", self.prefix, self.text()));
        let lead = match connector {
            "" => lead.to_owned(),
            c if c == style.tee => format!("{lead}{}", style.pipe),
            _ => format!("{lead}{}", style.blank),
        };
        for (i, child) in self.children.iter().enumerate() {
            let last = i + 1 == self.children.len();
            let connector = if last { style.elbow } else { style.tee };
            child.lines(style, &lead, connector, out);
=======
/// Show jobs as a tree.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Options {
    /// Jobs in all states
    #[arg(short, long)]
    all: bool,
    /// At most N jobs of an instance
    #[arg(short, long, value_name = "N", default_value_t = 1000)]
    count: i64,
    /// Jobs with these states or results
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Option<String>,
    /// Print details before the tree
    #[arg(short = 'x', long)]
    extended: bool,
    /// Do not cut long lines
    #[arg(short, long)]
    long: bool,
    /// Descend only N levels
    #[arg(short = 'L', long, value_name = "N", default_value_t = 999)]
    level: u32,
    /// Job ids in labels of instances
    #[arg(short, long)]
    parent_ids: bool,
    /// No heading with --extended
    #[arg(short, long)]
    no_header: bool,
    /// Show each of several jobs that look the same
    #[arg(short = 'X', long)]
    no_combine: bool,
    /// Format of labels
    #[arg(short = 'o', long, value_name = "FORMAT")]
    label: Option<String>,
    /// Format of labels of instances
    #[arg(long, value_name = "FORMAT")]
    parent_label: Option<String>,
    /// Format of details
    #[arg(long, value_name = "FORMAT")]
    detail_format: Option<String>,
    /// Details by name: default, resources, progress, stats
    #[arg(short, long, value_name = "NAME")]
    details: Option<String>,
    /// Narrow lines
    #[arg(short = 'C', long)]
    compact: bool,
    /// Lines of ASCII characters
    #[arg(long)]
    ascii: bool,
    /// Leave out the enclosing instance
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    skip_root: Option<String>,
    /// Only these jobs
    #[arg(value_name = "JOBID")]
    jobids: Vec<JobIdArg>,
}

/// A node of the tree.
#[derive(Debug, Default)]
struct Tree {
    label: String,
    /// Details, before the lines of the tree.
    prefix: String,
    /// How many nodes this one stands for.
    count: usize,
    children: Vec<Tree>,
}

/// Text that draws the tree: beside a child, at a child, at the last child, below it.
struct Lines([&'static str; 4]);

const BOX: Lines = Lines(["│   ", "├── ", "└── ", "    "]);
const ASCII: Lines = Lines(["|   ", "|-- ", "`-- ", "    "]);
const COMPACT: Lines = Lines(["│ ", "├─", "└─", "  "]);

impl Tree {
    fn new(label: String, prefix: String) -> Tree {
        let prefix = if prefix.is_empty() {
            prefix
        } else {
            prefix + " "
        };
        Tree {
            label,
            prefix,
            count: 1,
            children: Vec::new(),
        }
    }

    /// Add a child; a leaf that looks like another is counted with it.
    fn push(&mut self, child: Tree, combine: bool) {
        let same = self.children.iter_mut().find(|c| {
            combine && c.children.is_empty() && c.prefix == child.prefix && c.label == child.label
        });
        match same {
            Some(twin) if child.children.is_empty() => twin.count += 1,
            _ => self.children.push(child),
        }
    }

    fn render(
        &self,
        lines: &Lines,
        stem: &str,
        connector: &str,
        width: Option<usize>,
        out: &mut String,
    ) {
        let label = match self.count {
            0 | 1 => self.label.clone(),
            n => format!("{n}*[{}]", self.label),
        };
        let line = format!("{}{stem}{connector}{label}", self.prefix);
        out.push_str(&cut(line, width));
        out.push('\n');
        let Lines([beside, tee, elbow, blank]) = lines;
        // The connector of this node turns into what stands beside its children.
        let stem = match connector {
            "" => stem.to_owned(),
            c if c == *elbow => format!("{stem}{blank}"),
            _ => format!("{stem}{beside}"),
        };
        for (i, child) in self.children.iter().enumerate() {
            let connector = if i + 1 == self.children.len() {
                elbow
            } else {
                tee
            };
            child.render(lines, &stem, connector, width, out);
>>>>>>> cli2
        }
    }
}

<<<<<<< HEAD
/// What is shown of jobs, and which.
struct Show {
    label: Format,
    parent: Format,
    prefix: Option<Format>,
    filter: Filter,
    count: i64,
    level: u32,
    combine: bool,
}

impl Show {
    fn new(options: &Options) -> Result<Self, Failure> {
        let default = if options.all {
=======
/// Formats of the parts of a line.
struct Labels {
    label: Format,
    parent: Format,
    prefix: Option<Format>,
}

impl Labels {
    fn new(options: &Options) -> Result<Labels, Failure> {
        let plain = if options.all {
>>>>>>> cli2
            "{name}:{status_abbrev}"
        } else {
            "{name}"
        };
<<<<<<< HEAD
        let label = options.label.as_deref().unwrap_or(default);
        let parent = options.parent_label.as_deref().or(options.label.as_deref());
        let parent = parent.unwrap_or("{name}");
        let parent = match options.parent_ids {
            true => format!("{{id.f58}} {parent}"),
            false => parent.to_owned(),
        };
        let name = match &options.details {
            Some(name) => Some(name.as_str()),
            None => options.extended.then_some("default"),
        };
        let named = |name: &str| {
            let found = DETAILS.iter().find(|(known, _)| *known == name);
            let unknown = || Failure::new(format!("Unknown --details format '{name}'"));
            found.map(|(_, format)| *format).ok_or_else(unknown)
        };
        let details = match &options.detail_format {
            Some(format) => Some(format.as_str()),
            None => name.map(named).transpose()?,
        };
        let mut filter = Filter::default();
        filter.add(match (options.all, &options.filter) {
            (true, _) => "pending,running,inactive",
            (false, Some(words)) => words,
            (false, None) => "running",
        })?;
        Ok(Self {
            label: Format::parse(label, HEADINGS)?,
            parent: Format::parse(&parent, HEADINGS)?,
            prefix: details.map(|d| Format::parse(d, HEADINGS)).transpose()?,
            filter,
            count: options.count,
            level: options.level,
            combine: !options.no_combine,
        })
    }

    fn needs_instances(&self) -> bool {
=======
        let label = options.label.as_deref().unwrap_or(plain);
        let parent = options.parent_label.as_deref().or(options.label.as_deref());
        let mut parent = parent.unwrap_or("{name}").to_owned();
        if options.parent_ids {
            parent = format!("{{id.f58}} {parent}");
        }
        let details = options.details.as_deref();
        let named = details.or(options.extended.then_some("default"));
        let prefix = match (&options.detail_format, named) {
            (Some(format), _) => Some(format.as_str()),
            (None, Some(name)) => {
                let found = DETAILS.iter().find(|d| d.0 == name);
                let unknown = || Failure::new(format!("Unknown --details format '{name}'"));
                Some(found.ok_or_else(unknown)?.1)
            }
            (None, None) => None,
        };
        let prefix = prefix.map(|p| Format::parse(p, HEADINGS)).transpose()?;
        Ok(Labels {
            label: Format::parse(label, HEADINGS)?,
            parent: Format::parse(&parent, HEADINGS)?,
            prefix,
        })
    }

    fn needs_instance(&self) -> bool {
>>>>>>> cli2
        let formats = [Some(&self.label), Some(&self.parent), self.prefix.as_ref()];
        let mut fields = formats.into_iter().flatten().flat_map(Format::fields);
        fields.any(|f| f.starts_with("instance."))
    }

<<<<<<< HEAD
    fn tree(&self, job: &Job, is_parent: bool) -> Result<Tree, Failure> {
        let format = if is_parent { &self.parent } else { &self.label };
        let prefix = match &self.prefix {
            Some(format) => format!("{} ", format.line(job)?),
            None => String::new(),
        };
        Ok(Tree {
            prefix,
            label: format.line(job)?,
            number: 1,
            children: Vec::new(),
        })
    }

    /// The jobs of an instance and what is below them.
    fn children<'a>(
        &'a self,
        handle: &'a Handle,
        ids: &'a [JobIdArg],
        level: u32,
    ) -> BoxFuture<'a, Result<Vec<Tree>, Failure>> {
        async move {
            let mut query = Query::new();
            query.ids = ids.to_vec();
            query.filter = self.filter;
            query.max_entries = self.count;
            let (found, errors) = query.fetch(handle).await?;
            errors.iter().for_each(|e| eprintln!("{e}"));
            let now = crate::jobs::now();
            let mut jobs: Vec<Job> = found.into_iter().map(|j| Job::new(j, now)).collect();
            if self.needs_instances() {
                add_instances(&mut jobs).await;
            }
            let trees = join_all(jobs.iter().map(|job| self.subtree(job, level))).await;
            let trees = trees.into_iter().collect::<Result<Vec<_>, _>>()?;
            Ok(if self.combine { combine(trees) } else { trees })
=======
    fn node(&self, job: &Job, is_parent: bool) -> Result<Tree, Failure> {
        let label = if is_parent { &self.parent } else { &self.label };
        let prefix = self.prefix.as_ref().map(|p| p.line(job));
        Ok(Tree::new(
            label.line(job)?,
            prefix.transpose()?.unwrap_or_default(),
        ))
    }
}

struct Loader<'a> {
    options: &'a Options,
    labels: Labels,
    filter: Filter,
}

impl Loader<'_> {
    async fn jobs(
        &self,
        uri: Option<&str>,
        filter: Filter,
        ids: &[JobIdArg],
    ) -> Result<Vec<Job>, Failure> {
        let handle = Handle::open(uri).await?;
        let mut query = Query::new();
        query.ids = ids.to_vec();
        query.filter = filter;
        query.max_entries = self.options.count;
        let (found, errors) = query.fetch(&handle).await?;
        for error in errors {
            eprintln!("{error}");
        }
        let now = formats::eventlog::timestamp(std::time::SystemTime::now());
        let mut jobs: Vec<Job> = found
            .into_iter()
            .map(|attrs| Job::new(attrs, now))
            .collect();
        if self.labels.needs_instance() {
            add_instances(&mut jobs).await;
        }
        Ok(jobs)
    }

    /// Add an instance's jobs, and those of the instances among them. One that does not answer is
    /// a node without children.
    fn load<'b>(
        &'b self,
        tree: &'b mut Tree,
        uri: Option<String>,
        level: u32,
        filter: Filter,
        ids: &'b [JobIdArg],
    ) -> BoxFuture<'b, Result<(), Failure>> {
        async move {
            if level > self.options.level {
                return Ok(());
            }
            let jobs = match self.jobs(uri.as_deref(), filter, ids).await {
                Ok(jobs) => jobs,
                Err(e) if level == 0 => return Err(e),
                Err(_) => return Ok(()),
            };
            let nodes = join_all(jobs.iter().map(|job| self.node(job, level))).await;
            for node in nodes {
                tree.push(node?, !self.options.no_combine);
            }
            Ok(())
>>>>>>> cli2
        }
        .boxed()
    }

<<<<<<< HEAD
    async fn subtree(&self, job: &Job, level: u32) -> Result<Tree, Failure> {
        let uri = job.uri().filter(|_| job.is_running());
        let mut tree = self.tree(job, uri.is_some())?;
        if let Some(uri) = uri.filter(|_| level < self.level)
            && let Ok(handle) = Handle::open(Some(&reachable(&uri))).await
        {
            // An instance may end while it is asked.
            tree.children = self
                .children(&handle, &[], level + 1)
                .await
                .unwrap_or_default();
        }
        Ok(tree)
    }
}

/// The enclosing instance as a job: the one it is, or a made-up one.
async fn root(handle: &Handle) -> Result<Job, Failure> {
    let attrs = ["size", "hostlist", "security.owner", "local-uri"].map(|n| handle.getattr(n));
    let attrs = join_all(attrs)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let now = crate::jobs::now();
    let (id, parent) = futures::join!(handle.getattr("jobid"), handle.getattr("parent-uri"));
    if let (Ok(id), Ok(parent)) = (id, parent)
        && let Ok(id) = id.parse::<JobIdArg>()
        && let Ok(parent) = Handle::open(Some(&reachable(&parent))).await
        && let Ok(job) = crate::jobs::list_id(&parent, id.id, &["all".to_owned()]).await
    {
        return Ok(Job::new(job, now));
    }
    let start = json!({ "name": "broker.starttime" });
    let start: Value = handle.call("attr.get", Node::Rank(0), &start).await?;
    let start: f64 = start["value"]
        .as_str()
        .and_then(|s| s.parse().ok())
        .unwrap_or(now);
    let size: u32 = attrs[0].parse().unwrap_or(1);
    let Value::Object(mock): Value = json!({
        "id": 0,
        "userid": attrs[2].parse::<u32>().unwrap_or(0),
        "state": JobState::Run.bit(),
        "name": ".",
        "ntasks": size,
        "nnodes": size,
        "nodelist": attrs[1],
        "ranks": format!("0-{}", size - 1),
        "t_run": start,
        "annotations": { "user": { "uri": attrs[3] } },
    }) else {
        return Ok(Job::new(Map::new(), now));
    };
    let mut job = Job::new(mock, now);
    job.is_root = true;
    Ok(job)
}

/// COLUMNS, or the terminal's width, if there is one.
fn width() -> Option<usize> {
    if let Some(columns) = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()) {
        return Some(columns);
    }
    // SAFETY: the ioctl fills the struct it is given, or fails.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) == 0).then_some(size)
    };
    size.map(|s| usize::from(s.ws_col)).filter(|n| *n > 0)
=======
    async fn node(&self, job: &Job, level: u32) -> Result<Tree, Failure> {
        let uri = job.uri().filter(|_| job.is_running());
        let mut node = self.labels.node(job, uri.is_some())?;
        if let Some(uri) = uri {
            let uri = Some(reachable(&uri));
            self.load(&mut node, uri, level + 1, self.filter, &[])
                .await?;
        }
        Ok(node)
    }

    /// The enclosing instance as a job: its job in its parent, or what it says of itself.
    async fn root(&self) -> Result<Job, Failure> {
        let handle = Handle::open(None).await?;
        let (size, jobid, parent) = futures::join!(
            handle.getattr("size"),
            handle.getattr("jobid"),
            handle.getattr("parent-uri"),
        );
        let size: u32 = size?.parse().unwrap_or(1);
        let in_parent = async {
            let id = jobid.ok()?.parse().ok()?;
            let parent = Handle::open(Some(&parent.ok()?)).await.ok()?;
            crate::jobs::list_id(&parent, id, &["all".to_owned()])
                .await
                .ok()
        };
        let known = in_parent.await;
        let is_root = known.is_none();
        let mut attrs = match known {
            Some(attrs) => attrs,
            None => mock(&handle, size).await?,
        };
        attrs.insert(
            "ranks".into(),
            json!(format!("0-{}", size.saturating_sub(1))),
        );
        let now = formats::eventlog::timestamp(std::time::SystemTime::now());
        let mut job = Job::new(attrs, now);
        job.is_root = is_root;
        if self.labels.needs_instance() {
            add_instances(std::slice::from_mut(&mut job)).await;
        }
        Ok(job)
    }
}

async fn mock(handle: &Handle, size: u32) -> Result<Map<String, Value>, Failure> {
    let get = async |name: &str| handle.getattr(name).await;
    let (uri, hosts) = (get("local-uri").await?, get("hostlist").await?);
    let owner: u32 = get("security.owner").await?.parse().unwrap_or(0);
    let mut attrs = json!({
        "id": 0, "userid": owner, "state": formats::JobState::Run.bit(), "name": ".",
        "ntasks": size, "nnodes": size, "nodelist": hosts, "annotations": {"user": {"uri": uri}},
    });
    if let Ok(start) = get("broker.starttime").await {
        attrs["t_run"] = json!(start.parse::<f64>().unwrap_or(0.));
    }
    match attrs {
        Value::Object(attrs) => Ok(attrs),
        _ => Ok(Map::new()),
    }
>>>>>>> cli2
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(2)?;
<<<<<<< HEAD
    let show = Show::new(&options)?;
    let skip_root = match options.skip_root {
        Some(word) => word == YesNo::Yes,
        None => show.prefix.is_some() || !options.jobid.is_empty(),
    };
    let style = match (options.compact, options.ascii) {
        (true, _) => &COMPACT,
        (_, true) => &ASCII,
        _ => &BOX,
    };
    let mut tree = Tree::default();
    block_on(async {
        let handle = Handle::open(None).await?;
        if !skip_root {
            let mut root = [root(&handle).await?];
            if show.needs_instances() {
                add_instances(&mut root).await;
            }
            tree = show.tree(&root[0], true)?;
        }
        tree.children = show.children(&handle, &options.jobid, 0).await?;
        Ok(())
    })?;
    let mut lines = Vec::new();
=======
    if options.ascii && options.compact {
        return Err(Failure::new("Choose only one of --ascii, --compact"));
    }
    let mut filter = Filter::default();
    match (&options.filter, options.all) {
        (_, true) => filter = Filter::everything(),
        (Some(words), false) => filter.add(words)?,
        (None, false) => filter.add("running")?,
    }
    let labels = Labels::new(&options)?;
    let skip_root = match options.skip_root.as_deref() {
        Some(answer) => answer == "yes",
        None => labels.prefix.is_some() || !options.jobids.is_empty(),
    };
    let header = labels
        .prefix
        .as_ref()
        .filter(|_| !options.no_header)
        .map(Format::header);
    let loader = Loader {
        options: &options,
        labels,
        filter,
    };
    let tree = block_on(async {
        let mut tree = match skip_root {
            true => Tree::new(".".to_owned(), String::new()),
            false => loader.labels.node(&loader.root().await?, true)?,
        };
        // Without the root, only what runs is shown of it.
        let filter = if skip_root { running()? } else { loader.filter };
        loader
            .load(&mut tree, None, 0, filter, &options.jobids)
            .await?;
        Ok(tree)
    })?;
    let lines = match (options.compact, options.ascii) {
        (true, _) => COMPACT,
        (false, true) => ASCII,
        (false, false) => BOX,
    };
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    let width = || columns().or_else(output::terminal_width).unwrap_or(132);
    let width = (!options.long).then(width);
    let mut text = header.map_or_else(String::new, |h| h + "\n");
>>>>>>> cli2
    match skip_root {
        true => tree
            .children
            .iter()
<<<<<<< HEAD
            .for_each(|c| c.lines(style, "", "", &mut lines)),
        false => tree.lines(style, "", "", &mut lines),
    }
    if let Some(format) = show.prefix.as_ref().filter(|_| !options.no_header) {
        outln!("{}", format.header());
    }
    let width = width().filter(|_| !options.long);
    for line in lines {
        outln!("{}", cut(line, width));
    }
    Ok(0)
}

=======
            .for_each(|c| c.render(&lines, "", "", width, &mut text)),
        false => tree.render(&lines, "", "", width, &mut text),
    }
    output::write(&text);
    Ok(0)
}

fn running() -> Result<Filter, Failure> {
    let mut filter = Filter::default();
    filter.add("running")?;
    Ok(filter)
}

>>>>>>> cli2
#[cfg(test)]
mod tests {
    use super::*;

<<<<<<< HEAD
    fn leaf(label: &str) -> Tree {
        Tree {
            label: label.to_owned(),
            number: 1,
            ..Tree::default()
        }
    }

    fn node(label: &str, children: Vec<Tree>) -> Tree {
        Tree {
            children: combine(children),
            ..leaf(label)
        }
    }

    #[test]
    fn like_leaves_are_drawn_once() {
        let sleeps = || vec![leaf("sleep"), leaf("hostname"), leaf("sleep")];
        let tree = node(
            ".",
            vec![
                node("flux", sleeps()),
                leaf("sleep"),
                node("flux", vec![leaf("a")]),
            ],
        );
        let draw = |style| {
            let mut lines = Vec::new();
            tree.lines(style, "", "", &mut lines);
            lines.join("\n")
        };
        insta::assert_snapshot!(draw(&BOX), @r"
        .
        ├── flux
        │   ├── 2*[sleep]
        │   └── hostname
        ├── sleep
        └── flux
            └── a
        ");
        insta::assert_snapshot!(draw(&ASCII), @r"
        .
        |-- flux
        |   |-- 2*[sleep]
        |   `-- hostname
        |-- sleep
        `-- flux
            `-- a
        ");
        assert!(draw(&COMPACT).contains("│ └─hostname"));
=======
    #[test]
    fn trees() {
        let leaf = |label: &str| Tree::new(label.to_owned(), String::new());
        let mut inner = leaf("flux");
        for label in ["sleep", "sleep", "a-job-with-a-long-name"] {
            inner.push(leaf(label), true);
        }
        let mut tree = leaf(".");
        tree.push(inner, true);
        tree.push(leaf("sleep"), true);
        let mut text = String::new();
        tree.render(&BOX, "", "", Some(20), &mut text);
        tree.render(&COMPACT, "", "", None, &mut text);
        insta::assert_snapshot!(text, @r"
        .
        ├── flux
        │   ├── 2*[sleep]
        │   └── a-job-with-+
        └── sleep
        .
        ├─flux
        │ ├─2*[sleep]
        │ └─a-job-with-a-long-name
        └─sleep
        ");
>>>>>>> cli2
    }
}
