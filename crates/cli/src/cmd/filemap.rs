//! `flux filemap`: what `flux archive` was called before, for scripts that still do.

use clap::{Parser, Subcommand};

use super::archive::{self, Create, Extract, List, Remove};
use crate::args::Args;
use crate::error::Outcome;

/// The former name of flux archive.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// As flux archive create --mmap
    Map {
        #[command(flatten)]
        create: Create,
        #[command(flatten)]
        tags: Tags,
        /// Store the content of large files
        #[arg(long)]
        disable_mmap: bool,
    },
    /// As flux archive list
    #[command(name = "list")]
    Show {
        #[command(flatten)]
        list: List,
        #[command(flatten)]
        tags: Tags,
    },
    /// As flux archive extract
    Get {
        #[command(flatten)]
        extract: Extract,
        #[command(flatten)]
        tags: Tags,
    },
    /// As flux archive remove
    Unmap {
        #[command(flatten)]
        remove: Remove,
        #[command(flatten)]
        tags: Tags,
    },
}

#[derive(clap::Args)]
struct Tags {
    /// The archive's name
    #[arg(short = 'T', long, value_name = "TAG")]
    tags: Option<String>,
}

impl Tags {
    fn apply(self, name: &mut String) {
        if let Some(tag) = self.tags {
            *name = tag;
        }
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { command } = args.parse()?;
    eprintln!("flux-filemap: this command is deprecated: use flux archive");
    archive::execute(match command {
        Command::Map {
            mut create,
            tags,
            disable_mmap,
        } => {
            create.mmap |= !disable_mmap;
            tags.apply(&mut create.which.name);
            archive::Command::Create(create)
        }
        Command::Show { mut list, tags } => {
            tags.apply(&mut list.which.name);
            archive::Command::List(list)
        }
        Command::Get { mut extract, tags } => {
            tags.apply(&mut extract.which.name);
            archive::Command::Extract(extract)
        }
        Command::Unmap { mut remove, tags } => {
            tags.apply(&mut remove.which.name);
            archive::Command::Remove(remove)
        }
    })
}
