//! `cargo xtask ci`: every check in turn, stopping at the first that fails.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};

/// Cargo as it runs us, so that all steps use one toolchain.
fn cargo(root: &Path, args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(root);
    command
}

/// Whether `cargo NAME` is installed.
fn has(root: &Path, name: &str) -> bool {
    cargo(root, &[name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn step(root: &Path, args: &[&str]) -> anyhow::Result<()> {
    let line = format!("cargo {}", args.join(" "));
    eprintln!("==> {line}");
    let start = Instant::now();
    let status = cargo(root, args)
        .status()
        .with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!("failed ({status}): {line}");
    }
    eprintln!("    {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn skipped(what: &str, tool: &str, instead: &str) {
    eprintln!("==> !!! {what}: {tool} is not installed; {instead}");
}

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let start = Instant::now();
    step(root, &["fmt", "--all", "--check"])?;
    eprintln!("==> tidy");
    crate::tidy::run(root)?;
    crate::foreign::check(root)?;
    step(
        root,
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    if has(root, "deny") {
        step(
            root,
            &[
                "deny",
                "check",
                "--hide-inclusion-graph",
                "bans",
                "licenses",
                "sources",
            ],
        )?;
    } else {
        skipped(
            "licences, bans and sources are NOT CHECKED",
            "cargo-deny",
            "cargo install --locked cargo-deny",
        );
    }
    // Tests of whole instances run the programs of this build.
    step(
        root,
        &["build", "--workspace", "--bins", "--lib", "--tests"],
    )?;
    if has(root, "nextest") {
        step(root, &["nextest", "run", "--workspace", "--profile", "ci"])?;
    } else {
        skipped(
            "no time limit for tests",
            "cargo-nextest",
            "running cargo test",
        );
        step(root, &["test", "--workspace", "--bins", "--lib", "--tests"])?;
    }
    step(root, &["test", "--workspace", "--doc"])?;
    step(root, &["doc", "--workspace", "--no-deps"])?;
    eprintln!("==> vm cluster");
    crate::vm::scenario(root, "dev", "cluster")?;
    eprintln!("==> all good in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
