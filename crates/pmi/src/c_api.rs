//! What the C libraries `libpmi.so` and `libpmi2.so` share: one client in the process, and C's way of passing values.

use crate::{Client, client::PmiError, wire::rc};
use std::{
    ffi::{CStr, c_char, c_int},
    sync::{Mutex, PoisonError},
};

/// There is no client yet.
pub const ERR_INIT: c_int = 1;
pub const ERR_INVALID_ARG: c_int = 3;
pub const SUCCESS: c_int = rc::SUCCESS;
pub const FAIL: c_int = rc::FAIL;

/// Exports functions that are refused: they return [`FAIL`]. C passes arguments, which nobody looks at.
#[macro_export]
macro_rules! refused {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> std::ffi::c_int {
            $crate::c_api::FAIL
        }
    )*};
}

/// Success, or the code that is returned instead.
pub type Outcome = Result<(), c_int>;

/// The one client of a process.
pub struct Slot(Mutex<Option<Client>>);

impl Slot {
    #[must_use]
    pub const fn empty() -> Slot {
        Slot(Mutex::new(None))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects as the environment says. A second time changes nothing.
    pub fn init(&self) -> Outcome {
        let mut slot = self.lock();
        if slot.is_none() {
            *slot = Some(Client::from_env().map_err(|e| code(&e))?);
        }
        Ok(())
    }

    pub fn is_initialized(&self) -> bool {
        self.lock().is_some()
    }

    pub fn finalize(&self) -> c_int {
        let client = self.lock().take();
        returned(
            client
                .ok_or(ERR_INIT)
                .and_then(|client| checked(client.finalize())),
        )
    }

    /// Does something with the client, if there is one.
    pub fn with(&self, work: impl FnOnce(&mut Client) -> Outcome) -> c_int {
        returned(self.lock().as_mut().ok_or(ERR_INIT).and_then(work))
    }

    /// Ends the program, and this process in any case.
    pub fn abort(&self, code: i32, message: &str) -> ! {
        if let Some(client) = self.lock().as_mut()
            && let Err(e) = client.abort(code, message)
        {
            eprintln!("{e}");
        }
        std::process::exit(code)
    }
}

#[must_use]
pub fn returned(outcome: Outcome) -> c_int {
    outcome.err().unwrap_or(SUCCESS)
}

/// The code of an error, as RFC 13 has it.
#[must_use]
pub fn code(e: &PmiError) -> c_int {
    match e {
        PmiError::Text { what: "key", .. } => rc::INVALID_KEY,
        PmiError::Text { .. } => rc::INVALID_VAL,
        PmiError::TooLong { what: "key", .. } => rc::INVALID_KEY_LENGTH,
        PmiError::TooLong { .. } => rc::INVALID_VAL_LENGTH,
        PmiError::Refused { code, .. } => *code,
        _ => FAIL,
    }
}

/// An outcome of the client as one of a library.
pub fn checked<T>(outcome: Result<T, PmiError>) -> Result<T, c_int> {
    outcome.map_err(|e| code(&e))
}

/// Stores a number where the caller wants it.
///
/// # Safety
/// `place` is null or may be written.
pub unsafe fn store(place: *mut c_int, value: impl TryInto<c_int>) -> Outcome {
    // SAFETY: the caller vouches for what is not null.
    let place = unsafe { place.as_mut() }.ok_or(ERR_INVALID_ARG)?;
    *place = value.try_into().map_err(|_| FAIL)?;
    Ok(())
}

/// The caller's text.
///
/// # Safety
/// `text` is null or a C string that outlives the result.
pub unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, c_int> {
    if text.is_null() {
        return Err(ERR_INVALID_ARG);
    }
    // SAFETY: the caller vouches for what is not null.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| ERR_INVALID_ARG)
}

/// Copies as much of a text as fits, with its terminator. Says whether that is all of it.
///
/// # Safety
/// `place` is null or has room for `length` bytes.
pub unsafe fn copy(text: &str, place: *mut c_char, length: c_int) -> Result<bool, c_int> {
    let room = usize::try_from(length)
        .ok()
        .filter(|n| *n > 0 && !place.is_null());
    let room = room.ok_or(ERR_INVALID_ARG)?;
    let n = text.len().min(room - 1);
    // SAFETY: `n` bytes and a terminator fit, as the caller vouches.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), place.cast(), n);
        *place.add(n) = 0;
    }
    Ok(n == text.len())
}

/// [`copy`], with an error when the text does not fit.
///
/// # Safety
/// As for [`copy`].
pub unsafe fn copy_all(text: &str, place: *mut c_char, length: c_int) -> Outcome {
    // SAFETY: the same promise.
    match unsafe { copy(text, place, length) }? {
        true => Ok(()),
        false => Err(rc::INVALID_LENGTH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_their_room() {
        let mut place = [b'x' as c_char; 6];
        // SAFETY: the room is that of the array.
        unsafe {
            assert_eq!(copy("hello", place.as_mut_ptr(), 6), Ok(true));
            assert_eq!(text(place.as_ptr()), Ok("hello"));
            assert_eq!(copy("longer", place.as_mut_ptr(), 6), Ok(false));
            assert_eq!(text(place.as_ptr()), Ok("longe"));
            assert_eq!(
                copy_all("longer", place.as_mut_ptr(), 6),
                Err(rc::INVALID_LENGTH)
            );
            assert_eq!(copy("", place.as_mut_ptr(), 0), Err(ERR_INVALID_ARG));
            assert_eq!(copy("", std::ptr::null_mut(), 5), Err(ERR_INVALID_ARG));
            assert_eq!(text(std::ptr::null()), Err(ERR_INVALID_ARG));
        }
    }

    #[test]
    fn a_client_must_be_there() {
        static SLOT: Slot = Slot::empty();
        assert_eq!(SLOT.with(|_| Ok(())), ERR_INIT);
        assert_eq!(SLOT.finalize(), ERR_INIT);
        SLOT.init().unwrap();
        assert!(SLOT.is_initialized());
        let mut rank: c_int = 7;
        // SAFETY: the number may be written.
        assert_eq!(
            SLOT.with(|pmi| unsafe { store(&mut rank, pmi.rank()) }),
            SUCCESS
        );
        assert_eq!(
            (rank, SLOT.finalize(), SLOT.is_initialized()),
            (0, SUCCESS, false)
        );
    }
}
