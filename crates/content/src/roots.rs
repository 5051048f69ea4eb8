//! Roots of key-value namespaces, as a batch of blobs makes them: a restarted instance starts there, so that nothing
//! acknowledged is lost.

use serde_json::{Map, Value};

/// What a batch says of namespaces, by name: an object is the root it makes, null that the namespace is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roots(Map<String, Value>);

impl Roots {
    /// The root of one namespace.
    pub fn of(name: &str, root: Value) -> Self {
        Self(Map::from_iter([(name.to_owned(), root)]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What comes later counts.
    pub fn merge(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Names and roots.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, root)| (name.as_str(), root))
    }

    /// As JSON; nothing at all if empty.
    pub fn encode(&self) -> Vec<u8> {
        match self.is_empty() {
            true => Vec::new(),
            false => Value::Object(self.0.clone()).to_string().into_bytes(),
        }
    }

    /// The reverse of [`Roots::encode`].
    pub fn decode(text: &[u8]) -> Result<Self, serde_json::Error> {
        match text {
            [] => Ok(Self::default()),
            text => serde_json::from_slice(text).map(Self),
        }
    }
}

impl From<Roots> for Map<String, Value> {
    fn from(roots: Roots) -> Self {
        roots.0
    }
}

impl FromIterator<(String, Value)> for Roots {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(roots: I) -> Self {
        Self(Map::from_iter(roots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PRIMARY;
    use serde_json::json;

    #[test]
    fn what_comes_later_counts() {
        let mut roots = Roots::of(PRIMARY, json!({"sequence": 1}));
        assert_eq!(Roots::decode(&roots.encode()).unwrap(), roots);
        roots.merge(Roots::of("a", Value::Null));
        roots.merge(Roots::of(PRIMARY, json!({"sequence": 2})));
        let all: Vec<_> = roots.iter().collect();
        assert_eq!(
            all,
            [(PRIMARY, &json!({"sequence": 2})), ("a", &Value::Null)]
        );
        assert_eq!(Roots::decode(b"").unwrap().encode(), b"");
        assert!(Roots::decode(b"[]").is_err());
    }
}
