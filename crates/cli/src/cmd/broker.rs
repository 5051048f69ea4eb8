//! `flux broker`: become the broker program.

use crate::args::Args;
use crate::error::Outcome;
use crate::exec_path;

pub(crate) fn run(args: Args) -> Outcome {
    Err(exec_path::exec(&exec_path::broker()?, args.words))
}
