//! Job shells and who runs them: `rexec` of all ranks, as far as job-exec and job-manager know it. A shell outlives everything
//! but its node; a command that the manager runs (prolog, epilog, housekeeping) ends with who asked for it.

use std::collections::BTreeMap;

use formats::Idset;
use formats::subprocess::{
    AttachRequest, ExecRequest, ExecResponse, KillRequest, OUTLIVES_CLIENT, Target,
};
use serde_json::{Value, json};
use wire::{Message, RpcError};

/// A shell, until somebody has taken note of its end.
struct Shell {
    pid: i32,
    status: Option<i32>,
    /// Who follows it.
    client: Option<Message>,
    /// It goes on without.
    outlives_client: bool,
    /// Its place in [`Shells::spans`].
    span: usize,
}

/// From when until when something ran.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    /// What it was run for, and for which job.
    pub(super) label: String,
    /// Where.
    pub(super) rank: u32,
    /// When it began.
    pub(super) from: f64,
    /// When it ended, and whether somebody was told how.
    pub(super) until: Option<(f64, bool)>,
}

/// What a request leads to.
#[derive(Default)]
pub(super) struct Said {
    pub(super) answers: Vec<Message>,
    /// A shell was started: its process id.
    pub(super) started: Option<i32>,
    /// These have lost who asked for them, and are killed.
    pub(super) killed: Vec<i32>,
}

/// All nodes.
#[derive(Default)]
pub(super) struct Shells {
    shells: BTreeMap<(u32, String), Shell>,
    next: i32,
    /// Every start, label and rank, but of those that went with their nodes: nobody may have heard of them.
    pub(super) starts: Vec<(String, u32)>,
    /// All that ran, in order of their starts.
    pub(super) spans: Vec<Span>,
    /// What time it is.
    pub(super) now: f64,
}

fn answer(request: &Message, response: &ExecResponse) -> Message {
    // Plain structs encode.
    request.response(0, wire::json_payload(response).ok())
}

fn finished(request: &Message, status: i32) -> [Message; 2] {
    let end = request.error_response(&RpcError::errno(libc::ENODATA));
    [answer(request, &ExecResponse::Finished { status }), end]
}

impl Shells {
    /// A request to the service of a rank.
    pub(super) fn request(&mut self, rank: u32, msg: &Message) -> Said {
        let mut said = Said::default();
        let result = match msg.method() {
            "exec" => self.exec(rank, msg, &mut said),
            "attach" => self.attach(rank, msg, &mut said),
            "kill" => self.kill(rank, msg, &mut said),
            "wait" => self.wait(rank, msg),
            "disconnect" => {
                for shell in self.shells.values_mut() {
                    let gone = shell.client.take_if(|c| c.is_same_rpc(msg, None));
                    if gone.is_some() && !shell.outlives_client {
                        said.killed.push(shell.pid);
                    }
                }
                Ok(())
            }
            _ => Err(RpcError::errno(libc::ENOSYS)),
        };
        if let Err(e) = result
            && !msg.no_response()
        {
            said.answers.push(msg.error_response(&e));
        }
        said
    }

    fn exec(&mut self, rank: u32, msg: &Message, said: &mut Said) -> Result<(), RpcError> {
        let request: ExecRequest = msg.json()?;
        let label = request.cmd.label.unwrap_or_default();
        if self.shells.contains_key(&(rank, label.clone())) {
            return Err(RpcError::errno(libc::EEXIST));
        }
        let outlives_client = request.cmd.opts.contains_key(OUTLIVES_CLIENT);
        if outlives_client {
            self.starts.push((label.clone(), rank));
        }
        self.next += 1;
        let pid = self.next;
        let shell = Shell {
            pid,
            status: None,
            client: Some(msg.clone()),
            outlives_client,
            span: self.spans.len(),
        };
        self.spans.push(Span {
            label: label.clone(),
            rank,
            from: self.now,
            until: None,
        });
        self.shells.insert((rank, label), shell);
        said.answers
            .push(answer(msg, &ExecResponse::Started { pid }));
        said.started = Some(pid);
        Ok(())
    }

    /// Starts a shell that runs already.
    pub(super) fn start_again(&mut self, rank: u32, attach: &Message) {
        let label = attach
            .json()
            .ok()
            .and_then(|r: AttachRequest| r.target.label);
        self.starts.extend(label.map(|label| (label, rank)));
    }

