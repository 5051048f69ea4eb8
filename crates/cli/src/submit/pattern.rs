//! Patterns over names of variables and limits: shell globs, or `/regular expression/`.

use regex::Regex;

use crate::error::Failure;

/// A compiled pattern.
pub(super) struct Pattern(Regex);

impl Pattern {
    /// `/RE/` is a regular expression searched from the start, anything else a glob.
    pub(super) fn new(text: &str) -> Result<Self, Failure> {
        let source = match text.strip_prefix('/') {
            Some(re) => format!("^(?:{})", re.strip_suffix('/').unwrap_or(re)),
            None => glob(text),
        };
        let bad = |e| Failure::new(format!("{text}: not a pattern: {e}"));
        Regex::new(&source).map(Self).map_err(bad)
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// A glob as a regular expression.
fn glob(text: &str) -> String {
    let mut out = String::from("^(?s:");
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            // A set ends at the first ] that is not its first member.
            '[' => match rest.get(2..).and_then(|r| r.find(']')).map(|i| i + 2) {
                Some(end) if rest.is_char_boundary(end) => {
                    let set = rest[..end].replace('\\', r"\\").replace('[', r"\[");
                    match set.strip_prefix('!') {
                        Some(set) => out.push_str(&format!("[^{set}]")),
                        None => out.push_str(&format!("[{set}]")),
                    }
                    rest = &rest[end + 1..];
                }
                _ => match rest.find(']') {
                    Some(1) => {
                        out.push_str(&regex::escape(&rest[..1]));
                        rest = &rest[2..];
                    }
                    _ => out.push_str(r"\["),
                },
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out + ")$"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_and_expressions() {
        for (pattern, name, want) in [
            ("*", "A", true),
            ("SLURM_*", "SLURM_X", true),
            ("SLURM_*", "XSLURM_", false),
            ("A?", "AB", true),
            ("A?", "A", false),
            ("A[BC]", "AC", true),
            ("A[!BC]", "AC", false),
            ("A[B]", "AB", true),
            ("A.B", "AxB", false),
            ("/^(A|B)$/", "B", true),
            ("/A.*/", "AB", true),
            ("/B/", "AB", false),
        ] {
            let found = Pattern::new(pattern).unwrap().matches(name);
            assert_eq!(found, want, "{pattern} {name}");
        }
        assert!(Pattern::new("/(/").is_err());
    }
}
