//! Globs over topics, with the rules of the C library's `fnmatch` (no flags), and [`Match`].

use crate::message::Message;

/// One step of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    Star,
    Set {
        negated: bool,
        items: Vec<Item>,
    },
    /// Matches nothing: what follows cannot be a pattern (a final backslash).
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Range(char, char),
    /// Index into [`CLASSES`].
    Class(usize),
    /// A class of another name: the set matches what comes before it, and nothing else.
    Unknown,
}

/// A compiled topic pattern.
///
/// `*`, `?` and sets such as `[a-z]` or `[!0-9]` are special; a pattern without any of them is compared as it
/// is. The empty pattern and `*` match every topic, and also messages that have none.
///
/// ```
/// use wire::Glob;
///
/// assert!(Glob::new("job-manager.*").matches("job-manager.submit"));
/// assert!(!Glob::new("kvs.*").matches("kvs"));
/// assert!(Glob::new("").matches("anything"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Pattern);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Everything,
    Exact(String),
    /// A literal beginning followed by one star: the common case.
    Prefix(String),
    Tokens(Vec<Token>),
}

impl Glob {
    /// Compile `pattern`. Every text is a pattern.
    pub fn new(pattern: &str) -> Self {
        Self(match pattern {
            "" | "*" => Pattern::Everything,
            _ if !pattern.contains(['*', '?', '[']) => Pattern::Exact(pattern.to_owned()),
            _ => match pattern.strip_suffix('*') {
                Some(head) if !head.contains(['*', '?', '[', '\\']) => {
                    Pattern::Prefix(head.to_owned())
                }
                _ => Pattern::Tokens(compile(pattern)),
            },
        })
    }

    /// Matches also what has no topic.
    pub fn is_everything(&self) -> bool {
        self.0 == Pattern::Everything
    }

    /// Whether the whole of `topic` fits.
    pub fn matches(&self, topic: &str) -> bool {
        match &self.0 {
            Pattern::Everything => true,
            Pattern::Exact(text) => text == topic,
            Pattern::Prefix(head) => topic.starts_with(head.as_str()),
            Pattern::Tokens(tokens) => run(tokens, topic),
        }
    }
}

fn compile(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let token = match c {
            '?' => Token::Any,
            '*' if tokens.last() == Some(&Token::Star) => continue,
            '*' => Token::Star,
            '\\' => rest.next().map_or(Token::Never, Token::Char),
            '[' => match set(rest.as_str()) {
                Ok((set, after)) => {
                    rest = after.chars();
                    set
                }
                Err(token) => token,
            },
            c => Token::Char(c),
        };
        tokens.push(token);
    }
    tokens
}

/// What `[` is if no `]` closes it: an ordinary character, unless its members rule it out before the
/// end is seen.
fn unclosed(items: &[Item]) -> Token {
    match find(items, '[') {
        None => Token::Never,
        Some(_) => Token::Char('['),
    }
}

/// Parse what follows `[`. If it is no set, what the bracket is.
fn set(text: &str) -> Result<(Token, &str), Token> {
    let body = text.strip_prefix(['!', '^']);
    let negated = body.is_some();
    let mut rest = body.unwrap_or(text);
    let mut items = Vec::new();
    let mut first = true;
    loop {
        if let Some(after) = rest.strip_prefix(']').filter(|_| !first) {
            return Ok((Token::Set { negated, items }, after));
        }
        first = false;
        if let Some((class, after)) = class(rest) {
            let Some(at) = CLASSES.iter().position(|c| c.0 == class) else {
                items.push(Item::Unknown);
                rest = after;
                continue;
            };
            items.push(Item::Class(at));
            rest = after;
            continue;
        }
        if rest.starts_with("[.") || rest.starts_with("[=") {
            let Some((c, after)) = named(rest) else {
                return Ok((Token::Never, ""));
            };
            items.push(Item::Range(c, c));
            rest = after;
            continue;
        }
        let Some((low, after)) = member(rest) else {
            return Err(unclosed(&items));
        };
        rest = after;
        let high = rest.strip_prefix('-').filter(|r| !r.starts_with(']'));
        let high = match high {
            Some(after) => {
                let Some((high, after)) = member(after) else {
                    // A range without end rules the rest out, unless the bracket itself begins it.
                    return Err(match low {
                        '[' => unclosed(&items),
                        _ => Token::Never,
                    });
                };
                rest = after;
                high
            }
            None => low,
        };
        items.push(Item::Range(low, high));
    }
}

