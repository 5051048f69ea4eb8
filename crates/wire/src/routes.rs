//! The route stack of a message (RFC 3): whom it has passed through, for the way back.

use std::fmt;

use smallvec::SmallVec;

use crate::Text;

/// Hops kept without allocation: a request from a client to its own broker has one.
const INLINE: usize = 1;

/// A stack of hops; the last is the most recent. Nearly always short, so kept inline.
///
/// Its text form names hops by the first eight characters, oldest first:
///
/// ```
/// let mut routes = wire::Routes::default();
/// routes.push("0a1b2c3d-4e5f".into());
/// routes.push("7".into());
/// assert_eq!(routes.to_string(), "0a1b2c3d!7");
/// assert_eq!(routes.pop().as_deref(), Some("7"));
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Routes(SmallVec<[Text; INLINE]>);

impl Routes {
    /// Hops, oldest first.
    pub fn as_slice(&self) -> &[Text] {
        &self.0
    }

    /// Add the most recent hop.
    pub fn push(&mut self, hop: Text) {
        self.0.push(hop);
    }

    /// Take the most recent hop off.
    pub fn pop(&mut self) -> Option<Text> {
        self.0.pop()
    }

    /// Forget all hops.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn reverse(&mut self) {
        self.0.reverse();
    }
}

impl fmt::Display for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, hop) in self.0.iter().enumerate() {
            let end = hop.char_indices().nth(8).map_or(hop.len(), |(at, _)| at);
            write!(f, "{}{}", if i > 0 { "!" } else { "" }, &hop[..end])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
