//! Loading libpmix.

use super::{Error, abi};
use std::{
    ffi::{CStr, c_char, c_void},
    ptr::NonNull,
};

/// The name of all versions that have the functions of version 4.
const NAME: &CStr = c"libpmix.so.2";

/// The functions of libpmix. It stays loaded: it has threads.
pub(super) struct Library {
    pub(super) init: abi::ServerInit,
    pub(super) finalize: abi::ServerFinalize,
    pub(super) generate_regex: abi::Regex,
    pub(super) generate_ppn: abi::Regex,
    pub(super) register_nspace: abi::RegisterNspace,
    pub(super) register_client: abi::RegisterClient,
    pub(super) setup_fork: abi::SetupFork,
    pub(super) dmodex_request: abi::DmodexRequest,
    error_string: abi::ErrorString,
}

/// A function of a library that stays loaded.
fn symbol(handle: NonNull<c_void>, name: &CStr) -> Result<NonNull<c_void>, Error> {
    // SAFETY: the handle is open, and the name a C string.
    let found = NonNull::new(unsafe { libc::dlsym(handle.as_ptr(), name.as_ptr()) });
    found.ok_or_else(|| {
        Error(format!(
            "libpmix has no function {}",
            name.to_string_lossy()
        ))
    })
}

/// What the dynamic loader says about its last failure.
fn load_error() -> String {
    // SAFETY: dlerror gives a C string of this thread, or null.
    let text = unsafe { libc::dlerror().cast_const() };
    match text.is_null() {
        true => "unknown error".to_owned(),
        // SAFETY: as above.
        false => unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned(),
    }
}

macro_rules! function {
    ($handle:expr, $name:literal, $kind:ty) => {
        // SAFETY: the symbol is the function of PMIx's standard by that name.
        unsafe { std::mem::transmute::<NonNull<c_void>, $kind>(symbol($handle, $name)?) }
    };
}

impl Library {
    pub(super) fn load() -> Result<Library, Error> {
        // Its components look for its symbols, so they must be seen by all.
        // SAFETY: initialisers of libraries are trusted as those of linked ones are.
        let handle = unsafe { libc::dlopen(NAME.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        let missing = || Error(format!("libpmix cannot be loaded: {}", load_error()));
        let handle = NonNull::new(handle).ok_or_else(missing)?;
        Ok(Library {
            init: function!(handle, c"PMIx_server_init", abi::ServerInit),
            finalize: function!(handle, c"PMIx_server_finalize", abi::ServerFinalize),
            generate_regex: function!(handle, c"PMIx_generate_regex", abi::Regex),
            generate_ppn: function!(handle, c"PMIx_generate_ppn", abi::Regex),
            register_nspace: function!(handle, c"PMIx_server_register_nspace", abi::RegisterNspace),
            register_client: function!(handle, c"PMIx_server_register_client", abi::RegisterClient),
            setup_fork: function!(handle, c"PMIx_server_setup_fork", abi::SetupFork),
            dmodex_request: function!(handle, c"PMIx_server_dmodex_request", abi::DmodexRequest),
            error_string: function!(handle, c"PMIx_Error_string", abi::ErrorString),
        })
    }

    /// What went wrong during something, in the library's words.
    pub(super) fn check(&self, during: &str, status: abi::Status) -> Result<(), Error> {
        if status == abi::SUCCESS || status == abi::SUCCEEDED {
            return Ok(());
        }
        // SAFETY: the function gives a C string for every status.
        let text = unsafe { CStr::from_ptr((self.error_string)(status).cast::<c_char>()) };
        Err(Error(format!("{during}: {}", text.to_string_lossy())))
    }
}
