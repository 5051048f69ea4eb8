//! The module's connection: as a broker started it, or made by hand to try the module out.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io::Error;
use std::ptr::{null, null_mut};

use serde_json::Value;

use crate::library::{ErrorText, Flux, Library};

/// Any broker answers.
const NODEID_ANY: u32 = u32::MAX;

const NAME: &CStr = c"flux::name";

/// A module and its connection.
pub(crate) struct Session {
    library: Library,
    flux: Flux,
    /// The module's arguments.
    args: Vec<CString>,
}

fn text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} has a zero byte"))
}

fn errno() -> Error {
    Error::last_os_error()
}

impl Session {
    fn open(library: Library, uri: Option<&CStr>) -> Result<Self, String> {
        let mut error = ErrorText::new();
        let uri = uri.map_or_else(null, CStr::as_ptr);
        // SAFETY: the text outlives the call, the error is a place for one.
        let flux = unsafe { (library.flux_open_ex)(uri, 0, &raw mut error) };
        match flux.is_null() {
            true => Err(format!("no connection to the broker: {error}")),
            false => Ok(Self {
                library,
                flux,
                args: Vec::new(),
            }),
        }
    }

    /// Take up what the broker that started this program says: the name, the arguments and so on.
    pub(crate) fn started(library: Library, uri: &str) -> Result<Self, String> {
        let mut session = Self::open(library, Some(&text(uri)?))?;
        let (mut error, mut args) = (ErrorText::new(), null_mut());
        // SAFETY: the connection is open; what is written is null or a text, which is ours to free.
        unsafe {
            let initialize = session.library.flux_module_initialize;
            if initialize(session.flux, &raw mut args, &raw mut error) < 0 {
                return Err(format!("the broker's welcome: {error}"));
            }
            if !args.is_null() {
                let words = CStr::from_ptr(args).to_bytes().split(|b| *b == b' ');
                let words = words.filter(|word| !word.is_empty());
                // A part of a text that ends with a zero has none.
                session.args = words.filter_map(|word| CString::new(word).ok()).collect();
                libc::free(args.cast());
            }
            let name = session.name()?;
            libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0);
        }
        Ok(session)
    }

    /// Connect to the instance and be a module of it as far as that goes from outside.
    pub(crate) fn tried(library: Library, name: &str, args: Vec<CString>) -> Result<Self, String> {
        let mut session = Self::open(library, None)?;
        session.args = args;
        let name = text(name)?;
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
        let id = text(id.map_err(|e| format!("a new id: {e}"))?.trim_end())?;
        session.set(NAME, &name)?;
        session.set(c"flux::uuid", &id)?;
        session.cache_attributes()?;
        session.cache_config()?;
        session.register(&name)?;
        Ok(session)
    }

    /// Attach a text to the connection.
    fn set(&self, key: &CStr, value: &CStr) -> Result<(), String> {
        // SAFETY: the copy is the connection's from here on, which frees it.
        let rc = unsafe {
            let copy = libc::strdup(value.as_ptr());
            (self.library.flux_aux_set)(self.flux, key.as_ptr(), copy.cast(), Some(libc::free))
        };
        match rc < 0 {
            true => Err(format!("{}: {}", key.to_string_lossy(), errno())),
            false => Ok(()),
        }
    }

    /// The name the module runs under.
    fn name(&self) -> Result<CString, String> {
        // SAFETY: what is attached there is null or a text.
        unsafe {
            let name = (self.library.flux_aux_get)(self.flux, NAME.as_ptr()).cast::<c_char>();
            match name.is_null() {
                true => Err("the broker gave the module no name".to_owned()),
                false => Ok(CStr::from_ptr(name).into()),
            }
        }
    }

    /// A broker's modules need not ask for attributes that never change: libflux-core keeps what was asked for.
    fn cache_attributes(&self) -> Result<(), String> {
        let failed = |e: String| format!("the broker's attributes: {e}");
        let mut answer = null();
        // SAFETY: the answer lives as long as the future.
        let names: Value = unsafe {
            let ask = self.library.flux_rpc;
            let future = ask(self.flux, c"attr.list".as_ptr(), null(), NODEID_ANY, 0);
            if future.is_null() || (self.library.flux_rpc_get)(future, &raw mut answer) < 0 {
                return Err(failed(errno().to_string()));
            }
            let bytes = match answer.is_null() {
                true => b"null",
                false => CStr::from_ptr(answer).to_bytes(),
            };
            let names = serde_json::from_slice(bytes).map_err(|e| failed(e.to_string()));
            (self.library.flux_future_destroy)(future);
            names?
        };
        let names = names["names"].as_array().into_iter().flatten();
        for name in names.filter_map(Value::as_str) {
            let name = text(name)?;
            // SAFETY: the name outlives the call. An attribute may have gone since.
            unsafe { (self.library.flux_attr_get)(self.flux, name.as_ptr()) };
        }
        Ok(())
    }

    fn cache_config(&self) -> Result<(), String> {
        let lib = &self.library;
        let mut object: *mut std::ffi::c_void = null_mut();
        // SAFETY: the object is the future's; the packed one has a reference of its own, and is the connection's.
        unsafe {
            let future = (lib.flux_rpc)(self.flux, c"config.get".as_ptr(), null(), NODEID_ANY, 0);
            let failed = || format!("the configuration: {}", errno());
            if future.is_null()
                || (lib.flux_rpc_get_unpack)(future, c"o".as_ptr(), &raw mut object) < 0
            {
                return Err(failed());
            }
            let conf = (lib.flux_conf_pack)(c"O".as_ptr(), object);
            if conf.is_null() || (lib.flux_set_conf_new)(self.flux, conf) < 0 {
                return Err(failed());
            }
            (lib.flux_future_destroy)(future);
        }
        Ok(())
    }

    fn register(&self, name: &CStr) -> Result<(), String> {
        // SAFETY: the name outlives the calls, and no payload is asked for.
        unsafe {
            let future = (self.library.flux_service_register)(self.flux, name.as_ptr());
            if future.is_null() || (self.library.flux_rpc_get)(future, null_mut()) < 0 {
                let name = name.to_string_lossy();
                return Err(format!("service {name:?}: {}", errno()));
            }
            (self.library.flux_future_destroy)(future);
        }
        Ok(())
    }

    /// Run the module until it returns; the inner result is its own.
    pub(crate) fn run(&mut self) -> Result<Result<(), Error>, String> {
        self.library.admits(&self.name()?)?;
        let mut error = ErrorText::new();
        let mut argv: Vec<*mut c_char> = self.args.iter().map(|a| a.as_ptr().cast_mut()).collect();
        let argc = c_int::try_from(argv.len()).map_err(|_| "too many arguments".to_owned())?;
        argv.push(null_mut());
        // SAFETY: the arguments outlive the call, and nothing here looks at them again.
        unsafe {
            if (self.library.flux_module_register_handlers)(self.flux, &raw mut error) < 0 {
                return Err(format!("the services every module has: {error}"));
            }
            if (self.library.mod_main)(self.flux, argc, argv.as_mut_ptr()) < 0 {
                let error = errno();
                return Ok(Err(match error.raw_os_error() {
                    Some(0) | None => Error::from_raw_os_error(libc::ECONNRESET),
                    Some(_) => error,
                }));
            }
        }
        Ok(Ok(()))
    }

    /// Tell the broker that started this program how the module ended.
    pub(crate) fn finish(&self, ended: &Result<(), Error>) -> Result<(), String> {
        let mut error = ErrorText::new();
        let errnum = match ended {
            Ok(()) => 0,
            Err(e) => e.raw_os_error().unwrap_or(libc::ECONNRESET),
        };
        // SAFETY: the connection is open; the format takes one number.
        let rc = unsafe {
            if errnum != 0 {
                let format = c"module exiting abnormally (errno %d)";
                (self.library.flux_log)(self.flux, libc::LOG_CRIT, format.as_ptr(), errnum);
            }
            (self.library.flux_module_finalize)(self.flux, errnum, &raw mut error)
        };
        match rc < 0 {
            true => Err(format!("the broker did not hear of the end: {error}")),
            false => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: nothing uses the connection after this.
        unsafe { (self.library.flux_close)(self.flux) }
    }
}
