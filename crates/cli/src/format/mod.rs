//! Output formats: `{id.f58:>12} ?:{queue:<8.8} {name}`, the `-o` option of listing commands.
//!
//! A format is text with fields in braces, in the syntax of Python's `str.format`, and
//! - a mark right before a field: `?:` drops the column if it is empty for every item, `+:` widens
//!   it to the longest entry, `?+:` does both;
//! - conversions `!d` (date), `!D` (ISO date), `!F` (duration), `!H` (clock time), `!P` (percent);
//! - a first word `sort:KEY,-KEY…`.
//!
//! Items are anything that gives a [`Value`] for a field's name.

pub(crate) mod named;
mod spec;
mod value;

pub(crate) use spec::Spec;
pub(crate) use value::{Value, date, duration, float};

use crate::error::Failure;
use crate::output;

/// Something that can be shown as a line.
pub(crate) trait Item {
    /// The value of a field the format was allowed to have.
    fn field(&self, name: &str) -> Value;
}

impl<T: Item + ?Sized> Item for &T {
    fn field(&self, name: &str) -> Value {
        (**self).field(name)
    }
}

/// Which fields there are: the heading of a field's column.
pub(crate) trait Headings {
    fn heading(&self, field: &str) -> Option<String>;
}

impl Headings for [(&str, &str)] {
    fn heading(&self, field: &str) -> Option<String> {
        let found = self.iter().find(|(name, _)| *name == field);
        found.map(|(_, heading)| (*heading).to_owned())
    }
}

impl<F: Fn(&str) -> Option<String>> Headings for F {
    fn heading(&self, field: &str) -> Option<String> {
        self(field)
    }
}

/// Text, and the field after it (none at the end).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    text: String,
    field: Option<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: String,
    heading: String,
    conversion: Option<char>,
    spec: String,
}

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pieces: Vec<Piece>,
    /// Keys and whether the order is reversed.
    sort: Vec<(String, bool)>,
}

/// Marks before a field, the longest first: whether to drop it when empty, whether to widen it.
const MARKS: [(&str, bool, bool); 3] = [
    ("?+:", true, true),
    ("?:", true, false),
    ("+:", false, true),
];

impl Field {
    fn show(&self, item: &dyn Item) -> Result<String, String> {
        spec::format(&self.converted(item)?, &self.spec)
    }

    fn converted(&self, item: &dyn Item) -> Result<Value, String> {
        let value = item.field(&self.name);
        match self.conversion {
            Some(c) => value.convert(c),
            None => Ok(value),
        }
    }

    /// The placement part of the specification: of a date, what follows `::`.
    fn placement(&self) -> Option<Spec> {
        let text = self.spec.split_once("::").map_or(&*self.spec, |(_, s)| s);
        Spec::parse(text)
    }

    fn widen(&mut self, width: usize) {
        let mut place = self.placement().unwrap_or_default();
        place.widen(width);
        self.spec = match self.spec.split_once("::") {
            Some((time, _)) => format!("{time}::{place}"),
            None => place.to_string(),
        };
    }
}

fn invalid(format: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(format!("Error in user format: {why} in '{format}'"))
}

/// Split into text and `name!c:spec` parts.
fn split(format: &str) -> Result<Vec<(String, Option<String>)>, Failure> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                text.push(c);
            }
            '}' => return Err(invalid(format, "a '}' without '{'")),
            '{' => {
                let mut inner = String::new();
                let mut depth = 1;
                loop {
                    let Some(c) = chars.next() else {
                        return Err(invalid(format, "a '{' without '}'"));
                    };
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                    inner.push(c);
                }
                pieces.push((std::mem::take(&mut text), Some(inner)));
            }
            _ => text.push(c),
        }
    }
    if !text.is_empty() {
        pieces.push((text, None));
    }
    Ok(pieces)
}

