//! `flux-shell --shared`: one process with the shells of many jobs.
//!
//! job-exec sends shells here on nodes where jobs are started faster than processes should be made for their shells
//! ([`formats::shared_shell`] has the requests). Each shell is the one that would have had a process of its own ([`crate::run`]), with
//! its own state, but over one connection: what arrives is sorted by job. A shell for which the site or the user has initrc
//! files or plugins is refused, for these may do as they like with their process.
//!
//! How a shell ended is kept until job-exec has stored it. When the connection is lost the process waits for the next broker as its
//! shells do, and ends with it when it has none.

use crate::{
    kvslog::Logs,
    learn,
    log::{Logger, complain},
    patience::{Patience, Turn},
    run::{self, End},
    seat::{Common, Seat},
};
use client::{Node, Status};
use formats::{
    IoData, JobId,
    shared_shell::{Exec, Kill, NAME, Of, READY, stream_of},
    subprocess::{Command, ExecResponse},
};
use serde_json::json;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io::Write as _,
    rc::Rc,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinSet, spawn_local},
};
use wire::{Message, RpcError};

/// What has become of a shell.
enum Stage {
    Runs {
        mail: UnboundedSender<Message>,
        signals: UnboundedSender<i32>,
    },
    Ended(Rc<Ended>),
}

/// How a shell has ended.
struct Ended {
    /// Wait status.
    status: i32,
    /// What job-exec is to store of the job's eventlogs.
    unstored: Logs,
}

struct Entry {
    stage: Stage,
    /// The request of whoever follows the shell.
    client: Option<Message>,
}

/// The process, as its shells and requests see it.
struct Hall {
    common: Rc<Common>,
    /// Each of one job.
    shells: RefCell<HashMap<JobId, Entry>>,
    /// It takes its leave when the shells it has are gone.
    is_ending: Cell<bool>,
}

fn pid() -> i32 {
    std::process::id() as i32
}

impl Hall {
    fn is_empty(&self) -> bool {
        self.shells.borrow().is_empty()
    }

    /// Answers whoever follows the shell, if somebody does.
    fn tell(&self, id: JobId, answer: &ExecResponse) {
        let shells = self.shells.borrow();
        if let Some(client) = shells.get(&id).and_then(|entry| entry.client.as_ref()) {
            self.common.handle.respond(client, answer);
        }
    }

    fn say(&self, id: JobId, text: &str) {
        let io = IoData {
            stream: "stderr".into(),
            rank: "0".into(),
            data: text.as_bytes().to_vec(),
            eof: false,
        };
        self.tell(id, &ExecResponse::Output { pid: pid(), io });
    }

    /// The last answers to whoever follows.
    fn conclude(&self, client: &Message, ended: &Ended) {
        let handle = &self.common.handle;
        for (key, text) in &ended.unstored {
            let io = IoData {
                stream: stream_of(key),
                rank: "0".into(),
                data: text.as_bytes().to_vec(),
                eof: false,
            };
            handle.respond(client, &ExecResponse::Output { pid: pid(), io });
        }
        let status = ended.status;
        handle.respond(client, &ExecResponse::Finished { status });
        handle.respond_error(client, &RpcError::errno(libc::ENODATA));
    }

    /// Sends a message to the shell it is for.
    fn deliver(&self, message: Message) {
        let shells = self.shells.borrow();
        let entry = job_of(message.topic()).and_then(|id| shells.get(&id));
        match entry.map(|entry| &entry.stage) {
            Some(Stage::Runs { mail, .. }) => {
                // A shell that does not read any more answers what it has not read.
                if let Err(unread) = mail.send(message)
                    && unread.0.is_request()
                {
                    self.common.handle.respond_enosys(&unread.0);
                }
            }
            _ if message.is_request() => self.common.handle.respond_enosys(&message),
            // Events are for whoever is there.
            _ => {}
        }
    }

    fn attach(&self, message: &Message) -> Result<(), RpcError> {
        let Of { id } = message.json()?;
        let mut shells = self.shells.borrow_mut();
        let entry = shells.get_mut(&id);
        let entry = entry.ok_or_else(|| RpcError::errno(libc::ENOENT))?;
        let handle = &self.common.handle;
        if let Some(before) = entry.client.replace(message.clone()) {
            handle.respond_error(&before, &RpcError::errno(libc::ENODATA));
        }
        let (pid, cmd) = (pid(), Command::default());
        handle.respond(message, &ExecResponse::Attached { pid, cmd });
        if let Stage::Ended(ended) = &entry.stage {
            entry.client = None;
            self.conclude(message, ended);
        }
        Ok(())
    }

