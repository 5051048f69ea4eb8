//! Availability over time.

mod filters;
mod ledger;
mod timeline;

pub use filters::{FilterError, Filters};
pub use ledger::{Hold, JobId, Ledger, Term, Window};
pub use timeline::{Time, Timeline};
