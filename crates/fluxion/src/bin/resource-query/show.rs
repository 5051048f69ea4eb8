//! Commands that show something.

use crate::session::{Record, Session, read_file};
use anyhow::{Context as _, Result, bail};
use fluxion::find::Criteria;
use fluxion::write::{Format, Frame, push_map};
use std::io::Write;
use std::time::Duration;

impl Session {
    pub(crate) fn show_load(&mut self, took: Duration) -> Result<()> {
        let graph = self.context.graph();
        let mut names: Vec<String> = graph.vertices().map(|v| graph.name(v)).collect();
        names.sort_unstable();
        names.dedup();
        println!("INFO: Graph Load Time: {}", took.as_secs_f64());
        println!("INFO: Vertex Count: {}", graph.len());
        println!("INFO: Edge Count: {}", graph.edges());
        println!("INFO: by_type Key-Value Pairs: {}", graph.kinds().count());
        println!("INFO: by_name Key-Value Pairs: {}", names.len());
        let others: usize = graph.vertices().map(|v| graph.other_paths(v).len()).sum();
        let rooted = graph.subtree(graph.root()).len();
        println!("INFO: by_path Key-Value Pairs: {}", rooted + others);
        let mut counts = std::collections::BTreeMap::new();
        for v in graph.vertices() {
            *counts.entry(graph.rank(v)).or_insert(0u64) += 1;
        }
        for (rank, count) in counts {
            println!("INFO: number of vertices with rank {rank}: {count}");
        }
        Ok(())
    }

    pub(crate) fn show_no_path(&mut self, path: &str) -> Result<()> {
        Ok(writeln!(
            self.out,
            "Could not find path {path} in resource graph."
        )?)
    }

    pub(crate) fn find(&mut self, args: &[&str]) -> Result<()> {
        if args.is_empty() {
            bail!("malformed command");
        }
        let text = args.join(" ");
        let criteria = Criteria::parse(&text)?;
        let selection = self.context.find(&criteria);
        let context = &self.context;
        let mut usage = |v, out: &mut String| {
            if !criteria.shows_usage() {
                return;
            }
            let shown = context.usage(v, criteria.job(), 0);
            let lines: Vec<(String, String)> = shown
                .into_iter()
                .map(|(kind, used, total)| (kind, format!("used:{used}, total:{total}")))
                .collect();
            push_map(
                out,
                "agfilter",
                lines.iter().map(|(k, v)| (k.as_str(), v.as_str())),
            );
        };
        let format = match self.format {
            Format::JgfShorthand => Format::Jgf,
            Format::Rv1Shorthand => Format::Rv1,
            other => other,
        };
        if !selection.is_empty() {
            let text = format.write_with(context.graph(), &selection, Frame::default(), &mut usage);
            write!(self.out, "{text}")?;
        }
        self.rule()?;
        writeln!(self.out, "INFO: EXPRESSION=\"{text}\"")?;
        self.rule()
    }

    pub(crate) fn get_property(&mut self, args: &[&str]) -> Result<()> {
        let [path] = args else {
            bail!("malformed command")
        };
        let Ok(found) = self.context.at(path) else {
            return self.show_no_path(path);
        };
        let graph = self.context.graph();
        for v in found {
            let Some(properties) = graph.properties(v) else {
                let uniq = graph.uniq(v);
                writeln!(
                    self.out,
                    "No properties were found for {path} (vtx's uniq_id={uniq})."
                )?;
                continue;
            };
            for (name, value) in properties {
                writeln!(self.out, "{name}={value}")?;
            }
        }
        Ok(())
    }

    pub(crate) fn get_status(&mut self, args: &[&str]) -> Result<()> {
        let [path] = args else {
            bail!("malformed command")
        };
        let Ok(found) = self.context.at(path) else {
            return self.show_no_path(path);
        };
        for v in found {
            let status = if self.context.graph().is_up(v) {
                "up"
            } else {
                "down"
            };
            writeln!(self.out, "{path} is {status}")?;
        }
        Ok(())
    }

    pub(crate) fn list(&mut self, _: &[&str]) -> Result<()> {
        for (job, record) in &self.records {
            show_record(*job, record);
        }
        Ok(())
    }

    pub(crate) fn info(&mut self, args: &[&str]) -> Result<()> {
        let [job] = args else {
            bail!("malformed command")
        };
        let record = job
            .parse()
            .ok()
            .and_then(|id: i64| Some((id, self.records.get(&id)?)));
        let (id, record) = record.with_context(|| format!("nonexistent job {job}"))?;
        show_record(id, record);
        Ok(())
    }

    pub(crate) fn stat(&mut self, args: &[&str]) -> Result<()> {
        if !args.is_empty() {
            bail!("malformed command");
        }
        let (least, most, all) = self.times.unwrap_or_default();
        let jobs = self.records.len();
        println!("INFO: Num. of Jobs Matched: {jobs}");
        println!("INFO: Min. Match Time: {}", least.as_secs_f64());
        println!("INFO: Max. Match Time: {}", most.as_secs_f64());
        println!(
            "INFO: Avg. Match Time: {}",
            all.as_secs_f64() / jobs.max(1) as f64
        );
        Ok(())
    }

    pub(crate) fn cat(&mut self, args: &[&str]) -> Result<()> {
        let [file] = args else {
            bail!("malformed command")
        };
        let text = read_file(file)?;
        print!("{text}");
        println!("INFO: Jobspec in {file}");
        Ok(())
    }
}

fn show_record(job: i64, record: &Record) {
    let Record {
        state,
        start,
        file,
        took,
    } = record;
    println!(
        "INFO: {job}, {}, {start}, {file}, {}",
        state.text(),
        took.as_secs_f64()
    );
}
