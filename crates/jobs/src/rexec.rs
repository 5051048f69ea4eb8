//! Commands that services of jobs run through rexec (RFC 42).

use std::collections::HashMap;

use formats::subprocess::{Command, ExecRequest, FLAG_STDERR, FLAG_STDOUT};
use serde_json::{Map, Value};

/// Ask for what the command writes.
pub(crate) const OUTPUT: u32 = FLAG_STDOUT | FLAG_STDERR;

/// The environment of this process, without what tells of a job that the instance itself is.
pub(crate) fn environment() -> HashMap<String, String> {
    let foreign = |name: &str| formats::job::VARIABLES.contains(&name);
    std::env::vars()
        .filter(|(name, _)| !foreign(name))
        .collect()
}

/// A request to run a command, under a label, with options of the server.
pub(crate) fn request(
    cmdline: Vec<String>,
    env: HashMap<String, String>,
    label: String,
    opts: Map<String, Value>,
) -> ExecRequest {
    ExecRequest {
        cmd: Command {
            cwd: Some("/".to_owned()),
            cmdline,
            env,
            opts,
            channels: Vec::new(),
            label: Some(label),
        },
        flags: OUTPUT,
        local_flags: 0,
    }
}
