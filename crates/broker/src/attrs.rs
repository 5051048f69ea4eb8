//! Broker attributes: named strings, which may be set when, and by whom (flux-broker-attributes(7)).
//!
//! Invariant: what a user sets, at start or later, is in [`TABLE`]; a name that is not is a mistake and refused.

use std::collections::BTreeMap;

use wire::RpcError;

/// Set in `flags` of an answer when the value never changes, so that clients may cache it.
pub const FLAG_IMMUTABLE: u32 = 1;

/// It never changes once it is set.
const I: u8 = 1;
/// It cannot be given at start.
const R: u8 = 2;
/// It may be changed while the broker runs.
const T: u8 = 4;

/// Attributes users may know, with their flags. A name that ends in `*` stands for all that begin so.
#[rustfmt::skip]
const TABLE: &[(&str, u8)] = &[
    ("rank", R | I), ("size", R | I), ("version", R), ("rundir", 0), ("rundir-cleanup", I),
    ("statedir", 0), ("statedir-cleanup", I), ("security.owner", R | I), ("local-uri", I),
    ("parent-uri", R | I), ("instance-level", R | I), ("jobid", R | I), ("jobid-path", R | I),
    ("parent-kvs-namespace", R | I), ("hostlist", I), ("hostname", I),
    ("broker.mapping", R | I), ("broker.critical-ranks", I), ("broker.boot-method", I),
    ("broker.pid", R | I), ("broker.quorum", I), ("broker.quorum-warn", I),
    ("broker.shutdown-warn", I), ("broker.shutdown-timeout", I), ("broker.cleanup-timeout", 0),
    ("broker.unload-builtins-timeout", 0), ("broker.rc1_path", 0), ("broker.rc3_path", 0),
    ("broker.rc2_none", 0), ("broker.rc2_pgrp", 0), ("broker.exit-restart", T),
    ("broker.module-nopanic", T), ("broker.starttime", R | I), ("broker.sd-notify", 0),
    ("broker.sd-stop-timeout", I), ("broker.exit-norestart", 0), ("broker.recovery-mode", 0),
    ("broker.uuid", R | I), ("broker.single-host", I), ("conf.*", T), ("config.path", I),
    ("tbon.topo", 0), ("tbon.descendants", R), ("tbon.level", R), ("tbon.maxlevel", R),
    ("tbon.endpoint", R), ("tbon.parent-endpoint", R), ("tbon.zmqdebug", 0),
    ("tbon.zmq_io_threads", 0), ("tbon.child_rcvhwm", 0), ("tbon.prefertcp", 0),
    ("tbon.interface-hint", T | I), ("tbon.torpid_min", 0), ("tbon.torpid_max", 0),
    ("tbon.tcp_user_timeout", 0), ("tbon.connect_timeout", 0), ("tbon.keepalive*", 0),
    ("tbon.fanout", 0),
    ("log-ring-size", I), ("log-forward-level", I), ("log-critical-level", I),
    ("log-filename", 0), ("log-syslog-enable", I), ("log-syslog-level", I),
    ("log-stderr-mode", I), ("log-stderr-level", T), ("log-level", I),
    ("content.backing-module", 0), ("content.hash", I), ("content.dump", T),
    ("content.restore", T), ("cron.directory", 0),
    // For tests.
    ("test.*", T), ("test-ro.*", R), ("test-nr.*", 0), ("test-im.*", I), ("test-rd.*", T),
    ("vendor.*", T | I),
];

fn known(name: &str) -> Option<u8> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    TABLE.iter().find(|(p, _)| fits(p)).map(|(_, flags)| *flags)
}

#[derive(Debug, Clone)]
struct Attr {
    value: String,
    immutable: bool,
}

/// Why an attribute cannot be given at start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttrError {
    /// No such attribute.
    #[error("{0}: unknown attribute")]
    Unknown(String),
    /// The broker alone knows its value.
    #[error("{0}: attribute may not be set on the command line")]
    ReadOnly(String),
}

/// The attribute table of one broker.
#[derive(Debug, Clone, Default)]
pub struct Attrs {
    map: BTreeMap<String, Attr>,
}

impl Attrs {
    fn insert(&mut self, name: &str, value: String, immutable: bool) {
        self.map.insert(name.to_owned(), Attr { value, immutable });
    }

