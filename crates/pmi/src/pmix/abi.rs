//! The C interface of libpmix that a server uses: the types and constants of PMIx's standard, version 4.

use std::ffi::{CString, c_char, c_int, c_void};

pub(super) type Status = c_int;
pub(super) const SUCCESS: Status = 0;
pub(super) const ERROR: Status = -1;
pub(super) const NOT_SUPPORTED: Status = -47;
/// Done at once: no callback will be called.
pub(super) const SUCCEEDED: Status = -157;

/// The rank that stands for all processes of a namespace.
pub(super) const WILDCARD: u32 = u32::MAX - 1;

const NAME_ROOM: usize = 256;
const KEY_ROOM: usize = 512;

/// A process.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Proc {
    pub(super) nspace: [u8; NAME_ROOM],
    pub(super) rank: u32,
}

/// The beginning of a text with the null byte that ends it, in a field of fixed size.
fn field<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let length = text.len().min(N - 1);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
    field
}

impl Proc {
    pub(super) fn new(nspace: &str, rank: u32) -> Proc {
        Proc {
            nspace: field(nspace),
            rank,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
union Data {
    flag: bool,
    text: *const c_char,
    short: u16,
    number: u32,
    array: *const Array,
    /// The union has room for more than what is used here.
    room: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Value {
    kind: u16,
    data: Data,
}

/// A key with its value.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Info {
    key: [u8; KEY_ROOM],
    flags: u32,
    value: Value,
}

#[repr(C)]
struct Array {
    kind: u16,
    size: usize,
    items: *const Info,
}

const BOOL: u16 = 1;
const TEXT: u16 = 3;
const SHORT: u16 = 13;
const NUMBER: u16 = 14;
const INFO: u16 = 24;
const ARRAY: u16 = 39;
const RANK: u16 = 40;

/// Something from libpmix, which has allocated it with malloc.
pub(super) struct Made(pub(super) *mut c_char);

impl Drop for Made {
    fn drop(&mut self) {
        // SAFETY: allocated with malloc, and freed once.
        unsafe { libc::free(self.0.cast()) };
    }
}

/// Keys with values, and what their pointers are to.
#[derive(Default)]
pub(super) struct Infos {
    items: Vec<Info>,
    texts: Vec<CString>,
    made: Vec<Made>,
    inner: Vec<(Box<Array>, Infos)>,
}

impl Infos {
    fn put(&mut self, key: &str, kind: u16, data: Data) {
        self.items.push(Info {
            key: field(key),
            flags: 0,
            value: Value { kind, data },
        });
    }

    /// A union all of whose bytes are set.
    fn zero() -> Data {
        Data { room: [0; 3] }
    }

    pub(super) fn text(&mut self, key: &str, text: &str) {
        // Names and paths have no null bytes.
        let text = CString::new(text).unwrap_or_default();
        let mut data = Infos::zero();
        data.text = text.as_ptr();
        self.put(key, TEXT, data);
        self.texts.push(text);
    }

    /// What libpmix has made itself, which may be more than a C string.
    pub(super) fn made(&mut self, key: &str, text: Made) {
        let mut data = Infos::zero();
        data.text = text.0;
        self.put(key, TEXT, data);
        self.made.push(text);
    }

    pub(super) fn flag(&mut self, key: &str) {
        let mut data = Infos::zero();
        data.flag = true;
        self.put(key, BOOL, data);
    }

    pub(super) fn short(&mut self, key: &str, number: u16) {
        let mut data = Infos::zero();
        data.short = number;
        self.put(key, SHORT, data);
    }

    pub(super) fn number(&mut self, key: &str, number: u32) {
        let mut data = Infos::zero();
        data.number = number;
        self.put(key, NUMBER, data);
    }

    pub(super) fn rank(&mut self, key: &str, number: u32) {
        let mut data = Infos::zero();
        data.number = number;
        self.put(key, RANK, data);
    }

    pub(super) fn infos(&mut self, key: &str, infos: Infos) {
        let array = Box::new(Array {
            kind: INFO,
            size: infos.items.len(),
            items: infos.items.as_ptr(),
        });
        let mut data = Infos::zero();
        data.array = &raw const *array;
        self.put(key, ARRAY, data);
        self.inner.push((array, infos));
    }

    pub(super) fn as_ptr(&self) -> *const Info {
        self.items.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}

pub(super) type Release = unsafe extern "C" fn(*mut c_void);
pub(super) type Done = unsafe extern "C" fn(Status, *mut c_void);
pub(super) type Blob =
    unsafe extern "C" fn(Status, *const c_char, usize, *mut c_void, Option<Release>, *mut c_void);
pub(super) type OwnBlob = unsafe extern "C" fn(Status, *mut c_char, usize, *mut c_void);

type OfProc = unsafe extern "C" fn(*const Proc, *mut c_void, Option<Done>, *mut c_void) -> Status;
type OfProcs = unsafe extern "C" fn(
    *const Proc,
    usize,
    *const Info,
    usize,
    Option<Done>,
    *mut c_void,
) -> Status;

/// What libpmix calls in the host of its server.
#[repr(C)]
pub(super) struct Module {
    pub(super) client_connected: Option<OfProc>,
    pub(super) client_finalized: Option<OfProc>,
    pub(super) abort: Option<
        unsafe extern "C" fn(
            *const Proc,
            *mut c_void,
            c_int,
            *const c_char,
            *const Proc,
            usize,
            Option<Done>,
            *mut c_void,
        ) -> Status,
    >,
    pub(super) fence: Option<
        unsafe extern "C" fn(
            *const Proc,
            usize,
            *const Info,
            usize,
            *const c_char,
            usize,
            Option<Blob>,
            *mut c_void,
        ) -> Status,
    >,
    pub(super) direct_modex: Option<
        unsafe extern "C" fn(*const Proc, *const Info, usize, Option<Blob>, *mut c_void) -> Status,
    >,
    pub(super) publish: [usize; 3],
    pub(super) spawn: Option<
        unsafe extern "C" fn(
            *const Proc,
            *const Info,
            usize,
            *const c_void,
            usize,
            *const c_void,
            *mut c_void,
        ) -> Status,
    >,
    pub(super) connect: Option<OfProcs>,
    pub(super) disconnect: Option<OfProcs>,
    /// Functions that are not offered; there is room for those of later versions.
    pub(super) others: [usize; 29],
}

pub(super) type ServerInit = unsafe extern "C" fn(*const Module, *const Info, usize) -> Status;
pub(super) type ServerFinalize = unsafe extern "C" fn() -> Status;
pub(super) type Regex = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> Status;
pub(super) type RegisterNspace =
    unsafe extern "C" fn(*const u8, c_int, *const Info, usize, Option<Done>, *mut c_void) -> Status;
pub(super) type RegisterClient =
    unsafe extern "C" fn(*const Proc, u32, u32, *mut c_void, Option<Done>, *mut c_void) -> Status;
pub(super) type SetupFork = unsafe extern "C" fn(*const Proc, *mut *mut *mut c_char) -> Status;
pub(super) type DmodexRequest = unsafe extern "C" fn(*const Proc, OwnBlob, *mut c_void) -> Status;
pub(super) type ErrorString = unsafe extern "C" fn(Status) -> *const c_char;

#[cfg(test)]
mod tests {
    use super::*;

    /// As the C compiler lays out the structures of the published headers.
    #[test]
    fn layout() {
        assert_eq!(size_of::<Proc>(), 260);
        assert_eq!(
            (size_of::<Value>(), std::mem::offset_of!(Value, data)),
            (32, 8)
        );
        assert_eq!(
            (size_of::<Info>(), std::mem::offset_of!(Info, value)),
            (552, 520)
        );
        assert_eq!(
            (size_of::<Array>(), std::mem::offset_of!(Array, items)),
            (24, 16)
        );
        assert_eq!(std::mem::offset_of!(Module, direct_modex), 32);
        assert_eq!(std::mem::offset_of!(Module, spawn), 64);
        assert_eq!(std::mem::offset_of!(Module, disconnect), 80);
        assert!(size_of::<Module>() >= 224);
    }

    #[test]
    fn texts_are_cut_to_their_fields() {
        let proc = Proc::new(&"x".repeat(300), 1);
        assert_eq!((proc.nspace[254], proc.nspace[255]), (b'x', 0));
    }
}
