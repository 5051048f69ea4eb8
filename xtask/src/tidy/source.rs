//! Just enough of Rust's lexical grammar to tell code from comments and literals.

/// `text` with comments and the insides of string literals blanked out, line by line as before.
pub(super) fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = literal_or_comment(rest, out.chars().last());
        if len == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let blank = |c| if c == '\n' { '\n' } else { ' ' };
            out.extend(rest[..len].chars().map(blank));
            rest = &rest[len..];
        }
    }
    out
}

/// Length of the comment or string literal that starts here, 0 if none does.
fn literal_or_comment(text: &str, before: Option<char>) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    if text.starts_with('"') {
        return string(text);
    }
    // A quote in a character literal must not open a string.
    if text.starts_with("'\"'") {
        return 3;
    }
    if let Some(escape) = text.strip_prefix("'\\") {
        // The escaped character itself may be a quote.
        let end = escape.char_indices().skip(1).find(|(_, c)| *c == '\'');
        return end.map_or(2, |(at, _)| at + 3);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with('r') && !(in_word && before != Some('b')) {
        return raw_string(text);
    }
    0
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    let open = 1 + hashes;
    if !text[open..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let end = text[open + 1..].find(&close);
    end.map_or(text.len(), |at| open + 1 + at + close.len())
}

#[cfg(test)]
mod tests {
    use super::code_only;

    #[test]
    fn comments_and_literals_are_blanked() {
        let table = [
            ("a // x\nb", "a     \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("x\"y") + g"#, "f(      ) + g"),
            (r##"f(r#"x"y"#) + g"##, "f(        ) + g"),
            ("r\"x\" br\"y\"", "     b    "),
            ("for_(x) 'a '\"' b", "for_(x) 'a     b"),
            ("'\\'' b", "     b"),
            ("\"é\" b", "    b"),
        ];
        for (text, expected) in table {
            assert_eq!(code_only(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_stay_where_they_are() {
        let text = "a\n\"x\ny\"\n/* 1\n2 */\nb\n";
        assert_eq!(code_only(text).lines().count(), text.lines().count());
        assert_eq!(code_only(text).lines().nth(5), Some("b"));
    }
}
