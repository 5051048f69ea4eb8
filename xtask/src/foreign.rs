//! Files that are not Rust, each looked at by the program it is for.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Nix,
    Python,
    Shell,
    Unit,
}

impl Language {
    fn of(path: &str, first_line: &str) -> Option<Self> {
        let program = first_line
            .strip_prefix("#!")
            .and_then(|line| line.rsplit(['/', ' ']).next());
        match (path.rsplit_once('.').map(|(_, end)| end), program) {
            (Some("nix"), _) => Some(Self::Nix),
            (Some("service"), _) => Some(Self::Unit),
            (Some("py"), _) | (_, Some("python3")) => Some(Self::Python),
            (Some("bash"), _) | (_, Some("bash" | "sh")) => Some(Self::Shell),
            _ => None,
        }
    }
}

/// The program of a language, what it is told before the files, and the package to install where it is missing.
struct Reader {
    language: Language,
    words: &'static [&'static str],
    package: &'static str,
}

const READERS: &[Reader] = &[
    Reader {
        language: Language::Nix,
        // Reading needs no group of builders, which not every machine has.
        words: &[
            "nix-instantiate",
            "--option",
            "build-users-group",
            "",
            "--parse",
        ],
        package: "nix-bin",
    },
    Reader {
        language: Language::Python,
        // Unlike py_compile, it leaves nothing behind.
        words: &[
            "python3",
            "-c",
            "import sys; [compile(open(name).read(), name, 'exec') for name in sys.argv[1:]]",
        ],
        package: "python3",
    },
    Reader {
        language: Language::Shell,
        words: &["shellcheck", "--severity=warning"],
        package: "shellcheck",
    },
];

/// Paths of the files of the repository, those included that are not committed yet.
fn listed(root: &Path) -> anyhow::Result<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let there = |path: &&str| root.join(path).is_file();
    Ok(listed.lines().filter(there).map(str::to_owned).collect())
}

fn first_line(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let line = bytes.split(|byte| *byte == b'\n').next();
    Ok(String::from_utf8_lossy(line.unwrap_or_default()).into_owned())
}

/// Run a program that finds faults; those it only warns of are faults, too. False where it is not installed.
fn passes(root: &Path, words: &[&str], files: &[String]) -> anyhow::Result<bool> {
    let done = Command::new(words[0])
        .args(&words[1..])
        .args(files)
        .current_dir(root)
        .stdin(Stdio::null())
        .output();
    let Ok(done) = done else { return Ok(false) };
    if done.status.success() && done.stderr.is_empty() {
        return Ok(true);
    }
    let shown = if words[0] == "shellcheck" {
        done.stdout
    } else {
        done.stderr
    };
    bail!("{}: {}", words[0], String::from_utf8_lossy(&shown).trim());
}

/// `systemd-analyze verify`, with a program in the place of ours, which need not be installed here.
fn units(root: &Path, files: &[String]) -> anyhow::Result<bool> {
    let place = std::env::temp_dir().join(format!("ferroflux-units.{}", std::process::id()));
    let result = files.iter().try_fold(true, |there, file| {
        fs::create_dir_all(&place)?;
        let copy = place.join(Path::new(file).file_name().unwrap_or_default());
        let text = fs::read_to_string(root.join(file))?;
        fs::write(&copy, with_a_program(&text))?;
        let copy = copy.display().to_string();
        let words = ["systemd-analyze", "verify", "--man=no"];
        let passed = passes(root, &words, &[copy]).with_context(|| file.clone())?;
        Ok(there && passed)
    });
    // It may not have been made.
    let _ = fs::remove_dir_all(&place);
    result
}

/// A unit whose commands name a program that is everywhere.
fn with_a_program(text: &str) -> String {
    let words = text.split_inclusive([' ', '=', '\n', '\'']);
    words
        .map(|word| {
            let path = word.trim_end_matches([' ', '\n', '\'']);
            match path.find('/') {
                Some(at) if path.ends_with("/bin/flux") || path.ends_with("/bin/loginctl") => {
                    format!("{}/bin/sh{}", &path[..at], &word[path.len()..])
                }
                _ => word.to_owned(),
            }
        })
        .collect()
}

/// Look at all of them; what is not looked at is said loudly.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for path in listed(root)? {
        if let Some(language) = Language::of(&path, &first_line(&root.join(&path))?) {
            files.push((language, path));
        }
    }
    let those = |language| -> Vec<String> {
        let of_it = files.iter().filter(|(of, _)| *of == language);
        of_it.map(|(_, path)| path.clone()).collect()
    };
    let seen = |tool: &str, package: &str, files: &[String], looked: bool| {
        if looked {
            eprintln!("==> {tool}: {} files", files.len());
        } else {
            let count = files.len();
            eprintln!(
                "==> !!! {count} files are NOT READ: {tool} is not installed; apt-get install {package}"
            );
        }
    };
    for reader in READERS {
        let files = those(reader.language);
        let looked = passes(root, reader.words, &files)?;
        seen(reader.words[0], reader.package, &files, looked);
    }
    let files = those(Language::Unit);
    let looked = units(root, &files)?;
    seen("systemd-analyze verify", "systemd", &files, looked);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Language, with_a_program};

    #[test]
    fn names_and_first_lines_tell_the_language() {
        let of = |path, line| Language::of(path, line);
        assert_eq!(of("nix/x.nix", "{ }"), Some(Language::Nix));
        assert_eq!(
            of("x/run", "#!/usr/bin/env python3"),
            Some(Language::Python)
        );
        assert_eq!(of("x.py", "\"\"\"X.\"\"\""), Some(Language::Python));
        assert_eq!(of("x", "#!/bin/sh"), Some(Language::Shell));
        assert_eq!(of("x.sh", "#!/bin/bash"), Some(Language::Shell));
        assert_eq!(of("x.service", "# X."), Some(Language::Unit));
        assert_eq!(of("x.rs", "//! X."), None);
    }

    #[test]
    fn commands_of_units_get_a_program_that_is_there() {
        let unit = "ExecStartPre=+-/usr/bin/loginctl x\nExecStart='/nix/store/0/bin/flux' 'broker'\nUser=flux\n";
        let want = "ExecStartPre=+-/bin/sh x\nExecStart='/bin/sh' 'broker'\nUser=flux\n";
        assert_eq!(with_a_program(unit), want);
    }
}
