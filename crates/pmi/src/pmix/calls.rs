//! What libpmix calls, on threads of its own: each call becomes a [`Request`] for the host.

use super::abi::{
    Blob, Done, ERROR, Info, Module, NOT_SUPPORTED, Proc, SUCCEEDED, SUCCESS, Status, WILDCARD,
};
use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::OnceLock,
};

/// Where requests go. libpmix is one per process, and so is its host.
pub(super) static HOST: OnceLock<Box<dyn Fn(Request) + Send + Sync>> = OnceLock::new();

/// What a task asks, through libpmix.
#[derive(Debug)]
pub enum Request {
    /// All local tasks are in a fence: `data` is what they have put. The answer is what the tasks of all shells have.
    Fence {
        data: Vec<u8>,
        reply: Reply,
    },
    /// A task asks for what the task `rank` of another shell has put.
    Modex {
        rank: u32,
        reply: Reply,
    },
    /// A task wants the job to end.
    Abort {
        rank: u32,
        status: i32,
        message: String,
        done: Consent,
    },
    Finalized {
        rank: u32,
    },
    /// A task has asked for something that is not offered.
    Refused {
        /// Nothing if several have.
        rank: Option<u32>,
        what: &'static str,
    },
}

/// Pointers that libpmix takes back from any thread.
#[derive(Debug)]
struct Token(*mut c_void);

// SAFETY: libpmix's own documentation lets callbacks be called from any thread.
unsafe impl Send for Token {}

/// The answer to a request for data. One that is dropped is an error.
#[derive(Debug)]
pub struct Reply {
    callback: Option<Blob>,
    token: Token,
}

unsafe extern "C" fn free_blob(data: *mut c_void) {
    // SAFETY: from `Reply::answer`, given back once.
    drop(unsafe { Box::from_raw(data.cast::<Vec<u8>>()) });
}

impl Reply {
    /// Answers with data.
    pub fn answer(mut self, data: Vec<u8>) {
        if let Some(callback) = self.callback.take() {
            let data = Box::into_raw(Box::new(data));
            // SAFETY: the data stays until libpmix gives it back.
            unsafe {
                let (text, length) = ((*data).as_ptr().cast(), (*data).len());
                callback(
                    SUCCESS,
                    text,
                    length,
                    self.token.0,
                    Some(free_blob),
                    data.cast(),
                );
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            let nothing: *mut c_void = std::ptr::null_mut();
            // SAFETY: no data comes with an error.
            unsafe { callback(ERROR, nothing.cast(), 0, self.token.0, None, nothing) };
        }
    }
}

/// Lets a task go on, when it is dropped.
#[derive(Debug)]
pub struct Consent {
    callback: Option<Done>,
    token: Token,
}

impl Drop for Consent {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            // SAFETY: libpmix has given both for this.
            unsafe { callback(SUCCESS, self.token.0) };
        }
    }
}

fn tell(request: Request) {
    if let Some(host) = HOST.get() {
        host(request);
    }
}

/// # Safety
/// `proc` is null or a process.
unsafe fn rank_of(proc: *const Proc) -> u32 {
    // SAFETY: of the caller.
    unsafe { proc.as_ref() }.map_or(WILDCARD, |proc| proc.rank)
}

pub(super) static MODULE: Module = Module {
    client_connected: Some(client_connected),
    client_finalized: Some(client_finalized),
    abort: Some(abort),
    fence: Some(fence),
    direct_modex: Some(direct_modex),
    publish: [0; 3],
    spawn: Some(spawn),
    connect: Some(connect),
    disconnect: Some(connect),
    others: [0; 29],
};

unsafe extern "C" fn client_connected(
    _: *const Proc,
    _: *mut c_void,
    _: Option<Done>,
    _: *mut c_void,
) -> Status {
    SUCCEEDED
}

unsafe extern "C" fn client_finalized(
    proc: *const Proc,
    _: *mut c_void,
    _: Option<Done>,
    _: *mut c_void,
) -> Status {
    // SAFETY: libpmix names the process.
    let rank = unsafe { rank_of(proc) };
    tell(Request::Finalized { rank });
    SUCCEEDED
}

unsafe extern "C" fn abort(
    proc: *const Proc,
    _: *mut c_void,
    status: c_int,
    message: *const c_char,
    _: *const Proc,
    _: usize,
    callback: Option<Done>,
    token: *mut c_void,
) -> Status {
    // SAFETY: libpmix names the process, and the message is a C string or null.
    let (rank, message) = unsafe {
        let message = (!message.is_null()).then(|| CStr::from_ptr(message));
        (
            rank_of(proc),
            message.map(|m| m.to_string_lossy().into_owned()),
        )
    };
    let token = Token(token);
    tell(Request::Abort {
        rank,
        status,
        message: message.unwrap_or_default(),
        done: Consent { callback, token },
    });
    SUCCESS
}

unsafe extern "C" fn fence(
    procs: *const Proc,
    count: usize,
    _: *const Info,
    _: usize,
    data: *const c_char,
    length: usize,
    callback: Option<Blob>,
    token: *mut c_void,
) -> Status {
    // SAFETY: libpmix gives `count` processes and `length` bytes; both stay during the call.
    let (first, data) = unsafe {
        let data = (!data.is_null()).then(|| std::slice::from_raw_parts(data.cast::<u8>(), length));
        (rank_of(procs), data.unwrap_or_default().to_vec())
    };
    if count != 1 || first != WILDCARD {
        tell(Request::Refused {
            rank: Some(first).filter(|rank| *rank != WILDCARD),
            what: "a fence of some tasks",
        });
        return NOT_SUPPORTED;
    }
    let token = Token(token);
    tell(Request::Fence {
        data,
        reply: Reply { callback, token },
    });
    SUCCESS
}

unsafe extern "C" fn direct_modex(
    proc: *const Proc,
    _: *const Info,
    _: usize,
    callback: Option<Blob>,
    token: *mut c_void,
) -> Status {
    // SAFETY: libpmix names the process.
    let rank = unsafe { rank_of(proc) };
    let token = Token(token);
    tell(Request::Modex {
        rank,
        reply: Reply { callback, token },
    });
    SUCCESS
}

unsafe extern "C" fn spawn(
    proc: *const Proc,
    _: *const Info,
    _: usize,
    _: *const c_void,
    _: usize,
    _: *const c_void,
    _: *mut c_void,
) -> Status {
    // SAFETY: libpmix names the process.
    let rank = Some(unsafe { rank_of(proc) });
    let what = "spawning processes";
    tell(Request::Refused { rank, what });
    NOT_SUPPORTED
}

unsafe extern "C" fn connect(
    procs: *const Proc,
    _: usize,
    _: *const Info,
    _: usize,
    _: Option<Done>,
    _: *mut c_void,
) -> Status {
    // SAFETY: libpmix names at least one process.
    let rank = Some(unsafe { rank_of(procs) }).filter(|rank| *rank != WILDCARD);
    let what = "connecting processes";
    tell(Request::Refused { rank, what });
    NOT_SUPPORTED
}
