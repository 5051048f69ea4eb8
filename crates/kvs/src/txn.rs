//! Transactions: the operations a commit applies in order (RFC 11, `kvs.commit`).

use serde::{Deserialize, Serialize};

use crate::flags;
use crate::treeobj::{Symlink, TreeObj};

/// One operation: link `dirent` at `key`, append it there, or (null) remove the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Op {
    pub key: String,
    pub flags: u32,
    // Null and absent are different things: absent is malformed.
    #[serde(deserialize_with = "Option::deserialize")]
    pub dirent: Option<TreeObj>,
}

/// A transaction under construction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Txn {
    ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Txn {
        Txn::default()
    }

    fn op(&mut self, key: &str, flags: u32, dirent: Option<TreeObj>) -> &mut Txn {
        self.ops.push(Op {
            key: key.to_owned(),
            flags,
            dirent,
        });
        self
    }

    /// Sets a value from text.
    pub fn put(&mut self, key: &str, value: &str) -> &mut Txn {
        self.put_raw(key, value.as_bytes())
    }

    /// Sets a value.
    pub fn put_raw(&mut self, key: &str, value: &[u8]) -> &mut Txn {
        self.op(key, 0, Some(TreeObj::val(value)))
    }

    /// Sets a value to a JSON text.
    pub fn put_json(&mut self, key: &str, value: &impl Serialize) -> serde_json::Result<&mut Txn> {
        Ok(self.put_raw(key, &serde_json::to_vec(value)?))
    }

    /// Links a tree object.
    pub fn put_treeobj(&mut self, key: &str, obj: TreeObj) -> &mut Txn {
        self.op(key, 0, Some(obj))
    }

    /// Appends to a value, creating it if need be.
    pub fn append(&mut self, key: &str, value: &[u8]) -> &mut Txn {
        self.op(key, flags::APPEND, Some(TreeObj::val(value)))
    }

    /// Makes an empty directory in place of whatever is there.
    pub fn mkdir(&mut self, key: &str) -> &mut Txn {
        self.op(key, 0, Some(TreeObj::empty_dir()))
    }

    /// Removes a key with all below it.
    pub fn unlink(&mut self, key: &str) -> &mut Txn {
        self.op(key, 0, None)
    }

    /// Makes a symbolic link.
    pub fn symlink(&mut self, key: &str, namespace: Option<&str>, target: &str) -> &mut Txn {
        let link = Symlink {
            namespace: namespace.map(str::to_owned),
            target: target.to_owned(),
        };
        self.op(key, 0, Some(TreeObj::Symlink(link.into())))
    }

    /// Adds all operations of another transaction behind one's own.
    pub fn extend(&mut self, other: Txn) -> &mut Txn {
        self.ops.extend(other.ops);
        self
    }

    /// The operations.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Takes the operations out.
    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }

    /// Whether there is no operation.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

impl From<Vec<Op>> for Txn {
    fn from(ops: Vec<Op>) -> Txn {
        Txn { ops }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_that_of_the_commit_request() {
        let mut t = Txn::new();
        t.put("a", "x")
            .append("b", b"y")
            .unlink("c")
            .symlink("d", None, "a");
        insta::assert_snapshot!(serde_json::to_string(&t).unwrap(), @r#"[{"key":"a","flags":0,"dirent":{"data":"eA==","type":"val","ver":1}},{"key":"b","flags":32,"dirent":{"data":"eQ==","type":"val","ver":1}},{"key":"c","flags":0,"dirent":null},{"key":"d","flags":0,"dirent":{"data":{"target":"a"},"type":"symlink","ver":1}}]"#);
        let back: Txn = serde_json::from_str(&serde_json::to_string(&t).unwrap()).unwrap();
        assert_eq!(back, t);
        assert!(serde_json::from_str::<Op>(r#"{"key":"a","flags":0}"#).is_err());
    }
}
