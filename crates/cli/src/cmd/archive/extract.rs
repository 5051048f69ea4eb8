//! `flux archive list` and `extract`.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use client::Handle;
use filemap::{Target, stored};
use formats::archive::{Entry, Object};
use formats::fsd;
use serde_json::Value;

use super::{Directory, Which, missing, select};
use crate::error::{Failure, Outcome};
use crate::output::outln;

#[derive(Parser)]
pub(in crate::cmd) struct List {
    #[command(flatten)]
    pub(in crate::cmd) which: Which,
    /// Show type, permissions and size
    #[arg(short, long)]
    long: bool,
    /// Show the objects as they are stored, in JSON
    #[arg(long)]
    raw: bool,
    /// Files whose paths match this glob
    pattern: Option<String>,
}

#[derive(Parser)]
pub(in crate::cmd) struct Extract {
    #[command(flatten)]
    pub(in crate::cmd) which: Which,
    #[command(flatten)]
    pub(super) directory: Directory,
    /// List the files, do not unpack them
    #[arg(short = 't', long)]
    list_only: bool,
    /// Show the files on standard error
    #[arg(short, long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = 0)]
    verbose: u8,
    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,
    /// Wait for the archive, no longer than this if it is given
    #[arg(long, value_name = "FSD", num_args = 0..=1, require_equals = true, default_missing_value = "infinity", value_parser = fsd::parse)]
    waitcreate: Option<f64>,
    /// Files whose paths match this glob
    pattern: Option<String>,
}

/// An entry as a line, in short or in full.
fn line(entry: &Entry, long: bool) -> String {
    if !long {
        return entry.path.clone();
    }
    let (kind, size) = match &entry.object {
        Object::Directory => ('d', 0),
        Object::Symlink(_) => ('l', 0),
        Object::Json(_) => ('f', 0),
        Object::Text(text) => ('f', text.len() as u64),
        Object::Binary(bytes) => ('f', bytes.len() as u64),
        Object::Empty(size) | Object::Blobs { size, .. } => ('f', *size),
    };
    let (permissions, path) = (entry.permissions & 0o777, &entry.path);
    format!("{kind} 0{permissions:o} {size:>8} {path}")
}

fn list(objects: Vec<Value>, long: bool) -> Outcome {
    for entry in stored::entries(objects)? {
        outln!("{}", line(&entry, long));
    }
    Ok(0)
}

impl List {
    pub(super) async fn run(&self, handle: &Handle) -> Outcome {
        let objects = self.which.objects(handle, self.pattern.as_deref()).await?;
        if self.raw {
            objects.iter().for_each(|object| outln!("{object}"));
            return Ok(0);
        }
        list(objects, self.long)
    }
}

impl Extract {
    /// The archive, once it is there.
    async fn wait(&self, handle: &Handle, limit: f64) -> Result<Vec<Value>, Failure> {
        let which = &self.which;
        let appears = stored::objects(handle, which.namespace(), &which.name, true);
        let late = || {
            let key = which.key();
            Failure::new(format!("{key}: key was not created within timeout window"))
        };
        // Durations that are too long for a clock are for ever.
        let objects = match Duration::try_from_secs_f64(limit) {
            Ok(limit) => tokio::time::timeout(limit, appears)
                .await
                .map_err(|_| late())?,
            Err(_) => appears.await,
        };
        objects?.ok_or_else(|| missing(&which.key()))
    }

    pub(super) async fn run(&self, handle: &Handle) -> Outcome {
        let objects = match self.waitcreate {
            Some(limit) => select(self.wait(handle, limit).await?, self.pattern.as_deref()),
            None => self.which.objects(handle, self.pattern.as_deref()).await?,
        };
        if self.list_only {
            return list(objects, self.verbose > 0);
        }
        let entries = stored::entries(objects)?;
        let target = Target::new(Path::new("."), self.overwrite)?;
        let began = async |entry: &Entry| {
            if self.verbose > 0 {
                eprintln!("{}", entry.path);
            }
        };
        match stored::extract(handle, &entries, target, began).await {
            Err(e @ filemap::Error::Exists(_)) => {
                Err(Failure::new(format!("{e}: use --overwrite to replace it")))
            }
            done => Ok(done.map(|()| 0)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = Object::Text("x".repeat(2048));
        let lines = [
            Entry::new("a", 0o4644, text),
            Entry::new("b", 0o755, Object::Directory),
            Entry::new("c", 0o777, Object::Symlink("a".into())),
        ];
        let long = lines.map(|entry| line(&entry, true)).join("\n");
        assert_eq!(
            long,
            "f 0644     2048 a\nd 0755        0 b\nl 0777        0 c"
        );
    }
}
