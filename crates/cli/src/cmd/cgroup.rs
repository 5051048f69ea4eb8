//! `flux cgroup`: where this process stands in the hierarchy of control groups (cgroups(7), version 2).

use clap::{Parser, Subcommand};

use crate::args::Args;
use crate::error::{Context as _, Failure, Outcome};
use crate::output::outln;

/// Look at control groups.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Print the directory of the control group this process is in
    Path,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("no cgroup2 file system is mounted here")]
    NotMounted,
    #[error("this process is in no control group of version 2")]
    NoGroup,
}

/// From /proc/self/mountinfo and /proc/self/cgroup to a directory.
fn directory(mounts: &str, groups: &str) -> Result<String, Fault> {
    let mount = mounts
        .lines()
        .find_map(cgroup2_mount)
        .ok_or(Fault::NotMounted)?;
    // Version 2 is the one hierarchy without controllers in this list.
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let group = group.ok_or(Fault::NoGroup)?;
    Ok(format!("{}{group}", unescape(mount)))
}

/// The place a line of mountinfo (proc(5)) gives for a file system of this type.
fn cgroup2_mount(line: &str) -> Option<&str> {
    let (mount, file_system) = line.split_once(" - ")?;
    let is_ours = file_system.split(' ').next() == Some("cgroup2");
    mount.split(' ').nth(4).filter(|_| is_ours)
}

/// Blanks and backslashes stand in mountinfo as three octal digits.
fn unescape(path: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(path.to_owned(), |path, (code, text)| {
        path.replace(code, text)
    })
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options {
        command: What::Path,
    } = args.parse()?;
    let read = |path| std::fs::read_to_string(path).context(path);
    let found = directory(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
    outln!("{}", found.map_err(|e| Failure::new(e.to_string()))?);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        22 1 0:20 / /proc rw - proc proc rw\n\
        30 22 0:26 / /sys/fs/cgroup\\040x rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_2_is_found() {
        let found = directory(MOUNTS, "1:cpu:/a\n0::/user.slice/x.scope\n");
        assert_eq!(found.as_deref(), Ok("/sys/fs/cgroup x/user.slice/x.scope"));
        assert_eq!(directory("", "0::/\n"), Err(Fault::NotMounted));
        assert_eq!(directory(MOUNTS, "1:cpu:/\n"), Err(Fault::NoGroup));
    }
}