    /// Set a value; whether it may change is as the table says.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let immutable = known(name).is_some_and(|flags| flags & I != 0);
        self.insert(name, value.into(), immutable);
    }

    /// Set a value that stays as it is.
    pub fn fix(&mut self, name: &str, value: impl Into<String>) {
        self.insert(name, value.into(), true);
    }

    /// Set a value unless the command line has given one.
    pub fn set_default(&mut self, name: &str, value: &str) {
        if !self.map.contains_key(name) {
            self.set(name, value);
        }
    }

    /// A value from the command line.
    pub fn set_by_user(&mut self, name: &str, value: &str) -> Result<(), AttrError> {
        match known(name) {
            None => Err(AttrError::Unknown(name.to_owned())),
            Some(flags) if flags & R != 0 => Err(AttrError::ReadOnly(name.to_owned())),
            Some(_) => {
                self.set(name, value);
                Ok(())
            }
        }
    }

    /// The value, if any.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.map.get(name).map(|a| a.value.as_str())
    }

    /// Value and flags for `attr.get`.
    pub fn lookup(&self, name: &str) -> Result<(&str, u32), RpcError> {
        let attr = self
            .map
            .get(name)
            .ok_or_else(|| RpcError::errno(libc::ENOENT))?;
        Ok((&attr.value, if attr.immutable { FLAG_IMMUTABLE } else { 0 }))
    }

    /// Whether `attr.set` may set `name`. With `force` those that are not meant to change may.
    pub fn check_update(&self, name: &str, force: bool) -> Result<(), RpcError> {
        let Some(flags) = known(name) else {
            return Err(RpcError::new(libc::ENOENT, "unknown attribute"));
        };
        match self.map.get(name) {
            Some(_) if !force && flags & T == 0 => {
                Err(RpcError::new(libc::EINVAL, "attribute may not be updated"))
            }
            Some(attr) if attr.immutable => Err(RpcError::errno(libc::EPERM)),
            _ => Ok(()),
        }
    }

    /// `attr.set`.
    pub fn update(&mut self, name: &str, value: &str, force: bool) -> Result<(), RpcError> {
        self.check_update(name, force)?;
        self.set(name, value);
        Ok(())
    }

    /// `attr.rm`. What is not there is gone already.
    pub fn remove(&mut self, name: &str) -> Result<(), RpcError> {
        match self.map.get(name) {
            Some(attr) if attr.immutable => Err(RpcError::errno(libc::EPERM)),
            _ => {
                self.map.remove(name);
                Ok(())
            }
        }
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.map.keys().map(String::as_str).collect()
    }

    /// Values that never change, for programs that keep them.
    pub fn immutable(&self) -> serde_json::Map<String, serde_json::Value> {
        let fixed = self.map.iter().filter(|(_, a)| a.immutable);
        fixed
            .map(|(name, a)| (name.clone(), a.value.clone().into()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let mut a = Attrs::default();
        a.fix("rank", "0");
        a.set("test.x", "1");
        a.set_default("test.x", "2");
        a.set("rundir", "/a");
        assert_eq!(a.lookup("rank").unwrap(), ("0", FLAG_IMMUTABLE));
        assert_eq!(a.lookup("test.x").unwrap(), ("1", 0));
        let errno = |r: Result<(), RpcError>| r.unwrap_err().errno;
        assert_eq!(errno(a.update("rank", "1", true)), libc::EPERM);
        assert_eq!(errno(a.update("rank", "1", false)), libc::EINVAL);
        assert_eq!(errno(a.update("new", "1", true)), libc::ENOENT);
        assert_eq!(errno(a.update("rundir", "/b", false)), libc::EINVAL);
        a.update("rundir", "/b", true).unwrap();
        a.update("test.x", "3", false).unwrap();
        a.update("test-im.x", "1", false).unwrap();
        assert_eq!(errno(a.update("test-im.x", "2", true)), libc::EPERM);
        assert_eq!(errno(a.remove("rank")), libc::EPERM);
        a.remove("test.x").unwrap();
        a.remove("test.x").unwrap();
        assert_eq!(a.names(), ["rank", "rundir", "test-im.x"]);
    }

    #[test]
    fn at_start() {
        let mut a = Attrs::default();
        assert_eq!(a.set_by_user("x", "1"), Err(AttrError::Unknown("x".into())));
        assert_eq!(
            a.set_by_user("rank", "1"),
            Err(AttrError::ReadOnly("rank".into()))
        );
        a.set_by_user("log-level", "5").unwrap();
        assert_eq!(a.lookup("log-level").unwrap(), ("5", FLAG_IMMUTABLE));
    }
}
