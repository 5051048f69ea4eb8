//! `flux hostlist`: combine and show lists of hosts.

use std::io::BufRead;

use clap::Parser;
use client::Handle;
use formats::{Hostlist, Idset, JobId};

use crate::args::{Args, with_line_ends};
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::output::outln;

/// Combine and show lists of hosts.
///
/// SOURCES are: instance (all hosts), local (hosts of the enclosing job, or of the instance), avail
/// (those that are up and not drained), a job id, stdin or -, or hosts.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Options {
    /// Print hosts one by one
    #[arg(short, long, conflicts_with = "count")]
    expand: bool,
    /// What separates hosts with --expand
    #[arg(short, long, value_name = "S", default_value = " ")]
    delimiter: String,
    /// Print the number of hosts
    #[arg(short, long)]
    count: bool,
    /// Only hosts at these positions (-IDS counts from the end)
    #[arg(short, long, value_name = "[-]IDS", allow_hyphen_values = true)]
    nth: Option<String>,
    /// Print the positions of hosts
    #[arg(short = 'F', long, value_name = "HOSTS")]
    find: Option<String>,
    /// At most N hosts (-N: the last N)
    #[arg(short = 'L', long, value_name = "N", allow_negative_numbers = true)]
    limit: Option<i64>,
    /// Sort hosts
    #[arg(short = 'S', long)]
    sort: bool,
    /// Without these hosts, or positions
    #[arg(short = 'x', long, value_name = "IDS|HOSTS")]
    exclude: Option<String>,
    /// Each host once
    #[arg(short, long, alias = "unique")]
    union: bool,
    /// Hosts that are in all lists
    #[arg(short, long, conflicts_with_all = ["minus", "xor"])]
    intersect: bool,
    /// Hosts of the first list without those of the others
    #[arg(short, long, conflicts_with = "xor")]
    minus: bool,
    /// Hosts that are in one list only
    #[arg(short = 'X', long)]
    xor: bool,
    /// A job id that is not found is a host name
    #[arg(short, long)]
    fallback: bool,
    /// Without sources: local rather than standard input
    #[arg(short, long)]
    local: bool,
    /// Print nothing; fail if the list is empty
    #[arg(short, long)]
    quiet: bool,
    /// Lists
    sources: Vec<String>,
}

fn expand(text: &str) -> Result<Hostlist, Failure> {
    text.parse()
        .map_err(|_| Failure::new(format!("Invalid jobid or hostlist {text}")))
}

/// Lists from an instance, opened when first needed.
#[derive(Default)]
struct Source {
    handle: Option<Handle>,
}

impl Source {
    async fn handle(&mut self) -> Result<&Handle, Failure> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => Handle::open(None).await?,
        };
        Ok(self.handle.insert(handle))
    }

    async fn instance(&mut self) -> Result<Hostlist, Failure> {
        let hosts = self
            .handle()
            .await?
            .getattr("hostlist")
            .await
            .context("hostlist")?;
        expand(&hosts)
    }

    async fn job(&mut self, text: &str, id: JobId, fallback: bool) -> Result<Hostlist, Failure> {
        let handle = self.handle().await?;
        let attrs = ["nodelist".to_owned()];
        match crate::jobs::list_id(handle, id, &attrs).await {
            Err(e) if e.errno == libc::ENOENT && fallback => expand(text),
            Err(e) if e.errno == libc::ENOENT => Err(Failure::new(format!("job {text} not found"))),
            job => {
                let job = job.context(format!("job {text}"))?;
                let nodes = job.get("nodelist").and_then(serde_json::Value::as_str);
                expand(nodes.unwrap_or(""))
            }
        }
    }

    async fn local(&mut self) -> Result<Hostlist, Failure> {
        match std::env::var("FLUX_JOB_ID") {
            Ok(text) => {
                let id = crate::jobid::parse(&text)?;
                self.job(&text, id, false).await
            }
            Err(_) => self.instance().await,
        }
    }

    async fn available(&mut self) -> Result<Hostlist, Failure> {
        let hosts = self.local().await?;
        let ranks = crate::cmd::resource::available(self.handle().await?).await?;
        let hosts = hosts.iter().enumerate();
        let kept = hosts.filter(|(i, _)| u32::try_from(*i).is_ok_and(|i| ranks.contains(i)));
        Ok(kept.map(|(_, host)| host).collect())
    }

    async fn list(&mut self, word: &str, fallback: bool) -> Result<Hostlist, Failure> {
        match word {
            "instance" => self.instance().await,
            "local" => self.local().await,
            "avail" | "available" => self.available().await,
            "stdin" | "-" => {
                let mut hosts = Hostlist::new();
                for line in std::io::stdin().lock().lines() {
                    hosts.append(&expand(line?.trim_end())?);
                }
                Ok(hosts)
            }
            word => match word.parse() {
                Ok(id) => self.job(word, id, fallback).await,
                Err(_) => expand(word),
            },
        }
    }
}

impl Options {
    fn combine(&self, lists: Vec<Hostlist>) -> Hostlist {
        let mut lists = lists.into_iter();
        let mut out = lists.next().unwrap_or_default();
        for list in lists {
            if self.intersect {
                out = out.intersection(&list);
                out.uniq();
            } else if self.minus {
                out.subtract(&list);
            } else if self.xor {
                out = out.symmetric_difference(&list);
                out.uniq();
            } else {
                out.append(&list);
            }
        }
        out
    }

