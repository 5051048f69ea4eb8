//! Typed calls of the service `kvs` (RFC 11). The functions of [`client`](crate::client) are the convenient form.

use client::{Call, Empty};
use content::BlobRef;
use serde::{Deserialize, Serialize};

use crate::treeobj::TreeObj;
use crate::txn::Txn;

/// Apply a transaction.
#[derive(Debug, Clone, Serialize)]
pub struct Commit<'a> {
    /// Namespace to change.
    pub namespace: &'a str,
    /// Of [`flags`](crate::flags).
    pub flags: u32,
    /// What to change.
    pub ops: &'a Txn,
}

/// A root and its place in the sequence of roots of its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Reference of the root directory.
    pub rootref: BlobRef,
    /// Counts the namespace's roots.
    pub rootseq: i64,
}

impl Call for Commit<'_> {
    const TOPIC: &'static str = "kvs.commit";
    type Answer = Root;
}

/// Read a key.
#[derive(Debug, Clone, Serialize)]
pub struct Lookup<'a> {
    /// Namespace to read.
    pub namespace: &'a str,
    /// The key.
    pub key: &'a str,
    /// Of [`flags`](crate::flags).
    pub flags: u32,
}

/// Answer to [`Lookup`].
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    /// What is at the key.
    pub val: TreeObj,
}

impl Call for Lookup<'_> {
    const TOPIC: &'static str = "kvs.lookup";
    type Answer = Found;
}

/// The root of a namespace, as the rank that answers has it.
#[derive(Debug, Clone, Serialize)]
pub struct GetRoot<'a> {
    /// Namespace to ask for.
    pub namespace: &'a str,
    /// 0.
    pub flags: u32,
}

impl Call for GetRoot<'_> {
    const TOPIC: &'static str = "kvs.getroot";
    type Answer = Root;
}

/// Wait until the root of a namespace has come so far.
#[derive(Debug, Clone, Serialize)]
pub struct WaitVersion<'a> {
    /// Namespace to wait for.
    pub namespace: &'a str,
    /// The least sequence number to wait for.
    pub rootseq: i64,
}

impl Call for WaitVersion<'_> {
    const TOPIC: &'static str = "kvs.wait-version";
    type Answer = Root;
}

/// Create a namespace; for the owner, at rank 0.
#[derive(Debug, Clone, Serialize)]
pub struct CreateNamespace<'a> {
    /// Its name.
    pub namespace: &'a str,
    /// Its first root.
    pub rootref: BlobRef,
    /// The user who may use it.
    pub owner: u32,
    /// 0.
    pub flags: u32,
}

impl Call for CreateNamespace<'_> {
    const TOPIC: &'static str = "kvs.namespace-create";
    type Answer = Empty;
}

/// Remove a namespace; for the owner, at rank 0.
#[derive(Debug, Clone, Serialize)]
pub struct RemoveNamespace<'a> {
    /// Its name.
    pub namespace: &'a str,
}

impl Call for RemoveNamespace<'_> {
    const TOPIC: &'static str = "kvs.namespace-remove";
    type Answer = Empty;
}
