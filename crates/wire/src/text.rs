//! [`Text`]: a string that may be a slice of the buffer a message arrived in.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// Immutable UTF-8 text with cheap clones: topics and route hops.
///
/// A decoded `Text` shares the buffer of its message, so it keeps that buffer alive; what is stored for
/// long and is small should be copied ([`Text::detached`]).
///
/// ```
/// use bytes::Bytes;
/// use wire::Text;
///
/// let buffer = Bytes::from_static(b"kvs.lookup");
/// let text = Text::from_utf8(buffer.slice(..3)).unwrap();
/// assert_eq!(text, "kvs");
/// assert!(Text::from_utf8(Bytes::from_static(b"\xff")).is_err());
/// ```
#[derive(Clone, Default)]
pub struct Text(Bytes);

impl Text {
    /// The bytes as text, or the bytes back if they are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, Bytes> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(bytes),
        }
    }

    /// A constant.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor takes UTF-8 and the bytes never change.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The same text in a buffer of its own.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other)
    }
}

impl Hash for Text {
    /// As `str`, because of [`Borrow`].
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeSet, HashSet};

    #[test]
    fn behaves_as_str_in_collections() {
        let words = ["b", "a", "a", "ƒ"];
        let hashed: HashSet<Text> = words.iter().map(|&w| w.into()).collect();
        assert!(hashed.contains("a") && !hashed.contains("c"));
        let sorted: BTreeSet<Text> = words.iter().map(|&w| w.into()).collect();
        let texts: Vec<&str> = sorted.iter().map(Text::as_str).collect();
        assert_eq!(texts, ["a", "b", "ƒ"]);
    }

    #[test]
    fn a_detached_text_does_not_share() {
        let buffer = Bytes::from(vec![b'x'; 100]);
        let text = Text::from_utf8(buffer.slice(..2)).unwrap();
        assert_eq!(text.as_ptr(), buffer.as_ptr());
        let own = text.detached();
        assert_ne!(own.as_ptr(), buffer.as_ptr());
        assert_eq!(own, text);
    }
}
