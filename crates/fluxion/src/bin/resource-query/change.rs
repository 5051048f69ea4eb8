//! Commands that change what there is and who has it.

use crate::session::{Session, State, read_file};
use anyhow::{Context as _, Result, bail};
use fluxion::graph::Vertex;
use fluxion::plan::JobId;
use formats::Idset;
use std::io::Write;

fn job_id(text: &str) -> Result<JobId> {
    text.parse().with_context(|| format!("no job id: {text}"))
}

impl Session {
    pub(crate) fn cancel(&mut self, args: &[&str]) -> Result<()> {
        let (job, stats) = match args {
            [job] => (job_id(job)?, false),
            [job, word] => (job_id(job)?, *word == "stats"),
            _ => bail!("malformed command"),
        };
        let Ok(known) = self.context.cancel(job) else {
            eprintln!("cancel: ERROR: nonexistent job {job}");
            return Ok(());
        };
        if let Some(record) = self.records.get_mut(&job) {
            record.state = State::Canceled;
        }
        if stats {
            // A walk from the root looks at what the job touched and at what is beside it.
            let graph = self.context.graph();
            let touched = known.touched(graph);
            let looked = touched
                .iter()
                .map(|v| graph.children(*v).count())
                .sum::<usize>()
                + 1;
            self.show_counts("CANCEL", looked, touched.len())?;
        }
        Ok(())
    }

    fn show_counts(&mut self, what: &str, looked: usize, touched: usize) -> Result<()> {
        self.rule()?;
        writeln!(self.out, "INFO: {what} PREORDER COUNT=\"{looked}\"")?;
        writeln!(self.out, "INFO: {what} POSTORDER COUNT=\"{touched}\"")?;
        self.rule()
    }

    pub(crate) fn partial_cancel(&mut self, args: &[&str]) -> Result<()> {
        let (job, format, file, stats) = match args {
            [job, format, file] => (job_id(job)?, *format, file, false),
            [job, format, file, word] => (job_id(job)?, *format, file, *word == "stats"),
            _ => bail!("malformed command"),
        };
        if !matches!(format, "jgf" | "rv1exec") {
            bail!("unsupported reader {format}");
        }
        let text = read_file(file)?;
        if self.context.jobs().get(&job).is_none() {
            bail!("nonexistent job {job}");
        }
        if self.context.jobs()[&job].term.reserved {
            bail!("reservations not currently supported by partial cancel");
        }
        let gone = match format {
            "jgf" => self.release_jgf(job, &text),
            _ => self.release_rv1(job, &text),
        };
        let gone = gone.or_else(|error| {
            println!("{error}");
            bail!("error encountered while removing job {job}")
        })?;
        if let Some(record) = self.records.get_mut(&job).filter(|_| gone) {
            record.state = State::Canceled;
        }
        if stats {
            self.show_counts("PARTIAL CANCEL", 0, 0)?;
        }
        Ok(())
    }

    fn release_jgf(&mut self, job: JobId, text: &str) -> Result<bool> {
        let listed = self.context.listed_in_jgf(text)?;
        let listed: Vec<Vertex> = listed.iter().map(|s| s.vertex).collect();
        Ok(self.context.release_listed(job, &listed)?)
    }

    fn release_rv1(&mut self, job: JobId, text: &str) -> Result<bool> {
        let execution = fluxion::read::rv1::Execution::parse(text)?;
        let graph = self.context.graph();
        let mut tops = Vec::new();
        for rank in execution.ranks() {
            let of = graph.of_rank(i64::from(rank));
            if of.is_empty() {
                bail!("there is no rank {rank}");
            }
            tops.extend_from_slice(of);
        }
        Ok(self.context.release(job, &tops)?)
    }

    pub(crate) fn attach(&mut self, args: &[&str]) -> Result<()> {
        let [file] = args else {
            bail!("malformed command")
        };
        let text = read_file(file)?;
        self.context
            .grow(&text)
            .context("can't attach JGF subgraph")
    }

    pub(crate) fn remove(&mut self, args: &[&str]) -> Result<()> {
        let [target, is_path] = args else {
            bail!("malformed command")
        };
        let tops = match *is_path {
            "true" => self.context.at(target).context("can't remove subgraph")?,
            "false" => {
                let ranks: Idset = target.parse().ok().context("failed to decode ranks.")?;
                let graph = self.context.graph();
                ranks
                    .iter()
                    .flat_map(|r| graph.of_rank(i64::from(r)).to_vec())
                    .collect()
            }
            _ => bail!("invalid path boolean input"),
        };
        self.context
            .shrink(&tops)
            .context("can't remove subgraph")?;
        Ok(())
    }

    pub(crate) fn set_property(&mut self, args: &[&str]) -> Result<()> {
        let [path, property] = args else {
            bail!("malformed command")
        };
        let parts = property
            .split_once('=')
            .filter(|(name, value)| !name.is_empty() && !value.is_empty());
        let Some((name, value)) = parts else {
            writeln!(self.out, "Incorrect input format. ")?;
            writeln!(
                self.out,
                "Please use `set-property <resource> PROPERTY=VALUE`."
            )?;
            return Ok(());
        };
        match self.context.at(path) {
            Ok(found) => found
                .iter()
                .for_each(|v| self.context.set_property(*v, name, value)),
            Err(_) => writeln!(self.out, "Couldn't find path {path} in resource graph.")?,
        }
        Ok(())
    }

    pub(crate) fn set_status(&mut self, args: &[&str]) -> Result<()> {
        let [path, status] = args else {
            bail!("malformed command")
        };
        let Ok(found) = self.context.at(path) else {
            return self.show_no_path(path);
        };
        let up = match *status {
            "up" => true,
            "down" => false,
            _ => bail!("unrecognized status"),
        };
        found.iter().for_each(|v| self.context.mark(*v, up));
        Ok(())
    }
}
