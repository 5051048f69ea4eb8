//! A host for tests of plugins.

use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

use plugin_sdk::host::{Extension, Failure, LoadError, Plugin, Services, Setup};
use serde_json::{Map, Value, json};

const EXTENSION: Extension = Extension {
    kind: c"test",
    table: std::ptr::null::<c_void>(),
};

#[derive(Default)]
pub(crate) struct Host {
    pub(crate) lines: Vec<String>,
}

impl Services for Host {
    fn ask(&mut self, plugin: u64, method: &str, params: Value) -> Result<Value, Failure> {
        match method {
            "echo" => Ok(json!({ "plugin": plugin, "params": params })),
            "panic" => panic!("asked for"),
            _ => Err(Failure::new(libc::ENOSYS, format!("no method {method}"))),
        }
    }

    fn log(&mut self, _: u64, severity: i32, text: &str) {
        self.lines.push(format!("{severity} {text}"));
    }
}

/// Load a plugin with this configuration, as number 7.
pub(crate) fn load_with(
    path: &Path,
    conf: Value,
    host: &mut Host,
) -> Result<Arc<Plugin>, LoadError> {
    let conf: Map<String, Value> = serde_json::from_value(conf).unwrap();
    let setup = Setup {
        path,
        serial: 7,
        conf,
        extension: EXTENSION,
    };
    Plugin::load(setup, host)
}
