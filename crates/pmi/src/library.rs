//! PMI libraries of this machine, used as C programs use them: loaded at run time.

use crate::{client::PmiError, wire::rc};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::NonNull,
};

/// Which of the two C interfaces a library has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    Pmi1,
    Pmi2,
}

impl Interface {
    /// The file that is looked for where nobody says otherwise.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Interface::Pmi1 => "libpmi.so",
            Interface::Pmi2 => "libpmi2.so",
        }
    }
}

/// A library that is loaded. It stays: nobody knows what it has started.
pub struct Library {
    handle: NonNull<c_void>,
    interface: Interface,
    rank: u32,
    size: u32,
    name: String,
}

/// The longest names and values that are asked for.
const ROOM: usize = 4096;

type Numbers = unsafe extern "C" fn(*mut c_int, *mut c_int, *mut c_int, *mut c_int) -> c_int;
type Number = unsafe extern "C" fn(*mut c_int) -> c_int;
type Plain = unsafe extern "C" fn() -> c_int;
type Text = unsafe extern "C" fn(*const c_char) -> c_int;
type Name = unsafe extern "C" fn(*mut c_char, c_int) -> c_int;
type Abort = unsafe extern "C" fn(c_int, *const c_char) -> c_int;
type Put1 = unsafe extern "C" fn(*const c_char, *const c_char, *const c_char) -> c_int;
type Put2 = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;
type Get1 = unsafe extern "C" fn(*const c_char, *const c_char, *mut c_char, c_int) -> c_int;
type Get2 = unsafe extern "C" fn(
    *const c_char,
    c_int,
    *const c_char,
    *mut c_char,
    c_int,
    *mut c_int,
) -> c_int;

fn check(during: &'static str, code: c_int) -> Result<(), PmiError> {
    match code {
        rc::SUCCESS => Ok(()),
        code => Err(PmiError::Refused { during, code }),
    }
}

fn c_text(what: &'static str, text: &str) -> Result<CString, PmiError> {
    let text = CString::new(text);
    text.map_err(|e| PmiError::Text {
        what,
        text: String::from_utf8_lossy(&e.into_vec()).into_owned(),
    })
}

/// Calls a function of a library.
macro_rules! call {
    ($library:expr, $symbol:literal, $kind:ty $(, $argument:expr)*) => {{
        let symbol = $library.symbol($symbol)?;
        // SAFETY: the symbol is a function of the interface, whose type RFC 13 and pmi2.h give.
        let function = unsafe { std::mem::transmute::<NonNull<c_void>, $kind>(symbol) };
        // SAFETY: pointers are to values that outlive the call, with the lengths that are said.
        check($symbol, unsafe { function($($argument),*) })
    }};
}

impl Library {
    /// Loads the library at `path`, or the first of its usual name where the system looks for libraries.
    pub fn open(interface: Interface, path: Option<&str>) -> Result<Library, PmiError> {
        let path = path.unwrap_or(interface.file());
        let name = c_text("path", path)?;
        // SAFETY: the name is a C string; initialisers of libraries are trusted as those of linked ones are.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let handle = NonNull::new(handle).ok_or_else(|| PmiError::Library(load_error(path)))?;
        Ok(Library {
            handle,
            interface,
            rank: 0,
            size: 1,
            name: String::new(),
        })
    }

    fn find(&self, name: &str) -> Option<NonNull<c_void>> {
        let name = CString::new(name).ok()?;
        // SAFETY: the handle is of a library that stays loaded.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) })
    }

    fn symbol(&self, name: &str) -> Result<NonNull<c_void>, PmiError> {
        let missing = || PmiError::Library(format!("the library has no function {name}"));
        self.find(name).ok_or_else(missing)
    }

    /// Whether this is Flux's own library.
    #[must_use]
    pub fn is_flux(&self) -> bool {
        self.find("flux_pmi_library").is_some()
    }

