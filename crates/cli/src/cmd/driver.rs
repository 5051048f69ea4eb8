//! `flux` itself: its options, then a sub-command.

use crate::args::Args;
use crate::cmd::TABLE;
use crate::environment;
use crate::error::{Failure, Outcome};
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

fn usage() -> String {
    let mut text = String::from(
        "Usage: flux [OPTIONS] COMMAND [ARGS]\n\
         \x20 -h, --help     print this\n\
         \x20 -v, --verbose  say what the environment is and where commands are looked for\n\
         \x20 -V, --version  print versions\n\
         \x20 -p, --parent   talk to the enclosing instance (may be repeated)\n\
         \x20 -r, --root     talk to the outermost instance\n\n\
         Commands:\n",
    );
    for command in TABLE {
        text.push_str(&format!("   {:<18} {}\n", command.name, command.help));
    }
    text
}

/// Run `flux WORDS`; the name is for the error line.
pub(crate) fn run(words: Vec<String>) -> (String, Outcome) {
    let flux = || "flux".to_owned();
    let options = match parse(words) {
        Ok(options) => options,
        Err(e) => return (flux(), Err(e)),
    };
    if options.help {
        crate::output::write(&usage());
        return (flux(), Ok(0));
    }
    let mut command = options.command;
    if options.version {
        command = vec!["version".into()];
    }
    if command.is_empty() {
        eprint!("{}", usage());
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
    match exec_path::find_command(&name) {
        Some(path) => ("flux".into(), Err(exec_path::exec(&path, command))),
        None => {
            let text = format!("'{name}' is not a flux command; see 'flux --help'");
            ("flux".into(), Err(Failure::new(text)))
        }
    }
}

/// `flux help [COMMAND]`.
fn help(words: &[String]) -> (String, Outcome) {
    match words.first() {
        None => {
            crate::output::write(&usage());
            ("flux".into(), Ok(0))
        }
        Some(name) => dispatch(vec![name.clone(), "--help".into()]),
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
