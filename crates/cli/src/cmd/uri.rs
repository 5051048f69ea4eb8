//! `flux uri TARGET`: the URI of the instance that TARGET names.

use clap::Parser;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::Outcome;
use crate::output::outln;
use crate::uri;

/// Find the URI of an instance.
#[derive(Parser)]
#[command(after_help = schemes())]
struct Options {
    /// Print it in its remote form (ssh://)
    #[arg(long)]
    remote: bool,
    /// Print it in its local form (local://)
    #[arg(long)]
    local: bool,
    /// Wait until the job has announced its URI
    #[arg(long)]
    wait: bool,
    /// Job id, path of job ids, SCHEME:WHAT or a URI
    target: String,
}

fn schemes() -> String {
    let line = |(name, what): &(&str, &str)| format!("\n  {name}:…\t\t{what}");
    let lines: String = uri::SCHEMES.iter().map(line).collect();
    format!("Supported resolver schemes:{lines}")
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(2)?;
    let mut target = options.target;
    if options.wait {
        target.push_str(if target.contains('?') {
            "&wait"
        } else {
            "?wait"
        });
    }
    let found = block_on(async { uri::resolve(&target).await })?;
    let found = match (options.remote, options.local) {
        (true, _) => uri::to_remote(&found),
        (_, true) => uri::to_local(&found),
        _ => found,
    };
    outln!("{found}");
    Ok(0)
}
