//! `flux version`: versions of this command and of the broker it would talk to.

use clap::Parser;
use client::Handle;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::Outcome;
use crate::output::outln;

/// Print versions.
#[derive(Parser)]
struct Options {}

pub(crate) fn run(args: Args) -> Outcome {
    let Options {} = args.parse()?;
    outln!("commands:\t\t{}", env!("CARGO_PKG_VERSION"));
    // Scripts look for this line; what stands for the library is part of this program.
    outln!("libflux-core:\t\t{}", env!("CARGO_PKG_VERSION"));
    let Ok(uri) = std::env::var("FLUX_URI") else {
        return Ok(0);
    };
    // Without a broker there is nothing more to say; that is no failure.
    let broker = block_on(async { Ok(Handle::open(Some(&uri)).await?.getattr("version").await?) });
    if let Ok(version) = broker {
        outln!("broker:  \t\t{version}");
        outln!("FLUX_URI:\t\t{uri}");
    }
    Ok(0)
}
