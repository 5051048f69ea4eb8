//! Fluxion: which resources a job may have, now or later.
//!
//! A library without input, output, clock or runtime. [`Context`] is the door: it holds a graph of
//! resources (RFC 4) and who has them, and is asked with a jobspec's [`Request`](request::Request).
//!
//! ```
//! use fluxion::{Context, Op, Options, read, request, write};
//!
//! let r = r#"{"version": 1, "execution": {"R_lite": [{"rank": "0-3", "children": {"core": "0-7"}}],
//!     "nodelist": ["n[0-3]"], "starttime": 0, "expiration": 0}}"#;
//! let options = Options { policy: "lonode".into(), ..Options::default() };
//! let mut context = Context::load(r, read::Format::Rv1, options)?;
//!
//! let jobspec = request::parse(r#"{"version": 1, "resources": [{"type": "slot", "count": 2, "label": "task",
//!     "with": [{"type": "core", "count": 3}]}], "tasks": [{"command": ["app"], "slot": "task",
//!     "count": {"per_slot": 1}}], "attributes": {"system": {"duration": 60}}}"#)?;
//! let request = context.request(&jobspec)?;
//! let found = context.submit(Op::Allocate, 1, &request, 0)?;
//! let rlite = write::Format::Rlite.write(context.graph(), &found.selection, Default::default());
//! assert_eq!(rlite, "[{\"rank\": \"0\", \"children\": {\"core\": \"0-5\"}}]\n");
//! context.cancel(1)?;
//! assert_eq!(context.ledger().busy(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod context;
pub mod find;
pub mod graph;
mod job;
mod look;
pub mod matching;
pub mod plan;
pub mod queue;
pub mod read;
pub mod request;
pub mod simulate;
pub mod write;

pub use context::{Context, Error, HORIZON, Options};
pub use job::Job;
pub use look::{Match, MatchError, Op};
