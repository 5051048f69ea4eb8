//! `kvs.lookup`, `kvs.lookup-plus` and our own `kvs.lookup-appended`.

use client::{Message, RpcError};
use content::BlobRef;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Module;
use super::stall::Work;
use crate::namespace::SeenBy;
use crate::store::Pinned;
use crate::treeobj::TreeObj;
use crate::walk::{self, Outcome};

/// The shape of the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// `{val}`, or ENOENT.
    Value,
    /// `{val, rootseq, rootref}`, or `{errno, rootseq, rootref}` if there is no such key.
    Plus,
    /// As `Plus`, with the blobs of the value from this one on: `{is_val, count, values}`.
    Appended(usize),
}

/// A lookup under way. Its root is fixed when it starts, whatever is committed meanwhile.
pub(super) struct Lookup {
    /// Answered in the end; its credentials decide what may be seen.
    pub(super) request: Message,
    answer: Answer,
    key: String,
    flags: u32,
    root: Option<(BlobRef, i64)>,
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct Request {
    key: String,
    flags: u32,
    namespace: Option<String>,
    rootdir: Option<TreeObj>,
    rootseq: Option<i64>,
    /// `lookup-appended`: the first blob wanted.
    #[serde(default)]
    start: usize,
    /// On whose behalf an owner (kvs-watch) asks.
    #[serde(rename = "as")]
    behalf: Option<Behalf>,
}

/// Credentials of a user on whose behalf the owner looks something up.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Behalf {
    pub(crate) userid: u32,
    pub(crate) rolemask: u32,
}

#[derive(Serialize)]
struct ValueAnswer<'a> {
    val: &'a TreeObj,
}

#[derive(Serialize)]
struct PlusAnswer<'a> {
    val: &'a TreeObj,
    rootseq: i64,
    rootref: BlobRef,
}

#[derive(Serialize)]
struct AppendedAnswer<'a> {
    is_val: bool,
    count: usize,
    values: &'a [TreeObj],
    rootseq: i64,
    rootref: BlobRef,
}

impl Module {
    pub(super) fn handle_lookup(&mut self, msg: &Message, answer: Answer) -> Result<(), RpcError> {
        let req: Request = msg.json()?;
        self.start_lookup(msg, answer, req)
    }

    pub(super) fn handle_lookup_appended(&mut self, msg: &Message) -> Result<(), RpcError> {
        let req: Request = msg.json()?;
        self.start_lookup(msg, Answer::Appended(req.start), req)
    }

    fn start_lookup(
        &mut self,
        msg: &Message,
        answer: Answer,
        req: Request,
    ) -> Result<(), RpcError> {
        let root = match req.rootdir {
            Some(TreeObj::DirRef(r)) => Some((r, req.rootseq.unwrap_or(-1))),
            Some(other) => {
                let reason = format!("rootdir must be a dirref, not a {}", other.type_name());
                return Err(RpcError::explained(libc::EINVAL, reason));
            }
            None if req.namespace.is_none() => {
                return Err(RpcError::proto("lookup needs a namespace or a rootdir"));
            }
            None => None,
        };
        let mut request = msg.clone();
        if let Some(Behalf { userid, rolemask }) = req.behalf {
            msg.require_owner()?;
            request.set_credentials(wire::Credentials { userid, rolemask });
        }
        let lookup = Lookup {
            request,
            answer,
            key: req.key,
            flags: req.flags,
            root,
            namespace: req.namespace,
        };
        self.run_lookup(lookup, Pinned::new());
        Ok(())
    }

    pub(super) fn run_lookup(&mut self, mut lookup: Lookup, pinned: Pinned) {
        let (root, seq) = match (lookup.root, &lookup.namespace) {
            (Some(root), _) => root,
            (None, Some(name)) => match self.namespace(name, &lookup.request) {
                Ok(Some(ns)) => (ns.root, ns.seq),
                Ok(None) => {
                    let name = name.clone();
                    self.need_namespace(lookup, pinned, &name);
                    return;
                }
                Err(e) => {
                    self.handle.respond_error(&lookup.request, &e);
                    return;
                }
            },
            // Refused when the request was read.
            (None, None) => return,
        };
        lookup.root = Some((root, seq));
        let seen = SeenBy {
            table: &self.table,
            request: &lookup.request,
        };
        let mut view = self.store.with(&pinned);
        let outcome = match lookup.answer {
            Answer::Appended(start) => {
                match walk::lookup_appended(&mut view, &seen, root, &lookup.key, start) {
                    Ok(a) => {
                        let answer = AppendedAnswer {
                            is_val: a.is_val,
                            count: a.count,
                            values: &a.values,
                            rootseq: seq,
                            rootref: root,
                        };
                        self.handle.respond(&lookup.request, &answer);
                        return;
                    }
                    Err(stop) => stop,
                }
            }
            _ => walk::lookup(&mut view, &seen, root, &lookup.key, lookup.flags),
        };
        let msg = &lookup.request;
        match outcome {
            Outcome::Found(val) if lookup.answer == Answer::Value => {
                self.handle.respond(msg, &ValueAnswer { val: &val });
            }
            Outcome::Found(val) => {
                self.handle.respond(
                    msg,
                    &PlusAnswer {
                        val: &val,
                        rootseq: seq,
                        rootref: root,
                    },
                );
            }
            Outcome::NotFound if lookup.answer == Answer::Value => {
                self.handle
                    .respond_error(msg, &RpcError::errno(libc::ENOENT));
            }
            Outcome::NotFound => {
                let answer = json!({"errno": libc::ENOENT, "rootseq": seq, "rootref": root});
                self.handle.respond(msg, &answer);
            }
            Outcome::Missing(needs) => self.stall(Work::Lookup(lookup), pinned, needs),
            Outcome::MissingNamespace(name) => self.need_namespace(lookup, pinned, &name),
            Outcome::Failed(e) => self.handle.respond_error(msg, &e.into()),
        }
    }
}
