//! How much a router keeps for others.

/// The most of everything that outsiders can make a router keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests under way through this broker to or from peers: beyond, new ones are refused.
    pub pending: usize,
    /// Requests of modules that wait for the parent. They are few, and made once.
    pub held: usize,
    /// Bytes that wait for a program that does not read. It is cut off beyond: what it follows goes on
    /// without it, and a program that has fallen this far behind has been served badly anyway.
    pub unread: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            pending: 1 << 20,
            held: 4096,
            unread: 256 << 20,
        }
    }
}
