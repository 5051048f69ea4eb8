//! Processes that outlive their broker: what such a process and the brokers it runs under tell each other.
//!
//! The broker makes a file for the process, its *record*, in its `rundir`, which the next broker on that node reads. The
//! process is told where by [`RECORD`] and how long it may be without a broker by [`PATIENCE`]. When it ends it leaves its
//! exit code beside the record. A process without a broker whose record is gone is not expected any more and ends.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Environment variable: the path of the record.
pub const RECORD: &str = "FLUX_REXEC_RECORD";

/// Environment variable: seconds the process may be without a broker.
pub const PATIENCE: &str = "FLUX_REXEC_PATIENCE";

/// A record. The process is the one that has this id and began at this time since the node started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Process id.
    pub pid: i32,
    /// When it began, in clock ticks since the node started.
    pub start: u64,
    /// The node's run: its boot id.
    pub boot: String,
    /// Seconds it may be without a broker.
    pub patience: u64,
    /// What it is called in the service.
    pub label: String,
    /// Program and arguments.
    pub cmdline: Vec<String>,
}

/// Whether a label can name a record: letters, digits, `-` and `_`.
pub fn is_name(label: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !label.is_empty() && label.len() <= 128 && label.chars().all(plain)
}

/// Where the exit code is left.
pub fn exit_file(record: &Path) -> PathBuf {
    let mut name = OsString::from(record);
    name.push(".exit");
    name.into()
}

/// State and start time of a process, from the text of `/proc/PID/stat` (proc(5)).
pub fn state_and_start(stat: &str) -> Option<(char, u64)> {
    // The name may hold anything, also blanks and parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    // State is field 3, the start time field 22.
    let start = fields.nth(22 - 3 - 1)?.parse().ok()?;
    Some((state, start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_words() {
        let stat = "17 (a) b) S 1 17 17 0 -1 4194560 2 0 0 0 0 0 0 0 20 0 1 0 9512 2 3";
        assert_eq!(state_and_start(stat), Some(('S', 9512)));
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(state_and_start(&own).is_some_and(|(_, start)| start > 0));
        assert_eq!(state_and_start("17 (a) S 1"), None);
    }

    #[test]
    fn names() {
        assert!(is_name("shell-17") && is_name("A_b"));
        assert!(!is_name("") && !is_name("a/b") && !is_name(".") && !is_name(&"x".repeat(129)));
        assert_eq!(exit_file(Path::new("/r/a")), Path::new("/r/a.exit"));
    }

    proptest! {
        #[test]
        fn junk_is_no_stat(junk: String) {
            let _ = state_and_start(&junk);
        }
    }
}
