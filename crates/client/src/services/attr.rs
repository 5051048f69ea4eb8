//! Broker attributes.

use serde::{Deserialize, Serialize};

use crate::call::{Call, Empty};

/// Flag: the value never changes on this broker, so it can be remembered.
pub const IMMUTABLE: u32 = 1;

/// Read an attribute. ENOENT if there is none of this name.
#[derive(Debug, Clone, Serialize)]
pub struct GetAttr<'a> {
    /// Name of the attribute.
    pub name: &'a str,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attr {
    /// The value.
    pub value: String,
    /// [`IMMUTABLE`], or 0.
    #[serde(default)]
    pub flags: u32,
}

impl Call for GetAttr<'_> {
    const TOPIC: &'static str = "attr.get";
    type Answer = Attr;
}

/// Set an attribute; for the owner.
#[derive(Debug, Clone, Serialize)]
pub struct SetAttr<'a> {
    /// Name of the attribute.
    pub name: &'a str,
    /// New value.
    pub value: &'a str,
    /// Set it although it is not meant to be set.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl Call for SetAttr<'_> {
    const TOPIC: &'static str = "attr.set";
    type Answer = Empty;
}

/// Remove an attribute; for the owner.
#[derive(Debug, Clone, Serialize)]
pub struct RemoveAttr<'a> {
    /// Name of the attribute.
    pub name: &'a str,
}

impl Call for RemoveAttr<'_> {
    const TOPIC: &'static str = "attr.rm";
    type Answer = Empty;
}

/// Names of all attributes.
#[derive(Debug, Clone, Serialize)]
pub struct ListAttrs {}

/// Answer to [`ListAttrs`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Names {
    /// The names.
    pub names: Vec<String>,
}

impl Call for ListAttrs {
    const TOPIC: &'static str = "attr.list";
    type Answer = Names;
}
