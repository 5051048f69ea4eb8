//! Initrc files in TOML: defaults of options, the environment, and plugins.
//!
//! ```toml
//! [options]                       # defaults: the job's own options are kept
//! cpu-affinity = "per-task"
//!
//! [environment]
//! set = { SITE = "north" }
//! default = { OMP_NUM_THREADS = "1" }     # where the job does not have it
//! unset = ["OLD_*"]
//! prepend = { PATH = "/opt/site/bin" }
//!
//! [[plugin]]
//! file = "monitor.so"
//! conf = { period = 10 }
//! ```

use super::{Reader, mpi::prepend_path};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path, rc::Rc};
use wire::Glob;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    options: Map<String, Value>,
    #[serde(default)]
    environment: Changes,
    #[serde(default)]
    plugin: Vec<PluginFile>,
}

/// Changes of the environment, made in the order of the fields.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Changes {
    unset: Vec<String>,
    set: BTreeMap<String, String>,
    default: BTreeMap<String, String>,
    prepend: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginFile {
    file: String,
    #[serde(default)]
    conf: Value,
}

/// Does what the table at `path` says.
pub(super) fn apply(reader: &Rc<Reader>, path: &Path, text: &[u8]) -> Result<(), String> {
    let fault = |e: String| format!("initrc: {}: {}", path.display(), e.trim_end());
    let table: Table = toml::from_slice(text).map_err(|e| fault(e.to_string()))?;
    let job = reader.stack.job();
    for (name, value) in table.options {
        if job.info().jobspec.shell_option(&name).is_none() {
            job.set_option(&name, value);
        }
    }
    let changes = table.environment;
    job.change_env(|env| {
        for glob in changes.unset.iter().map(|glob| Glob::new(glob)) {
            env.retain(|name, _| !glob.matches(name));
        }
        env.extend(changes.set);
        for (name, value) in changes.default {
            env.entry(name).or_insert(value);
        }
    });
    for (name, dir) in &changes.prepend {
        prepend_path(job, name, dir);
    }
    for plugin in table.plugin {
        reader
            .load_plugins(&plugin.file, &plugin.conf)
            .map_err(fault)?;
    }
    Ok(())
}
