//! Terminal sessions over messages: programs on a pseudo terminal that clients attach to from anywhere in the instance.
//!
//! `flux terminus` runs a [`Server`] as a program of its own, the job shell one for tasks that want a terminal (shell
//! option `pty`); `flux terminus attach` and `flux job attach` are the other end, [`attach::attach`]. [`protocol`] holds
//! the messages, [`pty`] a pseudo terminal.
//!
//! Invariants: only the user who runs the server gets in; what a session writes goes to each attached client once and in
//! order, and to nobody's loss while no client is attached: it stays in the terminal; a client always hears of the end
//! of its session, with the wait status of what ran.

pub mod attach;
pub mod protocol;
pub mod pty;
pub mod server;
mod session;

pub use server::Server;
pub use session::Output;
