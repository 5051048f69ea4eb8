//! Submission directives in batch scripts, RFC 36: `#flux: -N4 --queue=batch`.
//!
//! [`parse`] reads a script and returns each directive as the words a shell would make of it.
//! All directives share one sentinel, and they stop at the first other non-blank line; a
//! directive after that is an error rather than silently ignored.

use std::iter::Peekable;

/// One directive: its words, the first of which starts with `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The line it starts on, counting from one.
    pub line: usize,
    /// The words, as a shell would split them.
    pub args: Vec<String>,
}

/// What is wrong with the directives of a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum DirectiveError {
    #[error("line {line}: {text}: {why}")]
    Words {
        line: usize,
        text: String,
        why: &'static str,
    },
    #[error("line {line}: unknown directive: {text}; directives are options, which start with -")]
    Unknown { line: usize, text: String },
    #[error(
        "line {line}: orphan '{tag}' detected: directives disabled after line {last}; \
         keep all directives together at the top"
    )]
    Orphan {
        line: usize,
        tag: String,
        last: usize,
    },
    #[error(
        "line {line}: sentinel changed from '{was}' to '{is}'; all directives of a file must use \
         one sentinel. To disable a directive put the comment sign after the sentinel: '{was} #{rest}'"
    )]
    Sentinel {
        line: usize,
        was: String,
        is: String,
        rest: String,
    },
    #[error("line {line}: unclosed triple quote: {text}")]
    TripleQuote { line: usize, text: String },
    #[error("line {line}: unterminated multi-line quote that starts on line {start}: {text}")]
    Unterminated {
        line: usize,
        start: usize,
        text: String,
    },
}

/// The tag and what is around it: `(prefix, tag, rest)`.
fn split_sentinel(line: &str) -> Option<(&str, &str, &str)> {
    let start = line.find(|c: char| c.is_alphanumeric() || c == '_')?;
    let (prefix, rest) = line.split_at(start);
    let tag = ["flux:", "FLUX:"]
        .into_iter()
        .find(|tag| rest.starts_with(tag))?;
    Some((prefix, &rest[..tag.len()], &rest[tag.len()..]))
}

/// A multi-line literal being collected.
struct Literal<'a> {
    quote: &'a str,
    start: usize,
    /// What stands before the opening quote.
    head: &'a str,
    /// Indentation of the first line, taken off the others.
    indent: &'a str,
    lines: Vec<&'a str>,
}

/// Reads the directives of a script.
pub fn parse(script: &str) -> Result<Vec<Directive>, DirectiveError> {
    let mut directives = Vec::new();
    let mut sentinel: Option<(&str, &str)> = None;
    let mut ended_at: Option<usize> = None;
    let mut literal: Option<Literal> = None;
    for (i, text) in script.lines().enumerate() {
        let line = i + 1;
        let Some((prefix, tag, rest)) = split_sentinel(text) else {
            if let Some(open) = &literal {
                let (start, text) = (open.start, open.head.trim().to_owned());
                return Err(DirectiveError::Unterminated { line, start, text });
            }
            if let Some((first_prefix, _)) = sentinel
                && ended_at.is_none()
                && !text.starts_with(first_prefix.trim_end())
                && !text.trim().is_empty()
            {
                ended_at = Some(line - 1);
            }
            continue;
        };
        if let Some(last) = ended_at {
            return Err(DirectiveError::Orphan {
                line,
                tag: tag.to_owned(),
                last,
            });
        }
        let (was_prefix, was_tag) = *sentinel.get_or_insert((prefix, tag));
        if (was_prefix, was_tag) != (prefix, tag) {
            return Err(DirectiveError::Sentinel {
                line,
                was: format!("{was_prefix}{was_tag}"),
                is: format!("{prefix}{tag}"),
                rest: rest.to_owned(),
            });
        }
        if let Some(mut open) = literal.take() {
            let body = rest.strip_suffix(open.quote);
            let content = body.unwrap_or(rest);
            open.lines
                .push(content.strip_prefix(open.indent).unwrap_or(content));
            if body.is_some() {
                let mut args = words(open.head, open.start, Some(&open.lines.join("\n")))?;
                push(
                    &mut directives,
                    open.start,
                    std::mem::take(&mut args),
                    open.head,
                )?;
            } else {
                literal = Some(open);
            }
            continue;
        }
        let quote = ["\"\"\"", "'''"]
            .into_iter()
            .find(|q| rest.matches(q).count() % 2 == 1 && rest.ends_with(q));
        if let Some(quote) = quote {
            let head = &rest[..rest.len() - quote.len()];
            let indent = &rest[..rest.len() - rest.trim_start().len()];
            literal = Some(Literal {
                quote,
                start: line,
                head,
                indent,
                lines: Vec::new(),
            });
            continue;
        }
        let args = words(rest, line, None)?;
        push(&mut directives, line, args, rest)?;
    }
    match literal {
        None => Ok(directives),
        Some(open) => Err(DirectiveError::Unterminated {
            line: script.lines().count(),
            start: open.start,
            text: open.head.trim().to_owned(),
        }),
    }
}

fn push(
    directives: &mut Vec<Directive>,
    line: usize,
    args: Vec<String>,
    text: &str,
) -> Result<(), DirectiveError> {
    match args.first() {
        None => Ok(()),
        Some(first) if first.starts_with('-') => {
            directives.push(Directive { line, args });
            Ok(())
        }
        Some(_) => Err(DirectiveError::Unknown {
            line,
            text: text.trim().to_owned(),
        }),
    }
}

