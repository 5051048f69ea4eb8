//! The module's shared object, and the functions of the libflux-core it was linked with.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// A connection to the broker (`flux_t`).
pub(crate) type Flux = *mut c_void;
/// An answer that is to come (`flux_future_t`).
pub(crate) type Future = *mut c_void;
/// A configuration (`flux_conf_t`).
pub(crate) type Conf = *mut c_void;

/// What went wrong, in words (`flux_error_t`).
#[repr(C)]
pub(crate) struct ErrorText {
    text: [c_char; 160],
}

impl ErrorText {
    pub(crate) const fn new() -> Self {
        Self { text: [0; 160] }
    }
}

impl std::fmt::Display for ErrorText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.text.map(|c| c as u8);
        let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
        f.write_str(&text.to_string_lossy())
    }
}

/// Declares the functions, and how they are found.
macro_rules! functions {
    ($($name:ident: $kind:ty,)*) => {
        /// A module that is loaded. It stays: threads of its libraries may outlive it.
        pub(crate) struct Library {
            object: *mut c_void,
            $(pub(crate) $name: $kind,)*
        }

        impl Library {
            fn with(object: *mut c_void) -> Result<Self, String> {
                Ok(Self {
                    object,
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        let at = symbol(object, CStr::from_bytes_with_nul(name.as_bytes()).unwrap_or_default())
                            .ok_or_else(|| concat!("module does not define or link with ", stringify!($name), "()"))?;
                        // SAFETY: the symbol of this name is a function of this type in every libflux-core.
                        unsafe { std::mem::transmute::<*mut c_void, $kind>(at) }
                    },)*
                })
            }
        }
    };
}

functions! {
    mod_main: unsafe extern "C" fn(Flux, c_int, *mut *mut c_char) -> c_int,
    flux_open_ex: unsafe extern "C" fn(*const c_char, c_int, *mut ErrorText) -> Flux,
    flux_close: unsafe extern "C" fn(Flux),
    flux_aux_get: unsafe extern "C" fn(Flux, *const c_char) -> *mut c_void,
    flux_aux_set: unsafe extern "C" fn(Flux, *const c_char, *mut c_void, Option<unsafe extern "C" fn(*mut c_void)>) -> c_int,
    flux_log: unsafe extern "C" fn(Flux, c_int, *const c_char, ...) -> c_int,
    flux_module_initialize: unsafe extern "C" fn(Flux, *mut *mut c_char, *mut ErrorText) -> c_int,
    flux_module_register_handlers: unsafe extern "C" fn(Flux, *mut ErrorText) -> c_int,
    flux_module_finalize: unsafe extern "C" fn(Flux, c_int, *mut ErrorText) -> c_int,
    flux_rpc: unsafe extern "C" fn(Flux, *const c_char, *const c_char, u32, c_int) -> Future,
    flux_rpc_get: unsafe extern "C" fn(Future, *mut *const c_char) -> c_int,
    flux_rpc_get_unpack: unsafe extern "C" fn(Future, *const c_char, ...) -> c_int,
    flux_future_destroy: unsafe extern "C" fn(Future),
    flux_service_register: unsafe extern "C" fn(Flux, *const c_char) -> Future,
    flux_attr_get: unsafe extern "C" fn(Flux, *const c_char) -> *const c_char,
    flux_conf_pack: unsafe extern "C" fn(*const c_char, ...) -> Conf,
    flux_set_conf_new: unsafe extern "C" fn(Flux, Conf) -> c_int,
}

fn symbol(object: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the object is loaded, the name ends with a zero.
    let at = unsafe { libc::dlsym(object, name.as_ptr()) };
    (!at.is_null()).then_some(at)
}

fn why() -> String {
    // SAFETY: what comes back is null or a text that stays until the next call of this family on this thread.
    unsafe {
        let text = libc::dlerror();
        match text.is_null() {
            true => "it cannot be loaded".to_owned(),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        }
    }
}

impl Library {
    /// Load a module, or say why not.
    pub(crate) fn open(path: &CStr) -> Result<Self, String> {
        // SAFETY: this is the only thread. What a module does when it is loaded is its own business.
        let object = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        match object.is_null() {
            true => Err(why()),
            false => Self::with(object),
        }
    }

    /// Modules of old say their own name, and run under no other.
    pub(crate) fn admits(&self, name: &CStr) -> Result<(), String> {
        let Some(at) = symbol(self.object, c"mod_name") else {
            return Ok(());
        };
        // SAFETY: the symbol is a pointer to a text, or null.
        let own = unsafe {
            let text = *at.cast::<*const c_char>();
            if text.is_null() {
                return Ok(());
            }
            CString::from(CStr::from_ptr(text))
        };
        match *own == *name {
            true => Ok(()),
            false => Err(format!(
                "the module is named {:?} and cannot run as {:?}",
                own.to_string_lossy(),
                name.to_string_lossy()
            )),
        }
    }
}
