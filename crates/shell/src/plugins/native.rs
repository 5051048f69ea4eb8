//! Plugins that are shared objects.

use super::{Callbacks, Job, Stack, requests, upstream};
use crate::log::{Level, Record};
use plugin_sdk::{
    Args,
    host::{self, Failure, Kind, Services, Setup},
    shell::EXTENSION,
};
use serde_json::{Map, Value};
use std::{
    path::Path,
    rc::{Rc, Weak},
    sync::Arc,
};

/// Loads the plugin at `path` onto the stack.
pub fn load(stack: &Rc<Stack>, path: &Path, conf: &Map<String, Value>) -> Result<(), String> {
    match host::kind_of(path)? {
        Kind::Native => {}
        Kind::Upstream => return upstream::load(stack, path, conf),
        Kind::Program => {
            return Err(format!(
                "{}: is a program: plugins of the job shell are shared objects",
                path.display()
            ));
        }
    }
    let setup = Setup {
        path,
        serial: 0,
        conf: conf.clone(),
        extension: EXTENSION,
    };
    let name = path.file_stem().unwrap_or_default();
    let mut services = Behind {
        stack: Rc::downgrade(stack),
        job: stack.job().clone(),
        name: name.to_string_lossy().into_owned(),
    };
    let plugin =
        host::Plugin::load(setup, &mut services).map_err(|e| format!("{}: {e}", path.display()))?;
    let native = Native {
        plugin,
        stack: Rc::downgrade(stack),
    };
    stack.push(native.plugin.name(), native);
    Ok(())
}

struct Native {
    plugin: Arc<host::Plugin>,
    stack: Weak<Stack>,
}

impl Callbacks for Native {
    fn handles(&self, topic: &str) -> bool {
        self.plugin.handles(topic)
    }

    fn call(&self, job: &Job, topic: &str, args: &mut Args) -> Result<(), String> {
        let Some(stack) = self.stack.upgrade() else {
            return Ok(());
        };
        let mut services = Behind {
            job: stack.job().clone(),
            stack: self.stack.clone(),
            name: self.plugin.name(),
        };
        debug_assert!(std::ptr::eq(job, &raw const *services.job));
        match self.plugin.call(topic, args, &mut services) {
            None | Some(0..) => Ok(()),
            Some(_) => Err(match (args.error(), self.plugin.error()) {
                (Some(why), _) => why.to_owned(),
                (None, why) if !why.is_empty() => why,
                _ => "the handler failed".to_owned(),
            }),
        }
    }
}

/// What is behind the functions of a plugin.
struct Behind {
    stack: Weak<Stack>,
    job: Rc<Job>,
    name: String,
}

impl Services for Behind {
    fn ask(&mut self, _: u64, method: &str, params: Value) -> Result<Value, Failure> {
        requests::answer(&self.job, &self.stack, &self.name, method, &params)
    }

    fn log(&mut self, _: u64, severity: i32, text: &str) {
        self.job.record(Record {
            component: Some(self.name.clone()),
            ..Record::new(Level::from_severity(severity.into()), text)
        });
    }
}
