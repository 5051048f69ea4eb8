//! `flux env [COMMAND ARGS…]`: print the environment, or run a command in it.

use std::path::Path;

use crate::args::Args;
use crate::environment;
use crate::error::{Failure, Outcome};
use crate::exec_path;
use crate::output::outln;

pub(crate) fn run(args: Args) -> Outcome {
    let mut words = args.words;
    match words.first().map(String::as_str) {
        Some("--help" | "-h") => {
            outln!("Usage: flux env [COMMAND [ARGS]]");
            return Ok(0);
        }
        Some("--") => drop(words.remove(0)),
        Some(word) if word.starts_with('-') => {
            return Err(Failure::new(format!("unrecognized option '{word}'")));
        }
        _ => {}
    }
    environment::prepare_python();
    if words.is_empty() {
        for (name, value) in environment::shown() {
            outln!("export {name}=\"{value}\"");
        }
        return Ok(0);
    }
    let program = words.remove(0);
    Err(exec_path::exec(Path::new(&program), words))
}
