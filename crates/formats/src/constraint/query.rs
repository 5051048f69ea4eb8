//! The constraint query syntax of RFC 35, read into a constraint object of RFC 31.
//!
//! `expr := expr expr | expr and expr | expr or expr | not expr | ( expr ) | [-]term`, with
//! `term := [operator:]operand`. Which operators there are is up to the user of the syntax: a
//! [`Syntax`] has a default operator, short names, and says how operands are put together.
//!
//! The grammar is ambiguous. It is resolved as upstream's parser generator does, so that both
//! read a query alike: a step is reduced before the next token is read in if it binds at least
//! as tightly. `or` binds least, then `and` and mere juxtaposition, then `not`, then `-`; a term
//! or a parenthesis that follows binds nothing. So `a|b c` is `(a|b)&c`, and `not a not b` is
//! `not (a & not b)`.

use serde_json::{Map, Value, json};

/// What terms mean.
///
/// ```
/// use formats::constraint::query::Syntax;
///
/// let syntax = Syntax::new().default_operator("name").alias("u", "user").split("user", ",");
/// assert_eq!(
///     syntax.parse("foo -u:ann,bob")?.to_string(),
///     r#"{"and":[{"name":["foo"]},{"not":[{"user":["ann","bob"]}]}]}"#
/// );
/// assert_eq!(
///     syntax.parse("(foo|bar").unwrap_err().to_string(),
///     "Unclosed parenthesis in position 0"
/// );
/// # Ok::<(), formats::constraint::query::QueryError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Syntax {
    default: Option<&'static str>,
    aliases: Vec<(&'static str, &'static str)>,
    split: Vec<(&'static str, &'static str)>,
    combined: Vec<&'static str>,
}

/// Why text is not a query. Positions count characters from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum QueryError {
    #[error("Unexpected end of input in '{0}'")]
    End(String),
    #[error("Invalid token '{token}' at position {position}")]
    Token { token: String, position: usize },
    #[error("Illegal character {c:?} at position {position}")]
    Character { c: char, position: usize },
    #[error("Unclosed parenthesis in position {0}")]
    Unclosed(usize),
    #[error("Mismatched parentheses starting at position {0}.")]
    Mismatched(usize),
    #[error("Unclosed quote {q}{quote}{q} at position {position}", q = if *quote == '"' { '\'' } else { '"' })]
    Quote { quote: char, position: usize },
    #[error("Missing argument to token '{0}'")]
    Argument(String),
    #[error("Missing required operator in \"{0}\"")]
    Operator(String),
    #[error("invalid character '{c}' in operator '{operator}:'")]
    OperatorCharacter { c: char, operator: String },
    #[error("too many levels: at most {MAX_LEVELS} are allowed")]
    Levels,
}

/// More levels than anybody writes; JSON of more is refused by other programs.
const MAX_LEVELS: usize = 100;

impl Syntax {
    /// A syntax without operators of its own.
    pub fn new() -> Syntax {
        Syntax::default()
    }

    /// The syntax of `--requires`: properties by default, `host:` and `rank:`.
    pub fn requires() -> Syntax {
        Syntax::new()
            .default_operator("properties")
            .alias("host", "hostlist")
            .alias("hosts", "hostlist")
            .alias("rank", "ranks")
            .split("properties", ",")
            .combine("properties")
    }

    /// The operator of terms without one. Without it every term needs its own.
    pub fn default_operator(mut self, operator: &'static str) -> Syntax {
        self.default = Some(operator);
        self
    }

    /// Another name of an operator.
    pub fn alias(mut self, name: &'static str, operator: &'static str) -> Syntax {
        self.aliases.push((name, operator));
        self
    }

    /// Operands of an operator are several values, separated by `separator`.
    pub fn split(mut self, operator: &'static str, separator: &'static str) -> Syntax {
        self.split.push((operator, separator));
        self
    }

    /// Terms of this operator that are joined by "and" become one with all their values.
    pub fn combine(mut self, operator: &'static str) -> Syntax {
        self.combined.push(operator);
        self
    }

    /// Reads a query into a constraint object. Whether the operators exist is not checked here.
    pub fn parse(&self, text: &str) -> Result<Value, QueryError> {
        Parser {
            syntax: self,
            lexer: Lexer::new(text),
            stack: Vec::new(),
        }
        .run()
    }

