//! The C interface of all plugins: the twin of `include/ferroflux/plugin.h`, which describes it.
//!
//! Invariant: members are only ever added, at the end; [`Host::size`] tells a plugin how far a host goes.

use std::ffi::{CStr, c_char, c_int, c_void};

/// The version of the interface.
pub const ABI: u32 = 1;
/// The name of a plugin's entry point.
pub const ENTRY: &CStr = c"ferroflux_plugin_v1";

/// Which arguments a function is about.
pub const IN: c_int = 0;
/// What comes out of a call.
pub const OUT: c_int = 1;
/// Put in the place of what is there, instead of merging.
pub const REPLACE: c_int = 2;

/// A plugin, as it sees itself.
#[repr(C)]
pub struct RawPlugin {
    _opaque: [u8; 0],
}

/// The arguments of a call, as a plugin sees them.
#[repr(C)]
pub struct RawArgs {
    _opaque: [u8; 0],
}

pub type Handler =
    unsafe extern "C" fn(*mut RawPlugin, *const c_char, *mut RawArgs, *mut c_void) -> c_int;
pub type Free = unsafe extern "C" fn(*mut c_void);
pub type Entry = unsafe extern "C" fn(*const Host, *mut RawPlugin) -> c_int;

/// What a host offers to every plugin.
#[repr(C)]
pub struct Host {
    pub size: usize,
    pub abi: u32,
    pub kind: *const c_char,
    pub add_handler:
        unsafe extern "C" fn(*mut RawPlugin, *const c_char, Handler, *mut c_void) -> c_int,
    pub remove_handler: unsafe extern "C" fn(*mut RawPlugin, *const c_char) -> c_int,
    pub set_name: unsafe extern "C" fn(*mut RawPlugin, *const c_char) -> c_int,
    pub name: unsafe extern "C" fn(*mut RawPlugin) -> *const c_char,
    pub path: unsafe extern "C" fn(*mut RawPlugin) -> *const c_char,
    pub conf: unsafe extern "C" fn(*mut RawPlugin) -> *const c_char,
    pub error: unsafe extern "C" fn(*mut RawPlugin) -> *const c_char,
    pub args_get: unsafe extern "C" fn(*mut RawArgs, c_int) -> *const c_char,
    pub args_set: unsafe extern "C" fn(*mut RawArgs, c_int, *const c_char) -> c_int,
    pub args_new: unsafe extern "C" fn() -> *mut RawArgs,
    pub args_free: unsafe extern "C" fn(*mut RawArgs),
    pub fail: unsafe extern "C" fn(*mut RawPlugin, *mut RawArgs, *const c_char) -> c_int,
    pub aux_set:
        unsafe extern "C" fn(*mut RawPlugin, *const c_char, *mut c_void, Option<Free>) -> c_int,
    pub aux_get: unsafe extern "C" fn(*mut RawPlugin, *const c_char) -> *mut c_void,
    pub log: unsafe extern "C" fn(*mut RawPlugin, c_int, *const c_char),
    pub extension: unsafe extern "C" fn(*mut RawPlugin, *const c_char) -> *const c_void,
    pub ask: unsafe extern "C" fn(
        *mut RawPlugin,
        *const c_char,
        *const c_char,
        *mut *const c_char,
    ) -> c_int,
    pub args_find: unsafe extern "C" fn(*mut RawArgs, c_int, *const c_char) -> *const c_char,
}

// The pointers of a table are to things that are never written.
unsafe impl Send for Host {}
unsafe impl Sync for Host {}
