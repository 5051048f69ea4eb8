//! Shared objects: what a file is, and opening one.

use std::ffi::{CStr, CString, c_void};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::abi;

/// What a plugin's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A shared object with our entry point.
    Native,
    /// A shared object made for upstream's hosts.
    Upstream,
    /// A program to talk to.
    Program,
}

fn has_name(bytes: &[u8], name: &[u8]) -> bool {
    let whole = |window: &[u8]| {
        window.first() == Some(&0) && window.last() == Some(&0) && &window[1..=name.len()] == name
    };
    bytes.windows(name.len() + 2).any(whole)
}

/// What kind of plugin the file at `path` is, or why it is none. Nothing of it is run.
pub fn kind_of(path: &Path) -> Result<Kind, String> {
    let shown = path.display();
    let mut file = File::open(path).map_err(|e| format!("{shown}: {e}"))?;
    let meta = file.metadata().map_err(|e| format!("{shown}: {e}"))?;
    if !meta.is_file() {
        return Err(format!("{shown}: is not a file"));
    }
    let mut magic = [0; 4];
    if file.read_exact(&mut magic).is_ok() && magic == *b"\x7fELF" {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|e| format!("{shown}: {e}"))?;
        if has_name(&bytes, abi::ENTRY.to_bytes()) {
            return Ok(Kind::Native);
        }
        if has_name(&bytes, b"flux_plugin_init") {
            return Ok(Kind::Upstream);
        }
    }
    match meta.permissions().mode() & 0o111 != 0 && !shown.to_string().ends_with(".so") {
        true => Ok(Kind::Program),
        false => Err(format!(
            "{shown}: is no plugin: neither a shared object with an entry point, {}() or flux_plugin_init(), nor a program",
            abi::ENTRY.to_string_lossy()
        )),
    }
}

/// An open shared object.
#[derive(Debug)]
pub(super) struct Library(*mut c_void);

// A handle of the dynamic loader belongs to the process.
unsafe impl Send for Library {}
unsafe impl Sync for Library {}

impl Library {
    /// Open a file; its constructors run.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| format!("{}: has a zero byte in its name", path.display()))?;
        // SAFETY: a plugin's constructors are as trusted as the plugin.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failed dlopen there is a text.
            let why = unsafe { CStr::from_ptr(libc::dlerror()) };
            return Err(why.to_string_lossy().into_owned());
        }
        Ok(Self(handle))
    }

    pub(super) fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the handle is open.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; nothing of it is used any more.
        unsafe { libc::dlclose(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_told_apart_by_what_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8], mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            kind_of(&path)
        };
        let elf = |name: &str| [b"\x7fELF\0\0", name.as_bytes(), b"\0"].concat();
        assert_eq!(
            file("a.so", &elf("ferroflux_plugin_v1"), 0o755),
            Ok(Kind::Native)
        );
        assert_eq!(
            file("b.so", &elf("flux_plugin_init"), 0o644),
            Ok(Kind::Upstream)
        );
        assert_eq!(file("c", b"#!/bin/sh\n", 0o755), Ok(Kind::Program));
        assert!(
            file("d", b"#!/bin/sh\n", 0o644)
                .unwrap_err()
                .contains("is no plugin")
        );
        assert!(
            file("e.so", b"", 0o755)
                .unwrap_err()
                .contains("is no plugin")
        );
        assert!(kind_of(dir.path()).unwrap_err().contains("is not a file"));
    }
}
