//! `flux python`: run Python, with what the environment adds to its module path; `flux pythonX.Y` is that version.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use client::installation;

use crate::args::Args;
use crate::environment;
use crate::error::{Failure, Outcome};
use crate::exec_path;
use crate::output::outln;

pub(crate) fn run(args: Args) -> Outcome {
    match args.words.first().map(String::as_str) {
        Some("--get-path") => {
            outln!("{}", installation::value("python_path").unwrap_or_default());
            Ok(0)
        }
        Some("--list-versions") => {
            for name in versions(exec_path::added_commands()) {
                outln!("{name}");
            }
            Ok(0)
        }
        _ => exec("python3", args.words),
    }
}

/// Whether `flux NAME` is an interpreter of a certain version.
pub(crate) fn is_version(name: &str) -> bool {
    name.strip_prefix("python3").is_some_and(|rest| {
        let minor = rest.strip_prefix('.').unwrap_or(rest);
        rest.is_empty() || (!minor.is_empty() && minor.bytes().all(|c| c.is_ascii_digit()))
    })
}

fn versions(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| name.starts_with("python"));
    names.push("python3".into());
    names.sort();
    names.dedup();
    names
}

/// Run a script with `flux python`.
pub(crate) fn script(path: &Path, words: Vec<String>) -> Outcome {
    let path = path.to_string_lossy().into_owned();
    exec("python3", std::iter::once(path).chain(words).collect())
}

/// Become the interpreter.
pub(crate) fn exec(program: &str, words: Vec<String>) -> Outcome {
    environment::prepare_python();
    let fault = Command::new(program).args(words).exec();
    Err(Failure::new(format!("{program}: {fault}")).code(127))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interpreters() {
        assert!(["python3", "python3.11"].into_iter().all(is_version));
        assert!(
            !["python", "python3x", "python3."]
                .into_iter()
                .any(is_version)
        );
        let names = ["python0.1", "top", "python0.1"].map(str::to_owned);
        assert_eq!(versions(names.to_vec()), ["python0.1", "python3"]);
    }
}
