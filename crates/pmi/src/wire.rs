//! Lines of the PMI-1 wire protocol: `cmd=NAME key=word key=word … value=rest of the line`.
//!
//! Words hold no blanks. A value that may hold blanks comes last and reaches to the end of the
//! line, which is why [`Line::rest`] exists beside [`Line::word`].

use std::fmt::Write;

/// The longest name of a key-value space this server hands out, terminator included.
pub const KVSNAME_MAX: usize = 64;
/// The longest key, terminator included.
pub const KEY_MAX: usize = 64;
/// The longest value, terminator included.
pub const VALUE_MAX: usize = 1024;
/// The longest line a client may send: a `put` of the longest parts.
pub const LINE_MAX: usize = KVSNAME_MAX + KEY_MAX + VALUE_MAX + 64;

/// Result codes of RFC 13 that go over the wire.
pub mod rc {
    pub const SUCCESS: i32 = 0;
    pub const FAIL: i32 = -1;
    pub const INVALID_KEY: i32 = 4;
    pub const INVALID_KEY_LENGTH: i32 = 5;
    pub const INVALID_VAL: i32 = 6;
    pub const INVALID_VAL_LENGTH: i32 = 7;
    pub const INVALID_LENGTH: i32 = 8;
}

/// A received line, without its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a>(&'a str);

impl<'a> Line<'a> {
    pub fn new(text: &'a str) -> Line<'a> {
        Line(text.trim_end_matches(['\n', '\r']))
    }

    pub fn as_str(&self) -> &'a str {
        self.0
    }

    fn find(&self, key: &str) -> Option<&'a str> {
        let mut rest = self.0;
        loop {
            let at = rest.find(key)?;
            let starts_word = at == 0 || rest.as_bytes()[at - 1] == b' ';
            let after = &rest[at + key.len()..];
            if let Some(value) = after.strip_prefix('=').filter(|_| starts_word) {
                return Some(value);
            }
            rest = after;
            // What is left starts inside a word, so it must not pass for the start of one.
            rest = &rest[rest.find(' ')?..];
        }
    }

    /// The word that belongs to `key`.
    pub fn word(&self, key: &str) -> Option<&'a str> {
        self.find(key)
            .map(|value| value.split(' ').next().unwrap_or(""))
    }

    /// What follows `key=` up to the end of the line.
    pub fn rest(&self, key: &str) -> Option<&'a str> {
        self.find(key)
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.word(key)?.parse().ok()
    }

    /// The command: what `cmd` (or `mcmd`, for the multi-line spawn request) names.
    pub fn command(&self) -> Option<&'a str> {
        let value = self
            .0
            .strip_prefix("cmd=")
            .or_else(|| self.0.strip_prefix("mcmd="))?;
        value.split(' ').next()
    }
}

/// Makes a line from a command and its fields.
#[derive(Debug, Clone)]
pub struct LineBuilder(String);

impl LineBuilder {
    pub fn new(command: &str) -> LineBuilder {
        LineBuilder(format!("cmd={command}"))
    }

    pub fn field(mut self, key: &str, value: impl std::fmt::Display) -> LineBuilder {
        // Writing to a String cannot fail.
        let _ = write!(self.0, " {key}={value}");
        self
    }

    /// The line with its newline.
    pub fn build(mut self) -> String {
        self.0.push('\n');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_lines_of_other_implementations() {
        let line = Line::new("cmd=get_result rc=0 msg=success value=(vector,(0,1,1))\n");
        assert_eq!(line.command(), Some("get_result"));
        assert_eq!(line.number("rc"), Some(0));
        assert_eq!(line.rest("value"), Some("(vector,(0,1,1))"));
        assert_eq!(line.word("key"), None);
        let line = Line::new("cmd=put kvsname=kvs_1 key=a value=b c=d key=x\n");
        assert_eq!(line.word("key"), Some("a"));
        assert_eq!(line.rest("value"), Some("b c=d key=x"));
        assert_eq!(line.word("name"), None);
        assert_eq!(Line::new("mcmd=spawn").command(), Some("spawn"));
        assert_eq!(Line::new("hello").command(), None);
        assert_eq!(
            Line::new("cmd=abort exitcode=-3").number("exitcode"),
            Some(-3)
        );
    }

    proptest! {
        #[test]
        fn lines_round_trip(name in "[a-z]{1,8}", word in "[!-~]{0,20}", value in "[ -~]{0,40}") {
            let text = LineBuilder::new(&name).field("k", &word).field("value", &value).build();
            let line = Line::new(&text);
            prop_assert_eq!(line.command(), Some(name.as_str()));
            prop_assert_eq!(line.word("k"), Some(word.as_str()));
            prop_assert_eq!(line.rest("value"), Some(value.as_str()));
        }

        #[test]
        fn never_panics(text: String) {
            let line = Line::new(&text);
            let _ = (line.command(), line.word("key"), line.rest("value"), line.number::<u32>("rc"));
        }
    }
}
