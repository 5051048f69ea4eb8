//! From text to a [`Hostlist`].

use super::{Hostlist, MAX_DIGITS, Numbers};
use std::str::FromStr;

/// The most hosts one bracketed range may stand for: a guard against `a[0-99999999999]`.
const MAX_RANGE: u64 = 1 << 20;
/// The most hosts a whole list may stand for: `a[0-99999]b[0-99999]` is short, too.
const MAX_HOSTS: usize = 1 << 24;

/// Why a string is not a hostlist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostlistError {
    #[error("hostlist '{0}': brackets do not match")]
    Brackets(String),
    #[error("hostlist '{list}': '{token}' is not a number or a range such as 2-5")]
    Token { list: String, token: String },
    #[error("hostlist '{list}': range '{token}' stands for too many hosts")]
    TooLarge { list: String, token: String },
    #[error("hostlist '{list}': character {c:?} is not allowed in a host name")]
    Character { list: String, c: char },
}

/// One `prefix[idlist]suffix` at a time.
struct Parser<'a> {
    text: &'a str,
    list: Hostlist,
    /// Hosts so far.
    len: usize,
}

impl<'a> Parser<'a> {
    fn brackets(&self) -> HostlistError {
        HostlistError::Brackets(self.text.to_owned())
    }

    fn count(&mut self, hosts: usize, token: &str) -> Result<(), HostlistError> {
        self.len += hosts;
        if self.len > MAX_HOSTS {
            return Err(HostlistError::TooLarge {
                list: self.text.to_owned(),
                token: token.to_owned(),
            });
        }
        Ok(())
    }

    /// A bracketed range: `(first, last, digits of first)`.
    fn range(&self, token: &str) -> Result<(u64, u64, usize), HostlistError> {
        let bad = || HostlistError::Token {
            list: self.text.to_owned(),
            token: token.to_owned(),
        };
        let number = |digits: &str| {
            let plain = digits.bytes().all(|c| c.is_ascii_digit());
            let short = (1..=MAX_DIGITS).contains(&digits.len());
            (plain && short)
                .then(|| digits.parse::<u64>().ok())
                .flatten()
                .ok_or_else(bad)
        };
        let (a, b) = token.split_once('-').unwrap_or((token, token));
        let (first, last) = (number(a)?, number(b)?);
        if first > last {
            return Err(bad());
        }
        if last - first >= MAX_RANGE {
            let (list, token) = (self.text.to_owned(), token.to_owned());
            return Err(HostlistError::TooLarge { list, token });
        }
        Ok((first, last, if a.starts_with('0') { a.len() } else { 1 }))
    }

    fn expression(&mut self, expr: &str) -> Result<(), HostlistError> {
        let Some(open) = expr.find('[') else {
            if expr.contains(']') {
                return Err(self.brackets());
            }
            if !expr.is_empty() {
                self.count(1, expr)?;
                self.list.push(expr);
            }
            return Ok(());
        };
        let close = expr[open..].find(']').ok_or_else(|| self.brackets())? + open;
        let (prefix, idlist, suffix) = (&expr[..open], &expr[open + 1..close], &expr[close + 1..]);
        if prefix.contains(']') || idlist.contains('[') {
            return Err(self.brackets());
        }
        let mut padding = None;
        for token in idlist.split(',') {
            let (first, last, own) = self.range(token)?;
            // The padding of the first id holds for the whole list.
            let width = own.max(*padding.get_or_insert(own));
            // A prefix that ends in digits must be told apart from the number after it.
            if suffix.is_empty() && !prefix.ends_with(|c: char| c.is_ascii_digit()) {
                let numbers = Numbers { first, last, width };
                self.count(numbers.len(), token)?;
                self.list.push_run(prefix, Some(numbers));
            } else {
                for n in first..=last {
                    self.expression(&format!("{prefix}{n:0width$}{suffix}"))?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Hostlist {
    type Err = HostlistError;

    /// Expressions are separated by commas or white space; empty ones are passed over.
    fn from_str(text: &str) -> Result<Hostlist, HostlistError> {
        let mut parser = Parser {
            text,
            list: Hostlist::default(),
            len: 0,
        };
        let (mut start, mut depth) = (0, 0u32);
        for (i, c) in text.char_indices() {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                ',' | ' ' | '\t' | '\n' if depth == 0 => {
                    parser.expression(&text[start..i])?;
                    start = i + 1;
                }
                c if !c.is_ascii_graphic() => {
                    return Err(HostlistError::Character {
                        list: text.to_owned(),
                        c,
                    });
                }
                _ => {}
            }
        }
        parser.expression(&text[start..])?;
        Ok(parser.list)
    }
}
