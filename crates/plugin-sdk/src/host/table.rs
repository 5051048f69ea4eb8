//! The functions of [`abi::Host`](crate::abi::Host).
//!
//! What they are given comes from C: null and bad UTF-8 are errors, dangling pointers are the plugin's fault.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::Ordering;

use serde_json::{Map, Value};
use wire::Glob;

use super::plugin::{Kept, Plugin, Pointer, Registered, keep, lock};
use super::services::{self, Failure};
use crate::abi::{ABI, Free, Handler, Host, OUT, REPLACE, RawArgs, RawPlugin};
use crate::args::Args;

/// A text from a plugin.
///
/// # Safety
/// `text` is null or a string of C.
pub(crate) unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::invalid("a text is missing"));
    }
    // SAFETY: of the caller.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map_err(|e| Failure::invalid(format!("a text is not UTF-8: {e}")))
}

/// A JSON object from a plugin.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn object(json: *const c_char) -> Result<Map<String, Value>, Failure> {
    // SAFETY: of the caller.
    let json = unsafe { text(json)? };
    serde_json::from_str(json).map_err(|e| Failure::invalid(format!("not a JSON object: {e}")))
}

/// The plugin a handle stands for.
///
/// # Safety
/// `raw` is a handle of a loaded plugin, or null.
pub(crate) unsafe fn plugin<'a>(raw: *mut RawPlugin) -> Option<&'a Plugin> {
    // SAFETY: of the caller.
    unsafe { raw.cast::<Plugin>().as_ref() }
}

/// # Safety
/// `raw` is from a call or from `args_new`, or null.
pub(crate) unsafe fn args<'a>(raw: *mut RawArgs) -> Option<&'a mut Args> {
    // SAFETY: of the caller.
    unsafe { raw.cast::<Args>().as_mut() }
}

/// Tell C how it went: 0 or -1, errno and the plugin's error.
///
/// # Safety
/// As [`plugin`].
pub(crate) unsafe fn outcome(raw: *mut RawPlugin, result: Result<c_int, Failure>) -> c_int {
    let Failure { errno, message } = match result {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    // SAFETY: of the caller; errno is this thread's.
    unsafe {
        if let Some(plugin) = plugin(raw) {
            *lock(&plugin.error) = CString::new(message).unwrap_or_default();
        }
        *libc::__errno_location() = errno;
    }
    -1
}

/// # Safety
/// As [`plugin`].
pub(crate) unsafe fn known<'a>(raw: *mut RawPlugin) -> Result<&'a Plugin, Failure> {
    // SAFETY: of the caller.
    unsafe { plugin(raw) }.ok_or_else(|| Failure::invalid("a plugin's handle is missing"))
}

pub(super) fn of(kind: &'static CStr) -> Host {
    Host {
        size: size_of::<Host>(),
        abi: ABI,
        kind: kind.as_ptr(),
        add_handler,
        remove_handler,
        set_name,
        name,
        path,
        conf,
        error,
        args_get,
        args_set,
        args_new,
        args_free,
        fail,
        aux_set,
        aux_get,
        log,
        extension,
        ask,
        args_find,
    }
}

unsafe extern "C" fn add_handler(
    p: *mut RawPlugin,
    topic: *const c_char,
    handler: Handler,
    data: *mut c_void,
) -> c_int {
    // SAFETY: handles and texts are what the header says.
    unsafe {
        let add = || {
            let (plugin, topic) = (known(p)?, text(topic)?);
            let mut handlers = lock(&plugin.handlers);
            handlers.retain(|h| h.text != topic);
            handlers.push(Registered {
                text: topic.to_owned(),
                glob: Glob::new(topic),
                handler,
                data: Pointer(data),
            });
            plugin.changes.fetch_add(1, Ordering::Relaxed);
            Ok(0)
        };
        outcome(p, add())
    }
}

unsafe extern "C" fn remove_handler(p: *mut RawPlugin, topic: *const c_char) -> c_int {
    // SAFETY: as above.
    unsafe {
        let remove = || {
            let (plugin, topic) = (known(p)?, text(topic)?);
            lock(&plugin.handlers).retain(|h| h.text != topic);
            plugin.changes.fetch_add(1, Ordering::Relaxed);
            Ok(0)
        };
        outcome(p, remove())
    }
}

unsafe extern "C" fn set_name(p: *mut RawPlugin, name: *const c_char) -> c_int {
    // SAFETY: as above.
    unsafe {
        let set = || {
            let (plugin, name) = (known(p)?, text(name)?);
            *lock(&plugin.name) = CString::new(name).unwrap_or_default();
            Ok(0)
        };
        outcome(p, set())
    }
}

unsafe extern "C" fn name(p: *mut RawPlugin) -> *const c_char {
    // SAFETY: as above; the text stays until the name is set again.
    unsafe { plugin(p) }.map_or(std::ptr::null(), |p| lock(&p.name).as_ptr())
}

unsafe extern "C" fn path(p: *mut RawPlugin) -> *const c_char {
    // SAFETY: as above.
    unsafe { plugin(p) }.map_or(std::ptr::null(), |p| p.path.as_ptr())
}

unsafe extern "C" fn conf(p: *mut RawPlugin) -> *const c_char {
    // SAFETY: as above.
    unsafe { plugin(p) }.map_or(std::ptr::null(), |p| p.conf.as_ptr())
}

unsafe extern "C" fn error(p: *mut RawPlugin) -> *const c_char {
    // SAFETY: as above.
    unsafe { plugin(p) }.map_or(c"".as_ptr(), |p| lock(&p.error).as_ptr())
}

unsafe extern "C" fn args_get(raw: *mut RawArgs, flags: c_int) -> *const c_char {
    // SAFETY: as above.
    unsafe { args(raw) }.map_or(std::ptr::null(), |args| {
        args.text(flags & OUT != 0).as_ptr()
    })
}

unsafe extern "C" fn args_find(
    raw: *mut RawArgs,
    flags: c_int,
    path: *const c_char,
) -> *const c_char {
    // SAFETY: as above.
    let (args, path) = unsafe { (args(raw), text(path)) };
    let found = args.zip(path.ok());
    found
        .and_then(|(args, path)| args.find(flags & OUT != 0, path))
        .map_or(std::ptr::null(), CStr::as_ptr)
}

unsafe extern "C" fn args_set(raw: *mut RawArgs, flags: c_int, json: *const c_char) -> c_int {
    // SAFETY: as above.
    unsafe {
        let set = || {
            let args = args(raw).ok_or_else(|| Failure::invalid("arguments are missing"))?;
            args.set(flags & OUT != 0, flags & REPLACE != 0, object(json)?);
            Ok(0)
        };
        outcome(std::ptr::null_mut(), set())
    }
}

unsafe extern "C" fn args_new() -> *mut RawArgs {
    Box::into_raw(Box::<Args>::default()).cast()
}

unsafe extern "C" fn args_free(raw: *mut RawArgs) {
    if !raw.is_null() {
        // SAFETY: the header says that they are from `args_new` or a look-up, which box them.
        drop(unsafe { Box::from_raw(raw.cast::<Args>()) });
    }
}

unsafe extern "C" fn fail(p: *mut RawPlugin, raw: *mut RawArgs, message: *const c_char) -> c_int {
    // SAFETY: as above.
    unsafe {
        let message = text(message).unwrap_or_default();
        if let Some(args) = args(raw) {
            args.output.insert("errmsg".to_owned(), message.into());
        }
        outcome(p, Err(Failure::invalid(message)))
    }
}

unsafe extern "C" fn aux_set(
    p: *mut RawPlugin,
    key: *const c_char,
    value: *mut c_void,
    free: Option<Free>,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        let set = || {
            let (plugin, key) = (known(p)?, text(key)?);
            // Given back after the lock is open again: the plugin may set more.
            let old = keep(&mut lock(&plugin.aux), key, value, free);
            drop(old);
            Ok(0)
        };
        outcome(p, set())
    }
}

