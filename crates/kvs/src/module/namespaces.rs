//! Roots and namespaces: `getroot`, `wait-version`, `namespace-*`, and the events about them.

use client::{Message, Node, RpcError};
use content::roots::Roots;
use content::{BlobRef, batch};
use serde::Deserialize;
use serde_json::{Value, json};

use super::stall::Work;
use super::{Done, Module, RootInfo, checkpoint, own_userid};
use crate::PRIMARY;
use crate::namespace::{self, Namespace};
use crate::store::{Need, Pinned};

#[derive(Deserialize)]
struct NameRequest {
    namespace: String,
}

impl Module {
    pub(super) fn handle_getroot(&mut self, msg: &Message) -> Result<(), RpcError> {
        let req: NameRequest = msg.json()?;
        match self.namespace(&req.namespace, msg)? {
            Some(ns) => {
                let info = RootInfo {
                    // Upstream's integers are signed.
                    owner: i64::from(ns.owner as i32),
                    rootseq: ns.seq,
                    rootref: ns.root,
                    flags: ns.flags,
                    namespace: ns.name.clone(),
                };
                self.handle.respond(msg, &info);
            }
            None => self.retry_with_namespace(msg, &req.namespace),
        }
        Ok(())
    }

    pub(super) fn handle_wait_version(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            rootseq: i64,
            namespace: String,
        }
        let req: Request = msg.json()?;
        match self.namespace(&req.namespace, msg)? {
            Some(ns) if ns.seq >= req.rootseq => self.respond_version(msg, ns),
            Some(_) => {
                if let Some(ns) = self.table.map.get_mut(&req.namespace) {
                    ns.waiters.push((req.rootseq, msg.clone()));
                }
            }
            None => self.retry_with_namespace(msg, &req.namespace),
        }
        Ok(())
    }

    fn respond_version(&self, msg: &Message, ns: &Namespace) {
        self.handle
            .respond(msg, &json!({"rootseq": ns.seq, "rootref": ns.root}));
    }

    fn retry_with_namespace(&mut self, msg: &Message, name: &str) {
        self.stall_for_namespace(Work::Request(msg.clone()), Pinned::new(), name);
    }

    /// Moves a root forward and answers those who waited for it.
    pub(super) fn advance(&mut self, name: &str, root: BlobRef, seq: i64) {
        let Some(ns) = self.table.map.get_mut(name) else {
            if let Some(getting) = self.getroots.get_mut(name)
                && getting.latest.is_none_or(|(s, _)| s < seq)
            {
                getting.latest = Some((seq, root));
            }
            return;
        };
        let ready = ns.advance(root, seq);
        if let Some(ns) = self.table.map.get(name) {
            for msg in ready {
                self.respond_version(&msg, ns);
            }
        }
    }

    pub(super) fn handle_event(&mut self, msg: &Message) {
        #[derive(Deserialize)]
        struct SetRoot {
            namespace: String,
            rootseq: i64,
            rootref: BlobRef,
        }
        if msg.topic().ends_with("-setroot") {
            // Rank 0 publishes these; one that cannot be read is not ours.
            if let Ok(e) = msg.json::<SetRoot>() {
                self.advance(&e.namespace, e.rootref, e.rootseq);
            }
        } else if msg.topic().ends_with("-removed")
            && let Ok(e) = msg.json::<NameRequest>()
        {
            self.remove(&e.namespace);
        }
    }

    pub(super) fn handle_namespace_create(&mut self, msg: &Message) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        struct Request {
            namespace: String,
            rootref: BlobRef,
            owner: i64,
            flags: i64,
        }
        msg.require_owner()?;
        if self.handle.rank() != 0 {
            self.relay_to_root(msg);
            return Ok(());
        }
        let req: Request = msg.json()?;
        let name = &req.namespace;
        if self.table.map.contains_key(name) {
            return Err(RpcError::explained(
                libc::EEXIST,
                format!("KVS namespace {name} exists already"),
            ));
        }
        let owner = match req.owner as u32 {
            wire::USERID_UNKNOWN => own_userid(),
            uid => uid,
        };
        self.gc.refer([Need::Dir(req.rootref)]);
        let ns = Namespace::new(name, owner, req.flags, req.rootref, 0);
        let roots = checkpoint::root(&ns, req.rootref, 0);
        self.table.map.insert(name.clone(), ns);
        let event = json!({
            "namespace": name, "rootseq": 0, "rootref": req.rootref, "owner": owner as i32,
        });
        self.publish(&format!("kvs.namespace-{name}-created"), &event);
        let payload = batch::encode(&roots.encode(), [].iter());
        let stored = self
            .handle
            .rpc_raw("content.store-batch", Node::Any, Some(payload));
        let (name, msg) = (name.clone(), msg.clone());
        self.work.push(Box::pin(async move {
            let stored = stored.await.map(drop);
            Done::Created(name, msg, stored)
        }));
        Ok(())
    }

    /// A namespace is stored, so that it is there after a restart; or it cannot be, and is not there.
    pub(super) fn handle_created(
        &mut self,
        name: &str,
        msg: &Message,
        stored: Result<(), RpcError>,
    ) {
        if stored.is_err() && self.remove(name) {
            let topic = format!("kvs.namespace-{name}-removed");
            self.publish(&topic, &json!({"namespace": name}));
        }
        self.handle.respond_result(msg, stored.map(|()| json!({})));
    }

    pub(super) fn handle_namespace_remove(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        if self.handle.rank() != 0 {
            self.relay_to_root(msg);
            return Ok(());
        }
        let req: NameRequest = msg.json()?;
        if req.namespace.eq_ignore_ascii_case(PRIMARY) {
            return Err(RpcError::explained(
                libc::ENOTSUP,
                format!("KVS namespace {PRIMARY} cannot be removed"),
            ));
        }
        if self.remove(&req.namespace) {
            // Later than all stores of its commits. If it is lost the namespace is there again after a restart.
            let gone = Roots::of(&req.namespace, Value::Null);
            let payload = batch::encode(&gone.encode(), [].iter());
            self.handle
                .notify_raw("content.store-batch", Node::Any, Some(payload));
            let topic = format!("kvs.namespace-{}-removed", req.namespace);
            self.publish(&topic, &json!({"namespace": req.namespace}));
        }
        // Removing what is not there is fine.
        self.handle.respond_ok(msg);
        Ok(())
    }

    /// Forgets a namespace and fails what waits in it.
    fn remove(&mut self, name: &str) -> bool {
        let Some(ns) = self.table.map.remove(name) else {
            if let Some(getting) = self.getroots.get_mut(name) {
                getting.removed = true;
            }
            return false;
        };
        let gone = namespace::unknown(name);
        let commits = ns.queue.into_iter().chain(ns.in_flight).map(|p| p.request);
        for msg in commits.chain(ns.waiters.into_iter().map(|(_, msg)| msg)) {
            self.handle.respond_error(&msg, &gone);
        }
        if self.handle.rank() != 0 {
            let (handle, topic) = (self.handle.clone(), format!("kvs.namespace-{name}-"));
            self.work.push(Box::pin(async move {
                // If the broker is going down there is nothing to undo.
                let _ = handle.unsubscribe(&topic).await;
                Done::Nothing
            }));
        }
        true
    }

    pub(super) fn relay_to_root(&mut self, msg: &Message) {
        let (handle, msg) = (self.handle.clone(), msg.clone());
        let rpc = handle.rpc_raw(msg.topic(), Node::Rank(0), msg.payload().cloned());
        self.relayed += 1;
        self.work.push(Box::pin(async move {
            match rpc.await {
                Ok(answer) => handle.respond_raw(&msg, answer.payload().cloned()),
                Err(e) => handle.respond_error(&msg, &e),
            }
            Done::Relayed
        }));
    }

    pub(super) fn handle_namespace_list(&mut self, msg: &Message) -> Result<(), RpcError> {
        msg.require_owner()?;
        let list: Vec<_> = self
            .table
            .map
            .values()
            .map(|ns| json!({"namespace": ns.name, "owner": ns.owner as i32, "flags": ns.flags}))
            .collect();
        self.handle.respond(msg, &json!({ "namespaces": list }));
        Ok(())
    }

    /// Test hook: a rank whose root does not move.
    pub(super) fn handle_pause(&mut self, msg: &Message, pause: bool) -> Result<(), RpcError> {
        let req: NameRequest = msg.json()?;
        if self.namespace(&req.namespace, msg)?.is_none() {
            self.retry_with_namespace(msg, &req.namespace);
            return Ok(());
        }
        let Some(ns) = self.table.map.get_mut(&req.namespace) else {
            return Err(namespace::unknown(&req.namespace));
        };
        if pause {
            ns.paused.get_or_insert_default();
        } else {
            for (seq, root) in ns.paused.take().unwrap_or_default() {
                self.advance(&req.namespace, root, seq);
            }
        }
        self.handle.respond_ok(msg);
        Ok(())
    }
}
