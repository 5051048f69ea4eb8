//! An instance that runs while its test does something to it.
//!
//! Two pipes with names say when: the instance's initial program writes its URI into one when it is up, and ends
//! when the test writes into the other.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::stat::Mode;

use crate::{Outcome, Site};

/// A running instance.
pub struct Instance<'a> {
    site: &'a Site,
    uri: String,
}

/// Both ends of a pipe, so that neither opening nor writing waits for anybody.
fn pipe(path: &Path) -> File {
    nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("the directory of the test can be written");
    let both = OpenOptions::new().read(true).write(true).open(path);
    both.expect("the pipe was made above")
}

fn newline(mut pipe: &File) {
    pipe.write_all(b"\n").expect("a pipe takes one byte");
}

/// Lets the instance end, however the test ends.
struct LetGo<'a>(&'a File);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        newline(self.0);
    }
}

impl Site {
    /// Start an instance with the shell words `start`, and run `test` while it is there. The outcome is the
    /// instance's.
    pub fn beside(&self, start: &str, test: impl FnOnce(&Instance)) -> Outcome {
        let (ready, go) = (
            pipe(&self.path().join("ready")),
            pipe(&self.path().join("go")),
        );
        let program = "flux getattr local-uri >ready; read line <go";
        let script = format!("{start} sh -c '{program}'");
        std::thread::scope(|scope| {
            let instance = scope.spawn(|| {
                let outcome = self.run("sh", ["-c", &script]);
                newline(&ready);
                outcome
            });
            let mut uri = String::new();
            let read = BufReader::new(&ready).read_line(&mut uri);
            read.expect("a pipe can be read");
            if !uri.trim().is_empty() {
                let _end = LetGo(&go);
                let uri = uri.trim().to_owned();
                test(&Instance { site: self, uri });
            }
            instance.join().expect("the instance ends well")
        })
    }
}

impl Instance<'_> {
    /// Run a shell script that talks to the instance.
    pub fn script(&self, script: &str) -> Outcome {
        let env = [("FLUX_URI", self.uri.as_str())];
        self.site.run_in("u", "sh", ["-euc", script], &env)
    }

    /// A connection to the broker of rank 0, that has been let in.
    pub fn connect(&self) -> UnixStream {
        let mut stream = self.knock();
        let mut welcome = [1];
        stream
            .read_exact(&mut welcome)
            .expect("the broker says something");
        assert_eq!(welcome, [0], "the broker lets its owner in");
        stream
    }

    /// A connection to the broker of rank 0, which may not have noticed yet.
    pub fn knock(&self) -> UnixStream {
        let path = self.uri.strip_prefix("local://");
        let path = path.expect("brokers listen on local sockets");
        UnixStream::connect(path).expect("the broker listens")
    }
}
