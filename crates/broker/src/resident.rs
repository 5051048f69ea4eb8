//! What stays in memory once a broker is up.
//!
//! Starting takes code that serving does not: the loader, hwloc, reading configuration, loading modules. The kernel
//! maps it generously, sixteen pages at a touch, and keeps it mapped while there is memory to spare. On a node that
//! memory belongs to jobs, so a broker that has come up lets go of the code and is given back, page by page, what it
//! goes on using.

use std::fs;
use std::ops::Range;
use std::ptr::NonNull;

use nix::libc::c_void;
use nix::sys::mman::{MmapAdvise, madvise};

/// Let go of all mapped code. What is used again is mapped again from the page cache.
pub(crate) fn release_code() {
    // Without /proc nothing is released, and nothing else is lost.
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for range in maps.lines().filter_map(code_of_file) {
        let Some(start) = NonNull::new(range.start as *mut c_void) else {
            continue;
        };
        // SAFETY: the range is a mapping of this process that is never written: its pages are those of its file,
        // and are read from there again.
        let _ = unsafe { madvise(start, range.len(), MmapAdvise::MADV_DONTNEED) };
    }
}

/// Addresses of a line of proc_pid_maps(5), if it is executable code that comes from a file.
fn code_of_file(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (addresses, flags) = (words.next()?, words.next()?);
    let file = words.nth(3)?;
    if flags != "r-xp" || !file.starts_with('/') {
        return None;
    }
    let (start, end) = addresses.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go() {
        let code = "55d0-55e0 r-xp 00002000 fe:00 247030   /usr/bin/flux broker";
        assert_eq!(code_of_file(code), Some(0x55d0..0x55e0));
        for other in [
            "55d0-55e0 r--p 00000000 fe:00 247030   /usr/bin/flux",
            "55d0-55e0 rwxp 00000000 fe:00 247030   /usr/bin/flux",
            "7fff-8000 r-xp 00000000 00:00 0        [vdso]",
            "7fff-8000 r-xp 00000000 00:00 0",
            "x-y r-xp 00000000 fe:00 247030   /usr/bin/flux",
            "",
        ] {
            assert_eq!(code_of_file(other), None, "{other}");
        }
    }

    #[test]
    fn code_runs_on_after_it_was_let_go() {
        release_code();
        assert_eq!(std::hint::black_box(6) * 7, 42);
    }
}
