//! Making a damaged tree whole: what is left of its values goes to `lost+found`, lost directories are unlinked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use formats::eventlog::timestamp;
use kvs::treeobj::Dir;
use kvs::{BlobRef, TreeObj};

use super::Reporter;
use crate::error::{Context as _, Failure};
use crate::snapshot::{Checkpoint, Clash, Content, Node, Tree};

/// Where things go.
const LOST: &str = "lost+found";
/// Parts of a job's directory: `job` and its id.
const JOB: usize = 5;

/// What is wrong with a key.
pub(super) enum Damage {
    /// A value of which these blobs are left.
    Value(Arc<str>, Vec<BlobRef>),
    /// A directory that is lost.
    Dir(Arc<str>),
    /// Nothing can be done, or not now.
    Unrepairable,
}

/// The tree with the repairs made so far.
pub(super) struct Repairs<'a> {
    content: &'a Content<'a>,
    tree: Tree,
    jobs: Option<BTreeSet<Vec<String>>>,
    moved: u64,
    unlinked: u64,
}

/// The directory of the job a key is part of.
fn job_of<'p>(path: &[&'p str]) -> Option<Vec<&'p str>> {
    let hex = |part: &&str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let is_job = path.len() > JOB && path[0] == "job" && path[1..JOB].iter().all(hex);
    is_job.then(|| path[..JOB].to_vec())
}

async fn directory(content: &Content<'_>, blobref: BlobRef, name: &str) -> Result<Dir, Failure> {
    let blob = content.load(blobref).await;
    let blob = blob.map_err(|fault| Failure::new(format!("{name}: {blobref}: {fault}")))?;
    Dir::decode(&blob).map_err(|e| Failure::new(format!("{name}: {blobref}: {e}")))
}

impl<'a> Repairs<'a> {
    pub(super) async fn start(
        content: &'a Content<'a>,
        root: BlobRef,
        job_aware: bool,
    ) -> Result<Self, Failure> {
        let root = directory(content, root, "root directory").await?;
        Ok(Repairs {
            content,
            tree: Tree::of(&root),
            jobs: job_aware.then(BTreeSet::new),
            moved: 0,
            unlinked: 0,
        })
    }

    /// Open the directories on the way to a path.
    async fn reach(&mut self, path: &[&str]) -> Result<(), Failure> {
        let Some((_, dirs)) = path.split_last() else {
            return Ok(());
        };
        while let Some((len, blobref)) = self.tree.closed(dirs) {
            let dir = directory(self.content, blobref, &dirs[..len].join(".")).await?;
            self.tree.open(&dirs[..len], &dir);
        }
        Ok(())
    }

    async fn put(&mut self, path: &[&str], node: Node) -> Result<(), Failure> {
        self.reach(path).await?;
        let put = self.tree.insert(path, node, Clash::Replace);
        put.map_err(|e| Failure::new(e.to_string()))
    }

    /// Repair one key.
    pub(super) async fn take(&mut self, damage: Damage, reporter: Reporter) -> Result<(), Failure> {
        match damage {
            Damage::Unrepairable => {}
            Damage::Dir(key) => {
                let path: Vec<&str> = key.split('.').collect();
                self.reach(&path).await?;
                self.tree.remove(&path);
                self.unlinked += 1;
                reporter.note(&format!("{key} unlinked due to missing blobref"));
            }
            Damage::Value(key, left) => {
                let path: Vec<&str> = key.split('.').collect();
                let value = Node::Object(match left.is_empty() {
                    true => TreeObj::val(b""),
                    false => TreeObj::ValRef(left.into()),
                });
                match (job_of(&path), &mut self.jobs) {
                    // It goes there with all of its job.
                    (Some(job), Some(jobs)) => {
                        jobs.insert(job.into_iter().map(str::to_owned).collect());
                        self.put(&path, value).await?;
                    }
                    _ => {
                        let lost: Vec<&str> = std::iter::once(LOST).chain(path.clone()).collect();
                        self.put(&lost, value).await?;
                        self.reach(&path).await?;
                        self.tree.remove(&path);
                    }
                }
                self.moved += 1;
                reporter.note(&format!("{key} repaired and moved to {LOST}"));
            }
        }
        Ok(())
    }

    /// Move the damaged jobs; one that is there already, from an earlier repair, stays beside it.
    async fn move_jobs(&mut self, reporter: Reporter) -> Result<(), Failure> {
        for job in self.jobs.take().unwrap_or_default() {
            let path: Vec<&str> = job.iter().map(String::as_str).collect();
            let Some(node) = self.tree.remove(&path) else {
                continue;
            };
            let last = path[JOB - 1];
            let mut name = last.to_owned();
            for number in 2.. {
                let mut lost: Vec<&str> = std::iter::once(LOST).chain(path.clone()).collect();
                lost[JOB] = &name;
                self.reach(&lost).await?;
                if !self.tree.has(&lost) {
                    break;
                }
                name = format!("{last}-{number}");
            }
            let mut lost: Vec<&str> = std::iter::once(LOST).chain(path.clone()).collect();
            lost[JOB] = &name;
            self.put(&lost, node).await?;
            if reporter.verbose {
                let id = path[1..].join(".").parse::<formats::JobId>();
                let id = id.map_or_else(|_| path.join("."), |id| id.to_string());
                reporter.note(&format!("job {id} moved to {LOST}"));
            }
        }
        Ok(())
    }

    /// Store the repaired tree and make it the checkpoint.
    pub(super) async fn finish(mut self, sequence: i64, reporter: Reporter) -> Result<(), Failure> {
        self.move_jobs(reporter).await?;
        let (moved, unlinked) = (self.moved, self.unlinked);
        if moved + unlinked > 0 {
            let mut root = None;
            for (blobref, blob) in self.tree.seal(self.content.alg) {
                let stored = self.content.store(blob).await;
                stored.context("error storing a directory")?;
                root = Some(blobref);
            }
            let now = timestamp(SystemTime::now());
            // A tree has a root directory at least.
            let root = root.expect("a sealed tree has a root");
            let checkpoint = Checkpoint::new(root, sequence + 1, now);
            self.content.put_checkpoint(&checkpoint).await?;
            reporter.note(&format!("Updated primary checkpoint to include {LOST}"));
        }
        if moved > 0 || reporter.verbose {
            reporter.error(&format!("Total repairs: {moved}"));
        }
        if unlinked > 0 || reporter.verbose {
            reporter.error(&format!("Total unlinked directories: {unlinked}"));
        }
        Ok(())
    }
}
