//! Broker attributes: named strings, some fixed once the broker runs (flux-broker-attributes(7)).

use std::collections::BTreeMap;

use wire::RpcError;

/// Set in `flags` of an answer when the value never changes, so that clients may cache it.
pub const FLAG_IMMUTABLE: u32 = 1;

#[derive(Debug, Clone)]
struct Attr {
    value: String,
    immutable: bool,
}

/// The attribute table of one broker.
#[derive(Debug, Clone, Default)]
pub struct Attrs {
    map: BTreeMap<String, Attr>,
}

impl Attrs {
    /// Set a value that may change later.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.map.insert(
            name.to_owned(),
            Attr {
                value: value.into(),
                immutable: false,
            },
        );
    }

    /// Set a value that stays as it is.
    pub fn fix(&mut self, name: &str, value: impl Into<String>) {
        self.map.insert(
            name.to_owned(),
            Attr {
                value: value.into(),
                immutable: true,
            },
        );
    }

    /// Set a changeable value unless the command line has given one.
    pub fn set_default(&mut self, name: &str, value: &str) {
        if !self.map.contains_key(name) {
            self.set(name, value);
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

    /// `attr.set`: change or (with `force`) add a value.
    pub fn update(&mut self, name: &str, value: &str, force: bool) -> Result<(), RpcError> {
        match self.map.get_mut(name) {
            Some(attr) if attr.immutable => Err(RpcError::new(
                libc::EPERM,
                format!("attribute {name} cannot be changed"),
            )),
            Some(attr) => {
                attr.value = value.to_owned();
                Ok(())
            }
            None if force => {
                self.set(name, value);
                Ok(())
            }
            None => Err(RpcError::errno(libc::ENOENT)),
        }
    }

    /// `attr.rm`.
    pub fn remove(&mut self, name: &str) -> Result<(), RpcError> {
        match self.map.get(name) {
            None => Err(RpcError::errno(libc::ENOENT)),
            Some(attr) if attr.immutable => Err(RpcError::new(
                libc::EPERM,
                format!("attribute {name} cannot be removed"),
            )),
            Some(_) => {
                self.map.remove(name);
                Ok(())
            }
        }
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.map.keys().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let mut a = Attrs::default();
        a.fix("rank", "0");
        a.set("x", "1");
        a.set_default("x", "2");
        assert_eq!(a.lookup("rank").unwrap(), ("0", FLAG_IMMUTABLE));
        assert_eq!(a.lookup("x").unwrap(), ("1", 0));
        assert_eq!(a.update("rank", "1", true).unwrap_err().errno, libc::EPERM);
        assert_eq!(a.update("new", "1", false).unwrap_err().errno, libc::ENOENT);
        a.update("new", "1", true).unwrap();
        assert_eq!(a.remove("rank").unwrap_err().errno, libc::EPERM);
        a.remove("new").unwrap();
        assert_eq!(a.remove("new").unwrap_err().errno, libc::ENOENT);
        assert_eq!(a.names(), ["rank", "x"]);
    }
}
