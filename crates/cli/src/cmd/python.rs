//! `flux python`: run Python, with what the environment adds to its module path.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::args::Args;
use crate::error::{Failure, Outcome};

pub(crate) fn run(args: Args) -> Outcome {
    let fault = Command::new("python3").args(args.words).exec();
    Err(Failure::new(format!("python3: {fault}")).code(127))
}
