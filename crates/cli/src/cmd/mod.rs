//! The sub-commands, one file each, and the table that names them.

mod attr;
mod broker;
pub(crate) mod driver;
mod env;
mod jobs;
mod kvs;
mod version;

use crate::args::Args;
use crate::error::Outcome;

/// A built-in sub-command.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// One line for `flux --help`.
    pub(crate) help: &'static str,
    pub(crate) run: fn(Args) -> Outcome,
}

const fn command(name: &'static str, help: &'static str, run: fn(Args) -> Outcome) -> Command {
    Command { name, help, run }
}

/// All built-in sub-commands, by name.
#[rustfmt::skip]
pub(crate) const TABLE: &[Command] = &[
    command("broker", "run a message broker", broker::run),
    command("env", "print the Flux environment, or run a command in it", env::run),
    command("getattr", "print a broker attribute", attr::get),
    command("jobs", "list jobs", jobs::run),
    command("kvs", "read and write the key-value store", kvs::run),
    command("lsattr", "list broker attributes", attr::list),
    command("setattr", "set a broker attribute", attr::set),
    command("version", "print the versions of the command and the broker", version::run),
];
