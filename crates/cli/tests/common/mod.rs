//! Running the built programs in instances of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The `flux` program; the broker and the shell must have been built beside it.
pub(crate) fn flux() -> PathBuf {
    let flux = PathBuf::from(env!("CARGO_BIN_EXE_flux"));
    for (program, package) in [("flux-broker", "instance"), ("flux-shell", "shell")] {
        let path = flux.with_file_name(program);
        assert!(
            path.exists(),
            "{} is not built: run `cargo build -p {package}` first",
            path.display()
        );
    }
    flux
}

/// What a program wrote and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Self {
            // Signals do not end the programs under test.
            code: output.status.code().expect("exit code"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Standard output of a run that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }
}

/// `flux WORDS`, cleaned of any enclosing instance, in `dir`.
pub(crate) fn command(dir: &Path, words: &[&str]) -> Command {
    let flux = flux();
    let bin = flux.parent().expect("a program is in a directory");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut cmd = Command::new(&flux);
    cmd.args(words).current_dir(dir);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FLUX_") {
            cmd.env_remove(name);
        }
    }
    cmd.env("PATH", format!("{}:{path}", bin.display()));
    cmd.env("SHELL", "/bin/sh").env("LC_ALL", "C.UTF-8");
    cmd
}

/// Run `flux WORDS` outside of any instance.
pub(crate) fn run(words: &[&str]) -> Run {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let output = command(dir.path(), words).output();
    Run::new(output.expect("flux starts"))
}

/// Run a shell script as the initial program of an instance of `size` brokers, with nothing on
/// its standard input.
pub(crate) fn instance(size: u32, script: &str) -> Run {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let size = format!("-s{size}");
    let mut cmd = command(dir.path(), &["start", &size, script]);
    let output = cmd.stdin(std::process::Stdio::null()).output();
    Run::new(output.expect("flux starts"))
}
