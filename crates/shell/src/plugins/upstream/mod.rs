//! Shell plugins that were built for upstream: the other side of `load.c` and `offer.c`.
//!
//! They are linked with upstream's libflux-core, which comes with them; what the shell offers them is the same that it offers
//! to others ([`requests`]). All of it happens on the shell's one thread.

use super::{Callbacks, Job, Stack, requests};
use crate::log::{Level, Record};
use plugin_sdk::Args;
use serde_json::{Map, Value};
use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::Path,
    ptr::{NonNull, null, null_mut},
    rc::{Rc, Weak},
};

unsafe extern "C" {
    fn ffs_load(path: *const c_char, conf: *const c_char, error: *mut *const c_char)
    -> *mut c_void;
    fn ffs_name(plugin: *mut c_void) -> *const c_char;
    fn ffs_handles(plugin: *mut c_void, topic: *const c_char) -> c_int;
    fn ffs_call(
        plugin: *mut c_void,
        topic: *const c_char,
        input: *const c_char,
        output: *const c_char,
        said: *mut *mut c_char,
    ) -> c_int;
    fn ffs_unload(plugin: *mut c_void);
}

/// Whom the functions of `offer.c` ask.
#[derive(Clone)]
struct Host {
    job: Rc<Job>,
    stack: Weak<Stack>,
}

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn json(map: &Map<String, Value>) -> CString {
    text(&serde_json::to_string(map).unwrap_or_default())
}

/// # Safety
/// `text` is null or a string of C.
unsafe fn owned(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: of the caller.
        false => unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned(),
    }
}

/// Loads the plugin at `path` onto the stack.
pub(super) fn load(
    stack: &Rc<Stack>,
    path: &Path,
    conf: &Map<String, Value>,
) -> Result<(), String> {
    let host = Host {
        job: stack.job().clone(),
        stack: Rc::downgrade(stack),
    };
    HOST.set(Some(host));
    let (file, conf) = (text(&path.to_string_lossy()), json(conf));
    let mut error = null();
    // SAFETY: the texts outlive the call; an error is a text that stays until the next call.
    let (plugin, error) = unsafe {
        let plugin = ffs_load(file.as_ptr(), conf.as_ptr(), &mut error);
        (plugin, owned(error))
    };
    let plugin = NonNull::new(plugin).ok_or_else(|| format!("{}: {error}", path.display()))?;
    let upstream = Upstream { plugin };
    // SAFETY: the plugin is loaded, and its name a string or null.
    let name = unsafe { owned(ffs_name(plugin.as_ptr())) };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    // One that has no name has that of its file, with its directory.
    let name = match name.is_empty() || name.contains('/') {
        true => stem.into_owned(),
        false => name,
    };
    stack.push(name, upstream);
    Ok(())
}

struct Upstream {
    plugin: NonNull<c_void>,
}

impl Callbacks for Upstream {
    fn handles(&self, topic: &str) -> bool {
        // SAFETY: the plugin is loaded, and the text outlives the call.
        unsafe { ffs_handles(self.plugin.as_ptr(), text(topic).as_ptr()) != 0 }
    }

    fn call(&self, _: &Job, topic: &str, args: &mut Args) -> Result<(), String> {
        let (topic, input, output) = (text(topic), json(&args.input), json(&args.output));
        let mut said = null_mut();
        // SAFETY: the texts outlive the call; what is said is ours to free.
        let code = unsafe {
            let code = ffs_call(
                self.plugin.as_ptr(),
                topic.as_ptr(),
                input.as_ptr(),
                output.as_ptr(),
                &mut said,
            );
            if !said.is_null() {
                let bytes = CStr::from_ptr(said).to_bytes();
                args.output = serde_json::from_slice(bytes).unwrap_or_default();
                libc::free(said.cast());
            }
            code
        };
        match code {
            0.. => Ok(()),
            _ => Err(args.error().unwrap_or("the handler failed").to_owned()),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // SAFETY: loaded once, unloaded once.
        unsafe { ffs_unload(self.plugin.as_ptr()) };
    }
}

fn host() -> Option<Host> {
    HOST.with_borrow(Clone::clone)
}

/// # Safety
/// Both are strings of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn ffs_ask(method: *const c_char, params: *const c_char) -> *mut c_char {
    // SAFETY: of the caller.
    let (method, params) = unsafe { (owned(method), owned(params)) };
    let params = serde_json::from_str(&params).unwrap_or_default();
    let answer = host().map(|host| {
        // Plugins of this kind register nothing that is called by their name.
        requests::answer(&host.job, &host.stack, "", &method, &params)
    });
    let (found, errno) = match answer {
        Some(Ok(answer)) => (Some(text(&answer.to_string())), 0),
        Some(Err(failure)) => (None, failure.errno),
        None => (None, libc::EINVAL),
    };
    // SAFETY: a copy for C to free; errno is this thread's.
    unsafe {
        match found {
            Some(found) => libc::strdup(found.as_ptr()),
            None => {
                *libc::__errno_location() = errno;
                null_mut()
            }
        }
    }
}

/// # Safety
/// Texts are null or strings of C.
#[unsafe(no_mangle)]
unsafe extern "C" fn ffs_log(
    component: *const c_char,
    level: c_int,
    file: *const c_char,
    line: c_int,
    message: *const c_char,
) {
    // SAFETY: of the caller.
    let (component, file, message) = unsafe { (owned(component), owned(file), owned(message)) };
    if let Some(host) = host() {
        let place = (!file.is_empty()).then(|| (file, line.unsigned_abs()));
        host.job.record(Record {
            component: Some(component).filter(|component| !component.is_empty()),
            place,
            ..Record::new(Level::from_severity(level.into()), message)
        });
    }
}