    fn term(&self, text: &str) -> Result<Value, QueryError> {
        let (operator, value) = match (text.split_once(':'), self.default) {
            (Some((name, value)), _) => {
                let mut aliases = self.aliases.iter();
                let known = aliases.find(|(alias, _)| *alias == name);
                (known.map_or(name, |(_, operator)| operator), value)
            }
            (None, Some(operator)) => (operator, text),
            (None, None) => return Err(QueryError::Operator(text.to_owned())),
        };
        let fits = |c: char| c.is_alphanumeric() || "_.+@-".contains(c);
        if let Some(c) = operator.chars().find(|c| !fits(*c)) {
            let operator = operator.to_owned();
            return Err(QueryError::OperatorCharacter { c, operator });
        }
        let separator = self.split.iter().find(|(op, _)| *op == operator);
        let values: Vec<&str> = match separator {
            Some((_, separator)) => value.split(separator).collect(),
            None => vec![value],
        };
        Ok(Map::from_iter([(operator.to_owned(), json!(values))]).into())
    }

    /// Both must hold.
    fn and(&self, mut left: Value, mut right: Value) -> Value {
        if let Some(Value::Array(all)) = left.get_mut("and") {
            all.push(right);
            return left;
        }
        for operator in &self.combined {
            if let (Some(Value::Array(a)), Some(Value::Array(b))) =
                (left.get_mut(operator), right.get_mut(operator))
            {
                a.append(b);
                return left;
            }
        }
        json!({ "and": [left, right] })
    }
}

