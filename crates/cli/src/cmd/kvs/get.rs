//! `flux kvs get`, `flux kvs readlink`.

use std::cell::Cell;

use clap::Args;
use client::{Handle, Node};
use futures::future::try_join_all;
use kvs::{TreeObj, flags};

use super::{Place, data, object};
use crate::error::{Context, Failure, Outcome};
use crate::output::{self, outln};

#[derive(Args)]
pub(super) struct Get {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    /// Print values without a newline
    #[arg(short, long)]
    raw: bool,
    /// Print the tree object
    #[arg(short, long)]
    treeobj: bool,
    /// Look up relative to a tree object
    #[arg(short, long, value_name = "TREEOBJ")]
    at: Option<String>,
    /// Print KEY= before values
    #[arg(short, long)]
    label: bool,
    /// Wait for keys to exist
    #[arg(short = 'W', long)]
    waitcreate: bool,
    /// Print new values as they are stored
    #[arg(short, long)]
    watch: bool,
    /// With --watch, only values that differ from the one before
    #[arg(short, long)]
    uniq: bool,
    /// With --watch, only what is appended
    #[arg(short = 'A', long)]
    append: bool,
    /// With --watch, also see changes of a directory above
    #[arg(short, long)]
    full: bool,
    /// With --watch, print N values
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    count: u32,
    /// Get large values in parts
    #[arg(short = 'S', long)]
    stream: bool,
    /// Keys
    #[arg(required = true)]
    key: Vec<String>,
}

impl Get {
    fn flags(&self) -> u32 {
        let watching = |on: bool, flag: u32| if on && self.watch { flag } else { 0 };
        let set = |on: bool, flag: u32| if on { flag } else { 0 };
        set(self.treeobj, flags::TREEOBJ)
            | set(self.watch, flags::WATCH)
            | watching(self.full, flags::WATCH_FULL)
            | watching(self.uniq, flags::WATCH_UNIQ)
            | watching(self.append, flags::WATCH_APPEND)
            | set(self.waitcreate, flags::WAITCREATE)
            | set(self.stream, flags::STREAM)
    }

    /// Print a value; tells whether there was anything to print.
    fn print(&self, key: &str, object: &TreeObj) -> Result<bool, Failure> {
        let mut out = match self.label {
            true => format!("{key}=").into_bytes(),
            false => Vec::new(),
        };
        let value = match self.treeobj {
            true => object.encode(),
            false => data(object).context(key)?,
        };
        out.extend_from_slice(&value);
        let newline = self.treeobj || (!self.raw && !self.stream && !value.is_empty());
        if newline {
            out.push(b'\n');
        }
        output::write_bytes(&out);
        Ok(!value.is_empty())
    }

    async fn follow(
        &self,
        handle: &Handle,
        place: &Place,
        key: &str,
        count: &Cell<u32>,
    ) -> Result<(), Failure> {
        let request = place.request(key, self.flags());
        let mut stream = handle.stream("kvs-watch.lookup", Node::Any, &request);
        let mut printed = false;
        while let Some(answer) = stream.next().await {
            let answer = answer.context(key)?;
            printed |= self.print(key, &object(&answer).context(key)?)?;
            if self.watch {
                count.set(count.get() + 1);
                if count.get() == self.count {
                    stream.cancel("kvs-watch.cancel");
                }
            }
        }
        if self.stream && printed && !self.raw {
            outln!("");
        }
        Ok(())
    }

    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let place = Place::new(self.namespace.as_deref(), self.at.as_deref())?;
        let count = Cell::new(0);
        if self.watch {
            let keys = self.key.iter();
            try_join_all(keys.map(|key| self.follow(handle, &place, key, &count))).await?;
            return Ok(0);
        }
        for key in &self.key {
            if self.stream {
                self.follow(handle, &place, key, &count).await?;
            } else {
                let object = place.lookup(handle, key, self.flags()).await.context(key)?;
                self.print(key, &object)?;
            }
        }
        Ok(0)
    }
}

#[derive(Args)]
pub(super) struct Readlink {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    /// Look up relative to a tree object
    #[arg(short, long, value_name = "TREEOBJ")]
    at: Option<String>,
    /// Print only the namespace, if the link leads into one
    #[arg(short = 'o', long)]
    namespace_only: bool,
    /// Print only the key
    #[arg(short, long)]
    key_only: bool,
    /// Keys
    #[arg(required = true)]
    key: Vec<String>,
}

impl Readlink {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let place = Place::new(self.namespace.as_deref(), self.at.as_deref())?;
        for key in &self.key {
            let found = place
                .lookup(handle, key, flags::READLINK)
                .await
                .context(key)?;
            let TreeObj::Symlink(link) = found else {
                return Err(Failure::new(format!("{key}: not a symbolic link")));
            };
            match &link.namespace {
                Some(namespace) if self.namespace_only => outln!("{namespace}"),
                Some(namespace) if !self.key_only => outln!("{namespace}::{}", link.target),
                _ => outln!("{}", link.target),
            }
        }
        Ok(0)
    }
}