/// Splits text into words with POSIX quoting, triple quotes and comments; `tail` is appended to
/// the last word as it is.
fn words(text: &str, line: usize, tail: Option<&str>) -> Result<Vec<String>, DirectiveError> {
    let fail = |why| DirectiveError::Words {
        line,
        text: text.trim().to_owned(),
        why,
    };
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let triple = ["\"\"\"", "'''"].into_iter().find(|q| rest.starts_with(q));
        if let Some(quote) = triple {
            let body = &rest[3..];
            let end = body
                .find(quote)
                .ok_or_else(|| DirectiveError::TripleQuote {
                    line,
                    text: text.trim().to_owned(),
                })?;
            word.get_or_insert_default().push_str(&body[..end]);
            rest = &body[end + 3..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            // A comment sign ends the directive also inside a word, as upstream's lexer has it.
            '#' => break,
            c if c.is_whitespace() => out.extend(word.take()),
            '\\' => {
                let mut chars = rest.chars();
                let escaped = chars
                    .next()
                    .ok_or_else(|| fail("nothing follows the backslash"))?;
                word.get_or_insert_default().push(escaped);
                rest = chars.as_str();
            }
            '\'' | '"' => {
                let mut chars = rest.chars().peekable();
                quoted(&mut chars, c, word.get_or_insert_default())
                    .ok_or_else(|| fail("no closing quotation"))?;
                let used: usize = rest.len() - chars.map(char::len_utf8).sum::<usize>();
                rest = &rest[used..];
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    if let Some(tail) = tail {
        word.get_or_insert_default().push_str(tail);
    }
    out.extend(word);
    Ok(out)
}

/// Reads up to the closing quote. A backslash escapes the quote and itself in both kinds.
fn quoted(
    chars: &mut Peekable<impl Iterator<Item = char>>,
    quote: char,
    word: &mut String,
) -> Option<()> {
    loop {
        match chars.next()? {
            c if c == quote => return Some(()),
            '\\' => match *chars.peek()? {
                c if c == quote || c == '\\' => {
                    word.push(c);
                    chars.next();
                }
                _ => word.push('\\'),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(script: &str) -> Vec<Vec<String>> {
        parse(script).unwrap().into_iter().map(|d| d.args).collect()
    }

    fn fault(script: &str) -> String {
        parse(script).unwrap_err().to_string()
    }

    #[test]
    fn examples_of_the_rfc() {
        let shell = "#!/bin/sh\n#FLUX: -N4                  # Request four nodes\n\
                     #FLUX: --queue=batch        # Submit to the batch queue\n\
                     # a remark\n\n#FLUX: --job-name=app001    # name\nflux run -N4 app\n";
        assert_eq!(
            args(shell),
            [["-N4"], ["--queue=batch"], ["--job-name=app001"]]
        );
        assert_eq!(parse(shell).unwrap()[2].line, 6);

        let python = "def main():\n    \"\"\"\n    flux: -N4\n    flux: --job-name=\"my python job\"\n\n    \
                      # Set some arbitrary user data:\n    flux: --setattr=user.data='''\n    flux: x, y, z\n    \
                      flux: a, b, c\n    flux: '''\n    \"\"\"\n    run()\n";
        assert_eq!(
            args(python),
            [
                ["-N4"],
                ["--job-name=my python job"],
                ["--setattr=user.data=x, y, z\na, b, c\n"]
            ]
        );

        assert_eq!(
            args(
                "# flux: --setattr=user.conf=\"\"\"\n# flux: [config]\n# flux:   item = \"foo\"\n# flux: \"\"\"\n"
            ),
            [["--setattr=user.conf=[config]\n  item = \"foo\"\n"]]
        );
        assert_eq!(
            args("-- flux: -N1 --exclusive\n-- flux: --output=job.out\nlocal app\n").concat(),
            ["-N1", "--exclusive", "--output=job.out"]
        );
        assert_eq!(
            args("# flux: --setattr=user.foo=\"\"\"{\"key\": 42}\"\"\"\n"),
            [["--setattr=user.foo={\"key\": 42}"]]
        );
        assert_eq!(
            args("# flux: --job-name='''It's a \"job\"'''\n"),
            [["--job-name=It's a \"job\""]]
        );
        assert_eq!(
            args("# flux: --setattr=user.data='{\"option\": \"arg\"}'\n"),
            [["--setattr=user.data={\"option\": \"arg\"}"]]
        );
        assert!(args("#!/bin/sh\necho hi\n").is_empty());
        assert!(args("#flux: # -N4\n#flux:\n").is_empty());
    }

    #[test]
    fn faults_name_the_line() {
        assert_eq!(
            fault("#!/bin/sh\n#FLUX: -N1\nhostname; date\n#FLUX: --job-name=test\n"),
            "line 4: orphan 'FLUX:' detected: directives disabled after line 2; keep all directives together at the top"
        );
        assert_eq!(
            fault("#flux: -N1\n## flux: -t 5m\n"),
            "line 2: sentinel changed from '#flux:' to '## flux:'; all directives of a file must use one sentinel. \
             To disable a directive put the comment sign after the sentinel: '#flux: # -t 5m'"
        );
        assert_eq!(
            fault("#flux: --job-name='x\n"),
            "line 1: --job-name='x: no closing quotation"
        );
        assert_eq!(
            fault("#flux: foo\n"),
            "line 1: unknown directive: foo; directives are options, which start with -"
        );
        assert_eq!(
            fault("#flux: -x='''a\n"),
            "line 1: unclosed triple quote: -x='''a"
        );
        assert_eq!(
            fault("#flux: -x='''\n#flux: a\necho\n"),
            "line 3: unterminated multi-line quote that starts on line 1: -x="
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(body in "[#a-z\"'\\\\ \n=-]{0,60}") {
            let _ = parse(&format!("#flux:{body}"));
            let _ = parse(&body.replace('a', "#flux: "));
        }
    }
}