    fn attach(&mut self, rank: u32, msg: &Message, said: &mut Said) -> Result<(), RpcError> {
        let request: AttachRequest = msg.json()?;
        let shell = self.find(rank, &request.target);
        let shell = shell.ok_or_else(|| RpcError::errno(libc::ENOENT))?;
        if let Some(before) = &shell.client {
            if !before.is_same_rpc(msg, None) {
                return Err(RpcError::errno(libc::EBUSY));
            }
            let end = RpcError::errno(libc::ENODATA);
            said.answers.push(before.error_response(&end));
        }
        let (pid, cmd) = (shell.pid, Default::default());
        said.answers
            .push(answer(msg, &ExecResponse::Attached { pid, cmd }));
        shell.client = Some(msg.clone());
        if let Some(status) = shell.status {
            shell.client = None;
            said.answers.extend(finished(msg, status));
        }
        Ok(())
    }

    fn kill(&mut self, rank: u32, msg: &Message, said: &mut Said) -> Result<(), RpcError> {
        let KillRequest { target, signum } = msg.json()?;
        let shell = self.find(rank, &target);
        let pid = shell.ok_or_else(|| RpcError::errno(libc::ESRCH))?.pid;
        said.answers = self.end(pid, signum);
        if !msg.no_response() {
            said.answers.push(msg.response(0, None));
        }
        Ok(())
    }

    /// Note was taken of its end.
    fn wait(&mut self, rank: u32, msg: &Message) -> Result<(), RpcError> {
        let target: Target = msg.json()?;
        let label = target.label.unwrap_or_default();
        let ended = self.shells.get(&(rank, label.clone()));
        if ended.is_some_and(|shell| shell.status.is_some()) {
            self.shells.remove(&(rank, label));
        }
        Ok(())
    }

    fn find(&mut self, rank: u32, target: &Target) -> Option<&mut Shell> {
        match &target.label {
            Some(label) => self.shells.get_mut(&(rank, label.clone())),
            None => {
                let mut here = self.shells.iter_mut().filter(|((r, _), _)| *r == rank);
                here.find(|(_, shell)| shell.pid == target.pid)
                    .map(|(_, shell)| shell)
            }
        }
    }

    /// A shell ends.
    pub(super) fn end(&mut self, pid: i32, status: i32) -> Vec<Message> {
        let shell = self.shells.iter_mut().find(|(_, s)| s.pid == pid);
        let Some((key, shell)) = shell.filter(|(_, s)| s.status.is_none()) else {
            return Vec::new();
        };
        shell.status = Some(status);
        let client = shell.client.take();
        self.spans[shell.span].until = Some((self.now, client.is_some()));
        if !shell.outlives_client {
            let key = key.clone();
            self.shells.remove(&key);
        }
        client.map_or_else(Vec::new, |c| finished(&c, status).into())
    }

    /// All shells that are told by an event to have their tasks killed.
    pub(super) fn labelled(&self, label: &str) -> Vec<i32> {
        let all = self.shells.iter().filter(|((_, l), _)| l == label);
        all.map(|(_, shell)| shell.pid).collect()
    }

    /// A node is gone with what ran on it, and comes back empty.
    pub(super) fn lose(&mut self, rank: u32) -> Vec<Message> {
        let all = std::mem::take(&mut self.shells);
        let (gone, left) = all.into_iter().partition(|((r, _), _)| *r == rank);
        self.shells = left;
        let gone: BTreeMap<(u32, String), Shell> = gone;
        let mut answers = Vec::new();
        for ((_, label), shell) in gone {
            self.starts.retain(|start| *start != (label.clone(), rank));
            let end = &mut self.spans[shell.span].until;
            end.get_or_insert((self.now, shell.client.is_some()));
            if let Some(client) = shell.client {
                answers.push(client.error_response(&RpcError::errno(libc::EHOSTUNREACH)));
            }
        }
        answers
    }

    /// The broker that clients were connected to is gone.
    pub(super) fn deserted(&mut self) {
        for shell in self.shells.values_mut() {
            shell.client = None;
            if !shell.outlives_client {
                let end = &mut self.spans[shell.span].until;
                end.get_or_insert((self.now, false));
            }
        }
        self.shells.retain(|_, shell| shell.outlives_client);
    }
}

/// The resources there are: `ranks` nodes of `cores`.
pub(super) fn resources(ranks: u32, cores: u32) -> Value {
    let nodes: Vec<String> = (0..ranks).map(|rank| format!("node{rank}")).collect();
    let ids = |n: u32| Idset::from_range(0, n - 1).to_string();
    let (ranks, cores) = (ids(ranks), ids(cores));
    json!({
        "version": 1,
        "execution": {
            "R_lite": [{"rank": ranks, "children": {"core": cores}}],
            "starttime": 0.0,
            "expiration": 0.0,
            "nodelist": nodes,
        },
    })
}
