//! A loaded shared object, its handlers and what it keeps.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use wire::Glob;

use super::library::Library;
use super::services::{Services, serve};
use super::table;
use crate::abi::{self, Entry, Free, Handler, Host, RawArgs, RawPlugin};
use crate::args::Args;

/// A table of functions that only one kind of host has.
#[derive(Debug, Clone, Copy)]
pub struct Extension {
    pub kind: &'static CStr,
    pub table: *const c_void,
}

// Tables are never written.
unsafe impl Send for Extension {}
unsafe impl Sync for Extension {}

/// What a plugin is loaded with.
pub struct Setup<'a> {
    pub path: &'a Path,
    /// What the host calls it among others.
    pub serial: u64,
    pub conf: Map<String, Value>,
    pub extension: Extension,
}

/// Why a plugin was not loaded.
#[derive(Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The dynamic loader's own words.
    Open(String),
    NoEntry,
    /// Its entry point said no.
    Refused(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(why) => write!(f, "cannot be opened: {why}"),
            Self::NoEntry => write!(f, "has no function {}()", abi::ENTRY.to_string_lossy()),
            Self::Refused(why) if why.is_empty() => f.write_str("its entry point failed"),
            Self::Refused(why) => write!(f, "its entry point failed: {why}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// A pointer that belongs to the plugin.
#[derive(Clone, Copy)]
pub(super) struct Pointer(pub(super) *mut c_void);

// The host hands it back and nothing else; a plugin is called by one thread at a time.
unsafe impl Send for Pointer {}
unsafe impl Sync for Pointer {}

#[derive(Clone)]
pub(super) struct Registered {
    pub(super) text: String,
    pub(super) glob: Glob,
    pub(super) handler: Handler,
    pub(super) data: Pointer,
}

/// A value kept for a plugin, and how to give it back.
pub(crate) struct Kept {
    value: Pointer,
    free: Option<Free>,
}

impl Kept {
    pub(crate) fn new(value: *mut c_void, free: Option<Free>) -> Self {
        Self {
            value: Pointer(value),
            free,
        }
    }

    pub(crate) fn value(&self) -> *mut c_void {
        self.value.0
    }
}

/// Keep a value under a name, or nothing if it is null; returns what was there.
pub(crate) fn keep(
    aux: &mut HashMap<String, Kept>,
    key: &str,
    value: *mut c_void,
    free: Option<Free>,
) -> Option<Kept> {
    match value.is_null() {
        true => aux.remove(key),
        false => aux.insert(key.to_owned(), Kept::new(value, free)),
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let (Some(free), false) = (self.free, self.value.0.is_null()) {
            // SAFETY: the plugin gave both for this; it is still loaded, since values go before it.
            unsafe { free(self.value.0) }
        }
    }
}

/// Never held while a plugin runs.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loaded plugin.
pub struct Plugin {
    pub(super) serial: u64,
    pub(super) path: CString,
    pub(super) conf: CString,
    pub(super) name: Mutex<CString>,
    pub(super) handlers: Mutex<Vec<Registered>>,
    /// Counts changes of the handlers.
    pub(super) changes: AtomicU64,
    pub(super) error: Mutex<CString>,
    pub(crate) answer: Mutex<CString>,
    pub(super) aux: Mutex<HashMap<String, Kept>>,
    /// Of jobs, or whatever else the host counts.
    pub(crate) aux_of: Mutex<HashMap<u64, HashMap<String, Kept>>>,
    pub(super) extension: Extension,
    table: Host,
    /// Closed when all else is gone.
    _library: Library,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("path", &self.path).finish()
    }
}

impl Plugin {
    /// Open a shared object and call its entry point.
    pub fn load(setup: Setup<'_>, services: &mut dyn Services) -> Result<Arc<Self>, LoadError> {
        let Setup {
            path,
            serial,
            conf,
            extension,
        } = setup;
        let library = Library::open(path).map_err(LoadError::Open)?;
        let entry = library.symbol(abi::ENTRY).ok_or(LoadError::NoEntry)?;
        // SAFETY: the name, with its version, stands for the type.
        let entry: Entry = unsafe { std::mem::transmute::<*mut c_void, Entry>(entry) };
        let shown = path.to_string_lossy();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let conf = Value::Object(conf).to_string();
        let text = |text: &str| CString::new(text).unwrap_or_default();
        let plugin = Arc::new(Self {
            serial,
            path: text(&shown),
            conf: text(&conf),
            name: Mutex::new(text(&name)),
            handlers: Mutex::default(),
            changes: AtomicU64::new(0),
            error: Mutex::default(),
            answer: Mutex::default(),
            aux: Mutex::default(),
            aux_of: Mutex::default(),
            extension,
            table: table::of(extension.kind),
            _library: library,
        });
        // SAFETY: the table and the plugin outlive the call, and later ones.
        match serve(services, || unsafe { entry(&plugin.table, plugin.raw()) }) {
            0 => Ok(plugin),
            _ => {
                let why = lock(&plugin.error).to_string_lossy().into_owned();
                Err(LoadError::Refused(why))
            }
        }
    }

    pub(super) fn raw(&self) -> *mut RawPlugin {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The name it gave itself, or that of its file.
    pub fn name(&self) -> String {
        lock(&self.name).to_string_lossy().into_owned()
    }

    /// Counts changes of what it handles.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Whether it has a handler for a topic.
    pub fn handles(&self, topic: &str) -> bool {
        lock(&self.handlers).iter().any(|h| h.glob.matches(topic))
    }

    /// Call the first handler of a topic; what it returned, if there is one.
    pub fn call(&self, topic: &str, args: &mut Args, services: &mut dyn Services) -> Option<i32> {
        let found = lock(&self.handlers)
            .iter()
            .find(|h| h.glob.matches(topic))
            .cloned()?;
        let topic = CString::new(topic).unwrap_or_default();
        let raw: *mut RawArgs = std::ptr::from_mut(args).cast();
        // SAFETY: all that is passed outlives the call; the plugin gave handler and data for this.
        let code = serve(services, || unsafe {
            (found.handler)(self.raw(), topic.as_ptr(), raw, found.data.0)
        });
        Some(code)
    }

    /// What it said when it failed last.
    pub fn error(&self) -> String {
        lock(&self.error).to_string_lossy().into_owned()
    }

    /// Let go of what it keeps for one job.
    pub fn forget(&self, id: u64, services: &mut dyn Services) {
        let kept = lock(&self.aux_of).remove(&id);
        serve(services, || drop(kept));
    }

    /// Let go of all it keeps, before it is unloaded: what gives values back may still ask and log.
    pub fn retire(&self, services: &mut dyn Services) {
        let of_jobs = std::mem::take(&mut *lock(&self.aux_of));
        let own = std::mem::take(&mut *lock(&self.aux));
        serve(services, || drop((of_jobs, own)));
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // Values are given back by code of the library, which is closed after this.
        let (aux, of) = (
            std::mem::take(&mut self.aux),
            std::mem::take(&mut self.aux_of),
        );
        drop(aux);
        drop(of);
    }
}