impl Format {
    /// Parse a format; its fields must have headings.
    pub(crate) fn parse(
        format: &str,
        headings: &(impl Headings + ?Sized),
    ) -> Result<Format, Failure> {
        let mut out = Format {
            pieces: Vec::new(),
            sort: Vec::new(),
        };
        let rest = match format.strip_prefix("sort:") {
            Some(rest) => {
                let end = rest.find(|c: char| c == '{' || c.is_whitespace());
                let (keys, rest) = rest.split_at(end.unwrap_or(rest.len()));
                out.sort_by(keys, headings)?;
                rest.strip_prefix(' ').unwrap_or(rest)
            }
            None => format,
        };
        for (text, inner) in split(rest)? {
            let Some(inner) = inner else {
                out.pieces.push(Piece { text, field: None });
                continue;
            };
            let name_end = inner.find(['!', ':']).unwrap_or(inner.len());
            let (name, rest) = inner.split_at(name_end);
            let (conversion, spec) = match rest.strip_prefix('!') {
                None => (None, rest.strip_prefix(':').unwrap_or("")),
                Some(rest) => {
                    let mut chars = rest.chars();
                    let conversion = chars.next();
                    match (conversion, chars.as_str()) {
                        (Some(c), "") => (Some(c), ""),
                        (Some(c), tail) if tail.starts_with(':') => (Some(c), &tail[1..]),
                        _ => return Err(invalid(format, format_args!("bad conversion '!{rest}'"))),
                    }
                }
            };
            let heading = headings.heading(name).ok_or_else(|| {
                Failure::new(format!(
                    "Error in user format: Unknown format field: {name}"
                ))
            })?;
            out.pieces.push(Piece {
                text,
                field: Some(Field {
                    name: name.to_owned(),
                    heading,
                    conversion,
                    spec: spec.to_owned(),
                }),
            });
        }
        Ok(out)
    }

    /// Sort by these comma-separated keys; `-KEY` reverses.
    pub(crate) fn sort_by(
        &mut self,
        keys: &str,
        headings: &(impl Headings + ?Sized),
    ) -> Result<(), Failure> {
        self.sort.clear();
        for key in keys.split(',').map(str::trim).filter(|k| !k.is_empty()) {
            let name = key.strip_prefix('-').unwrap_or(key);
            if headings.heading(name).is_none() {
                return Err(Failure::new(format!("Invalid sort key: {name}")));
            }
            self.sort.push((name.to_owned(), name.len() < key.len()));
        }
        Ok(())
    }

    fn fields_iter(&self) -> impl Iterator<Item = &Field> {
        self.pieces.iter().filter_map(|p| p.field.as_ref())
    }

    /// Names of all fields, sort keys included.
    pub(crate) fn fields(&self) -> Vec<&str> {
        let fields = self.fields_iter().map(|f| &*f.name);
        fields
            .chain(self.sort.iter().map(|(key, _)| &**key))
            .collect()
    }

    /// The format without some fields. A column that would be widened loses its width instead, so
    /// that lines compare by content.
    pub(crate) fn without(&self, fields: &[&str], nullify: bool) -> Format {
        let mut out = self.clone();
        out.pieces.clear();
        for piece in &self.pieces {
            let mut piece = piece.clone();
            if piece
                .field
                .as_ref()
                .is_some_and(|f| fields.contains(&&*f.name))
            {
                let text = piece.text.trim();
                if !text.is_empty() && !MARKS.iter().any(|m| m.0 == text) {
                    out.pieces.push(Piece {
                        text: piece.text,
                        field: None,
                    });
                }
                continue;
            }
            if nullify
                && piece.text.ends_with("+:")
                && let Some(field) = &mut piece.field
            {
                piece.text.clear();
                field.spec.clear();
            }
            out.pieces.push(piece);
        }
        out
    }

    /// Apply the marks for these items.
    pub(crate) fn fit<T: Item>(&self, items: &[T], no_header: bool) -> Result<Format, Failure> {
        let mut out = Format {
            pieces: Vec::new(),
            sort: self.sort.clone(),
        };
        let marked = |piece: &Piece| MARKS.iter().find(|m| piece.text.ends_with(m.0)).copied();
        if !self
            .pieces
            .iter()
            .any(|p| p.field.is_some() && marked(p).is_some())
        {
            return Ok(self.clone());
        }
        for piece in &self.pieces {
            let mut piece = piece.clone();
            if let (Some((_, drop, widen)), Some(field)) = (marked(&piece), &mut piece.field) {
                let mut widest = 0;
                for item in items {
                    let shown = field.converted(item).map_err(Failure::new)?.text();
                    if !value::is_blank(&shown) {
                        widest = widest.max(shown.chars().count());
                    }
                }
                if drop && widest == 0 {
                    continue;
                }
                if widen {
                    let heading = if no_header {
                        0
                    } else {
                        field.heading.chars().count()
                    };
                    let least = field.placement().and_then(|s| s.width).unwrap_or(0);
                    field.widen(widest.max(heading).max(least));
                }
            }
            for (mark, ..) in MARKS {
                piece.text = piece.text.replace(mark, "");
            }
            out.pieces.push(piece);
        }
        Ok(out)
    }

