//! The two sides of the files in C: what the plugin asks (`offer.c`), and what is asked of it (`plugin.c`).
//!
//! Everything happens on one thread: the plugin asks while it is called, or from upstream's reactor.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::RawFd;
use std::sync::OnceLock;

use serde_json::Value;

use crate::{Manager, Refusal};

static MANAGER: OnceLock<Manager> = OnceLock::new();

unsafe extern "C" {
    fn ff_load(path: *const c_char, conf: *const c_char) -> *const c_char;
    fn ff_unload();
    fn ff_call(
        topic: *const c_char,
        input: *const c_char,
        output: *const c_char,
        said: *mut *mut c_char,
    ) -> c_int;
    fn ff_serve(
        method: *const c_char,
        ticket: u64,
        payload: *const c_char,
        userid: u32,
        rolemask: u32,
    ) -> c_int;
    fn ff_forget(id: u64);
    fn ff_run(fd: c_int) -> c_int;
}

pub(crate) fn set_manager(manager: Manager) -> &'static Manager {
    MANAGER.get_or_init(|| manager)
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn json(value: &Value) -> CString {
    match value {
        Value::Null => text("{}"),
        value => text(&value.to_string()),
    }
}

/// Load the plugin, or say why not.
pub(crate) fn load(path: &CStr, conf: &Value) -> Result<(), String> {
    // SAFETY: the texts outlive the call; what comes back is null or a text that stays.
    unsafe {
        let why = ff_load(path.as_ptr(), json(conf).as_ptr());
        match why.is_null() {
            true => Ok(()),
            false => Err(CStr::from_ptr(why).to_string_lossy().into_owned()),
        }
    }
}

pub(crate) fn unload() {
    // SAFETY: nothing of the plugin runs.
    unsafe { ff_unload() }
}

/// What the plugin returns, and says.
pub(crate) fn call(topic: &str, input: &Value, output: &Value) -> (i32, Value) {
    let mut said = std::ptr::null_mut();
    let (topic, input, output) = (text(topic), json(input), json(output));
    // SAFETY: the texts outlive the call; what is said is ours to free.
    unsafe {
        let code = ff_call(
            topic.as_ptr(),
            input.as_ptr(),
            output.as_ptr(),
            &raw mut said,
        );
        if said.is_null() {
            return (code, Value::Null);
        }
        let out = serde_json::from_slice(CStr::from_ptr(said).to_bytes()).unwrap_or_default();
        libc::free(said.cast());
        (code, out)
    }
}

/// Hand a request to a service of the plugin; false if there is none.
pub(crate) fn serve(method: &str, args: &Value) -> bool {
    let number = |key: &str| args[key].as_u64().unwrap_or(0);
    let payload = match &args["payload"] {
        Value::Null => None,
        payload => Some(json(payload)),
    };
    let payload = payload.as_deref().map_or(std::ptr::null(), CStr::as_ptr);
    let (userid, rolemask) = (number("userid") as u32, number("rolemask") as u32);
    // SAFETY: the texts outlive the call.
    unsafe {
        ff_serve(
            text(method).as_ptr(),
            number("ticket"),
            payload,
            userid,
            rolemask,
        ) == 0
    }
}

/// A job is gone, and what the plugin kept with it.
pub(crate) fn forget(id: u64) {
    // SAFETY: nothing of the plugin runs.
    unsafe { ff_forget(id) }
}

pub(crate) fn run(fd: RawFd) {
    // SAFETY: the descriptor stays open as long as the program runs.
    unsafe { ff_run(fd) };
}

#[unsafe(no_mangle)]
extern "C" fn ff_readable() {
    if let Some(manager) = MANAGER.get() {
        manager.serve(&manager.hear());
    }
}

/// # Safety
/// Both are strings of C.
unsafe fn asked(method: &str, params: *const c_char) -> Result<Value, Refusal> {
    // SAFETY: of the caller.
    let params = unsafe { CStr::from_ptr(params) };
    let invalid = || Refusal {
        errno: libc::EINVAL,
    };
    let params = serde_json::from_slice(params.to_bytes()).map_err(|_| invalid())?;
    let manager = MANAGER.get().ok_or_else(invalid)?;
    manager.ask(method, &params)
}

/// A text for C, made by its allocator.
fn allocated(value: &Value) -> *mut c_char {
    // SAFETY: copies a string of C.
    unsafe { libc::strdup(text(&value.to_string()).as_ptr()) }
}

fn refused(refusal: &Refusal) -> *mut c_char {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = refusal.errno };
    std::ptr::null_mut()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ff_ask(method: *const c_char, params: *const c_char) -> *mut c_char {
    // SAFETY: offer.c passes strings.
    let method = unsafe { CStr::from_ptr(method) }.to_string_lossy();
    // SAFETY: as above.
    match unsafe { asked(&method, params) } {
        Ok(answer) => allocated(&answer),
        Err(refusal) => refused(&refusal),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ff_ask_call(params: *const c_char, code: *mut c_int) -> *mut c_char {
    // SAFETY: offer.c passes a string, and a number to write to.
    match unsafe { asked("call", params) } {
        Ok(answer) => {
            // SAFETY: as above.
            unsafe { *code = answer["return"].as_i64().unwrap_or(-1) as c_int };
            allocated(&answer["out"])
        }
        Err(refusal) => refused(&refusal),
    }
}
