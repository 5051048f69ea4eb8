//! House rules of text files.

use super::Finding;
use super::source::code_only;

/// A source file longer than this is taken apart.
const MAX_LINES: usize = 800;
/// From here on a source file is worth a thought.
const MANY_LINES: usize = 600;

/// Macros that mark what is not finished.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Where people and machines keep their own things: no path of ours starts there.
const PRIVATE_ROOTS: &[&str] = &[
    concat!("/", "root/"),
    concat!("/", "work/"),
    concat!("/", "home/"),
];

fn has_suffix(path: &str, suffixes: &[&str]) -> bool {
    path.rsplit_once('.')
        .is_some_and(|(_, end)| suffixes.contains(&end))
}

/// Whether the rules apply to this file: hand-written text.
pub(super) fn concerns(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let by_hand = [
        "rs", "md", "toml", "sh", "py", "c", "h", "nix", "yml", "yaml",
    ];
    has_suffix(path, &by_hand)
        || name == "Makefile"
        || path.starts_with("bench/")
        || path.starts_with(".ci/")
}

pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    private_paths(path, text, &mut findings);
    if has_suffix(path, &["rs", "md"]) {
        blanks(path, text, &mut findings);
    }
    if has_suffix(path, &["rs"]) {
        unfinished(path, text, &mut findings);
        crate_docs(path, text, &mut findings);
        length(path, text, &mut findings);
    }
    findings
}

fn private_paths(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (i, line) in text.lines().enumerate() {
        for root in PRIVATE_ROOTS {
            let starts_a_path = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-}/".contains(c))
            };
            if line.match_indices(root).any(|(at, _)| starts_a_path(at)) {
                findings.push(Finding::error(
                    path,
                    i + 1,
                    format!("path below {root}, which other machines do not have"),
                    "make it relative, look it up, or use a neutral example",
                ));
            }
        }
    }
}

fn blanks(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (i, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            findings.push(Finding::error(
                path,
                i + 1,
                "blanks at the end",
                "remove them",
            ));
        } else if line.contains('\t') {
            findings.push(Finding::error(path, i + 1, "a tab", "write spaces, or \\t"));
        }
    }
}

fn unfinished(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (i, line) in code_only(text).lines().enumerate() {
        for name in UNFINISHED {
            let is_word = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            };
            if line.match_indices(name).any(|(at, _)| is_word(at)) {
                findings.push(Finding::error(
                    path,
                    i + 1,
                    *name,
                    "finish it before it lands",
                ));
            }
        }
    }
}

fn crate_docs(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    if root && !text.starts_with("//!") {
        findings.push(Finding::error(
            path,
            1,
            "no documentation of the crate",
            "open with //! and say what it is for, what always holds, and which RFC rules",
        ));
    }
}

fn length(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if !(path.starts_with("crates/") && path.contains("/src/")) {
        return;
    }
    let lines = text.lines().count();
    let what = format!("{lines} lines");
    let todo = "one idea each: take the file apart";
    if lines > MAX_LINES {
        findings.push(Finding::error(path, lines, what, todo));
    } else if lines > MANY_LINES {
        findings.push(Finding::warning(path, lines, what, todo));
    }
}

#[cfg(test)]
mod tests {
    use super::{PRIVATE_ROOTS, check, concerns};

    fn found(path: &str, text: &str) -> Vec<String> {
        let findings = check(path, text);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn clean_files_pass() {
        assert!(found("crates/a/src/lib.rs", "//! A.\n\nfn f() {}\n").is_empty());
        assert!(found("README.md", "# A\n\nText.\n").is_empty());
    }

    #[test]
    fn blanks_are_found_in_sources_and_prose_only() {
        assert_eq!(
            found("a.md", "a \n\tb\n"),
            [
                "a.md:1: error: blanks at the end; remove them",
                "a.md:2: error: a tab; write spaces, or \\t",
            ]
        );
        assert!(found("Makefile", "a:\n\tb\n").is_empty());
    }

    #[test]
    fn unfinished_code_is_found_but_not_words_about_it() {
        let text = "// dbg!\nfn f() { todo!() }\nconst A: &str = \"todo!\";\nnot_todo!();\n";
        assert_eq!(
            found("x.rs", text),
            ["x.rs:2: error: todo!; finish it before it lands"]
        );
    }

    #[test]
    fn private_paths_are_found() {
        for root in PRIVATE_ROOTS {
            assert_eq!(found("a.toml", &format!("x\na = \"{root}b\"\n")).len(), 1);
            assert!(found("a.toml", &format!("a = \"usr{root}b\"\n")).is_empty());
        }
    }

    #[test]
    fn crates_say_what_they_are() {
        assert!(found("crates/a/src/main.rs", "fn main() {}\n")[0].contains("no documentation"));
        assert!(found("crates/a/src/other.rs", "fn f() {}\n").is_empty());
    }

    #[test]
    fn long_files_are_found() {
        let path = "crates/a/src/b.rs";
        assert!(found(path, &"\n".repeat(600)).is_empty());
        assert!(found(path, &"\n".repeat(601))[0].contains("warning: 601 lines"));
        assert!(found(path, &"\n".repeat(801))[0].contains("error: 801 lines"));
        assert!(found("crates/a/tests/b.rs", &"\n".repeat(801)).is_empty());
    }

    #[test]
    fn rules_concern_what_is_written_by_hand() {
        for path in [
            "Makefile",
            "a.rs",
            "x/README.md",
            "bench/throughput",
            ".ci/run",
        ] {
            assert!(concerns(path), "{path}");
        }
        for path in ["Cargo.lock", "LICENSE", "a.png"] {
            assert!(!concerns(path), "{path}");
        }
    }
}