fn or(mut left: Value, right: Value) -> Value {
    match left.get_mut("or") {
        Some(Value::Array(any)) => {
            any.push(right);
            left
        }
        _ => json!({ "or": [left, right] }),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Minus,
    Term(String),
}

impl Token {
    /// How tightly the token binds when it follows an expression.
    fn level(&self) -> u8 {
        match self {
            Token::Or => 1,
            Token::And => 2,
            Token::Not => 3,
            Token::Minus => 4,
            Token::Open | Token::Close | Token::Term(_) => 0,
        }
    }
}

/// A token, where it starts (in characters), and its text.
struct Found {
    token: Token,
    position: usize,
    text: String,
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    /// Inside of a quote that began here, with this character.
    quote: Option<(usize, char)>,
    /// A term that ends in a colon takes the next term as its value.
    pending: Option<String>,
    open: usize,
    close: usize,
    level: i64,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_term(c: char) -> bool {
    !"()|&\"'".contains(c) && !is_space(c)
}

/// Python counts separators of ASCII as white space.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

impl Lexer {
    fn new(text: &str) -> Lexer {
        Lexer {
            chars: text.chars().collect(),
            at: 0,
            quote: None,
            pending: None,
            open: 0,
            close: 0,
            level: 0,
        }
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let rest = self.chars[self.at..].iter().copied();
        let text: String = rest.take_while(|c| fits(*c)).collect();
        self.at += text.chars().count();
        text
    }

    /// Whether the word is here and ends here.
    fn keyword(&self, word: &str) -> bool {
        let rest = &self.chars[self.at..];
        let n = word.len();
        rest.len() >= n
            && word.chars().eq(rest[..n].iter().copied())
            && !rest.get(n).is_some_and(|c| is_word(*c))
    }

    fn term(&mut self, position: usize, text: String) -> Option<Found> {
        let value = match self.pending.take() {
            Some(first) => first + &text,
            None if text.ends_with(':') => {
                self.pending = Some(text);
                return None;
            }
            None => text,
        };
        Some(Found {
            token: Token::Term(value.clone()),
            position,
            text: value,
        })
    }

    fn next(&mut self) -> Result<Option<Found>, QueryError> {
        loop {
            let Some(&c) = self.chars.get(self.at) else {
                if let Some((position, quote)) = self.quote {
                    return Err(QueryError::Quote { quote, position });
                }
                return match &self.pending {
                    Some(term) => Err(QueryError::Argument(term.clone())),
                    None => Ok(None),
                };
            };
            let position = self.at;
            if let Some((_, quote)) = self.quote {
                if c == quote {
                    self.quote = None;
                    self.at += 1;
                    continue;
                }
                let text = self.take_while(|c| c != quote);
                match self.term(position, text) {
                    Some(found) => return Ok(Some(found)),
                    None => continue,
                }
            }
            if " \t\r\n\x0c\x0b".contains(c) {
                self.at += 1;
                continue;
            }
            if c == '"' || c == '\'' {
                self.quote = Some((position, c));
                self.at += 1;
                continue;
            }
            let twice = self.chars.get(self.at + 1) == Some(&c);
            let (length, token) = match c {
                '(' => {
                    (self.open, self.level) = (position, self.level + 1);
                    (1, Token::Open)
                }
                ')' => {
                    (self.close, self.level) = (position, self.level - 1);
                    (1, Token::Close)
                }
                '-' => (1, Token::Minus),
                '&' => (1 + usize::from(twice), Token::And),
                '|' => (1 + usize::from(twice), Token::Or),
                _ if self.keyword("not") => (3, Token::Not),
                _ if self.keyword("and") => (3, Token::And),
                _ if self.keyword("or") => (2, Token::Or),
                c if !is_term(c) => return Err(QueryError::Character { c, position }),
                _ => {
                    let text = self.take_while(is_term);
                    match self.term(position, text) {
                        Some(found) => return Ok(Some(found)),
                        None => continue,
                    }
                }
            };
            let text = self.chars[self.at..self.at + length].iter().collect();
            self.at += length;
            return Ok(Some(Found {
                token,
                position,
                text,
            }));
        }
    }
}

/// What is read and not yet reduced.
enum Step {
    Value(Value),
    /// A term whose meaning is looked at when the next token is known to be one.
    Term {
        text: String,
        negated: bool,
    },
    And,
    Or,
    Not,
    Minus,
    Open,
}

struct Parser<'a> {
    syntax: &'a Syntax,
    lexer: Lexer,
    stack: Vec<Step>,
}

impl Parser<'_> {
    fn run(mut self) -> Result<Value, QueryError> {
        loop {
            let found = self.lexer.next()?;
            self.settle()?;
            let level = found.as_ref().map_or(0, |f| f.token.level());
            while self.reduce(level) {}
            let Some(found) = found else { break };
            self.shift(found)?;
        }
        match (self.stack.pop(), self.stack.is_empty()) {
            (Some(Step::Value(value)), true) => Ok(value),
            _ => Err(self.unexpected(None)),
        }
    }

    /// Gives the last term its meaning.
    fn settle(&mut self) -> Result<(), QueryError> {
        if let Some(Step::Term { text, negated }) = self.stack.last() {
            let value = self.syntax.term(text)?;
            let value = match negated {
                true => json!({ "not": [value] }),
                false => value,
            };
            self.stack.pop();
            self.stack.push(Step::Value(value));
        }
        Ok(())
    }

    fn unexpected(&self, found: Option<Found>) -> QueryError {
        let lexer = &self.lexer;
        match found {
            None if lexer.level > 0 => QueryError::Unclosed(lexer.open),
            None => QueryError::End(lexer.chars.iter().collect()),
            Some(_) if lexer.level < 0 => QueryError::Mismatched(lexer.close),
            Some(found) => QueryError::Token {
                token: found.text,
                position: found.position,
            },
        }
    }

    fn shift(&mut self, found: Found) -> Result<(), QueryError> {
        let has_value = matches!(self.stack.last(), Some(Step::Value(_)));
        let minus = matches!(self.stack.last(), Some(Step::Minus));
        let step = match &found.token {
            Token::Term(text) => {
                let (text, negated) = (text.clone(), minus);
                if minus {
                    self.stack.pop();
                }
                Step::Term { text, negated }
            }
            _ if minus => return Err(self.unexpected(Some(found))),
            Token::Open => Step::Open,
            Token::Not => Step::Not,
            Token::Minus => Step::Minus,
            Token::And if has_value => Step::And,
            Token::Or if has_value => Step::Or,
            // All is reduced: what is before the value is the parenthesis, or there is none.
            Token::Close if has_value => match self.stack.pop().zip(self.stack.pop()) {
                Some((value, Step::Open)) => value,
                _ => return Err(self.unexpected(Some(found))),
            },
            _ => return Err(self.unexpected(Some(found))),
        };
        self.stack.push(step);
        match self.stack.len() > MAX_LEVELS {
            true => Err(QueryError::Levels),
            false => Ok(()),
        }
    }

    /// Reduces the last step if it binds at least as tightly as what follows.
    fn reduce(&mut self, level: u8) -> bool {
        let (value, reduced) = match &mut self.stack[..] {
            [.., Step::Value(a), Step::Value(b)] if level <= 2 => {
                (self.syntax.and(a.take(), b.take()), 2)
            }
            [.., Step::Value(a), Step::And, Step::Value(b)] if level <= 2 => {
                (self.syntax.and(a.take(), b.take()), 3)
            }
            [.., Step::Value(a), Step::Or, Step::Value(b)] if level <= 1 => {
                (or(a.take(), b.take()), 3)
            }
            // `not` is right associative.
            [.., Step::Not, Step::Value(a)] if level < 3 => (json!({ "not": [a.take()] }), 2),
            _ => return false,
        };
        self.stack.truncate(self.stack.len() - reduced);
        self.stack.push(Step::Value(value));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(text: &str) -> String {
        let parsed = Syntax::new().default_operator("name").parse(text);
        parsed.unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    /// The examples of RFC 35.
    #[test]
    fn examples_of_the_rfc() {
        for (text, want) in [
            ("foo", r#"{"name":["foo"]}"#),
            ("foo bar", r#"{"and":[{"name":["foo"]},{"name":["bar"]}]}"#),
            (
                "foo bar state:started",
                r#"{"and":[{"name":["foo"]},{"name":["bar"]},{"state":["started"]}]}"#,
            ),
            (
                "a|b|c",
                r#"{"or":[{"name":["a"]},{"name":["b"]},{"name":["c"]}]}"#,
            ),
            (
                "a|b&c",
                r#"{"or":[{"name":["a"]},{"and":[{"name":["b"]},{"name":["c"]}]}]}"#,
            ),
            (
                "(a|b)&c",
                r#"{"and":[{"or":[{"name":["a"]},{"name":["b"]}]},{"name":["c"]}]}"#,
            ),
            (
                "(a|-b)&c",
                r#"{"and":[{"or":[{"name":["a"]},{"not":[{"name":["b"]}]}]},{"name":["c"]}]}"#,
            ),
            ("foo:'this is args'", r#"{"foo":["this is args"]}"#),
            ("-op:operand", r#"{"not":[{"op":["operand"]}]}"#),
            ("not op:operand", r#"{"not":[{"op":["operand"]}]}"#),
        ] {
            assert_eq!(named(text), want, "{text}");
        }
    }

    /// Queries that mean the same.
    #[test]
    fn how_tightly_things_bind() {
        for (text, same) in [
            ("a && b and c", "a&b&c"),
            ("a || b or c", "a|b|c"),
            ("a|b c", "(a|b)&c"),
            ("a&b|c", "(a&b)|c"),
            ("not a b", "(not a)&b"),
            ("not a not b", "not (a & not b)"),
            ("not a|b", "(not a)|b"),
            ("a|b not c", "a|(b & not c)"),
            ("-a b", "(not a)&b"),
            ("a and(b)", "a&b"),
            ("a'b'\"c\"", "a b c"),
            ("op: (x y)", "op:x y"),
            ("b and-a", "b & -a"),
        ] {
            assert_eq!(named(text), named(same), "{text}");
        }
    }

    #[test]
    fn what_requires_means() {
        let requires = |text: &str| Syntax::requires().parse(text).unwrap().to_string();
        for (text, want) in [
            ("a,b", r#"{"properties":["a","b"]}"#),
            ("a b", r#"{"properties":["a","b"]}"#),
            ("host:n[1-2]", r#"{"hostlist":["n[1-2]"]}"#),
            (
                "rank:0 and a",
                r#"{"and":[{"ranks":["0"]},{"properties":["a"]}]}"#,
            ),
            (
                "rank:0 a b",
                r#"{"and":[{"ranks":["0"]},{"properties":["a"]},{"properties":["b"]}]}"#,
            ),
            (
                "not (a|rank:1) b",
                r#"{"and":[{"not":[{"or":[{"properties":["a"]},{"ranks":["1"]}]}]},{"properties":["b"]}]}"#,
            ),
            ("a-b", r#"{"properties":["a-b"]}"#),
            ("^a", r#"{"properties":["^a"]}"#),
        ] {
            assert_eq!(requires(text), want, "{text}");
        }
    }

    #[test]
    fn faults() {
        let fails = |text: &str| Syntax::requires().parse(text).unwrap_err().to_string();
        insta::assert_snapshot!(
            ["", "(a", "a)", "(a))", "a or", "or", "()", "x!:1", "a 'b", "rank:", "rank:''", "-(a)", "a --b", "a\u{a0}b"]
                .map(fails).join("\n"), @r#"
        Unexpected end of input in ''
        Unclosed parenthesis in position 0
        Mismatched parentheses starting at position 1.
        Mismatched parentheses starting at position 3.
        Unexpected end of input in 'a or'
        Invalid token 'or' at position 0
        Invalid token ')' at position 1
        invalid character '!' in operator 'x!:'
        Unclosed quote "'" at position 2
        Missing argument to token 'rank:'
        Missing argument to token 'rank:'
        Invalid token '(' at position 1
        Invalid token '-' at position 3
        Illegal character '\u{a0}' at position 1
        "#);
        let bare = Syntax::new().parse("a").unwrap_err().to_string();
        assert_eq!(bare, "Missing required operator in \"a\"");
        let deep = "(".repeat(200) + "a" + &")".repeat(200);
        assert_eq!(fails(&deep), "too many levels: at most 100 are allowed");
        assert_eq!(
            fails(&"not ".repeat(100_000)),
            "too many levels: at most 100 are allowed"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ab:&|()' -]{0,20}|(not|and|or|[a-c]|\\(|\\)| ){0,12}") {
            let _ = Syntax::requires().parse(&text);
        }
    }
}
