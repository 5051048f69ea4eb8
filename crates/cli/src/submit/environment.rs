//! What of the environment a job gets: the rules of `--env`, `--env-remove`, `--env-file`.
//!
//! All three are rules of one ordered list. A value with `{{` in it is a template that the shell
//! of the job fills in, so it travels separately (shell option `env-expand`).

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::error::Failure;
use crate::submit::pattern::Pattern;

/// The rules in the order they were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvRules(pub(super) Vec<String>);

/// Option name and what it puts before its value to make a rule.
const OPTIONS: [(&str, &str, &str, &str); 3] = [
    (
        "env",
        "",
        "RULE",
        "Pass variables: NAME=VALUE, PATTERN, -PATTERN to remove, ^FILE for rules",
    ),
    (
        "env-remove",
        "-",
        "PATTERN",
        "Do not pass variables that match",
    ),
    ("env-file", "^", "FILE", "Read rules from a file"),
];

impl clap::FromArgMatches for EnvRules {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut rules = Self::default();
        rules.update_from_arg_matches(matches)?;
        Ok(rules)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let mut found = Vec::new();
        for (name, prefix, _, _) in OPTIONS {
            let values = matches.get_many::<String>(name).unwrap_or_default();
            let indices = matches.indices_of(name).unwrap_or_default();
            found.extend(indices.zip(values.map(|v| format!("{prefix}{v}"))));
        }
        found.sort();
        self.0.extend(found.into_iter().map(|(_, rule)| rule));
        Ok(())
    }
}

impl clap::Args for EnvRules {
    fn augment_args(mut cmd: Command) -> Command {
        for (name, _, value, help) in OPTIONS {
            let arg = Arg::new(name).long(name).value_name(value).help(help);
            cmd = cmd.arg(arg.action(ArgAction::Append).allow_hyphen_values(true));
        }
        cmd
    }

    fn augment_args_for_update(cmd: Command) -> Command {
        Self::augment_args(cmd)
    }
}

/// A job's environment, and the templates its shell fills in.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Environment {
    pub(super) variables: BTreeMap<String, String>,
    pub(super) templates: BTreeMap<String, String>,
}

/// Apply `rules` to `own`, the submitter's environment.
pub(super) fn filter(
    rules: &[String],
    own: &BTreeMap<String, String>,
) -> Result<Environment, Failure> {
    let mut env = Environment {
        variables: own.clone(),
        templates: BTreeMap::new(),
    };
    for rule in rules {
        apply(rule, own, &mut env, 0)?;
    }
    Ok(env)
}

/// Files of rules may name files of rules, but not without end.
const MAX_DEPTH: u32 = 16;

fn apply(
    rule: &str,
    own: &BTreeMap<String, String>,
    env: &mut Environment,
    depth: u32,
) -> Result<(), Failure> {
    if let Some(pattern) = rule.strip_prefix('-') {
        let pattern = Pattern::new(pattern)?;
        env.variables.retain(|name, _| !pattern.matches(name));
        return Ok(());
    }
    if let Some(file) = rule.strip_prefix('^') {
        if depth == MAX_DEPTH {
            return Err(Failure::new(format!(
                "--env: {file}: files nest too deeply"
            )));
        }
        let path = match (file.strip_prefix("~/"), std::env::var("HOME")) {
            (Some(rest), Ok(home)) => format!("{home}/{rest}"),
            _ => file.to_owned(),
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Failure::new(format!("--env: {path}: {e}")))?;
        let mut rules = text.lines().map(str::trim).filter(|l| !l.is_empty());
        return rules.try_for_each(|rule| apply(rule, own, env, depth + 1));
    }
    let Some((name, value)) = rule.split_once('=') else {
        let pattern = Pattern::new(rule)?;
        for (name, value) in own.iter().filter(|(name, _)| pattern.matches(name)) {
            env.variables
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        return Ok(());
    };
    if value.contains("{{") {
        env.templates.insert(name.to_owned(), value.to_owned());
        return Ok(());
    }
    let lookup = |var: &str| env.variables.get(var).or_else(|| own.get(var)).cloned();
    let value = expand(value, lookup).map_err(|e| match e {
        ExpandError::Syntax => Failure::new(format!("--env: Unable to substitute {rule}")),
        ExpandError::Unknown(var) => {
            Failure::new(format!("--env: Variable '{var}' not found in {rule}"))
        }
    })?;
    env.variables.insert(name.to_owned(), value);
    Ok(())
}

#[derive(Debug, PartialEq)]
enum ExpandError {
    Syntax,
    Unknown(String),
}

/// Put values in for `$NAME` and `${NAME}`; `$$` is a dollar sign.
fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(more) = rest.strip_prefix('$') {
            out.push('$');
            rest = more;
            continue;
        }
        let braced = rest.strip_prefix('{');
        let body = braced.unwrap_or(rest);
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = body.find(|c| !word(c)).unwrap_or(body.len());
        let (name, after) = body.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(ExpandError::Syntax);
        }
        rest = match braced {
            Some(_) => after.strip_prefix('}').ok_or(ExpandError::Syntax)?,
            None => after,
        };
        out.push_str(&lookup(name).ok_or_else(|| ExpandError::Unknown(name.to_owned()))?);
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Sample {
        #[command(flatten)]
        env: EnvRules,
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn run(rules: &[&str]) -> Result<Environment, String> {
        let rules: Vec<String> = rules.iter().map(|r| (*r).to_owned()).collect();
        filter(&rules, &map(&[("A", "1"), ("B", "2"), ("PATH", "/bin")])).map_err(|e| e.message)
    }

    #[test]
    fn order_is_kept() {
        let args = ["x", "--env-remove=*", "--env=A", "--env-file=f", "--env=-B"];
        let sample = Sample::try_parse_from(args).unwrap();
        assert_eq!(sample.env.0, ["-*", "A", "^f", "-B"]);
    }

    #[test]
    fn rules() {
        let vars = |rules: &[&str]| run(rules).unwrap().variables;
        assert_eq!(vars(&["-*", "A"]), map(&[("A", "1")]));
        assert_eq!(vars(&["-*", "[AB]"]), map(&[("A", "1"), ("B", "2")]));
        assert_eq!(
            vars(&["-*", "PATH=$PATH:/x", "C=${A}b$$"]),
            map(&[("PATH", "/bin:/x"), ("C", "1b$")])
        );
        let env = run(&["-*", "R={{rank}}"]).unwrap();
        assert_eq!(env.templates, map(&[("R", "{{rank}}")]));
        assert_eq!(
            run(&["X=$NO"]).unwrap_err(),
            "--env: Variable 'NO' not found in X=$NO"
        );
        assert_eq!(
            run(&["X=${A"]).unwrap_err(),
            "--env: Unable to substitute X=${A"
        );
    }

    #[test]
    fn files() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("rules");
        std::fs::write(&path, "-*\n\nA\nZ=9\n").unwrap();
        let rule = format!("^{}", path.display());
        assert_eq!(
            run(&[&rule]).unwrap().variables,
            map(&[("A", "1"), ("Z", "9")])
        );
        std::fs::write(&path, &rule).unwrap();
        assert!(run(&[&rule]).unwrap_err().contains("nest too deeply"));
    }
}
