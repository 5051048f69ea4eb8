//! The C interface of the job shell's plugins: the twin of `include/ferroflux/shell.h`, which describes it.

use std::ffi::{CStr, c_char, c_int};

use crate::abi::{RawArgs, RawPlugin};

/// What a host of this kind calls itself.
pub const KIND: &CStr = c"shell";

type Tell = unsafe extern "C" fn(*mut RawPlugin) -> *const c_char;
type TellOf = unsafe extern "C" fn(*mut RawPlugin, *const c_char) -> *const c_char;
type TellOfNumber = unsafe extern "C" fn(*mut RawPlugin, c_int) -> *const c_char;
type Number = unsafe extern "C" fn(*mut RawPlugin, c_int) -> c_int;
type Text = unsafe extern "C" fn(*mut RawPlugin, *const c_char) -> c_int;
type Pair = unsafe extern "C" fn(*mut RawPlugin, *const c_char, *const c_char) -> c_int;
type SetVariable =
    unsafe extern "C" fn(*mut RawPlugin, *const c_char, *const c_char, c_int) -> c_int;

/// What the job shell offers to its plugins.
#[repr(C)]
pub struct Shell {
    pub size: usize,
    pub abi: u32,
    pub getopt: TellOf,
    pub setopt: Pair,
    pub getenv: TellOf,
    pub environment: Tell,
    pub setenv: SetVariable,
    pub unsetenv: Text,
    pub info: Tell,
    pub rank_info: TellOfNumber,
    pub jobspec_info: Tell,
    pub task_info: TellOfNumber,
    pub taskmap: Tell,
    pub hostlist: Tell,
    pub task_getenv: TellOf,
    pub task_setenv: SetVariable,
    pub task_unsetenv: Text,
    pub task_command: Tell,
    pub set_task_command: Text,
    pub add_event_context: Pair,
    pub add_completion_ref: Text,
    pub remove_completion_ref: Text,
    pub killall: Number,
    pub raise: unsafe extern "C" fn(*mut RawPlugin, *const c_char, c_int, *const c_char) -> c_int,
    pub die: unsafe extern "C" fn(*mut RawPlugin, c_int, *const c_char) -> c_int,
    pub set_verbose: Number,
    pub service_register: Text,
    pub event_subscribe: Text,
    pub rpc: unsafe extern "C" fn(
        *mut RawPlugin,
        *const c_char,
        c_int,
        *const c_char,
        *const c_char,
    ) -> c_int,
    pub render: TellOf,
    pub call: unsafe extern "C" fn(*mut RawPlugin, *const c_char, *mut RawArgs) -> c_int,
}
