//! `cargo xtask vm NAME`: builds the programs and runs a scenario of `vm-tests/` with them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What the runner exits with where a tool it needs is missing.
const NOT_RUN: i32 = 77;

/// Build, then run the scenario; said loudly, but no error, where machines cannot be started.
pub(crate) fn run(root: &Path, name: &str) -> Result<()> {
    let status = Command::new("cargo")
        .args([
            "build",
            "--workspace",
            "--bins",
            "--lib",
            "--profile",
            "fast",
        ])
        .current_dir(root)
        .status()
        .context("cargo build")?;
    if !status.success() {
        bail!("the programs cannot be built");
    }
    scenario(root, "fast", name)
}

/// Run a scenario with the programs of a profile, which are built.
pub(crate) fn scenario(root: &Path, profile: &str, name: &str) -> Result<()> {
    let dir = Command::new(root.join("scripts/bin-dir.sh"))
        .arg(profile)
        .output()
        .context("scripts/bin-dir.sh")?;
    let dir = String::from_utf8_lossy(&dir.stdout).trim().to_owned();
    let status = Command::new(root.join("vm-tests/run"))
        .args(["--programs", &dir, name])
        .status()
        .context("vm-tests/run")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(NOT_RUN) => {
            eprintln!("xtask: vm {name} was NOT RUN; see above what is missing");
            Ok(())
        }
        _ => bail!("vm {name} failed"),
    }
}
