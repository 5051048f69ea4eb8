//! `flux` itself: its options, then a sub-command.

use crate::args::Args;
use crate::cmd::{TABLE, help, python, similar};
use crate::environment;
use crate::error::{Failure, Outcome};
use client::installation::{self, External};

use crate::exec_path;

/// What stands before the sub-command.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    help: bool,
    version: bool,
    verbose: bool,
    /// `--root`.
    root: bool,
    /// How often `--parent` was given.
    parents: u32,
    command: Vec<String>,
}

fn parse(words: Vec<String>) -> Result<Options, Failure> {
    let mut options = Options::default();
    let mut words = words.into_iter();
    for word in words.by_ref() {
        match word.as_str() {
            "--" => break,
            "--help" => options.help = true,
            "--version" => options.version = true,
            "--verbose" => options.verbose = true,
            "--parent" => options.parents += 1,
            "--root" => options.root = true,
            flags if flags.len() > 1 && flags.starts_with('-') && !flags.starts_with("--") => {
                for flag in flags[1..].chars() {
                    match flag {
                        'h' => options.help = true,
                        'V' => options.version = true,
                        'v' => options.verbose = true,
                        'p' => options.parents += 1,
                        'r' => options.root = true,
                        _ => return Err(unknown(&format!("-{flag}"))),
                    }
                }
            }
            other if other.starts_with('-') => return Err(unknown(other)),
            _ => {
                options.command.push(word);
                break;
            }
        }
    }
    options.command.extend(words);
    Ok(options)
}

fn unknown(option: &str) -> Failure {
    Failure::new(format!("unknown option '{option}' (see flux --help)"))
}

/// Run `flux WORDS`; the name is for the error line.
pub(crate) fn run(words: Vec<String>) -> (String, Outcome) {
    let flux = || "flux".to_owned();
    let options = match parse(words) {
        Ok(options) => options,
        Err(e) => return (flux(), Err(e)),
    };
    if options.help {
        crate::output::write(&help::usage());
        return (flux(), Ok(0));
    }
    let mut command = options.command;
    if options.version {
        command = vec!["version".into()];
    }
    if command.is_empty() {
        eprint!("{}", help::usage());
        return (flux(), Ok(1));
    }
    let argv0 = std::env::args().next().unwrap_or_default();
    environment::prepare(&argv0);
    let levels = match (options.root, options.parents) {
        (true, _) => Some(None),
        (false, 0) => None,
        (false, n) => Some(Some(n)),
    };
    if let Some(levels) = levels
        && let Err(e) = environment::enter_parent(levels)
    {
        return (flux(), Err(e));
    }
    if options.verbose {
        for (name, value) in environment::shown() {
            crate::output::outln!("{name}={value}");
        }
    }
    dispatch(command)
}

fn dispatch(mut command: Vec<String>) -> (String, Outcome) {
    let name = command.remove(0);
    if name == "help" {
        return help(&command);
    }
    if let Some(found) = TABLE.iter().find(|c| c.name == name) {
        let shown = format!("flux-{name}");
        let args = Args {
            name,
            words: command,
        };
        return (shown, (found.run)(args));
    }
    let flux = || "flux".to_owned();
    if python::is_version(&name) {
        return (flux(), python::exec(&name, command));
    }
    match installation::find_command(&name) {
        Some(External::Program(path)) => (flux(), Err(exec_path::exec(&path, command))),
        Some(External::Python(path)) => (flux(), python::script(&path, command)),
        None => (flux(), Err(Failure::new(not_a_command(&name)))),
    }
}

fn not_a_command(name: &str) -> String {
    let mut known = exec_path::added_commands();
    known.extend(TABLE.iter().map(|c| c.name.to_owned()));
    let meant = similar::similar(name, &known);
    match meant.is_empty() {
        true => format!("'{name}' is not a flux command; see 'flux --help'"),
        false => format!(
            "'{name}' is not a flux command; did you mean {}?",
            meant.join(", ")
        ),
    }
}

/// `flux help [NAME]`: our own commands explain themselves, all else is in the manual.
fn help(words: &[String]) -> (String, Outcome) {
    match words.first() {
        None => {
            crate::output::write(&help::usage());
            ("flux".into(), Ok(0))
        }
        Some(name) if TABLE.iter().any(|c| c.name == name) => {
            dispatch(vec![name.clone(), "--help".into()])
        }
        Some(name) => ("flux".into(), help::manual(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_end_at_the_command() {
        let o = parse(words("-pv --parent start -s2 -p")).unwrap();
        assert_eq!((o.parents, o.verbose, o.help), (2, true, false));
        assert_eq!(o.command, words("start -s2 -p"));
        assert_eq!(parse(words("-- x -y")).unwrap().command, words("x -y"));
        assert!(parse(words("--bogus")).is_err());
        assert!(parse(words("-x")).is_err());
    }

    #[test]
    fn table_is_sorted_by_name() {
        assert!(TABLE.is_sorted_by_key(|c| c.name));
    }
}
