//! Resources on the command line, RFC 46: `node=2/slot=4{task}/[core=2;gpu]`.
//!
//! A shape is a resource request (RFC 14) in short: vertices `type=count{key:value}`, children
//! after a slash, siblings in brackets. [`parse`] gives the checked request, [`to_value`] the JSON
//! it stands for. Nesting is bounded, so that no input exhausts the stack.

use crate::count::{Count, CountError};
use crate::jobspec::{JobspecError, Resource};
use serde_json::{Map, Value, json};

/// The deepest nesting of vertices and values.
const MAX_DEPTH: usize = 64;

/// What is wrong with a shape, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum ShapeError {
    #[error("shape: column {column}: {message}")]
    Syntax {
        /// Counting characters from one.
        column: usize,
        message: String,
    },
    #[error("shape: column {column}: count {source}")]
    Count { column: usize, source: CountError },
    #[error("shape: slots need labels when there are several: write slot{{NAME}}")]
    Labels,
    #[error(transparent)]
    Resource(#[from] JobspecError),
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    slots: usize,
    /// A slot had no label.
    unlabelled: bool,
    default_label: &'a str,
}

/// The resource request a shape stands for. A single slot without a label gets `default_label`.
///
/// ```
/// let request = formats::shape::parse("slot=4/[core=2;gpu]", "task")?;
/// assert_eq!(request[0].count.min(), 4);
/// assert_eq!(request[0].with[1].kind, "gpu");
/// # Ok::<(), formats::shape::ShapeError>(())
/// ```
pub fn parse(text: &str, default_label: &str) -> Result<Vec<Resource>, ShapeError> {
    Ok(Resource::list_from_value(to_value(text, default_label)?)?)
}