    fn kill(&self, message: &Message) -> Result<(), RpcError> {
        let Kill { id, signum } = message.json()?;
        let shells = self.shells.borrow();
        match shells.get(&id).map(|entry| &entry.stage) {
            Some(Stage::Runs { signals, .. }) => {
                // A shell that has just ended needs no signal.
                let _ = signals.send(signum);
                Ok(())
            }
            _ => Err(RpcError::errno(libc::ENOENT)),
        }
    }

    fn wait(&self, message: &Message) -> Result<(), RpcError> {
        let Of { id } = message.json()?;
        let mut shells = self.shells.borrow_mut();
        match shells.get(&id).map(|entry| &entry.stage) {
            Some(Stage::Ended(_)) => {
                shells.remove(&id);
                Ok(())
            }
            Some(Stage::Runs { .. }) => Err(RpcError::errno(libc::EAGAIN)),
            None => Err(RpcError::errno(libc::ENOENT)),
        }
    }

    fn signal_all(&self, signum: i32) {
        for entry in self.shells.borrow().values() {
            if let Stage::Runs { signals, .. } = &entry.stage {
                // A shell that has just ended needs no signal.
                let _ = signals.send(signum);
            }
        }
    }

    /// Forgets clients that have gone.
    fn disconnect(&self, message: &Message) {
        for entry in self.shells.borrow_mut().values_mut() {
            let gone = |client: &mut Message| client.sender() == message.sender();
            drop(entry.client.take_if(gone));
        }
    }

    /// Runs a shell to its end. It has its entry already.
    async fn run(self: Rc<Self>, id: JobId, seat: Seat) {
        let hall = self.clone();
        let logger = Logger::with_early(Box::new(move |text| hall.say(id, text)));
        let end = match learn::learn(id, seat).await {
            Ok(learned) if learned.is_plain() => {
                self.tell(id, &ExecResponse::Started { pid: pid() });
                Some(run::run_learned(id, learned, &logger).await)
            }
            Ok(_) => None,
            Err(e) => Some(End::early(run::end_early(id, &logger, e).await)),
        };
        // A shell with a connection of its own leaves this to the connection.
        let request = json!({ "service": learn::service(id) });
        let handle = &self.common.handle;
        handle.notify("service.remove", Node::Any, &request);
        let Some(End {
            code,
            unstored,
            rest,
        }) = end
        else {
            return self.refuse(id);
        };
        let status = code.clamp(0, 255) << 8;
        let ended = Rc::new(Ended { status, unstored });
        let client = {
            let mut shells = self.shells.borrow_mut();
            let entry = shells.get_mut(&id);
            // Entries of shells that run are not removed.
            entry.and_then(|entry| {
                entry.stage = Stage::Ended(ended.clone());
                entry.client.take()
            })
        };
        if let Some(client) = client {
            self.conclude(&client, &ended);
        }
        // Nobody waits for this.
        drop(rest);
    }

    fn refuse(&self, id: JobId) {
        let entry = self.shells.borrow_mut().remove(&id);
        if let Some(client) = entry.and_then(|entry| entry.client) {
            let e = RpcError::new(libc::ENOTSUP, "the job's shell needs a process of its own");
            self.common.handle.respond_error(&client, &e);
        }
    }
}

/// The job a topic is about: `shell-ID.*` is an event, `USERID-shell-ID.*` a request.
fn job_of(topic: &str) -> Option<JobId> {
    let (service, _) = topic.split_once('.')?;
    let (_, id) = service.rsplit_once("shell-")?;
    id.parse().ok()
}

/// Tells when the connection is lost, and what becomes of it.
fn watch_connection(common: &Common) -> UnboundedReceiver<Option<Turn>> {
    let (tell, turns) = unbounded_channel();
    let lost = {
        let (mut status, tell) = (common.handle.status(), tell.clone());
        async move {
            let is_connected = |status: &Status| matches!(status, Status::Connected(_));
            while status
                .wait_for(|status| !is_connected(status))
                .await
                .is_ok()
            {
                let _ = tell.send(None);
                if status.wait_for(is_connected).await.is_err() {
                    break;
                }
            }
        }
    };
    spawn_local(lost);
    let (patience, handle) = (common.patience.clone(), common.handle.clone());
    spawn_local(patience.keep_service(handle, NAME.to_owned(), move |turn| {
        let _ = tell.send(Some(turn));
    }));
    turns
}

