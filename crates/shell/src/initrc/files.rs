//! Names of files with the patterns of glob(7).

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a file is one of the forms of initrc files, going by its name.
pub(super) fn is_initrc(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "lua" || e == "toml")
}

/// The files that match, in the order of their names; a beginning of `~` is a home directory.
pub(super) fn matching(pattern: &str) -> io::Result<Vec<PathBuf>> {
    let Ok(pattern) = CString::new(pattern) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // SAFETY: glob_t is a plain structure that glob fills in.
    let mut found: libc::glob_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pattern ends with a null byte and `found` is freed below, whatever glob says.
    let code = unsafe { libc::glob(pattern.as_ptr(), libc::GLOB_TILDE, None, &mut found) };
    let paths = match code {
        0 => (0..found.gl_pathc)
            .map(|i| {
                // SAFETY: glob has made `gl_pathc` strings.
                let path = unsafe { CStr::from_ptr(*found.gl_pathv.add(i)) };
                PathBuf::from(OsStr::from_bytes(path.to_bytes()))
            })
            .collect(),
        _ => Vec::new(),
    };
    // SAFETY: `found` is what glob has made.
    unsafe { libc::globfree(&mut found) };
    match code {
        0 | libc::GLOB_NOMATCH => Ok(paths),
        libc::GLOB_NOSPACE => Err(io::ErrorKind::OutOfMemory.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_by_pattern() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.lua", "a.lua", "c.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names = |pattern: &str| -> Vec<PathBuf> {
            let pattern = dir.path().join(pattern);
            matching(pattern.to_str().unwrap()).unwrap()
        };
        assert_eq!(
            names("*.lua"),
            [dir.path().join("a.lua"), dir.path().join("b.lua")]
        );
        assert_eq!(names("c.txt"), [dir.path().join("c.txt")]);
        assert!(names("none").is_empty() && names("[x").is_empty());
        assert_eq!(
            matching("\0").unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
