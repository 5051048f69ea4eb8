//! Key syntax: path components separated by periods.

use std::borrow::Cow;

/// The key with runs of periods made one, and without leading and trailing ones. A key of
/// periods only is `.`, the root.
pub fn normalize(key: &str) -> Cow<'_, str> {
    let plain = !key.starts_with('.') && !key.ends_with('.') && !key.contains("..");
    if plain {
        return Cow::Borrowed(key);
    }
    let joined = key
        .split('.')
        .filter(|c| !c.is_empty())
        .collect::<Vec<_>>()
        .join(".");
    Cow::Owned(if joined.is_empty() {
        ".".to_owned()
    } else {
        joined
    })
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn keys_are_normalized() {
        for (key, want) in [
            ("a.b.c", "a.b.c"),
            ("a..b", "a.b"),
            (".a.b", "a.b"),
            ("a.b.", "a.b"),
            ("...a....b...", "a.b"),
            (".", "."),
            ("...", "."),
            ("", ""),
        ] {
            assert_eq!(normalize(key), want, "{key}");
        }
    }
}
