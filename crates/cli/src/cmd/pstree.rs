//! `flux pstree`: the jobs of an instance and of the instances among them, as a tree.
//!
//! Leaves that look the same are drawn once with their number. A job is a parent if it runs an
//! instance; one that cannot be asked is drawn without children.

use std::collections::HashMap;

use clap::Parser;
use client::services::attr::GetAttr;
use client::{Handle, Node};
use formats::job::JobState;
use futures::future::{BoxFuture, FutureExt, join_all};
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::cmd::jobs::{add_instances, reachable};
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::format::{Format, cut};
use crate::jobid::JobIdArg;
use crate::jobs::{Filter, HEADINGS, Job, Query};
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

const DETAILS: [(&str, &str); 4] = [
    (
        "default",
        "{id.f58:>12} {username:<8.8} {status_abbrev:>2.2} {ntasks:>6h} {nnodes:>6h} \
         {runtime!F:>8h}",
    ),
    (
        "resources",
        "{id.f58:>12} {instance.resources.all.nnodes:>5} \
         {instance.resources.allocated.nnodes:>5} {instance.resources.all.ncores:>5} \
         {instance.resources.allocated.ncores:>5} {instance.resources.all.ngpus:>5} \
         {instance.resources.allocated.ngpus:>5}",
    ),
    (
        "progress",
        "{id.f58:>12} {ntasks:>6h} {instance.stats.total:>6} {instance.progress!P:>5} \
         {instance.utilization!P:>5} {instance.gpu_utilization!P:>5} {runtime!H:>10}",
    ),
    ("stats", "{id.f58:>12} {instance.stats:^25} {runtime!H:>10}"),
];

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
        }
    }
}

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
            "{name}:{status_abbrev}"
        } else {
            "{name}"
        };
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
        let formats = [Some(&self.label), Some(&self.parent), self.prefix.as_ref()];
        let mut fields = formats.into_iter().flatten().flat_map(Format::fields);
        fields.any(|f| f.starts_with("instance."))
    }

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
        }
        .boxed()
    }

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
    let name = "broker.starttime";
    let start = handle.ask(Node::Rank(0), &GetAttr { name }).await?;
    let start: f64 = start.value.parse().unwrap_or(now);
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
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(2)?;
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
    match skip_root {
        true => tree
            .children
            .iter()
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

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
