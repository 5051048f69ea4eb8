//! `libpmi2.so`: the C functions of PMI-2 that programs use, over the simple wire protocol of PMI-1.
//!
//! Node attributes are entries that stay on their node. Spawning, connecting jobs, the name service and attributes that
//! are lists of numbers are refused.

#![allow(
    non_snake_case,
    non_upper_case_globals,
    reason = "the names are those of the C interface"
)]

use formats::Taskmap;
use protocol::{
    Client,
    c_api::{self, FAIL, Slot, checked, store},
    wire::rc,
};
use std::{
    ffi::{c_char, c_int},
    thread,
    time::Duration,
};

static CLIENT: Slot = Slot::empty();

/// Tells programs that look for other PMI libraries that this is Flux's.
#[unsafe(no_mangle)]
pub static flux_pmi_library: c_int = 1;

/// Entries under this prefix are not exchanged between nodes.
const NODE: &str = "local::";

/// How often an attribute that somebody else on the node is to put is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// # Safety
/// Each argument is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Init(
    spawned: *mut c_int,
    size: *mut c_int,
    rank: *mut c_int,
    appnum: *mut c_int,
) -> c_int {
    if let Err(code) = CLIENT.init() {
        return code;
    }
    // SAFETY: as the caller promises.
    CLIENT.with(|pmi| unsafe {
        store(spawned, 0)?;
        store(size, pmi.size())?;
        store(rank, pmi.rank())?;
        store(appnum, checked(pmi.appnum())?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn PMI2_Initialized() -> c_int {
    c_int::from(CLIENT.is_initialized())
}

#[unsafe(no_mangle)]
pub extern "C" fn PMI2_Finalize() -> c_int {
    CLIENT.finalize()
}

/// # Safety
/// `message` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Abort(_all: c_int, message: *const c_char) -> c_int {
    // SAFETY: as the caller promises.
    let message = unsafe { c_api::text(message) };
    CLIENT.abort(1, message.unwrap_or("the program asked for its end"))
}

/// # Safety
/// `id` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Job_GetId(id: *mut c_char, length: c_int) -> c_int {
    // SAFETY: as the caller promises.
    CLIENT.with(|pmi| unsafe { c_api::copy_all(pmi.kvsname().unwrap_or("singleton"), id, length) })
}

/// # Safety
/// `rank` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Job_GetRank(rank: *mut c_int) -> c_int {
    // SAFETY: as the caller promises.
    CLIENT.with(|pmi| unsafe { store(rank, pmi.rank()) })
}

/// # Safety
/// Both arguments are null or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_KVS_Put(key: *const c_char, value: *const c_char) -> c_int {
    // SAFETY: as the caller promises.
    CLIENT.with(|pmi| unsafe { checked(pmi.put(c_api::text(key)?, c_api::text(value)?)) })
}

/// `length` becomes that of the value, negative when only a part of it has room.
///
/// # Safety
/// `key` is null or a C string; `value` is null or has room for `room` bytes; `length` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_KVS_Get(
    _job: *const c_char,
    _source: c_int,
    key: *const c_char,
    value: *mut c_char,
    room: c_int,
    length: *mut c_int,
) -> c_int {
    CLIENT.with(|pmi| {
        // SAFETY: as the caller promises.
        let key = unsafe { c_api::text(key) }?;
        let found = checked(pmi.get(key))?.ok_or(rc::INVALID_KEY)?;
        let len = c_int::try_from(found.len()).map_err(|_| FAIL)?;
        // SAFETY: as the caller promises.
        unsafe {
            let whole = c_api::copy(&found, value, room)?;
            store(length, if whole { len } else { -len })
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn PMI2_KVS_Fence() -> c_int {
    CLIENT.with(|pmi| checked(pmi.barrier()))
}

/// The number of the program's processes on this node.
///
/// # Safety
/// `size` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Info_GetSize(size: *mut c_int) -> c_int {
    CLIENT.with(|pmi| {
        let text = checked(pmi.get("PMI_process_mapping"))?;
        let map = text.and_then(|text| Taskmap::from_pmi(&text).ok());
        let node = map.as_ref().and_then(|map| map.node_of(pmi.rank()));
        let local = map.zip(node).map_or(1, |(map, node)| map.ntasks_on(node));
        // SAFETY: as the caller promises.
        unsafe { store(size, local) }
    })
}

/// Copies an attribute, if there is one, and says so.
///
/// # Safety
/// `value` is null or has room for `room` bytes; `found` is null or may be written.
unsafe fn answer(
    text: Option<String>,
    value: *mut c_char,
    room: c_int,
    found: *mut c_int,
) -> c_api::Outcome {
    // SAFETY: as the caller promises.
    unsafe {
        if let Some(text) = &text {
            c_api::copy_all(text, value, room)?;
        }
        // Callers that wait for an attribute need not be told.
        if found.is_null() {
            return Ok(());
        }
        store(found, i32::from(text.is_some()))
    }
}

fn node_attribute(pmi: &mut Client, name: &str, wait: bool) -> Result<Option<String>, c_int> {
    let key = format!("{NODE}{name}");
    loop {
        match checked(pmi.get(&key))? {
            None if wait => thread::sleep(LOOK),
            outcome => return Ok(outcome),
        }
    }
}

/// # Safety
/// As for [`answer`]; `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Info_GetNodeAttr(
    name: *const c_char,
    value: *mut c_char,
    room: c_int,
    found: *mut c_int,
    wait: c_int,
) -> c_int {
    CLIENT.with(|pmi| {
        // SAFETY: as the caller promises.
        let name = unsafe { c_api::text(name) }?;
        let text = node_attribute(pmi, name, wait != 0)?;
        // SAFETY: as the caller promises.
        unsafe { answer(text, value, room, found) }
    })
}

/// # Safety
/// Both arguments are null or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Info_PutNodeAttr(name: *const c_char, value: *const c_char) -> c_int {
    CLIENT.with(|pmi| {
        // SAFETY: as the caller promises.
        let (name, value) = unsafe { (c_api::text(name)?, c_api::text(value)?) };
        checked(pmi.put(&format!("{NODE}{name}"), value))
    })
}

/// # Safety
/// As for [`answer`]; `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI2_Info_GetJobAttr(
    name: *const c_char,
    value: *mut c_char,
    room: c_int,
    found: *mut c_int,
) -> c_int {
    CLIENT.with(|pmi| {
        // SAFETY: as the caller promises.
        let text = match unsafe { c_api::text(name) }? {
            "universeSize" => Some(checked(pmi.universe_size())?.to_string()),
            name => checked(pmi.get(name))?,
        };
        // SAFETY: as the caller promises.
        unsafe { answer(text, value, room, found) }
    })
}

protocol::refused! {
    PMI2_Job_Spawn PMI2_Job_Connect PMI2_Job_Disconnect PMI2_Nameserv_publish PMI2_Nameserv_lookup
    PMI2_Nameserv_unpublish PMI2_Info_GetNodeAttrIntArray PMI2_Info_GetJobAttrIntArray
}
