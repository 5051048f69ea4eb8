//! Typed calls of services that every broker has: what [`Handle::ask`](crate::Handle::ask) and
//! [`Handle::follow`](crate::Handle::follow) take. One file for each service.
//!
//! ```no_run
//! use client::services::{attr, state_machine};
//! use client::{Handle, Node};
//!
//! # async fn example(handle: Handle) -> Result<(), client::RpcError> {
//! handle.ask(Node::Any, &state_machine::Wait {}).await?;
//! let answer = handle.ask(Node::Rank(0), &attr::GetAttr { name: "hostlist" }).await?;
//! println!("the instance runs on {}", answer.value);
//! # Ok(())
//! # }
//! ```

pub mod attr;
pub mod broker;
pub mod event;
pub mod job_manager;
pub mod log;
pub mod service;
pub mod state_machine;
