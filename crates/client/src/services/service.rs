//! Names of services. [`Service`](crate::Service) and [`Handle::register`](crate::Handle::register) are the
//! convenient forms.

use serde::Serialize;

use crate::call::{Call, Empty};

/// Send requests for this service over this connection. EEXIST if another one has the name.
#[derive(Debug, Clone, Serialize)]
pub struct Add<'a> {
    /// One word; a guest's starts with the user id and a hyphen.
    pub service: &'a str,
}

impl Call for Add<'_> {
    const TOPIC: &'static str = "service.add";
    type Answer = Empty;
}

/// Undo [`Add`].
#[derive(Debug, Clone, Serialize)]
pub struct Remove<'a> {
    /// As added.
    pub service: &'a str,
}

impl Call for Remove<'_> {
    const TOPIC: &'static str = "service.remove";
    type Answer = Empty;
}
