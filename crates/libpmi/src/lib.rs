//! `libpmi.so`: the C functions of PMI-1 (RFC 13) over the simple wire protocol.
//!
//! What the wire protocol has no request for (spawning, publishing, options) is refused.

#![allow(
    non_snake_case,
    non_upper_case_globals,
    reason = "the names are those of the C interface"
)]

use formats::{Idset, Taskmap};
use protocol::{
    Client,
    c_api::{self, ERR_INVALID_ARG, SUCCESS, Slot, checked, returned, store},
    wire::{KEY_MAX, KVSNAME_MAX, VALUE_MAX, rc},
};
use std::ffi::{c_char, c_int, c_void};

static CLIENT: Slot = Slot::empty();

/// Tells programs that look for other PMI libraries that this is Flux's.
#[unsafe(no_mangle)]
pub static flux_pmi_library: c_int = 1;

/// The ranks on this process's node, itself included.
fn clique(pmi: &mut Client) -> Result<Idset, c_int> {
    let mut find = |key| checked(pmi.get(key));
    // The longer form says more, the other one is what other process managers have.
    let map = match find("flux.taskmap")?.and_then(|text| text.parse::<Taskmap>().ok()) {
        Some(map) => Some(map),
        None => find("PMI_process_mapping")?.and_then(|text| Taskmap::from_pmi(&text).ok()),
    };
    let node = map.as_ref().and_then(|map| map.node_of(pmi.rank()));
    Ok(match map.zip(node) {
        Some((map, node)) => map.task_ids(node),
        None => Idset::from(pmi.rank()),
    })
}

/// # Safety
/// `spawned` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Init(spawned: *mut c_int) -> c_int {
    // SAFETY: as the caller promises.
    returned(unsafe { store(spawned, 0) }.and_then(|()| CLIENT.init()))
}

/// # Safety
/// `initialized` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Initialized(initialized: *mut c_int) -> c_int {
    // SAFETY: as the caller promises.
    returned(unsafe { store(initialized, i32::from(CLIENT.is_initialized())) })
}

#[unsafe(no_mangle)]
pub extern "C" fn PMI_Finalize() -> c_int {
    CLIENT.finalize()
}

/// # Safety
/// `message` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Abort(exit_code: c_int, message: *const c_char) -> c_int {
    // SAFETY: as the caller promises.
    let message = unsafe { c_api::text(message) };
    CLIENT.abort(
        exit_code,
        message.unwrap_or("the program asked for its end"),
    )
}

/// A function that stores a number of the program.
macro_rules! number {
    ($($name:ident: $value:expr;)*) => {$(
        /// # Safety
        /// `value` is null or may be written.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(value: *mut c_int) -> c_int {
            let number: fn(&mut Client) -> Result<u32, c_int> = $value;
            // SAFETY: as the caller promises.
            CLIENT.with(|pmi| unsafe { store(value, number(pmi)?) })
        }
    )*};
}

number! {
    PMI_Get_rank: |pmi| Ok(pmi.rank());
    PMI_Get_size: |pmi| Ok(pmi.size());
    PMI_Get_universe_size: |pmi| checked(pmi.universe_size());
    PMI_Get_appnum: |pmi| checked(pmi.appnum());
    PMI_Get_clique_size: |pmi| clique(pmi).map(|ranks| ranks.len() as u32);
    PMI_KVS_Get_name_length_max: |_| Ok(KVSNAME_MAX as u32);
    PMI_Get_id_length_max: |_| Ok(KVSNAME_MAX as u32);
    PMI_KVS_Get_key_length_max: |_| Ok(KEY_MAX as u32);
    PMI_KVS_Get_value_length_max: |_| Ok(VALUE_MAX as u32);
}

/// # Safety
/// `ranks` is null or has room for `length` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_Get_clique_ranks(ranks: *mut c_int, length: c_int) -> c_int {
    CLIENT.with(|pmi| {
        let clique = clique(pmi)?;
        if ranks.is_null() {
            return Err(ERR_INVALID_ARG);
        }
        if usize::try_from(length).is_ok_and(|n| n < clique.len()) || length < 0 {
            return Err(rc::INVALID_LENGTH);
        }
        // SAFETY: there is room for all of them, as the caller promises.
        clique
            .iter()
            .enumerate()
            .try_for_each(|(i, rank)| unsafe { store(ranks.add(i), rank) })
    })
}

/// A function that copies the name of the program's key-value space.
macro_rules! name {
    ($($name:ident)*) => {$(
        /// # Safety
        /// `name` is null or has room for `length` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(name: *mut c_char, length: c_int) -> c_int {
            // SAFETY: as the caller promises.
            CLIENT.with(|pmi| unsafe {
                c_api::copy_all(pmi.kvsname().unwrap_or("singleton"), name, length)
            })
        }
    )*};
}

name! { PMI_KVS_Get_my_name PMI_Get_id PMI_Get_kvs_domain_id }

/// # Safety
/// Each argument is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Put(
    name: *const c_char,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    CLIENT.with(|pmi| {
        // SAFETY: as the caller promises.
        let (_, key, value) =
            unsafe { (c_api::text(name)?, c_api::text(key)?, c_api::text(value)?) };
        checked(pmi.put(key, value))
    })
}

/// What is put is with the process manager at once.
///
/// # Safety
/// `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Commit(name: *const c_char) -> c_int {
    // SAFETY: as the caller promises.
    CLIENT.with(|_| unsafe { c_api::text(name) }.map(drop))
}

/// # Safety
/// `name` and `key` are null or C strings; `value` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PMI_KVS_Get(
    name: *const c_char,
    key: *const c_char,
    value: *mut c_char,
    length: c_int,
) -> c_int {
    CLIENT.with(|pmi| {
        // SAFETY: as the caller promises.
        let (_, key) = unsafe { (c_api::text(name)?, c_api::text(key)?) };
        let found = checked(pmi.get(key))?.ok_or(rc::INVALID_KEY)?;
        // SAFETY: as the caller promises.
        unsafe { c_api::copy_all(&found, value, length) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn PMI_Barrier() -> c_int {
    CLIENT.with(|pmi| checked(pmi.barrier()))
}

protocol::refused! {
    PMI_KVS_Create PMI_KVS_Destroy PMI_KVS_Iter_first PMI_KVS_Iter_next PMI_Spawn_multiple PMI_Publish_name
    PMI_Unpublish_name PMI_Lookup_name PMI_Parse_option PMI_Args_to_keyval PMI_Get_options
}

/// There are none: nothing here makes any.
#[unsafe(no_mangle)]
pub extern "C" fn PMI_Free_keyvals(_pairs: *mut c_void, _size: c_int) -> c_int {
    SUCCESS
}