    /// Connects to the process manager.
    pub fn init(&mut self) -> Result<(), PmiError> {
        let (mut spawned, mut size, mut rank, mut appnum) = (0, 0, 0, 0);
        let mut name = [0; ROOM];
        let room = ROOM as c_int;
        match self.interface {
            Interface::Pmi1 => {
                call!(self, "PMI_Init", Number, &mut spawned)?;
                call!(self, "PMI_Get_size", Number, &mut size)?;
                call!(self, "PMI_Get_rank", Number, &mut rank)?;
                call!(self, "PMI_KVS_Get_my_name", Name, name.as_mut_ptr(), room)?;
            }
            Interface::Pmi2 => {
                call!(
                    self,
                    "PMI2_Init",
                    Numbers,
                    &mut spawned,
                    &mut size,
                    &mut rank,
                    &mut appnum
                )?;
                call!(self, "PMI2_Job_GetId", Name, name.as_mut_ptr(), room)?;
            }
        }
        let bad = |_| PmiError::Library(format!("rank {rank} of {size} makes no sense"));
        (self.rank, self.size) = (rank.try_into().map_err(bad)?, size.try_into().map_err(bad)?);
        self.name = received(&name);
        Ok(())
    }
}

/// What was wrong when a library could not be loaded.
fn load_error(path: &str) -> String {
    // SAFETY: the text is copied before anything else is loaded by this thread.
    let text = unsafe { NonNull::new(libc::dlerror()).map(|text| CStr::from_ptr(text.as_ptr())) };
    text.map_or_else(
        || format!("{path} cannot be loaded"),
        |text| text.to_string_lossy().into_owned(),
    )
}

/// The text that a library has put into an array.
fn received(place: &[c_char]) -> String {
    let bytes = place.iter().map(|c| *c as u8).take_while(|c| *c != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

impl crate::Process for Library {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn size(&self) -> u32 {
        self.size
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), PmiError> {
        let (key, value) = (c_text("key", key)?, c_text("value", value)?);
        match self.interface {
            Interface::Pmi1 => {
                let name = c_text("name", &self.name)?;
                call!(
                    self,
                    "PMI_KVS_Put",
                    Put1,
                    name.as_ptr(),
                    key.as_ptr(),
                    value.as_ptr()
                )?;
                call!(self, "PMI_KVS_Commit", Text, name.as_ptr())
            }
            Interface::Pmi2 => call!(self, "PMI2_KVS_Put", Put2, key.as_ptr(), value.as_ptr()),
        }
    }

    fn get(&mut self, key: &str) -> Result<Option<String>, PmiError> {
        let (name, key) = (c_text("name", &self.name)?, c_text("key", key)?);
        let mut value = [0; ROOM];
        let (place, room, mut length) = (value.as_mut_ptr(), ROOM as c_int, 0);
        let (name, key) = (name.as_ptr(), key.as_ptr());
        let outcome = match self.interface {
            Interface::Pmi1 => call!(self, "PMI_KVS_Get", Get1, name, key, place, room),
            Interface::Pmi2 => call!(
                self,
                "PMI2_KVS_Get",
                Get2,
                name,
                -1,
                key,
                place,
                room,
                &mut length
            ),
        };
        match outcome {
            Ok(()) => Ok(Some(received(&value))),
            // Libraries disagree about the code for a key that is not there.
            Err(PmiError::Refused { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn barrier(&mut self) -> Result<(), PmiError> {
        match self.interface {
            Interface::Pmi1 => call!(self, "PMI_Barrier", Plain),
            Interface::Pmi2 => call!(self, "PMI2_KVS_Fence", Plain),
        }
    }

    fn abort(&mut self, code: i32, message: &str) -> Result<(), PmiError> {
        let message = c_text("message", message)?;
        match self.interface {
            Interface::Pmi1 => call!(self, "PMI_Abort", Abort, code, message.as_ptr()),
            Interface::Pmi2 => call!(self, "PMI2_Abort", Abort, 1, message.as_ptr()),
        }
    }

    fn finalize(self: Box<Self>) -> Result<(), PmiError> {
        match self.interface {
            Interface::Pmi1 => call!(self, "PMI_Finalize", Plain),
            Interface::Pmi2 => call!(self, "PMI2_Finalize", Plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_pmi_library() {
        let open = |path| Library::open(Interface::Pmi1, Some(path));
        let Err(PmiError::Library(text)) = open("/no/such/libpmi.so") else {
            panic!("a file that is not there was loaded");
        };
        assert!(text.contains("/no/such/libpmi.so"), "{text}");
        let mut libc = open("libc.so.6").unwrap();
        assert!(!libc.is_flux());
        let e = libc.init().unwrap_err().to_string();
        assert!(e.contains("no function PMI_Init"), "{e}");
    }
}