    fn exclude(list: Hostlist, exclude: &str) -> Result<Hostlist, Failure> {
        let kept = list.difference(&expand(exclude)?);
        if kept.len() < list.len() {
            return Ok(kept);
        }
        // No such hosts: perhaps positions.
        let Ok(ids) = exclude.parse::<Idset>() else {
            return Ok(list);
        };
        let hosts = list.iter().enumerate();
        let kept = hosts.filter(|(i, _)| !u32::try_from(*i).is_ok_and(|i| ids.contains(i)));
        Ok(kept.map(|(_, host)| host).collect())
    }

    fn nth(list: &Hostlist, text: &str) -> Result<Hostlist, Failure> {
        let fault = || Failure::new("Hostlist index out of range");
        let (text, from_end) = match text.strip_prefix('-') {
            Some(text) => (text, true),
            None => (text, false),
        };
        let ids: Idset = text
            .parse()
            .map_err(|e| Failure::new(format!("--nth: {e}")))?;
        let at = |i: u32| match from_end {
            true => list.len().checked_sub(i as usize),
            false => Some(i as usize),
        };
        let pick = |i| at(i).and_then(|at| list.nth(at)).ok_or_else(fault);
        match from_end {
            true => ids.iter().rev().map(pick).collect(),
            false => ids.iter().map(pick).collect(),
        }
    }

    fn find(list: &Hostlist, wanted: &str) -> Result<String, Failure> {
        let wanted = expand(wanted)?;
        let missing = wanted.difference(list);
        if !missing.is_empty() {
            let plural = if missing.len() == 1 { "" } else { "s" };
            return Err(Failure::new(format!("host{plural} '{missing}' not found")));
        }
        let index = list.index();
        let positions = wanted.iter().filter_map(|host| index.find(&host));
        Ok(positions
            .map(|i| i.to_string())
            .collect::<Vec<_>>()
            .join(" "))
    }

    /// The resulting hosts.
    fn result(&self, lists: Vec<Hostlist>) -> Result<Hostlist, Failure> {
        let mut list = self.combine(lists);
        if let Some(exclude) = &self.exclude {
            list = Self::exclude(list, exclude)?;
        }
        if self.sort {
            list.sort();
        }
        if self.union {
            list.uniq();
        }
        if let Some(limit) = self.limit.filter(|l| *l != 0) {
            let count = usize::try_from(limit.unsigned_abs())
                .unwrap_or(usize::MAX)
                .min(list.len());
            list = match limit > 0 {
                true => list.iter().take(count).collect(),
                false => list.iter().skip(list.len() - count).collect(),
            };
        }
        match &self.nth {
            Some(text) => Self::nth(&list, text),
            None => Ok(list),
        }
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let mut options: Options = args.parse_or(2)?;
    if options.sources.is_empty() {
        let source = if options.local { "local" } else { "stdin" };
        options.sources.push(source.to_owned());
    }
    let lists = block_on(async {
        let mut source = Source::default();
        let mut lists = Vec::new();
        for word in &options.sources {
            lists.push(source.list(word, options.fallback).await?);
        }
        Ok(lists)
    })?;
    let list = options.result(lists)?;
    let text = if let Some(wanted) = &options.find {
        Some(Options::find(&list, wanted)?)
    } else if options.count {
        Some(list.len().to_string())
    } else if list.is_empty() {
        None
    } else if options.expand {
        let hosts: Vec<String> = list.iter().collect();
        Some(hosts.join(&with_line_ends(&options.delimiter)))
    } else {
        Some(list.to_string())
    };
    if options.quiet {
        return Ok(u8::from(list.is_empty()));
    }
    if let Some(text) = text {
        outln!("{text}");
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(words: &[&str]) -> String {
        let options =
            Options::try_parse_from(std::iter::once("hostlist").chain(words.iter().copied()))
                .unwrap();
        let lists = options.sources.iter().map(|s| expand(s).unwrap()).collect();
        match options.result(lists) {
            Ok(list) => list.to_string(),
            Err(e) => e.message,
        }
    }

    #[test]
    fn combinations() {
        let cases: &[(&[&str], &str)] = &[
            (&["foo[1-3]", "foo2"], "foo[1-3,2]"),
            (&["-u", "foo[1-3]", "foo2"], "foo[1-3]"),
            (&["-i", "foo[1-3]", "foo[2-9]"], "foo[2-3]"),
            (&["-m", "foo[1-3]", "foo2"], "foo[1,3]"),
            (&["-X", "foo[1-3]", "foo[3-4]"], "foo[1-2,4]"),
            (&["-S", "foo3", "foo1"], "foo[1,3]"),
            (&["-L", "2", "foo[1-9]"], "foo[1-2]"),
            (&["-L", "-2", "foo[1-9]"], "foo[8-9]"),
            (&["-n", "0,2", "foo[1-9]"], "foo[1,3]"),
            (&["-n", "-1-2", "foo[1-9]"], "foo[8-9]"),
            (&["-n", "9", "foo[1-9]"], "Hostlist index out of range"),
            (&["-x", "foo[2-3]", "foo[1-4]"], "foo[1,4]"),
            (&["-x", "0", "foo[1-4]"], "foo[2-4]"),
        ];
        for (words, expected) in cases {
            assert_eq!(result(words), *expected, "{words:?}");
        }
    }
}