    /// The heading line.
    pub(crate) fn header(&self) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            out.push_str(&piece.text);
            if let Some(field) = &piece.field {
                let place = field.placement().unwrap_or_default();
                out.push_str(&place.heading(&field.heading));
            }
        }
        out
    }

    /// One item's line.
    pub(crate) fn line(&self, item: &dyn Item) -> Result<String, Failure> {
        let mut out = String::new();
        for piece in &self.pieces {
            out.push_str(&piece.text);
            if let Some(field) = &piece.field {
                let shown = field.show(item).map_err(|e| {
                    Failure::new(format!("Error in user format: {{{}}}: {e}", field.name))
                })?;
                out.push_str(&shown);
            }
        }
        Ok(out)
    }

    /// Sort items by the keys.
    pub(crate) fn sort<T: Item>(&self, items: &mut [T]) {
        for (key, reverse) in self.sort.iter().rev() {
            items.sort_by(|a, b| {
                let order = a.field(key).compare(&b.field(key));
                if *reverse { order.reverse() } else { order }
            });
        }
    }

    /// Lines of a listing: heading, then items that show something.
    pub(crate) fn lines<T: Item>(
        &self,
        mut items: Vec<T>,
        no_header: bool,
    ) -> Result<Vec<String>, Failure> {
        let fitted = self.fit(&items, no_header)?;
        fitted.sort(&mut items);
        let mut out = Vec::new();
        if !no_header {
            out.push(fitted.header());
        }
        for item in &items {
            let line = fitted.line(item)?;
            if !line.trim().is_empty() {
                out.push(line);
            }
        }
        Ok(out)
    }

    /// Print a listing.
    pub(crate) fn print<T: Item>(&self, items: Vec<T>, no_header: bool) -> Result<(), Failure> {
        let mut text = self.lines(items, no_header)?.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        output::write(&text);
        Ok(())
    }
}

/// Cut a line at a width; what is cut shows as `+`.
pub(crate) fn cut(line: String, width: Option<usize>) -> String {
    match width {
        Some(width) if width > 0 && line.chars().count() > width => {
            let mut cut: String = line.chars().take(width - 1).collect();
            cut.push('+');
            cut
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    struct Row(HashMap<&'static str, Value>);

    impl Item for Row {
        fn field(&self, name: &str) -> Value {
            self.0.get(name).cloned().unwrap_or(Value::Empty)
        }
    }

    const HEADINGS: &[(&str, &str)] = &[
        ("name", "NAME"),
        ("n", "COUNT"),
        ("q", "QUEUE"),
        ("t", "TIME"),
    ];

    fn rows() -> Vec<Row> {
        let row = |name: &str, n: i64, t: f64| {
            Row(HashMap::from([
                ("name", Value::from(name)),
                ("n", Value::from(n)),
                ("q", Value::from("")),
                ("t", Value::from(t)),
            ]))
        };
        vec![
            row("sleep", 4, 0.),
            row("a-long-name", 12, 75.),
            row("x", 3, 7200.),
        ]
    }

    fn show(format: &str) -> String {
        match Format::parse(format, HEADINGS).and_then(|f| f.lines(rows(), false)) {
            Ok(lines) => lines.join("|\n") + "|",
            Err(e) => e.message,
        }
    }

    #[test]
    fn columns() {
        insta::assert_snapshot!(show("{name:<6.6+} ?:{q:<8} {n:>5} {t!F:>8h}"), @r"
        NAME   COUNT     TIME|
        sleep      4        -|
        a-lon+    12    1.25m|
        x          3       2h|
        ");
        insta::assert_snapshot!(show("+:{name:<2} ?+:{q:<8}{n:<6}{t!H}{{}}"), @r"
        NAME       COUNT TIME{}|
        sleep      4     0:00:00{}|
        a-long-name12    0:01:15{}|
        x          3     2:00:00{}|
        ");
        insta::assert_snapshot!(show("sort:-n {n} {name}"), @r"
        COUNT NAME|
        12 a-long-name|
        4 sleep|
        3 x|
        ");
    }

    #[test]
    fn mistakes() {
        let faults = [
            "{nope}",
            "{n",
            "n}",
            "{n!Q}",
            "{name:d}",
            "sort:zz {n}",
            "{n!}",
        ]
        .map(show);
        insta::assert_snapshot!(faults.join("\n"), @r"
        Error in user format: Unknown format field: nope
        Error in user format: a '{' without '}' in '{n'
        Error in user format: a '}' without '{' in 'n}'
        Error in user format: {n}: unknown conversion '!Q'
        Error in user format: {name}: format 'd' does not apply to the text 'sleep'
        Invalid sort key: zz
        Error in user format: bad conversion '!' in '{n!}'
        ");
    }
}
