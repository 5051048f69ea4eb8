//! `flux job id`, `flux job namespace`: job ids in other forms.

use clap::Args;
use formats::JobId;

use crate::error::{Failure, Outcome};
use crate::output::outln;

#[derive(Args)]
pub(super) struct Id {
    /// dec, hex, kvs, dothex, words, f58, f58plain or emoji
    #[arg(short, long, default_value = "dec")]
    to: String,
    /// Job ids (default: from standard input)
    id: Vec<String>,
}

/// The words given, or the lines of standard input.
fn words(given: Vec<String>) -> Box<dyn Iterator<Item = Result<String, Failure>>> {
    match given.is_empty() {
        true => Box::new(std::io::stdin().lines().map(|l| Ok(l?))),
        false => Box::new(given.into_iter().map(Ok)),
    }
}

fn encode(id: JobId, to: &str) -> Result<String, Failure> {
    match to {
        "f58" => Ok(crate::jobid::shown(id)),
        to => id.encode(to).map_err(|e| Failure::new(e.to_string())),
    }
}

impl Id {
    pub(super) fn run(self) -> Outcome {
        // Nothing converted is no success.
        let mut code = 1;
        for word in words(self.id) {
            outln!("{}", encode(crate::jobid::parse(&word?)?, &self.to)?);
            code = 0;
        }
        Ok(code)
    }
}

#[derive(Args)]
pub(super) struct Namespace {
    /// Job ids (default: from standard input)
    id: Vec<String>,
}

impl Namespace {
    pub(super) fn run(self) -> Outcome {
        for word in words(self.id) {
            outln!("{}", crate::jobid::parse(&word?)?.namespace());
        }
        Ok(0)
    }
}
