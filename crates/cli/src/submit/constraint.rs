//! `--requires`: the constraint syntax of RFC 35, read into a constraint object of RFC 31.
//!
//! `expr := expr expr | expr and expr | expr or expr | not expr | ( expr ) | [-]term`; `and` binds
//! tighter than `or`, and terms side by side are joined by `and`. A term without operator is a
//! list of properties.

use serde_json::{Map, Value, json};

use crate::error::Failure;

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

/// Split the text into tokens with their places.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, String> {
    let mut out: Vec<(usize, Token)> = Vec::new();
    let mut at = 0;
    // A term that ends in a colon takes the quoted string after it as its value.
    let mut open_term: Option<(usize, String)> = None;
    while let Some(c) = text[at..].chars().next() {
        let start = at;
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        if c == '"' || c == '\'' {
            let body = &rest[1..];
            let end = body
                .find(c)
                .ok_or_else(|| format!("Unclosed quote {c} at position {start}"))?;
            let (place, mut term) = open_term.take().unwrap_or((start, String::new()));
            term.push_str(&body[..end]);
            out.push((place, Token::Term(term)));
            at += end + 2;
            continue;
        }
        let word_end = rest
            .find(|c: char| c.is_whitespace() || "()|&\"'".contains(c))
            .unwrap_or(rest.len());
        let (length, token) = match c {
            '(' => (1, Token::Open),
            ')' => (1, Token::Close),
            '&' => (if rest.starts_with("&&") { 2 } else { 1 }, Token::And),
            '|' => (if rest.starts_with("||") { 2 } else { 1 }, Token::Or),
            '-' if open_term.is_none() => (1, Token::Minus),
            _ => match (&rest[..word_end], open_term.is_none()) {
                ("and", true) => (3, Token::And),
                ("or", true) => (2, Token::Or),
                ("not", true) => (3, Token::Not),
                (word, _) => {
                    at += word.len();
                    let (place, mut term) = open_term.take().unwrap_or((start, String::new()));
                    term.push_str(word);
                    match term.ends_with(':') {
                        true => open_term = Some((place, term)),
                        false => out.push((place, Token::Term(term))),
                    }
                    continue;
                }
            },
        };
        out.push((start, token));
        at += length;
    }
    match open_term {
        Some((_, term)) => Err(format!("Missing argument to token '{term}'")),
        None => Ok(out),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: u32,
}

/// Deeper parentheses than anybody writes.
const MAX_DEPTH: u32 = 64;

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn unexpected(&self) -> String {
        match self.tokens.get(self.at) {
            Some((place, _)) => {
                let word = self.text[*place..].split_whitespace().next().unwrap_or("");
                format!("Invalid token '{word}' at position {place}")
            }
            None => format!("Unexpected end of input in '{}'", self.text),
        }
    }

    fn or(&mut self) -> Result<Value, String> {
        let mut terms = vec![self.and()?];
        while self.peek() == Some(&Token::Or) {
            self.at += 1;
            terms.push(self.and()?);
        }
        Ok(match terms.len() {
            1 => terms.remove(0),
            _ => {
                // A first term that is an `or` itself takes the others in.
                match terms[0]
                    .get_mut("or")
                    .and_then(Value::as_array_mut)
                    .map(std::mem::take)
                {
                    Some(mut first) => {
                        first.extend(terms.drain(1..));
                        json!({ "or": first })
                    }
                    None => json!({ "or": terms }),
                }
            }
        })
    }

    fn and(&mut self) -> Result<Value, String> {
        let mut left = self.not()?;
        loop {
            match self.peek() {
                Some(Token::And) => self.at += 1,
                Some(Token::Not | Token::Minus | Token::Open | Token::Term(_)) => {}
                _ => return Ok(left),
            }
            let right = self.not()?;
            left = join(left, right);
        }
    }

    fn not(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("too many levels".to_owned());
        }
        let value = match self.peek().cloned() {
            Some(Token::Not) => {
                self.at += 1;
                json!({ "not": [self.not()?] })
            }
            Some(Token::Minus) => {
                self.at += 1;
                match self.peek().cloned() {
                    Some(Token::Term(text)) => {
                        self.at += 1;
                        json!({ "not": [term(&text)?] })
                    }
                    _ => return Err(self.unexpected()),
                }
            }
            Some(Token::Open) => {
                let place = self.tokens[self.at].0;
                self.at += 1;
                let value = self.or()?;
                match self.peek() {
                    Some(Token::Close) => self.at += 1,
                    None => return Err(format!("Unclosed parenthesis in position {place}")),
                    Some(_) => return Err(self.unexpected()),
                }
                value
            }
            Some(Token::Term(text)) => {
                self.at += 1;
                term(&text)?
            }
            _ => return Err(self.unexpected()),
        };
        self.depth -= 1;
        Ok(value)
    }
}

