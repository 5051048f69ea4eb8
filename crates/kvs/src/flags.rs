//! Flag values of the KVS protocol, as upstream defines them.

/// Lookup: the key must be a directory.
pub const READDIR: u32 = 1;
/// Lookup: return a symbolic link itself.
pub const READLINK: u32 = 2;
/// Lookup through kvs-watch: respond again on each change.
pub const WATCH: u32 = 4;
/// Lookup through kvs-watch: wait for the key to exist.
pub const WAITCREATE: u32 = 8;
/// Lookup: return the tree object stored at the key, unresolved.
pub const TREEOBJ: u32 = 16;
/// Operation: append to the value.
pub const APPEND: u32 = 32;
/// Watch: compare the value after every commit, also when its own key is not named.
pub const WATCH_FULL: u32 = 64;
/// Watch: respond only if the value differs from the one before.
pub const WATCH_UNIQ: u32 = 128;
/// Watch: respond with appended data only.
pub const WATCH_APPEND: u32 = 256;
/// One response per blob of a value, then the end.
pub const STREAM: u32 = 512;
/// Watch append: an empty response marks the end of the data there was at first.
pub const WATCH_INITIAL_SENTINEL: u32 = 1024;
/// Watch (ours): the namespace has been there already; where it is not, it was removed.
pub const WATCH_EXISTING: u32 = 1 << 16;

/// Commit: do not merge with other commits.
pub const NO_MERGE: u32 = 1;
/// Commit: write a checkpoint before answering.
pub const SYNC: u32 = 4;
