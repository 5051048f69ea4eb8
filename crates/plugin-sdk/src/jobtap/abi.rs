//! The C interface of the job manager's plugins: the twin of `include/ferroflux/jobtap.h`, which describes it.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::abi::{Free, RawArgs, RawPlugin};

/// What a host of this kind calls itself.
pub const KIND: &CStr = c"jobtap";
/// Stands for the job that the innermost call is about.
pub const CURRENT: u64 = u64::MAX;

type OfJob = unsafe extern "C" fn(*mut RawPlugin, u64) -> c_int;
type OfJobText = unsafe extern "C" fn(*mut RawPlugin, u64, *const c_char) -> c_int;
type Text = unsafe extern "C" fn(*mut RawPlugin, *const c_char) -> c_int;
type Finish = unsafe extern "C" fn(*mut RawPlugin, u64, *const c_char, c_int) -> c_int;

/// What the job manager offers to its plugins.
#[repr(C)]
pub struct Jobtap {
    pub size: usize,
    pub abi: u32,
    pub dependency_add: OfJobText,
    pub dependency_remove: OfJobText,
    pub job_lookup: unsafe extern "C" fn(*mut RawPlugin, u64) -> *mut RawArgs,
    pub job_result: unsafe extern "C" fn(*mut RawPlugin, u64, *mut c_int) -> c_int,
    pub event_posted: OfJobText,
    pub event_post:
        unsafe extern "C" fn(*mut RawPlugin, u64, *const c_char, *const c_char) -> c_int,
    pub raise:
        unsafe extern "C" fn(*mut RawPlugin, u64, *const c_char, c_int, *const c_char) -> c_int,
    pub set_flag: OfJobText,
    pub jobspec_update: OfJobText,
    pub subscribe: OfJob,
    pub unsubscribe: OfJob,
    pub prolog_start: Text,
    pub prolog_finish: Finish,
    pub epilog_start: Text,
    pub epilog_finish: Finish,
    pub reprioritize_all: unsafe extern "C" fn(*mut RawPlugin) -> c_int,
    pub reprioritize: unsafe extern "C" fn(*mut RawPlugin, u64, i64) -> c_int,
    pub priority_unavail: unsafe extern "C" fn(*mut RawPlugin, *mut RawArgs) -> c_int,
    pub call: unsafe extern "C" fn(*mut RawPlugin, u64, *const c_char, *mut RawArgs) -> c_int,
    pub job_aux_set: unsafe extern "C" fn(
        *mut RawPlugin,
        u64,
        *const c_char,
        *mut c_void,
        Option<Free>,
    ) -> c_int,
    pub job_aux_get: unsafe extern "C" fn(*mut RawPlugin, u64, *const c_char) -> *mut c_void,
    pub job_aux_delete: unsafe extern "C" fn(*mut RawPlugin, u64, *const c_void) -> c_int,
    pub service_register: unsafe extern "C" fn(*mut RawPlugin, *const c_char, u32) -> c_int,
    pub timer: unsafe extern "C" fn(*mut RawPlugin, f64, *const c_char) -> c_int,
    pub set_load_order: Text,
}
