//! Tests of whole instances through the programs a user runs. The tests are in `tests/`; this is
//! what they share.
//!
//! Each test has a [`Site`]: a directory of its own in which instances put everything they make,
//! and whose name is in the environment of all their processes. Every command has a deadline, and
//! what is still there after it, process or file, is a failure: nothing outlives its test.
//!
//! The programs are those of the build the tests belong to; `cargo build --workspace` makes them.

mod beside;
mod process;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

pub use beside::Instance;
pub use process::Outcome;

/// How long a command may take. Far more than any needs: it is there to end those that hang.
const DEADLINE: Duration = Duration::from_secs(100);

/// The programs of an instance, and the libraries its jobs load.
const PROGRAMS: &[&str] = &[
    "flux",
    "flux-broker",
    "flux-jobtap-exec",
    "flux-shell",
    "libpmi.so",
    "libpmi2.so",
];

/// The directory of the programs: tests run from `DIR/deps`, programs are in `DIR`.
fn program_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a running test has a path");
    let deps = exe.parent().expect("a file is in a directory");
    let dir = deps
        .parent()
        .expect("tests are built below the target directory");
    for program in PROGRAMS {
        assert!(
            dir.join(program).exists(),
            "{program} is not in {}: these tests run the built programs, so build them first: \
             cargo build --workspace --bins --lib",
            dir.display()
        );
    }
    dir.to_owned()
}

/// A place for instances to live in during one test.
pub struct Site {
    dir: TempDir,
    programs: PathBuf,
}

impl Site {
    /// A fresh place. Fails the test if the programs are not built.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("flux-e2e.").tempdir();
        Self {
            dir: dir.expect("the directory for temporary files can be written"),
            programs: program_dir(),
        }
    }

    /// The directory of the test. Instances leave nothing there; tests may put files into it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the programs and libraries under test.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Build an example of a plugin in Rust beside the programs.
    #[must_use]
    pub fn example_plugin(&self, name: &str) -> PathBuf {
        let target = self.programs.parent();
        let target = target.expect("programs are in a profile's directory");
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "-p", "plugin-sdk", "--example", name])
            .arg("--target-dir")
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.expect("cargo is there").success());
        self.programs.join(format!("examples/lib{name}.so"))
    }

    /// Put a file into the directory of the test.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("the directory of the test can be written");
        path
    }

    /// Options of an instance whose state and run directories stay, so that another can go on from there.
    #[must_use]
    pub fn lasting(&self) -> [String; 2] {
        ["state", "run"].map(|name| {
            let dir = self.path().join(name);
            std::fs::create_dir(&dir).expect("the directory of the test can be written");
            format!("-S{name}dir={}", dir.display())
        })
    }

    /// Run a program with `flux` in its PATH, and check that it leaves nothing behind.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Outcome {
        self.run_with(program, args, &[])
    }

    /// As [`Site::run`], with more in the environment.
    pub fn run_with<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
        env: &[(&str, &str)],
    ) -> Outcome {
        self.run_in("t", program, args, env)
    }

    /// As [`Site::run_with`], with a name for the directory of its files: what is to run at the same time needs
    /// different ones.
    fn run_in<S: AsRef<OsStr>>(
        &self,
        name: &str,
        program: &str,
        args: impl IntoIterator<Item = S>,
        env: &[(&str, &str)],
    ) -> Outcome {
        // Below the test's directory, so that files of the test are not taken for remains.
        let temporary = self.path().join(name);
        std::fs::create_dir_all(&temporary).expect("the directory of the test can be written");
        let mut command = Command::new(self.resolve(program));
        command.args(args).current_dir(self.path());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["FLUX_", "PMI_", "SLURM_"]
                .iter()
                .any(|p| text.starts_with(p))
            {
                command.env_remove(name);
            }
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(self.programs.clone()).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(dirs).expect("PATH splits and joins");
        command.env("PATH", path).env("TMPDIR", &temporary);
        command.env("SHELL", "/bin/sh");
        command.envs(env.iter().copied());
        let marker = format!("TMPDIR={}", temporary.display());
        let outcome = process::run(command, DEADLINE, &marker);

        let remains: Vec<_> = temporary
            .read_dir()
            .expect("the directory was made above")
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .collect();
        assert!(
            remains.is_empty(),
            "files are left behind: {remains:?}\n{outcome}"
        );
        outcome
    }

    /// `flux ARGS…`
    pub fn flux<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        self.run("flux", args)
    }

    /// Run a shell script in an instance of `size` brokers. The script ends at the first command
    /// that fails.
    pub fn script(&self, size: u32, script: &str) -> Outcome {
        self.flux(["start", &format!("-s{size}"), "sh", "-euc", script])
    }

    /// Our own programs by their path, others by their name.
    fn resolve(&self, program: &str) -> PathBuf {
        if PROGRAMS.contains(&program) {
            self.programs.join(program)
        } else {
            program.into()
        }
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a program is in PATH.
#[must_use]
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Say, where it is hard to miss, that a test did not run.
pub fn skipped(why: &str) {
    eprintln!("!!! SKIPPED, NOT TESTED: {why}");
}

/// A file of the repository, by its path from the top.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}
