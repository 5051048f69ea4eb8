//! Chores of this repository: `cargo xtask ci`, `cargo xtask tidy`, `cargo xtask vm NAME`.
//!
//! `ci` is all a change has to pass, in the order of what fails fastest; `.ci/run` runs the same.
//! `tidy` checks what compiler and linter cannot: the edges between crates, stale paths in
//! ARCHITECTURE.md, house rules of the sources, units that should say the same; scripts, units and Nix files are given
//! to the programs they are for.

mod ci;
mod foreign;
mod tidy;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  ci      format, lints, tidy, licences, build, tests: what a change has to pass
  tidy    crate edges, stale documentation, house rules, units that drift apart; then scripts, units and Nix files
  vm NAME run a scenario of vm-tests/ on virtual machines, with the programs of profile fast
";

/// The repository: the directory above this package.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the repository")
        .to_owned()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["ci"] => ci::run(&root()),
        ["tidy"] => tidy::run(&root()).and_then(|()| foreign::check(&root())),
        ["vm", name] => vm::run(&root(), name),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}
