//! PMI-1 for the tasks: one [`pmi::Server`] per shell, and the exchange between shells.
//!
//! At a PMI barrier every shell that has tasks gives the leader what its tasks have put; the
//! leader answers all of them with the union. The requests go to the leader's `pmi-exchange`
//! method; a shell makes the next one only after the answer to the one before.

use crate::{
    environment::show_id,
    info::JobInfo,
    log::{Level, Logger},
    options::Options,
};
use pmi::{Action, Server, server::Program};
use std::collections::{BTreeMap, HashMap};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
};

/// Entries of the key-value store.
pub type Entries = BTreeMap<String, String>;

/// What the shell must do about a line of a task.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All local tasks wait: exchange these entries.
    Exchange(Entries),
    /// The task wants the job to end.
    Abort { rank: u32, message: String },
    /// The task does not speak PMI-1.
    Violation { rank: u32, line: String },
}

/// The tasks' connections and the store.
pub struct Pmi {
    server: Server,
    clients: HashMap<u32, OwnedWriteHalf>,
    logger: Logger,
}

impl Pmi {
    pub fn new(info: &JobInfo, options: &Options, logger: Logger) -> Pmi {
        let mut server = Server::new(Program {
            kvsname: show_id(info),
            appnum: 0,
            size: info.ntasks,
            local_size: info.tasks.len() as u32,
        });
        if options.pmi.map {
            server.preput("PMI_process_mapping", &info.taskmap.to_pmi());
            server.preput("flux.taskmap", &info.taskmap.to_wrapped().to_string());
        }
        Pmi {
            server,
            clients: HashMap::new(),
            logger,
        }
    }

    /// Tells tasks that are brokers about the instance around them.
    pub fn set_instance(&mut self, level: Option<&str>, interface_hint: Option<&str>) {
        if let Some(level) = level.and_then(|l| l.parse::<u32>().ok()) {
            self.server
                .preput("flux.instance-level", &(level + 1).to_string());
        }
        if let Some(hint) = interface_hint {
            self.server.preput("flux.tbon-interface-hint", hint);
        }
    }

    /// Takes over the connection of a task; `line` is called with each line it sends.
    pub fn attach(&mut self, rank: u32, stream: UnixStream, line: impl Fn(String) + 'static) {
        let (reader, writer) = stream.into_split();
        self.clients.insert(rank, writer);
        tokio::task::spawn_local(async move {
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(text)) = lines.next_line().await {
                line(text);
            }
        });
    }

    /// Handles a line of a task.
    pub async fn line(&mut self, rank: u32, line: &str) -> Vec<Outcome> {
        let actions = self.server.request(rank, line);
        self.perform(actions).await
    }

    /// Ends the barrier with the entries of all shells, or with failure.
    pub async fn exchanged(&mut self, entries: Option<Entries>) -> Vec<Outcome> {
        let actions = self.server.barrier_complete(entries);
        self.perform(actions).await
    }

    async fn perform(&mut self, actions: Vec<Action>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for action in actions {
            match action {
                Action::Reply { client, line } => {
                    if self.logger.is_on(Level::Trace) {
                        let text = format!("{client}: S: {}", line.trim_end());
                        self.logger.log(Level::Trace, &text).await;
                    }
                    // A client awaits one answer at a time, so the socket has room for it; one
                    // that is gone needs none.
                    if let Some(writer) = self.clients.get_mut(&client)
                        && writer.write_all(line.as_bytes()).await.is_err()
                    {
                        self.clients.remove(&client);
                    }
                }
                Action::Barrier { pending } => outcomes.push(Outcome::Exchange(pending)),
                Action::Finalized { .. } => {}
                Action::Abort {
                    client, message, ..
                } => {
                    outcomes.push(Outcome::Abort {
                        rank: client,
                        message,
                    });
                }
                Action::Violation { client, line } => {
                    outcomes.push(Outcome::Violation { rank: client, line });
                }
            }
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::{info, resources};
    use formats::jobspec::JobspecBuilder;

    #[tokio::test]
    async fn tasks_talk_to_the_server() {
        let job = JobspecBuilder::new(["a"]).slots(1, 1, 0, None, false);
        let info = info(job, &resources(&["0"], None), 3);
        let options = Options::read(&info).unwrap();
        let local = tokio::task::LocalSet::new();
        let work = async {
            let mut pmi = Pmi::new(&info, &options, Logger::default());
            pmi.set_instance(Some("0"), Some("network"));
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (lines, mut seen) = tokio::sync::mpsc::unbounded_channel();
            pmi.attach(0, ours, move |line| lines.send(line).unwrap());
            let (reader, mut writer) = theirs.into_split();
            let mut answers = BufReader::new(reader).lines();
            for (request, answer) in [
                (
                    "cmd=get kvsname=x key=flux.instance-level",
                    "cmd=get_result rc=0 value=1",
                ),
                (
                    "cmd=get kvsname=x key=PMI_process_mapping",
                    "cmd=get_result rc=0 value=(vector,(0,1,1))",
                ),
                ("cmd=barrier_in", "cmd=barrier_out rc=0"),
            ] {
                writer
                    .write_all(format!("{request}\n").as_bytes())
                    .await
                    .unwrap();
                let line = seen.recv().await.unwrap();
                assert_eq!(line, request);
                assert_eq!(pmi.line(0, &line).await, []);
                assert_eq!(answers.next_line().await.unwrap().as_deref(), Some(answer));
            }
            assert!(matches!(
                &pmi.line(0, "x").await[..],
                [Outcome::Violation { .. }]
            ));
        };
        local.run_until(work).await;
    }
}
