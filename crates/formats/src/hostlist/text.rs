//! From text to a [`Hostlist`].

use super::{Hostlist, MAX_DIGITS, Numbers};
use std::str::FromStr;

/// The most hosts one bracketed range may stand for: a guard against `a[0-99999999999]`.
const MAX_RANGE: u64 = 1 << 20;
/// The most hosts of expressions that are kept one by one: `a[0-99999]b[0-99999]` is short, too.
const MAX_SINGLE: u64 = 1 << 18;

/// Why a string is not a hostlist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
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

fn ends_in_digit(prefix: &str) -> bool {
    prefix.ends_with(|c: char| c.is_ascii_digit())
}

/// One `prefix[idlist]suffix` at a time.
struct Parser<'a> {
    text: &'a str,
    list: Hostlist,
    /// Hosts so far that expressions with a suffix stand for.
    single: u64,
}

impl<'a> Parser<'a> {
    fn brackets(&self) -> HostlistError {
        HostlistError::Brackets(self.text.to_owned())
    }

    /// Refuses expressions that stand for too many hosts before any is made.
    fn count(&mut self, expr: &str) -> Result<(), HostlistError> {
        let mut hosts = 1u64;
        for idlist in expr.split('[').skip(1) {
            let idlist = idlist.split(']').next().unwrap_or(idlist);
            let mut ids = 0;
            for token in idlist.split(',') {
                let (first, last, _) = self.range(token)?;
                ids += last - first + 1;
            }
            hosts = hosts.saturating_mul(ids);
        }
        self.single = self.single.saturating_add(hosts);
        if self.single > MAX_SINGLE {
            return Err(HostlistError::TooLarge {
                list: self.text.to_owned(),
                token: expr.to_owned(),
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

    /// One expression of the list; `plain` are those without brackets.
    fn top(&mut self, expr: &str, plain: bool) -> Result<(), HostlistError> {
        if plain {
            if !expr.is_empty() {
                self.list.push(expr);
            }
            return Ok(());
        }
        let expanded =
            |at| at + 1 < expr.len() || ends_in_digit(&expr[..expr.find('[').unwrap_or(0)]);
        if expr.find(']').is_some_and(expanded) {
            self.count(expr)?;
        }
        self.expression(expr)
    }

    fn expression(&mut self, expr: &str) -> Result<(), HostlistError> {
        let Some(open) = expr.bytes().position(|b| b == b'[') else {
            if expr.bytes().any(|b| b == b']') {
                return Err(self.brackets());
            }
            if !expr.is_empty() {
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
            if suffix.is_empty() && !ends_in_digit(prefix) {
                let numbers = Numbers { first, last, width };
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
        let separators = text.bytes().filter(|b| *b == b',').count();
        let mut parser = Parser {
            text,
            list: Hostlist {
                runs: Vec::with_capacity(separators + 1),
            },
            single: 0,
        };
        let (mut start, mut depth, mut plain) = (0, 0u32, true);
        for (i, byte) in text.bytes().enumerate() {
            match byte {
                b'[' => (depth, plain) = (depth + 1, false),
                b']' => (depth, plain) = (depth.saturating_sub(1), false),
                b',' | b' ' | b'\t' | b'\n' if depth == 0 => {
                    parser.top(&text[start..i], plain)?;
                    (start, plain) = (i + 1, true);
                }
                byte if !byte.is_ascii_graphic() => {
                    return Err(HostlistError::Character {
                        list: text.to_owned(),
                        // The bytes before it were ASCII, so a character starts here.
                        c: text[i..].chars().next().unwrap_or_default(),
                    });
                }
                _ => {}
            }
        }
        parser.top(&text[start..], plain)?;
        // Most separators may have been within brackets.
        parser.list.runs.shrink_to_fit();
        Ok(parser.list)
    }
}
