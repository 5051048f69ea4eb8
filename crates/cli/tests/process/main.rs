//! The programs as users run them, in instances of real brokers.

mod common;
mod jobs;
mod queries;
mod start;
