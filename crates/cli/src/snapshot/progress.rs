//! How far a long command is, for people and for systemd.

use client::{Handle, Node};
use serde_json::json;

/// Who wants to know what.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Manner {
    /// List keys on standard error, instead of counting them
    #[arg(short, long)]
    verbose: bool,
    /// Count no keys on standard error
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Tell systemd, through the broker, how far it is
    #[arg(long)]
    sd_notify: bool,
}

/// Counts keys.
pub(crate) struct Progress<'a> {
    handle: &'a Handle,
    manner: Manner,
    command: &'static str,
    verb: &'static str,
    keys: u64,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(
        handle: &'a Handle,
        manner: Manner,
        command: &'static str,
        verb: &'static str,
    ) -> Self {
        Progress {
            handle,
            manner,
            command,
            verb,
            keys: 0,
        }
    }

    /// A key is done.
    pub(crate) fn key(&mut self, key: &str) {
        self.keys += 1;
        if self.manner.verbose {
            eprintln!("{key}");
        }
        if self.keys < 10 || self.keys.is_multiple_of(1000) {
            self.tell("");
        }
    }

    /// All is done.
    pub(crate) fn end(&self) {
        self.tell("\n");
    }

    fn tell(&self, end: &str) {
        let Progress {
            command,
            verb,
            keys,
            ..
        } = self;
        if !self.manner.verbose && !self.manner.quiet {
            eprint!("\r{command}: {verb} {keys} keys{end}");
        }
        if self.manner.sd_notify {
            let status = json!({ "status": format!("{command}(1) has {verb} {keys} keys") });
            self.handle
                .notify("state-machine.sd-notify", Node::Any, &status);
        }
    }
}
