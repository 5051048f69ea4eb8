//! Standard input of the tasks, RFC 24.
//!
//! With the default, `service`, data arrives in requests to the leader's `stdin` method: it is
//! recorded in the `input` eventlog, given to local tasks, and passed on to the other shells
//! under the same method name. With `file` every task reads the file itself.

use crate::{Fatal, info::JobInfo, options::InputOptions, seat::Dir};
use formats::{Idset, IoData};
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::{
    io::AsyncWriteExt,
    process::ChildStdin,
    sync::mpsc::{UnboundedSender, unbounded_channel},
};
use wire::RpcError;

/// The events that open the `input` log.
pub fn opening_events(input: &InputOptions) -> Vec<(&'static str, Value)> {
    let header = json!({
        "version": 1,
        "encoding": {"stdin": "UTF-8"},
        "count": {"stdin": 1},
        "options": {},
    });
    let mut events = vec![("header", header)];
    if let InputOptions::File(path) = input {
        events.push((
            "redirect",
            json!({"stream": "stdin", "rank": "all", "path": path}),
        ));
    }
    events
}

/// Checks that an input file can be read, before any task starts.
pub fn check(input: &InputOptions, dir: &Dir) -> Result<(), Fatal> {
    let InputOptions::File(path) = input else {
        return Ok(());
    };
    match std::fs::File::open(dir.path(path)) {
        Ok(_) => Ok(()),
        Err(e) => {
            let e = crate::log::os_error(&e);
            Err(Fatal::new(format!(
                "error opening input file '{path}': {e}"
            )))
        }
    }
}

/// The standard inputs of local tasks, and on the leader which tasks are still open to input.
pub struct Input {
    /// Queues are unbounded: what they hold is bounded by `limit`.
    tasks: HashMap<u32, UnboundedSender<Vec<u8>>>,
    open: Idset,
    received: usize,
    /// Bytes the job may receive through the KVS.
    limit: usize,
}

impl Input {
    pub fn new(info: &JobInfo, limit: usize) -> Input {
        let open = Idset::from_range(0, info.ntasks - 1);
        Input {
            tasks: HashMap::new(),
            open,
            received: 0,
            limit,
        }
    }

    /// Takes over the standard input of a local task.
    pub fn attach(&mut self, rank: u32, mut stdin: ChildStdin) {
        let (queue, mut chunks) = unbounded_channel::<Vec<u8>>();
        self.tasks.insert(rank, queue);
        tokio::spawn(async move {
            while let Some(chunk) = chunks.recv().await {
                // A task that has closed its input does not want more.
                if stdin.write_all(&chunk).await.is_err() {
                    break;
                }
            }
        });
    }

    /// Gives data to the local tasks it is meant for.
    pub fn deliver(&mut self, io: &IoData) {
        let ranks = target(&io.rank);
        self.tasks.retain(|rank, queue| {
            if !ranks.as_ref().is_none_or(|set| set.contains(*rank)) {
                return true;
            }
            let taken = io.data.is_empty() || queue.send(io.data.clone()).is_ok();
            taken && !io.eof
        });
    }

    /// Judges a request of a user: on the leader, before the data is recorded and passed on.
    pub fn accept(&mut self, io: &IoData) -> Result<(), RpcError> {
        let closed = || RpcError::explained(libc::EPIPE, "standard input of the tasks is closed");
        if self.open.is_empty() {
            return Err(closed());
        }
        let ranks = match io.rank.as_str() {
            "all" => self.open.clone(),
            text => text
                .parse::<Idset>()
                .map_err(|e| RpcError::new(libc::EINVAL, e.to_string()))?,
        };
        if !ranks.is_subset(&self.open) {
            return Err(closed());
        }
        if self.received + io.data.len() > self.limit {
            let text = format!(
                "standard input exceeds {} bytes; use --input=FILE, redirect in the command, or set -o input.limit",
                self.limit
            );
            return Err(RpcError::new(libc::EFBIG, text));
        }
        self.received += io.data.len();
        if io.eof {
            self.open = self.open.difference(&ranks);
        }
        Ok(())
    }
}

/// The ranks of a data event; `None` is all.
fn target(rank: &str) -> Option<Idset> {
    match rank {
        "all" => None,
        text => Some(text.parse().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::{info, resources};
    use formats::jobspec::JobspecBuilder;

    fn io(rank: &str, text: &str, eof: bool) -> IoData {
        IoData {
            stream: "stdin".into(),
            rank: rank.into(),
            data: text.into(),
            eof,
        }
    }

    #[tokio::test]
    async fn reaches_the_addressed_tasks() {
        let job = JobspecBuilder::new(["a"]).slots(3, 1, 0, None, false);
        let mut input = Input::new(&info(job, &resources(&["0-2"], None), 3), 1000);
        let mut cats = Vec::new();
        for rank in 0..3 {
            let mut cat = tokio::process::Command::new("cat")
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            input.attach(rank, cat.stdin.take().unwrap());
            cats.push(cat);
        }
        for data in [
            io("all", "a", false),
            io("0-1", "b", false),
            io("2", "c", true),
            io("all", "d", true),
        ] {
            assert_eq!(input.accept(&data), Ok(()));
            input.deliver(&data);
        }
        for (cat, want) in cats.into_iter().zip(["abd", "abd", "ac"]) {
            assert_eq!(
                cat.wait_with_output().await.unwrap().stdout,
                want.as_bytes()
            );
        }
        assert_eq!(
            input.accept(&io("0", "x", false)).unwrap_err().errno,
            libc::EPIPE
        );
    }

    #[test]
    fn refuses_bad_requests() {
        let job = JobspecBuilder::new(["a"]).slots(3, 1, 0, None, false);
        let mut input = Input::new(&info(job, &resources(&["0-2"], None), 3), 1000);
        let mut errno = |io| input.accept(&io).unwrap_err().errno;
        assert_eq!(errno(io("3", "x", false)), libc::EPIPE);
        assert_eq!(errno(io("x", "x", false)), libc::EINVAL);
        assert_eq!(errno(io("all", &"x".repeat(1001), false)), libc::EFBIG);
    }
}
