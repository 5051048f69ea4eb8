//! Remote process execution (RFC 42): the `rexec` service, and servers of others.
//!
//! Purpose: start, feed, signal and watch processes on any broker. [`formats::subprocess`]
//! holds the messages; [`process`] runs one process; [`server`] answers requests; [`survivors`] finds
//! processes of the broker before; [`module`] is the broker's service made of these.
//!
//! Invariants: a process started for a streaming request ends with a `finished` response and
//! ENODATA, after all its output; when the requester goes away its processes are killed. Signals go
//! to a process group whose leader is not reaped yet, never to a recycled pid.

mod module;
mod process;
pub mod server;
mod survivors;

pub use module::main;