/// The JSON a shape stands for: a list of resource vertices.
pub fn to_value(text: &str, default_label: &str) -> Result<Value, ShapeError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        slots: 0,
        unlabelled: false,
        default_label,
    };
    let list = parser.list()?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.unexpected("the end"));
    }
    if parser.unlabelled && parser.slots > 1 {
        return Err(ShapeError::Labels);
    }
    Ok(list)
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error(&self, at: usize, message: impl Into<String>) -> ShapeError {
        ShapeError::Syntax {
            column: self.text[..at].chars().count() + 1,
            message: message.into(),
        }
    }

    fn unexpected(&self, wanted: &str) -> ShapeError {
        let message = match self.rest().chars().next() {
            Some(c) => format!("found {c:?} where {wanted} was expected"),
            None => format!("ends where {wanted} was expected"),
        };
        self.error(self.at, message)
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Takes `c` if it comes next, after white space.
    fn take(&mut self, c: char) -> bool {
        self.space();
        let is = self.rest().starts_with(c);
        if is {
            self.at += c.len_utf8();
        }
        is
    }

    fn deeper(&mut self) -> Result<(), ShapeError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(self.at, format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }

    fn list(&mut self) -> Result<Value, ShapeError> {
        self.deeper()?;
        let mut vertices = Vec::new();
        if self.take('[') {
            loop {
                vertices.push(self.vertex()?);
                if self.take(']') {
                    break;
                }
                if !self.take(';') {
                    return Err(self.unexpected("';' or ']'"));
                }
            }
        } else {
            vertices.push(self.vertex()?);
        }
        self.depth -= 1;
        Ok(vertices.into())
    }

    fn vertex(&mut self) -> Result<Value, ShapeError> {
        let kind = match self.quoted()? {
            Some(kind) => kind,
            None => self.word(
                |c| !"={}[]/;\"'".contains(c) && !c.is_whitespace(),
                "a type",
            )?,
        };
        let is_slot = kind.eq_ignore_ascii_case("slot");
        let mut vertex = Map::new();
        vertex.insert(
            "type".into(),
            json!(if is_slot { "slot" } else { kind.as_str() }),
        );
        let count = match self.take('=') {
            true => self.count()?,
            false => json!(1),
        };
        vertex.insert("count".into(), count);
        if is_slot {
            self.slots += 1;
            match self.take('{') {
                true => {
                    let label = self.key()?;
                    vertex.insert("label".into(), json!(label));
                    if self.take(',') {
                        self.items(&mut vertex)?;
                    } else if !self.take('}') {
                        return Err(self.unexpected("',' or '}'"));
                    }
                }
                false => {
                    self.unlabelled = true;
                    vertex.insert("label".into(), json!(self.default_label));
                }
            }
        } else if self.take('{') && !self.take('}') {
            self.items(&mut vertex)?;
        }
        if self.take('/') {
            vertex.insert("with".into(), self.list()?);
        } else if is_slot {
            return Err(self.unexpected("'/' and what is in the slot"));
        }
        Ok(vertex.into())
    }

    fn count(&mut self) -> Result<Value, ShapeError> {
        self.space();
        let start = self.at;
        let bracketed = self.take('[');
        let text = self.word(|c| c.is_ascii_digit() || "-+:*^, ".contains(c), "a count")?;
        if bracketed && !self.take(']') {
            return Err(self.unexpected("']'"));
        }
        let text: String = text.chars().filter(|c| *c != ' ').collect();
        match text.parse::<Count>() {
            Ok(Count::Fixed(n)) => Ok(json!(n)),
            Ok(_) => Ok(text.into()),
            Err(source) => Err(ShapeError::Count {
                column: self.text[..start].chars().count() + 1,
                source,
            }),
        }
    }

    /// The characters that `belongs` takes, at least one, without white space around them.
    fn word(&mut self, belongs: impl Fn(char) -> bool, what: &str) -> Result<String, ShapeError> {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        let word = rest[..end].trim_end();
        if word.is_empty() {
            return Err(self.unexpected(what));
        }
        let word = word.to_owned();
        self.at += end;
        Ok(word)
    }

    /// A string in quotes of either kind, if one comes next. There are no escapes.
    fn quoted(&mut self) -> Result<Option<String>, ShapeError> {
        self.space();
        let Some(quote) = self.rest().chars().next().filter(|c| "\"'".contains(*c)) else {
            return Ok(None);
        };
        let body = &self.rest()[1..];
        let Some(end) = body.find(quote) else {
            return Err(self.error(self.at, format!("{quote} is not closed")));
        };
        let string = body[..end].to_owned();
        self.at += end + 2;
        Ok(Some(string))
    }

    fn key(&mut self) -> Result<String, ShapeError> {
        match self.quoted()? {
            Some(key) => Ok(key),
            None if self.rest().starts_with(['+', '-']) => Err(self.unexpected("a key")),
            None => self.word(|c| !":,{}".contains(c), "a key"),
        }
    }

    /// Items up to and with the closing brace.
    fn items(&mut self, map: &mut Map<String, Value>) -> Result<(), ShapeError> {
        loop {
            let sign = if self.take('+') {
                Some(true)
            } else if self.take('-') {
                Some(false)
            } else {
                None
            };
            let start = self.at;
            let mut key = self.key()?;
            if key == "x" {
                key = "exclusive".into();
            }
            if ["type", "count", "with"].contains(&key.as_str()) {
                return Err(self.error(start, format!("'{key}' cannot be set in braces")));
            }
            let value = match sign {
                Some(sign) => json!(sign),
                None if self.take(':') => self.value()?,
                None => json!(true),
            };
            map.insert(key, value);
            if self.take('}') {
                return Ok(());
            }
            if !self.take(',') {
                return Err(self.unexpected("',' or '}'"));
            }
        }
    }

    fn value(&mut self) -> Result<Value, ShapeError> {
        if let Some(string) = self.quoted()? {
            return Ok(string.into());
        }
        if self.take('{') {
            self.deeper()?;
            let mut map = Map::new();
            if !self.take('}') {
                self.items(&mut map)?;
            }
            self.depth -= 1;
            return Ok(map.into());
        }
        if self.rest().starts_with('[') {
            let mut json = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
            return match json.next() {
                Some(Ok(list)) => {
                    self.at += json.byte_offset();
                    Ok(list)
                }
                Some(Err(e)) => Err(self.error(self.at, format!("not a JSON list: {e}"))),
                None => Err(self.unexpected("a list")),
            };
        }
        let word = self.word(|c| !",{}[]".contains(c), "a value")?;
        let lower = word.to_ascii_lowercase();
        Ok(match lower.as_str() {
            "true" => json!(true),
            "false" => json!(false),
            "null" => Value::Null,
            _ => match serde_json::from_str::<Value>(&word) {
                Ok(number @ Value::Number(_)) => number,
                _ => word.into(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The use cases of RFC 14 as RFC 46 writes them, and what they stand for.
    #[test]
    fn use_cases_of_the_rfc() {
        let node = || json!({"type": "node", "count": 1});
        let slot = |count: Value, label: &str, with: Value| json!({"type": "slot", "count": count, "label": label, "with": with});
        for (shape, want) in [
            ("slot=4/node", slot(json!(4), "default", json!([node()]))),
            (
                "slot=3-30/node",
                slot(json!("3-30"), "default", json!([node()])),
            ),
            (
                "slot=4{nodelevel}/node{-x}/socket=2+/core=4+",
                slot(
                    json!(4),
                    "nodelevel",
                    json!([{"type": "node", "count": 1, "exclusive": false, "with": [
                        {"type": "socket", "count": "2+", "with": [{"type": "core", "count": "4+"}]}]}]),
                ),
            ),
            (
                "switch=3/slot/node=1+{-x}/core",
                json!({"type": "switch", "count": 3, "with": [{"type": "slot", "count": 1,
                    "label": "default", "with": [{"type": "node", "count": "1+",
                        "exclusive": false, "with": [{"type": "core", "count": 1}]}]}]}),
            ),
            (
                "slot=4,9,16,25/node",
                slot(json!("4,9,16,25"), "default", json!([node()])),
            ),
            (
                "slot=10/[memory=2+{unit:GB};core]",
                slot(
                    json!(10),
                    "default",
                    json!([{"type": "memory", "count": "2+", "unit": "GB"}, {"type": "core", "count": 1}]),
                ),
            ),
        ] {
            assert_eq!(to_value(shape, "default"), Ok(json!([want])), "{shape}");
            assert_eq!(
                serde_json::to_value(parse(shape, "default").unwrap()).unwrap()[0]["type"],
                want["type"]
            );
        }
        let two =
            "[cluster/slot=2{ib}/node/[memory=4{unit:GB};ib10g];switch/slot=2{bicore}/node/core=2]";
        let two = parse(two, "default").unwrap();
        assert_eq!(
            (two.len(), two[1].with[0].label.as_deref()),
            (2, Some("bicore"))
        );
    }

    #[test]
    fn values() {
        let value =
            |text: &str| to_value(&format!("node{{k:{text}}}"), "t").map(|v| v[0]["k"].clone());
        for (text, want) in [
            ("abc", json!("abc")),
            ("'a,b'", json!("a,b")),
            ("\"\"", json!("")),
            ("True", json!(true)),
            ("null", json!(null)),
            ("-1.5e2", json!(-150.0)),
            ("12", json!(12)),
            ("01", json!("01")),
            ("[1,{\"a\":\"]\"}]", json!([1, {"a": "]"}])),
            ("{a:1,+b,c}", json!({"a": 1, "b": true, "c": true})),
        ] {
            assert_eq!(value(text), Ok(want), "{text}");
        }
        assert_eq!(
            to_value(" node = [ 1 - 4 ] { x , 'a b' : 2 } / core ", "t"),
            Ok(
                json!([{"type": "node", "count": "1-4", "exclusive": true, "a b": 2,
                "with": [{"type": "core", "count": 1}]}])
            )
        );
    }

    #[test]
    fn faults_name_their_column() {
        for (text, want) in [
            ("", "shape: column 1: ends where a type was expected"),
            (
                "slot=2",
                "shape: column 7: ends where '/' and what is in the slot was expected",
            ),
            (
                "node=0",
                "shape: column 6: count '0' is neither a number, a set such as 2,4,8 nor a range such as 2-8:2:*",
            ),
            ("node{", "shape: column 6: ends where a key was expected"),
            (
                "[node",
                "shape: column 6: ends where ';' or ']' was expected",
            ),
            (
                "node]",
                "shape: column 5: found ']' where the end was expected",
            ),
            ("node{a:'b}", "shape: column 8: ' is not closed"),
            (
                "node{count:2}",
                "shape: column 6: 'count' cannot be set in braces",
            ),
            (
                "[slot/core;slot/gpu]",
                "shape: slots need labels when there are several: write slot{NAME}",
            ),
            (
                "node{x:1}",
                "jobspec.resources[0].exclusive: must be a boolean, found a number",
            ),
        ] {
            assert_eq!(parse(text, "t").unwrap_err().to_string(), want, "{text}");
        }
        let deep = "a/".repeat(100_000) + "a";
        assert!(parse(&deep, "t").is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "[a-z=\\[\\]{}/;:,+\\-x0-9'\" é]{0,40}") {
            if let Ok(list) = parse(&text, "t") {
                prop_assert!(!list.is_empty());
            }
        }
    }
}