/// The name in `[:name:]` and what follows. With anything but a to y in the name the C library takes
/// the bracket as an ordinary member.
fn class(text: &str) -> Option<(&str, &str)> {
    let body = text.strip_prefix("[:")?;
    let end = body.find(|c: char| !('a'..='y').contains(&c))?;
    Some((&body[..end], body[end..].strip_prefix(":]")?))
}

/// The character in `[.x.]` or `[=x=]`: the C locale has no longer names and no equivalents.
fn named(text: &str) -> Option<(char, &str)> {
    let end = if text.starts_with("[.") { ".]" } else { "=]" };
    let mut body = text[2..].chars();
    let c = body.next()?;
    Some((c, body.as_str().strip_prefix(end)?))
}

/// One character of a set, which a backslash may quote.
fn member(text: &str) -> Option<(char, &str)> {
    let text = text.strip_prefix('\\').unwrap_or(text);
    let c = text.chars().next()?;
    Some((c, &text[c.len_utf8()..]))
}

/// A name and its members.
type Class = (&'static str, fn(char) -> bool);

/// Character classes of C, with the members they have in the C locale.
const CLASSES: &[Class] = &[
    ("alnum", |c| c.is_ascii_alphanumeric()),
    ("alpha", |c| c.is_ascii_alphabetic()),
    ("blank", |c| c == ' ' || c == '\t'),
    ("cntrl", |c| c.is_ascii_control()),
    ("digit", |c| c.is_ascii_digit()),
    ("graph", |c| c.is_ascii_graphic()),
    ("lower", |c| c.is_ascii_lowercase()),
    ("print", |c| c.is_ascii_graphic() || c == ' '),
    ("punct", |c| c.is_ascii_punctuation()),
    ("space", |c| c.is_ascii_whitespace() || c == '\x0b'),
    ("upper", |c| c.is_ascii_uppercase()),
    ("xdigit", |c| c.is_ascii_hexdigit()),
];

/// Whether `c` is one of the members; `None` if an unknown class comes before one that says so.
fn find(items: &[Item], c: char) -> Option<bool> {
    for item in items {
        let found = match item {
            Item::Range(low, high) => (*low..=*high).contains(&c),
            Item::Class(at) => CLASSES[*at].1(c),
            Item::Unknown => return None,
        };
        if found {
            return Some(true);
        }
    }
    Some(false)
}

fn fits(token: &Token, c: char) -> bool {
    match token {
        Token::Char(want) => *want == c,
        Token::Any => true,
        Token::Set { negated, items } => find(items, c).is_some_and(|found| found != *negated),
        Token::Star | Token::Never => false,
    }
}

/// Only the last star needs to be tried again: time is at most pattern times topic.
fn run(tokens: &[Token], topic: &str) -> bool {
    let mut at = 0;
    let mut rest = topic.chars();
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        match tokens.get(at) {
            Some(Token::Star) => {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            Some(token) => {
                let mut next = rest.clone();
                if next.next().is_some_and(|c| fits(token, c)) {
                    rest = next;
                    at += 1;
                    continue;
                }
            }
            None if rest.as_str().is_empty() => return true,
            None => {}
        }
        // This did not fit: let the last star take one character more.
        let Some((from, after)) = &mut retry else {
            return false;
        };
        if after.next().is_none() {
            return false;
        }
        at = *from;
        rest = after.clone();
    }
}

/// Which messages a receiver wants: by type, matchtag and topic.
///
/// ```
/// use wire::{Match, Message};
///
/// let ping = Match { typemask: Match::REQUEST, ..Match::topic("*.ping") };
/// assert!(ping.matches(&Message::request("kvs.ping", 0, 1, 0, None)));
/// assert!(!ping.matches(&Message::event("x.ping", 0, None)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Types, a sum of [`Match::REQUEST`] and so on; 0 is any.
    pub typemask: u8,
    /// Matchtag; 0 is any. Messages that carry hops have another client's matchtags and do not match.
    pub matchtag: u32,
    /// Topic.
    pub topic: Glob,
}