/// Serves until the broker is gone, and returns the exit code.
pub async fn serve() -> i32 {
    let patience = Patience::from_env();
    let code = match serve_patiently(&patience).await {
        Ok(()) => 0,
        Err(e) => {
            complain(&format!("FATAL: {e}"));
            1
        }
    };
    patience.leave(code);
    code
}

async fn serve_patiently(patience: &Patience) -> Result<(), crate::Fatal> {
    let (common, mut inbox) = learn::connect_shared(patience).await?;
    let watching = |e| crate::Fatal::new(format!("watching signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(watching)?;
    let common = Rc::new(common);
    let hall = Rc::new(Hall {
        common: common.clone(),
        shells: RefCell::default(),
        is_ending: Cell::new(false),
    });
    let mut running = JoinSet::new();
    let mut turns = watch_connection(&common);
    // Without a reader nobody sends shells here.
    let _ = std::io::stdout()
        .write_all(READY.as_bytes())
        .and_then(|()| std::io::stdout().flush());
    let mut is_connected = true;
    while !(hall.is_ending.get() && running.is_empty()) {
        tokio::select! {
            message = inbox.recv() => match message {
                Some(message) if message.is_event() => hall.deliver(message),
                Some(message) if message.service() == NAME => {
                    own_request(&hall, &mut running, &message);
                }
                Some(message) => hall.deliver(message),
                None => break,
            },
            Some(_) = running.join_next() => {}
            turn = turns.recv(), if is_connected => match turn {
                Some(Some(Turn::Back)) => {}
                Some(None) if !hall.is_empty() => {}
                Some(None) => {
                    patience.withdraw();
                    break;
                }
                Some(Some(Turn::Abandoned)) => break,
                // The end of the inbox follows.
                None => is_connected = false,
            },
            _ = terminate.recv() => {
                hall.is_ending.set(true);
                hall.signal_all(libc::SIGTERM);
            }
        }
    }
    // Shells notice for themselves that their connection is gone.
    hall.shells.borrow_mut().clear();
    while running.join_next().await.is_some() {}
    Ok(())
}

fn own_request(hall: &Rc<Hall>, running: &mut JoinSet<()>, message: &Message) {
    let handle = &hall.common.handle;
    let uid = nix::unistd::getuid().as_raw();
    let outcome = message
        .require_user(uid)
        .and_then(|()| match message.method() {
            "exec" => {
                let Exec { id, r } = message.json()?;
                if hall.is_ending.get() {
                    // How this shell ended would not be kept.
                    return Err(RpcError::new(
                        libc::ENOTSUP,
                        "the shared shells are leaving",
                    ));
                }
                if hall.shells.borrow().contains_key(&id) {
                    return Err(RpcError::errno(libc::EEXIST));
                }
                let (mail, mails) = unbounded_channel();
                let (signals, sent) = unbounded_channel();
                let entry = Entry {
                    stage: Stage::Runs { mail, signals },
                    client: Some(message.clone()),
                };
                hall.shells.borrow_mut().insert(id, entry);
                let seat = Seat::Shared {
                    common: hall.common.clone(),
                    r,
                    mail: mails,
                    signals: sent,
                };
                running.spawn_local(hall.clone().run(id, seat));
                Ok(())
            }
            "attach" => hall.attach(message),
            "kill" => hall.kill(message).map(|()| handle.respond_ok(message)),
            "wait" => hall.wait(message).map(|()| handle.respond_ok(message)),
            "disconnect" => {
                hall.disconnect(message);
                Ok(())
            }
            "retire" if hall.is_empty() => {
                hall.common.patience.withdraw();
                hall.is_ending.set(true);
                handle.respond_ok(message);
                Ok(())
            }
            "retire" => Err(RpcError::errno(libc::EBUSY)),
            _ => Err(RpcError::errno(libc::ENOSYS)),
        });
    if let Err(e) = outcome {
        handle.respond_error(message, &e);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_name_their_job() {
        let id = JobId(1234);
        let request = format!("1000-shell-{}.stdin", id.f58_ascii());
        assert_eq!(job_of(&request), Some(id));
        let request = format!("1000-shell-{}.rexec.exec", id.f58_ascii());
        assert_eq!(job_of(&request), Some(id));
        assert_eq!(job_of("shell-1234.kill"), Some(id));
        for other in ["shells.exec", "shell-1234", "shell-.kill", "1-shell-x y.a"] {
            assert_eq!(job_of(other), None, "{other}");
        }
    }
}
