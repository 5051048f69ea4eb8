//! Lines of prologs and epilogs that are not logged (`[job-manager.perilog] log-ignore`).

use regex::RegexSet;
use serde::Deserialize;
use serde_json::Value;

/// Regular expressions; a line that one of them finds something in is not logged.
#[derive(Debug, Clone, Default)]
pub(super) struct Hush(RegexSet);

impl PartialEq for Hush {
    fn eq(&self, other: &Self) -> bool {
        self.0.patterns() == other.0.patterns()
    }
}

impl Hush {
    /// What the configuration says.
    pub(super) fn parse(config: &Value) -> Result<Self, String> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        struct Table {
            #[serde(default)]
            log_ignore: Vec<String>,
        }
        let table = match config.pointer("/job-manager/perilog") {
            Some(table) => {
                Table::deserialize(table).map_err(|e| format!("job-manager.perilog: {e}"))?
            }
            None => Table::default(),
        };
        let set = RegexSet::new(table.log_ignore);
        set.map(Self)
            .map_err(|e| format!("job-manager.perilog.log-ignore: {e}"))
    }

    pub(super) fn is_for(&self, line: &str) -> bool {
        self.0.is_match(line)
    }

    /// The expressions, for people.
    pub(super) fn patterns(&self) -> &[String] {
        self.0.patterns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(table: Value) -> Result<Hush, String> {
        Hush::parse(&json!({ "job-manager": { "perilog": table } }))
    }

    #[test]
    fn lines_that_match_are_hushed() {
        let hush = parse(json!({ "log-ignore": ["^debug", "b.d"] })).unwrap();
        let lines = ["debug: x", "it is bad", "no debug"];
        assert_eq!(lines.map(|line| hush.is_for(line)), [true, true, false]);
        assert!(!Hush::parse(&json!({})).unwrap().is_for(""));
    }

    #[test]
    fn mistakes_are_named() {
        for (table, want) in [
            (
                json!({ "log-ignore": ["("] }),
                "job-manager.perilog.log-ignore: ",
            ),
            (
                json!({ "log-ignore": "x" }),
                "job-manager.perilog: invalid type",
            ),
            (
                json!({ "other": 1 }),
                "job-manager.perilog: unknown field `other`",
            ),
        ] {
            let why = parse(table).unwrap_err();
            assert!(why.starts_with(want), "{why}");
        }
    }
}