impl Match {
    /// Requests.
    pub const REQUEST: u8 = 1;
    /// Responses.
    pub const RESPONSE: u8 = 2;
    /// Events.
    pub const EVENT: u8 = 4;
    /// Control messages.
    pub const CONTROL: u8 = 8;

    /// Every message.
    pub fn any() -> Self {
        Self::topic("")
    }

    /// Every message whose topic fits `glob`.
    pub fn topic(glob: &str) -> Self {
        Self {
            typemask: 0,
            matchtag: 0,
            topic: Glob::new(glob),
        }
    }

    /// Whether `msg` is wanted.
    pub fn matches(&self, msg: &Message) -> bool {
        if self.typemask != 0 && self.typemask & msg.kind().bit() == 0 {
            return false;
        }
        if self.matchtag != 0 && (!msg.routes().is_empty() || msg.matchtag() != self.matchtag) {
            return false;
        }
        self.topic.is_everything() || (msg.has_topic() && self.topic.matches(msg.topic()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs() {
        for (glob, topic, want) in [
            ("*", "", true),
            ("job.*", "job.state", true),
            ("job.*", "jobs.state", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.b.*.d", "a.b.c.d", true),
            ("*.b", "a.b.b", true),
            ("x", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]x]*", "]", true),
            ("[a-]*", "-", true),
            ("[z-a]*", "m", false),
            ("a[b*", "a[bc", true),
            ("?[[Z-", "x[[Z-", false),
            ("?[[-", "x[[-", true),
            ("[[:digit:]]?", "7x", true),
            ("[[:none:]]?", "7x", false),
            ("a[[.b.][=c=]]*", "ac", true),
            ("a[[.b]*", "ab", false),
            ("[[:di[[:digit:]]x", "1x", true),
            ("[[::]*", "[::]", false),
            ("[a[:other:]]", "a", true),
            ("[a[:other:]b]", "b", false),
            ("[\\]]*", "]a", true),
            ("\\**", "*a", true),
            ("\\**", "a", false),
            ("a\\b", "a\\b", true),
            ("*\\", "a", false),
        ] {
            assert_eq!(Glob::new(glob).matches(topic), want, "{glob} ~ {topic}");
        }
    }

    #[test]
    fn matchtags_are_those_of_one_client() {
        let mut response = Message::request("a.b", 0, 5, 0, None).response(0, None);
        let want = Match {
            matchtag: 5,
            ..Match::any()
        };
        assert!(want.matches(&response));
        response.push_route("x".into());
        assert!(!want.matches(&response));
        assert!(Match::any().matches(&Message::control(1, 2, None)));
        assert!(!Match::topic("a").matches(&Message::control(1, 2, None)));
    }

    /// The obvious recursion, for stars and question marks.
    fn naive(glob: &[u8], text: &[u8]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', g)), None) => naive(g, text),
            (Some((b'*', g)), Some((_, t))) => naive(g, text) || naive(glob, t),
            (Some((b'?', g)), Some((_, t))) => naive(g, t),
            (Some((a, g)), Some((b, t))) => a == b && naive(g, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn stars_as_the_naive_matcher(glob in "[ab*?]{1,8}", text in "[ab]{0,8}") {
            prop_assert_eq!(Glob::new(&glob).matches(&text), naive(glob.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn never_panics(glob in ".{0,12}", text in ".{0,12}") {
            Glob::new(&glob).matches(&text);
        }
    }
}
