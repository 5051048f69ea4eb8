//! A plugin that is a program: it is told of a request in one line, and answers in one.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Answer, Refusal};
use crate::error::{Context as _, Failure};

/// The process, which stays for all requests.
pub(super) struct Program {
    name: String,
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    pub(super) fn start(name: &str, args: &[String]) -> Result<Program, Failure> {
        let mut process = Command::new(name)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(name)?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.expect("both are piped");
        Ok(Program {
            name: name.to_owned(),
            process,
            input,
            output: BufReader::new(output).lines(),
        })
    }

    /// What it says to a request: refused, or the jobspec as it wants it, if it has said one.
    pub(super) async fn ask(&mut self, request: &Value) -> Result<Option<Value>, Refusal> {
        let gone = |name: &str| Refusal::new(libc::EIO, format!("{name} unexpectedly exited"));
        let line = format!("{request}\n");
        // Why it cannot be written to is that nobody reads.
        let written = self.input.write_all(line.as_bytes()).await;
        written.map_err(|_| gone(&self.name))?;
        let line = self.output.next_line().await.ok().flatten();
        let line = line.ok_or_else(|| gone(&self.name))?;
        let answer: Answer = serde_json::from_str(&line)
            .map_err(|e| Refusal::new(libc::EPROTO, format!("{}: {e}: {line}", self.name)))?;
        answer.verdict()
    }

    /// The end of its input tells it to end.
    pub(super) async fn end(self) {
        let Program {
            input, mut process, ..
        } = self;
        drop(input);
        // Its answers are all here; how it ends says nothing more.
        let _ = process.wait().await;
    }
}
