//! What stands behind the functions a plugin calls.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

/// Why something a plugin asked for was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub errno: i32,
    pub message: String,
}

impl Failure {
    pub fn new(errno: i32, message: impl Into<String>) -> Self {
        Self {
            errno,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(libc::EINVAL, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// A host, as its plugins need it. `plugin` is the serial number they were loaded with.
pub trait Services {
    /// Do or tell what `method` names.
    fn ask(&mut self, plugin: u64, method: &str, params: Value) -> Result<Value, Failure>;

    /// Log a line with a severity of syslog.
    fn log(&mut self, plugin: u64, severity: i32, text: &str);
}

thread_local! {
    /// Who serves the plugin that this thread is in; taken out while it does.
    static CURRENT: Cell<Option<*mut dyn Services>> = const { Cell::new(None) };
}

/// Puts back what was there, also when unwinding.
struct Restore(Option<*mut dyn Services>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Run `f`, which goes into a plugin, with `services` behind the plugin's functions.
pub(crate) fn serve<R>(services: &mut dyn Services, f: impl FnOnce() -> R) -> R {
    // SAFETY: only the lifetime is widened; `Restore` takes the pointer away before the borrow ends.
    let widened: *mut dyn Services =
        unsafe { std::mem::transmute::<&mut dyn Services, &'static mut dyn Services>(services) };
    let _restore = Restore(CURRENT.replace(Some(widened)));
    f()
}

/// Do something with who serves the plugin this thread is in.
pub(crate) fn with<R>(f: impl FnOnce(&mut dyn Services) -> R) -> Result<R, Failure> {
    let Some(current) = CURRENT.take() else {
        return Err(Failure::invalid(
            "this can only be asked for from within a call into the plugin",
        ));
    };
    let _restore = Restore(Some(current));
    // SAFETY: `serve` set the pointer and still holds the borrow; having been taken out, it is used once at a time.
    let services = unsafe { &mut *current };
    catch_unwind(AssertUnwindSafe(|| f(services)))
        .map_err(|_| Failure::new(libc::EIO, "the host failed at it; its log says more"))
}
