//! Writing plugins in Rust.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value};

use crate::abi::{ABI, Host, OUT, RawArgs, RawPlugin};

/// Why something failed: an errno, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub errno: i32,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self {
            errno: libc::EINVAL,
            message,
        }
    }
}

fn c_text(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| format!("{text:?} has a zero byte").into())
}

/// # Safety
/// `text` is null or a string of C.
unsafe fn rust_text(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: of the caller.
        false => unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned(),
    }
}

/// What a call into a plugin was told, and what it says.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Call {
    pub topic: String,
    pub input: Map<String, Value>,
    /// Merged into what comes out.
    pub output: Map<String, Value>,
}

type Handle = dyn Fn(&Plugin, &mut Call) -> Result<(), Error>;

/// This plugin, while it is being called.
#[derive(Clone, Copy)]
pub struct Plugin {
    pub(crate) host: &'static Host,
    pub(crate) raw: *mut RawPlugin,
}

struct Registered {
    host: &'static Host,
    handle: Box<Handle>,
}

unsafe extern "C" fn drop_registered(data: *mut c_void) {
    // SAFETY: from `Plugin::on`, given back once.
    drop(unsafe { Box::from_raw(data.cast::<Registered>()) });
}

/// The handler of all topics; `data` is what [`Plugin::on`] registered.
unsafe extern "C" fn dispatch(
    raw: *mut RawPlugin,
    topic: *const c_char,
    args: *mut RawArgs,
    data: *mut c_void,
) -> c_int {
    // SAFETY: from `Plugin::on`; the host keeps it as long as the handler.
    let registered = unsafe { &*data.cast::<Registered>() };
    let host = registered.host;
    let plugin = Plugin { host, raw };
    // SAFETY: the host's topic and arguments are good during the call.
    let (topic, input) = unsafe { (rust_text(topic), rust_text((host.args_get)(args, 0))) };
    let mut call = Call {
        topic,
        input: serde_json::from_str(&input).unwrap_or_default(),
        output: Map::new(),
    };
    let handled = catch_unwind(AssertUnwindSafe(|| (registered.handle)(&plugin, &mut call)));
    let handled = handled.unwrap_or_else(|_| Err("the plugin panicked".into()));
    let code = match handled {
        Ok(()) => 0,
        Err(e) => {
            call.output.insert("errmsg".to_owned(), e.message.into());
            -1
        }
    };
    if !call.output.is_empty()
        && let Ok(text) = c_text(&Value::Object(call.output).to_string())
    {
        // SAFETY: as above.
        unsafe { (host.args_set)(args, OUT, text.as_ptr()) };
    }
    code
}

impl Plugin {
    pub(crate) fn check(&self, code: c_int) -> Result<c_int, Error> {
        match code {
            0.. => Ok(code),
            _ => Err(Error {
                errno: std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
                // SAFETY: the host's text.
                message: unsafe { rust_text((self.host.error)(self.raw)) },
            }),
        }
    }

    /// Handle topics that match a glob.
    pub fn on<F>(&self, topic: &str, handle: F) -> Result<(), Error>
    where
        F: Fn(&Plugin, &mut Call) -> Result<(), Error> + 'static,
    {
        let text = c_text(topic)?;
        let data = Box::into_raw(Box::new(Registered {
            host: self.host,
            handle: Box::new(handle),
        }));
        let key = c_text(&format!("ferroflux.handler.{topic}"))?;
        // SAFETY: `data` belongs to the host until `drop_registered`.
        unsafe {
            self.check((self.host.add_handler)(
                self.raw,
                text.as_ptr(),
                dispatch,
                data.cast(),
            ))?;
            let kept =
                (self.host.aux_set)(self.raw, key.as_ptr(), data.cast(), Some(drop_registered));
            self.check(kept)?;
        }
        Ok(())
    }

    /// Be called something else than the file.
    pub fn set_name(&self, name: &str) -> Result<(), Error> {
        let name = c_text(name)?;
        // SAFETY: the host copies it.
        self.check(unsafe { (self.host.set_name)(self.raw, name.as_ptr()) })?;
        Ok(())
    }

    /// The configuration it was loaded with.
    pub fn conf(&self) -> Map<String, Value> {
        // SAFETY: the host's text.
        let text = unsafe { rust_text((self.host.conf)(self.raw)) };
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Log a line with a severity of syslog.
    pub fn log(&self, severity: i32, line: &str) {
        if let Ok(line) = c_text(line) {
            // SAFETY: the host copies it.
            unsafe { (self.host.log)(self.raw, severity, line.as_ptr()) }
        }
    }

    /// Ask the host by name.
    pub fn ask(&self, method: &str, params: Value) -> Result<Value, Error> {
        let (method, params) = (c_text(method)?, c_text(&params.to_string())?);
        let mut answer = std::ptr::null();
        // SAFETY: the host copies the texts and sets the answer.
        let text = unsafe {
            let asked =
                (self.host.ask)(self.raw, method.as_ptr(), params.as_ptr(), &raw mut answer);
            self.check(asked)?;
            rust_text(answer)
        };
        serde_json::from_str(&text).map_err(|e| e.to_string().into())
    }
}

/// What [`declare_plugin!`](crate::declare_plugin) expands to calls this.
///
/// # Safety
/// Both are what a host calls the entry point with.
pub unsafe fn enter(
    host: *const Host,
    raw: *mut RawPlugin,
    init: fn(&Plugin) -> Result<(), Error>,
) -> c_int {
    // SAFETY: of the caller; the table lives as long as the plugin.
    let host = unsafe { &*host };
    if host.abi != ABI || host.size < size_of::<Host>() {
        return -1;
    }
    let plugin = Plugin { host, raw };
    let Err(e) =
        catch_unwind(|| init(&plugin)).unwrap_or_else(|_| Err("the plugin panicked".into()))
    else {
        return 0;
    };
    let why = c_text(&e.message).unwrap_or_default();
    // SAFETY: the host copies it, and takes missing arguments.
    unsafe { (host.fail)(raw, std::ptr::null_mut(), why.as_ptr()) }
}

/// Make a crate of type `cdylib` a plugin: `declare_plugin!(init)`, with `fn init(plugin: &Plugin) -> Result<(), Error>`.
#[macro_export]
macro_rules! declare_plugin {
    ($init:path) => {
        /// The entry point.
        ///
        /// # Safety
        /// Called by a host of plugins.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn ferroflux_plugin_v1(
            host: *const $crate::abi::Host,
            plugin: *mut $crate::abi::RawPlugin,
        ) -> i32 {
            // SAFETY: of the caller.
            unsafe { $crate::enter(host, plugin, $init) }
        }
    };
}
