//! Processes of the broker before: taken over as if a client of theirs had just gone away.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use formats::subprocess::{Command, OUTLIVES_BROKER, OUTLIVES_CLIENT};
use serde_json::{Map, Value};

use super::{Entry, Server};
use crate::process::{self, Process};
use crate::survivors::{Found, State, Survivors};

impl Server {
    /// Let processes that ask for it outlive the broker, with records in `dir`, and take over those that are there.
    pub fn outlive(&mut self, dir: &Path) -> io::Result<()> {
        let survivors = Survivors::open(dir)?;
        let (found, unreadable) = survivors.find()?;
        for text in unreadable {
            self.handle.say("rexec", 4, &text);
        }
        for found in found {
            self.adopt(&survivors, found)?;
        }
        self.survivors = Some(survivors);
        Ok(())
    }

    fn adopt(&mut self, survivors: &Survivors, found: Found) -> io::Result<()> {
        let Found { record, state } = found;
        let key = self.next_key;
        self.next_key += 1;
        let pid = record.pid;
        let (process, status) = match state {
            State::Runs(fd) => {
                let text = format!("{}[{pid}] has outlived its broker", record.label);
                self.handle.say("rexec", 6, &text);
                let path = survivors.path(&record.label);
                let patience = Duration::from_secs(record.patience);
                let reports = self.reports.clone();
                let process = process::adopt(key, pid, fd, path, patience, reports)?;
                (process, None)
            }
            State::Ended(status) => (Process::gone(pid), Some(status)),
        };
        let option = |name: &str, value: String| (name.to_owned(), Value::String(value));
        let entry = Entry {
            process,
            cmd: Command {
                cmdline: record.cmdline,
                label: Some(record.label),
                opts: Map::from_iter([
                    option(OUTLIVES_CLIENT, "1".to_owned()),
                    option(OUTLIVES_BROKER, record.patience.to_string()),
                ]),
                ..Command::default()
            },
            background: true,
            outlives_client: true,
            outlives_broker: true,
            client: None,
            ended: Vec::new(),
            retained: VecDeque::new(),
            retained_len: 0,
            waitable: true,
            waiter: None,
            status,
        };
        self.entries.insert(key, entry);
        Ok(())
    }
}
