//! PMI-1, both sides of its wire protocol (RFC 13).
//!
//! PMI is how the processes of a parallel program find each other: each puts a few words into a
//! key-value store, all meet at a barrier, and then each reads what the others put.
//!
//! * [`wire`]: one request or response as a line of text.
//! * [`server`]: the process manager's side, a state machine without I/O.
//! * [`client`]: the process's side, blocking; brokers boot with it.
//! * [`c_api`]: what the libraries for C programs, `libpmi.so` and `libpmi2.so`, are made of.
//! * [`process`]: what the two ways into a program have in common.
//! * [`library`]: such libraries, ours or others', used through their C functions.
//! * [`pmix`]: a PMIx server over the system's libpmix, where there is one.

pub mod c_api;
pub mod client;
pub mod library;
pub mod pmix;
pub mod process;
pub mod server;
pub mod wire;

pub use client::Client;
pub use process::Process;
pub use server::{Action, Server};
