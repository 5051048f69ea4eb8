//! A process of a parallel program, however it reaches its process manager.

use crate::{Client, client::PmiError};

pub trait Process {
    fn rank(&self) -> u32;
    fn size(&self) -> u32;
    /// The name of the program's key-value space.
    fn name(&self) -> &str;
    fn put(&mut self, key: &str, value: &str) -> Result<(), PmiError>;
    fn get(&mut self, key: &str) -> Result<Option<String>, PmiError>;
    fn barrier(&mut self) -> Result<(), PmiError>;
    /// Asks the process manager to end the whole program; the caller should then exit.
    fn abort(&mut self, code: i32, message: &str) -> Result<(), PmiError>;
    fn finalize(self: Box<Self>) -> Result<(), PmiError>;
}

impl Process for Client {
    fn rank(&self) -> u32 {
        Client::rank(self)
    }

    fn size(&self) -> u32 {
        Client::size(self)
    }

    fn name(&self) -> &str {
        self.kvsname().unwrap_or("single")
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), PmiError> {
        Client::put(self, key, value)
    }

    fn get(&mut self, key: &str) -> Result<Option<String>, PmiError> {
        Client::get(self, key)
    }

    fn barrier(&mut self) -> Result<(), PmiError> {
        Client::barrier(self)
    }

    fn abort(&mut self, code: i32, message: &str) -> Result<(), PmiError> {
        Client::abort(self, code, message)
    }

    fn finalize(self: Box<Self>) -> Result<(), PmiError> {
        Client::finalize(*self)
    }
}