unsafe extern "C" fn aux_get(p: *mut RawPlugin, key: *const c_char) -> *mut c_void {
    // SAFETY: as above.
    let (plugin, key) = unsafe { (plugin(p), text(key)) };
    let found = plugin.zip(key.ok()).and_then(|(plugin, key)| {
        let aux = lock(&plugin.aux);
        aux.get(key).map(Kept::value)
    });
    found.unwrap_or_else(|| {
        // SAFETY: errno is this thread's.
        unsafe { *libc::__errno_location() = libc::ENOENT };
        std::ptr::null_mut()
    })
}

unsafe extern "C" fn log(p: *mut RawPlugin, severity: c_int, line: *const c_char) {
    // SAFETY: as above.
    unsafe {
        if let (Some(plugin), Ok(line)) = (plugin(p), text(line)) {
            // Outside of a call there is nobody to tell.
            let _ = services::with(|services| services.log(plugin.serial, severity, line));
        }
    }
}

unsafe extern "C" fn extension(p: *mut RawPlugin, kind: *const c_char) -> *const c_void {
    // SAFETY: as above.
    unsafe {
        match (plugin(p), text(kind)) {
            (Some(plugin), Ok(kind)) if plugin.extension.kind.to_str() == Ok(kind) => {
                plugin.extension.table
            }
            _ => std::ptr::null(),
        }
    }
}

/// Ask who serves the plugin.
pub(crate) fn asked(plugin: &Plugin, method: &str, params: Value) -> Result<Value, Failure> {
    services::with(|services| services.ask(plugin.serial, method, params))?
}

unsafe extern "C" fn ask(
    p: *mut RawPlugin,
    method: *const c_char,
    params: *const c_char,
    answer: *mut *const c_char,
) -> c_int {
    // SAFETY: as above; `answer` is null or writable.
    unsafe {
        let ask = || {
            let plugin = known(p)?;
            let found = asked(plugin, text(method)?, Value::Object(object(params)?))?;
            let mut kept = lock(&plugin.answer);
            *kept = CString::new(found.to_string()).unwrap_or_default();
            if let Some(answer) = answer.as_mut() {
                *answer = kept.as_ptr();
            }
            Ok(0)
        };
        outcome(p, ask())
    }
}
