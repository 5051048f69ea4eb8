//! Requests that concern the connection they came over: subscriptions, and services of its own.

use serde::Deserialize;
use serde_json::Value;
use wire::{Message, RpcError};

use super::{EndpointId, Router};

impl Router {
    /// Requests that concern the connection they came over, answered here.
    pub(super) fn connection_local(
        &mut self,
        id: &EndpointId,
        msg: &Message,
    ) -> Option<Result<Value, RpcError>> {
        match msg.topic() {
            "event.subscribe" => Some(self.subscribe(id, msg, true)),
            "event.unsubscribe" => Some(self.subscribe(id, msg, false)),
            "service.add" => Some(self.add_service(id, msg)),
            "service.remove" => Some(self.remove_service(id, msg)),
            _ => None,
        }
    }

    fn subscribe(&mut self, id: &EndpointId, msg: &Message, add: bool) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            topic: String,
        }
        let Request { topic } = msg.json()?;
        if add {
            self.subscriptions.add(&topic, id.clone());
        } else if self.subscriptions.remove(&topic, id).is_none() {
            let text = format!("not subscribed to {topic:?}");
            return Err(RpcError::new(libc::ENOENT, text));
        }
        Ok(Value::Null)
    }

    fn add_service(&mut self, id: &EndpointId, msg: &Message) -> Result<Value, RpcError> {
        let name = service_name(msg)?;
        if self.services.contains_key(&name) {
            return Err(RpcError::new(
                libc::EEXIST,
                format!("service {name} is already registered"),
            ));
        }
        if let Some(card) = self.endpoints.get(id).and_then(|e| e.card.as_ref()) {
            card.add_service(&name);
        }
        self.services.insert(name, id.clone());
        Ok(Value::Null)
    }

    fn remove_service(&mut self, id: &EndpointId, msg: &Message) -> Result<Value, RpcError> {
        let name = service_name(msg)?;
        match self.services.get(&name) {
            Some(owner) if owner == id => {
                self.services.remove(&name);
                if let Some(card) = self.endpoints.get(id).and_then(|e| e.card.as_ref()) {
                    card.remove_service(&name);
                }
                Ok(Value::Null)
            }
            Some(_) => Err(RpcError::new(
                libc::EINVAL,
                format!("service {name} is not yours"),
            )),
            None => Err(RpcError::new(
                libc::ENOENT,
                format!("service {name} is not registered"),
            )),
        }
    }
}

fn service_name(msg: &Message) -> Result<String, RpcError> {
    #[derive(Deserialize)]
    struct Request {
        service: String,
    }
    let Request { service } = msg.json()?;
    if !wire::is_service_name(&service) {
        let reason = format!("{service:?} is not a service name");
        return Err(RpcError::explained(libc::EINVAL, reason));
    }
    if !msg.is_owner() && !service.starts_with(&format!("{}-", msg.userid())) {
        let text = format!(
            "Operation not permitted: service name must start with \"{}-\"",
            msg.userid()
        );
        return Err(RpcError::new(libc::EPERM, text));
    }
    Ok(service)
}
