//! What reaches plugins besides jobs: requests to services they have registered, timers, and programs that speak up.

use std::collections::HashMap;
use std::time::Duration;

use plugin_sdk::Args;
use plugin_sdk::host::Failure;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

use super::super::{Done, Manager, log};
use super::Taps;
use super::tap::{Body, Tap};
use std::sync::Arc;

/// Something for a plugin has come up.
#[derive(Debug)]
pub(in crate::manager) enum News {
    /// The program of this serial number has something to say.
    Said(u64),
    /// A time is over.
    Due(u64, String),
}

/// Requests of others, and who answers them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// `NAME.METHOD`: the plugin, its topic, and who may ask.
    methods: HashMap<String, (u64, String, u32)>,
    /// Requests that are answered later, by ticket.
    open: HashMap<u64, (u64, Message)>,
    last: u64,
}

/// What a plugin's answer is on the wire.
fn answer(out: &Value, failed: bool) -> Result<Value, RpcError> {
    let errno = out.get("errnum").and_then(Value::as_i64).unwrap_or(0);
    if failed || errno != 0 {
        let errno = i32::try_from(errno).ok().filter(|errno| *errno > 0);
        let errno = errno.unwrap_or(libc::EINVAL);
        return Err(match out.get("errmsg").and_then(Value::as_str) {
            Some(why) => RpcError::new(errno, why),
            None => RpcError::errno(errno),
        });
    }
    Ok(out.get("payload").cloned().unwrap_or_default())
}

impl Taps {
    /// A plugin is gone, and all it had registered.
    pub(super) fn forget_plugin(&mut self, serial: u64) {
        self.orders.remove(&serial);
        self.services
            .methods
            .retain(|_, (plugin, ..)| *plugin != serial);
        self.services
            .open
            .retain(|_, (plugin, _)| *plugin != serial);
        for subscribers in self.subscribers.values_mut() {
            subscribers.remove(&serial);
        }
    }
}

impl Manager {
    pub(super) fn ask_service(
        &mut self,
        plugin: u64,
        method: &str,
        given: Value,
    ) -> Result<Value, Failure> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Register { method: String, rolemask: u32 },
            Timer { seconds: f64, topic: String },
            Respond { ticket: u64 },
        }
        let parsed = Given::deserialize(&given);
        match (method, parsed) {
            ("service_register", Ok(Given::Register { method, rolemask })) => {
                self.taps.pending_services.push((plugin, method, rolemask));
                self.register_services();
                Ok(Value::Null)
            }
            ("timer", Ok(Given::Timer { seconds, topic })) => {
                let after = Duration::try_from_secs_f64(seconds)
                    .map_err(|e| Failure::invalid(format!("timer: {e}")))?;
                self.work.push(Box::pin(async move {
                    tokio::time::sleep(after).await;
                    Done::Tapped(News::Due(plugin, topic))
                }));
                Ok(Value::Null)
            }
            ("respond", Ok(Given::Respond { ticket })) => {
                let found = self.taps.services.open.remove(&ticket);
                let (_, request) =
                    found.ok_or_else(|| Failure::new(libc::ENOENT, "no such request is open"))?;
                self.respond_for_plugin(&request, answer(&given, false));
                Ok(Value::Null)
            }
            _ => Err(Failure::invalid(format!(
                "{method}: parameters are missing or wrong"
            ))),
        }
    }

    /// Services are named after their plugin, whose name is known once it is loaded.
    pub(super) fn register_services(&mut self) {
        for (plugin, method, rolemask) in std::mem::take(&mut self.taps.pending_services) {
            match self.taps.stack.by_serial(plugin) {
                Some(tap) => {
                    let topic = format!("service.{method}");
                    let name = format!("{}.{method}", tap.service());
                    let text = format!(
                        "jobtap plugin {} registered method job-manager.{name}",
                        tap.name
                    );
                    log(&self.handle, libc::LOG_DEBUG as u8, &text);
                    let entry = (plugin, topic, rolemask);
                    self.taps.services.methods.insert(name, entry);
                }
                None => self.taps.pending_services.push((plugin, method, rolemask)),
            }
        }
    }

    fn respond_for_plugin(&self, request: &Message, answer: Result<Value, RpcError>) {
        match answer {
            Ok(Value::Null) => self.handle.respond_ok(request),
            Ok(value) => self.handle.respond(request, &value),
            Err(e) => self.handle.respond_error(request, &e),
        }
    }

    /// A request that is not for the manager itself.
    pub(in crate::manager) fn serve_by_plugin(
        &mut self,
        msg: &Message,
    ) -> Result<Option<Value>, RpcError> {
        let unknown = || RpcError::errno(libc::ENOSYS);
        let found = self.taps.services.methods.get(msg.method()).cloned();
        let (serial, topic, rolemask) = found.ok_or_else(unknown)?;
        msg.require_role(rolemask)?;
        let tap = self.taps.stack.by_serial(serial).ok_or_else(unknown)?;
        let payload = match msg.payload() {
            Some(_) => msg.json::<Value>()?,
            None => Value::Null,
        };
        self.taps.services.last += 1;
        let ticket = self.taps.services.last;
        let known = json!({
            "payload": payload,
            "userid": msg.userid(),
            "rolemask": msg.rolemask(),
            "ticket": ticket,
        });
        let Value::Object(known) = known else {
            return Err(unknown());
        };
        let mut args = Args::new(known);
        self.taps
            .services
            .open
            .insert(ticket, (serial, msg.clone()));
        let code = tap.call(&topic, &mut args, self).unwrap_or_else(|| {
            let why = format!("{} does not handle {topic}", tap.name);
            args.output.insert("errmsg".to_owned(), why.into());
            -1
        });
        self.remove_broken();
        let is_later = args.output.get("later").is_some_and(|v| v != &json!(false));
        if is_later && code >= 0 {
            return Ok(None);
        }
        // It may have answered by its ticket.
        if self.taps.services.open.remove(&ticket).is_none() {
            return Ok(None);
        }
        answer(&Value::Object(args.output), code < 0).map(Some)
    }

    /// Notice when a program has something to say.
    pub(super) fn await_words(&mut self, tap: &Arc<Tap>) {
        if let Body::Program(_, words) = &tap.body {
            let (words, serial) = (words.clone(), tap.serial);
            self.work.push(Box::pin(async move {
                if let Ok(mut ready) = words.readable().await {
                    ready.clear_ready();
                }
                Done::Tapped(News::Said(serial))
            }));
        }
    }

    /// Something for a plugin has come up.
    pub(in crate::manager) fn tapped(&mut self, news: News) {
        let (News::Said(serial) | News::Due(serial, _)) = news;
        let Some(tap) = self.taps.stack.by_serial(serial) else {
            return;
        };
        match news {
            News::Said(_) => {
                tap.listen(self);
                self.remove_broken();
                if self.taps.stack.by_serial(serial).is_some() {
                    self.await_words(&tap);
                }
            }
            News::Due(_, topic) => {
                tap.call(&topic, &mut Args::default(), self);
                self.remove_broken();
            }
        }
    }
}
