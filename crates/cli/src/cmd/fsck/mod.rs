//! `flux fsck`: whether all that the key-value store refers to is stored and undamaged.

mod repair;

use std::io::IsTerminal as _;

use clap::Parser;
use client::Handle;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kvs::BlobRef;

use self::repair::{Damage, Repairs};
use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::output::outln;
use crate::snapshot::{Checkpoint, Content, Fault, Found, Walk, Way, What, kvs_is_running, visit};

/// Check the store of the key-value store, and repair it.
#[derive(Parser)]
struct Options {
    /// List keys as they are checked
    #[arg(short, long)]
    verbose: bool,
    /// Only say what is wrong
    #[arg(short, long)]
    quiet: bool,
    /// Start at this directory, not at the checkpoint that was stored last
    #[arg(short, long, value_name = "BLOBREF")]
    rootref: Option<BlobRef>,
    /// Move what is left of damaged keys to lost+found
    #[arg(short = 'R', long)]
    repair: bool,
    /// Move all of a job one of whose keys is damaged
    #[arg(short, long)]
    job_aware: bool,
}

/// Says what is found.
#[derive(Clone, Copy)]
struct Reporter {
    verbose: bool,
    quiet: bool,
    /// People know what they have started; in a log it has to be said.
    prefix: &'static str,
}

impl Reporter {
    fn error(&self, text: &str) {
        eprintln!("{}{text}", self.prefix);
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            self.error(text);
        }
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(fsck(options))
}

/// The root to start at, if the user has not said one.
async fn start(content: &Content<'_>) -> Result<Checkpoint, Failure> {
    let checkpoint = content.checkpoint().await?;
    let time = Timestamp::from_second(checkpoint.timestamp as i64).unwrap_or_default();
    let time = time.to_zoned(TimeZone::system());
    let time = time.strftime("%Y-%m-%dT%H:%M:%S");
    outln!("Checking integrity of checkpoint from {time}");
    Ok(checkpoint)
}

async fn fsck(options: Options) -> Outcome {
    let reporter = Reporter {
        verbose: options.verbose,
        quiet: options.quiet,
        prefix: match std::io::stderr().is_terminal() {
            true => "",
            false => "flux-fsck: ",
        },
    };
    let handle = Handle::open(None).await?;
    if options.repair && kvs_is_running(&handle).await {
        let text = "please unload kvs module before using --repair";
        return Err(Failure::new(text));
    }
    let content = Content::open(&handle, Way::Direct).await?;
    // What is not in the store yet is no damage. If it cannot be stored the walk finds out.
    let _ = content.flush().await;
    let (root, sequence) = match options.rootref {
        Some(root) => (root, 0),
        None => {
            let checkpoint = start(&content).await?;
            (checkpoint.rootref, checkpoint.sequence)
        }
    };
    let damages = check(root, &content, reporter).await?;
    let errors = damages.len();
    if errors > 0 || options.verbose {
        reporter.error(&format!("Total errors: {errors}"));
    }
    if options.repair {
        let mut repairs = Repairs::start(&content, root, options.job_aware).await?;
        for damage in damages {
            repairs.take(damage, reporter).await?;
        }
        repairs.finish(sequence, reporter).await?;
    }
    Ok(u8::from(errors > 0))
}

/// Walk the whole tree and say what is wrong with it.
async fn check(
    root: BlobRef,
    content: &Content<'_>,
    reporter: Reporter,
) -> Result<Vec<Damage>, Failure> {
    let mut damages = Vec::new();
    visit(Walk::new(root, '.'), content, None, async |found: Found| {
        if reporter.verbose && !found.key.is_empty() {
            reporter.note(&found.key);
        }
        damages.extend(judge(found, reporter));
        Ok(())
    })
    .await?;
    Ok(damages)
}

/// What is wrong with a key, which is said.
fn judge(found: Found, reporter: Reporter) -> Option<Damage> {
    let Found { key, what } = found;
    match what {
        What::Dir | What::Link(_) | What::Value(Some(_)) => None,
        What::Value(None) => {
            reporter.error(&format!("{key}: damaged value: it is not base64"));
            Some(Damage::Unrepairable)
        }
        What::LostDir(fault) => {
            let name = match &*key {
                "" => "root directory",
                key => key,
            };
            reporter.error(&match &fault {
                Fault::Missing => format!("{name}: missing dirref blobref"),
                fault => format!("{name}: error retrieving dirref blobref: {fault}"),
            });
            match fault.is_final() && !key.is_empty() {
                true => Some(Damage::Dir(key)),
                false => Some(Damage::Unrepairable),
            }
        }
        What::Blobs(refs, parts) => {
            let bad = || {
                parts
                    .iter()
                    .enumerate()
                    .filter_map(|(i, p)| Some((i, p.as_ref().err()?)))
            };
            let (_, last) = bad().last()?;
            if reporter.verbose {
                for (index, fault) in bad() {
                    let blobref = refs[index];
                    reporter.error(&match fault {
                        Fault::Missing => {
                            format!("{key}: missing blobref index={index} {blobref}")
                        }
                        fault => format!(
                            "{key}: error retrieving blobref index={index} {blobref}: {fault}"
                        ),
                    });
                }
            } else {
                let names: Vec<String> = bad().map(|(i, _)| refs[i].to_string()).collect();
                let names = names.join(" ");
                reporter.error(&match last {
                    Fault::Missing => format!("{key}: missing blobref(s): {names}"),
                    fault => format!("{key}: error retrieving blobref(s): {names}: {fault}"),
                });
            }
            if !bad().all(|(_, fault)| fault.is_final()) {
                return Some(Damage::Unrepairable);
            }
            let good = refs.iter().zip(&parts).filter(|(_, part)| part.is_ok());
            let good = good.map(|(blobref, _)| *blobref).collect();
            Some(Damage::Value(key, good))
        }
    }
}
