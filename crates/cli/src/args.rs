//! From a command's words to its typed options: clap's parser, but one line per mistake.

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Failure;

/// A command's name as users type it (`submit`, `module list`) and the words after it.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) name: String,
    pub(crate) words: Vec<String>,
}

impl Args {
    /// Parse the words as `T`; mistakes exit with `code` (2 as Python's commands, 1 as C's).
    ///
    /// `--help` prints and leaves the process: nothing is open yet.
    pub(crate) fn parse_or<T: Parser>(&self, code: u8) -> Result<T, Failure> {
        let bin = format!("flux-{}", self.name);
        let matches = settings(T::command())
            .bin_name(bin.clone())
            .try_get_matches_from(std::iter::once(&bin).chain(&self.words))
            .and_then(|matches| T::from_arg_matches(&matches));
        matches.map_err(|err| match err.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                crate::output::write(&err.to_string());
                std::process::exit(0)
            }
            _ => Failure::new(one_line(&err)).code(code),
        })
    }

    /// Parse with the exit code of upstream's C commands.
    pub(crate) fn parse<T: Parser>(&self) -> Result<T, Failure> {
        self.parse_or(1)
    }
}

/// What getopt_long and argparse users expect: the last of a repeated option counts, and long
/// options may be shortened.
fn settings(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|c| c.get_name().to_owned())
        .collect();
    names
        .into_iter()
        .fold(command, |command, name| {
            command.mut_subcommand(name, settings)
        })
        .args_override_self(true)
        .infer_long_args(true)
        .disable_help_subcommand(true)
        .subcommand_help_heading("supported subcommands")
}

/// A parser's complaint as one line.
fn one_line(err: &clap::Error) -> String {
    let text = |kind| match err.get(kind) {
        Some(ContextValue::String(s)) => Some(s.clone()),
        Some(ContextValue::Strings(list)) => Some(list.join(" ")),
        _ => None,
    };
    let arg = text(ContextKind::InvalidArg).unwrap_or_default();
    match err.kind() {
        ErrorKind::UnknownArgument => format!("unknown option or argument '{arg}'"),
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("unknown command '{word}'")
        }
        ErrorKind::MissingRequiredArgument => format!("missing {arg}"),
        ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let why = std::error::Error::source(err).map_or_else(String::new, |e| format!(": {e}"));
            format!("{arg}: invalid value '{value}'{why}")
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "a command is missing (see --help)".to_owned()
        }
        _ => {
            let full = err.to_string();
            let words = full.trim_start_matches("error: ").lines();
            let first: Vec<&str> = words.map(str::trim).take_while(|l| !l.is_empty()).collect();
            first.join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser, Debug)]
    struct Sample {
        #[arg(short = 'n')]
        count: Option<u32>,
        #[arg(required = true)]
        word: String,
    }

    fn fault(words: &[&str]) -> String {
        let words = words.iter().map(|w| (*w).to_owned()).collect();
        let name = "sample".to_owned();
        let args = Args { name, words };
        args.parse_or::<Sample>(2).unwrap_err().message
    }

    #[test]
    fn mistakes_are_one_line() {
        insta::assert_snapshot!(
            [&["--bogus"][..], &["-n", "x", "w"], &["-n"], &[], &["a", "b"]].map(fault).join("\n"),
            @r"
        unknown option or argument '--bogus'
        -n <COUNT>: invalid value 'x': invalid digit found in string
        a value is required for '-n <COUNT>' but none was supplied
        missing <WORD>
        unknown option or argument 'b'
        "
        );
    }
}
