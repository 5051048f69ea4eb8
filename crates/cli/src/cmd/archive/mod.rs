//! `flux archive`: files in the key-value store, unpacked wherever they are needed.

mod create;
mod extract;
mod remove;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use client::Handle;
use serde_json::Value;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};

pub(super) use create::Create;
pub(super) use extract::{Extract, List};
pub(super) use remove::Remove;

/// Store files in the key-value store, and unpack them anywhere.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make an archive of files
    Create(Create),
    /// List the files of an archive
    List(List),
    /// Unpack files of an archive
    Extract(Extract),
    /// Remove an archive
    Remove(Remove),
}

/// Which archive.
#[derive(clap::Args)]
pub(super) struct Which {
    /// The archive's name
    #[arg(short, long, value_name = "NAME", default_value = "main")]
    pub(super) name: String,
    /// Use the default namespace, not the primary one
    #[arg(long)]
    no_force_primary: bool,
}

impl Which {
    fn namespace(&self) -> Option<&'static str> {
        (!self.no_force_primary).then_some(kvs::PRIMARY)
    }

    fn key(&self) -> String {
        filemap::stored::key(&self.name)
    }

    /// The archive, which must be there.
    async fn objects(&self, handle: &Handle, pattern: Option<&str>) -> Result<Vec<Value>, Failure> {
        let found = filemap::stored::objects(handle, self.namespace(), &self.name, false);
        let objects = found.await?;
        let objects = objects.ok_or_else(|| missing(&self.key()))?;
        Ok(select(objects, pattern))
    }
}

fn missing(key: &str) -> Failure {
    Failure::new(format!("{key} does not exist"))
}

fn select(mut objects: Vec<Value>, pattern: Option<&str>) -> Vec<Value> {
    if let Some(pattern) = pattern {
        filemap::stored::select(&mut objects, pattern);
        if objects.is_empty() {
            eprintln!("flux-archive: no files matched pattern '{pattern}'");
        }
    }
    objects
}

/// Where files are.
#[derive(clap::Args)]
pub(super) struct Directory {
    /// Change to DIR first
    #[arg(short = 'C', long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Directory {
    fn enter(&self) -> Result<(), Failure> {
        match &self.directory {
            Some(dir) => std::env::set_current_dir(dir).context(dir.display()),
            None => Ok(()),
        }
    }
}

pub(super) fn execute(command: Command) -> Outcome {
    match &command {
        Command::Create(c) => c.directory.enter()?,
        Command::Extract(c) => c.directory.enter()?,
        Command::List(_) | Command::Remove(_) => {}
    }
    block_on(async {
        let handle = Handle::open(None).await?;
        match command {
            Command::Create(c) => c.run(&handle).await,
            Command::List(c) => c.run(&handle).await,
            Command::Extract(c) => c.run(&handle).await,
            Command::Remove(c) => c.run(&handle).await,
        }
    })
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { command } = args.parse()?;
    execute(command)
}