/// `[operator:]value`.
fn term(text: &str) -> Result<Value, String> {
    let (operator, value) = match text.split_once(':') {
        None => ("properties", text),
        Some(("host" | "hosts", value)) => ("hostlist", value),
        Some(("rank", value)) => ("ranks", value),
        Some(pair) => pair,
    };
    let fits = |c: char| c.is_alphanumeric() || "_.+@-".contains(c);
    if let Some(bad) = operator.chars().find(|c| !fits(*c)) {
        return Err(format!(
            "invalid character '{bad}' in operator '{operator}:'"
        ));
    }
    let values: Vec<&str> = match operator {
        "properties" => value.split(',').collect(),
        _ => vec![value],
    };
    let mut map = Map::new();
    map.insert(operator.to_owned(), json!(values));
    Ok(map.into())
}

/// Both must hold. Properties come together in one list.
fn join(left: Value, right: Value) -> Value {
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned();
    if let Some(mut all) = list(&left, "and") {
        all.push(right);
        return json!({ "and": all });
    }
    match (list(&left, "properties"), list(&right, "properties")) {
        (Some(mut a), Some(b)) => {
            a.extend(b);
            json!({ "properties": a })
        }
        _ => json!({ "and": [left, right] }),
    }
}

/// Parse the value of `--requires`.
pub(super) fn parse(text: &str) -> Result<Value, Failure> {
    let fail = |why: String| Failure::new(format!("--requires='{text}': {why}"));
    let mut parser = Parser {
        text,
        tokens: tokens(text).map_err(fail)?,
        at: 0,
        depth: 0,
    };
    let value = parser.or().map_err(fail)?;
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(fail(parser.unexpected())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> String {
        parse(text).unwrap().to_string()
    }

    #[test]
    fn expressions() {
        for (text, want) in [
            ("a", r#"{"properties":["a"]}"#),
            ("a,b", r#"{"properties":["a","b"]}"#),
            ("a b", r#"{"properties":["a","b"]}"#),
            ("-a", r#"{"not":[{"properties":["a"]}]}"#),
            ("host:n[1-2]", r#"{"hostlist":["n[1-2]"]}"#),
            (
                "rank:0 and a",
                r#"{"and":[{"ranks":["0"]},{"properties":["a"]}]}"#,
            ),
            (
                "a|b",
                r#"{"or":[{"properties":["a"]},{"properties":["b"]}]}"#,
            ),
            (
                "a or b or c",
                r#"{"or":[{"properties":["a"]},{"properties":["b"]},{"properties":["c"]}]}"#,
            ),
            (
                "not (a|rank:1) b",
                r#"{"and":[{"not":[{"or":[{"properties":["a"]},{"ranks":["1"]}]}]},{"properties":["b"]}]}"#,
            ),
            (
                "a&rank:1 | b",
                r#"{"or":[{"and":[{"properties":["a"]},{"ranks":["1"]}]},{"properties":["b"]}]}"#,
            ),
            ("op:'x y'", r#"{"op":["x y"]}"#),
            ("a-b", r#"{"properties":["a-b"]}"#),
        ] {
            assert_eq!(ok(text), want, "{text}");
        }
    }

    #[test]
    fn faults() {
        let fault = |text| parse(text).unwrap_err().message;
        insta::assert_snapshot!(
            ["", "(a", "a)", "a or", "x!:1", "'a", "rank:", "-(a)"].map(fault).join("\n"),
            @r"
        --requires='': Unexpected end of input in ''
        --requires='(a': Unclosed parenthesis in position 0
        --requires='a)': Invalid token ')' at position 1
        --requires='a or': Unexpected end of input in 'a or'
        --requires='x!:1': invalid character '!' in operator 'x!:'
        --requires=''a': Unclosed quote ' at position 0
        --requires='rank:': Missing argument to token 'rank:'
        --requires='-(a)': Invalid token '(a)' at position 1
        "
        );
    }
}
