//! From a command's words to its typed options: clap's parser, but one line per mistake.

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::Failure;

/// Text from the command line, where shells hand line ends on as backslash and n.
pub(crate) fn with_line_ends(text: &str) -> String {
    text.replace("\\n", "\n")
}

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
        let command = T::command();
        if self.words == ["--man-page"] {
            return print_page(settings(command).display_name(bin.clone()).bin_name(bin));
        }
        let words = attached(&command, &self.words);
        let matches = settings(command)
            .bin_name(bin.clone())
            .try_get_matches_from(std::iter::once(bin).chain(words))
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

/// Print a command's manual page, as packages have it, and leave the process.
fn print_page<T>(command: clap::Command) -> Result<T, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .section("1")
        .manual("Flux Commands")
        .source(concat!("ferroflux ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)
        .map_err(|e| Failure::new(format!("manual page: {e}")))?;
    crate::output::write(&String::from_utf8_lossy(&page));
    std::process::exit(0)
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

/// `-Lalways` for `-L=always`: a short option whose value may be left out takes what is attached to it, as getopt(3)
/// has it. The same letter over and over (`-vv`) is that option several times.
fn attached(command: &clap::Command, words: &[String]) -> Vec<String> {
    let (mut command, mut is_over) = (command, false);
    let rewrite = |word: &String| {
        if let Some(sub) = command.find_subcommand(word) {
            command = sub;
        }
        let mut letters = word.chars();
        let short = match (letters.next(), letters.next()) {
            (Some('-'), Some(letter)) if letter != '-' => letter,
            (Some('-'), _) => {
                is_over |= word == "--";
                return word.clone();
            }
            _ => {
                // The words of another command.
                is_over |= command
                    .get_positionals()
                    .any(clap::Arg::is_trailing_var_arg_set);
                return word.clone();
            }
        };
        let value = letters.as_str();
        let is_optional = |arg: &clap::Arg| {
            arg.get_short() == Some(short)
                && arg.is_require_equals_set()
                && arg.get_num_args().is_some_and(|n| n.min_values() == 0)
        };
        let is_repeated = value.chars().all(|c| c == short);
        match !is_over
            && !value.starts_with('=')
            && !is_repeated
            && command.get_arguments().any(is_optional)
        {
            true => format!("-{short}={value}"),
            false => word.clone(),
        }
    };
    words.iter().map(rewrite).collect()
}

/// How the command is called, on one line.
fn usage(err: &clap::Error) -> Option<String> {
    let Some(ContextValue::StyledStr(usage)) = err.get(ContextKind::Usage) else {
        return None;
    };
    let usage = usage.to_string();
    let words: Vec<&str> = usage.split_whitespace().collect();
    let usage = words.join(" ");
    // As users type it.
    Some(
        usage
            .trim_start_matches("Usage: ")
            .replacen("flux-", "flux ", 1),
    )
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
        ErrorKind::UnknownArgument if arg.starts_with('-') => {
            format!("unrecognized option '{arg}'")
        }
        ErrorKind::UnknownArgument => format!("unrecognized argument '{arg}'"),
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("unknown command '{word}'")
        }
        ErrorKind::MissingRequiredArgument => match usage(err) {
            Some(usage) => format!("missing {arg}; usage: {usage}"),
            None => format!("missing {arg}"),
        },
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

    #[derive(Parser, Debug)]
    struct Optional {
        #[arg(short = 'L', num_args = 0..=1, require_equals = true, default_missing_value = "always")]
        color: Option<String>,
        #[arg(short = 'v', num_args = 0..=1, require_equals = true, default_missing_value = "1")]
        verbose: Option<u8>,
        #[arg(trailing_var_arg = true)]
        words: Vec<String>,
    }

    #[test]
    fn optional_values_may_be_attached() {
        let parse = |words: &[&str]| {
            let words = words.iter().map(|w| (*w).to_owned()).collect();
            let name = "sample".to_owned();
            Args { name, words }.parse::<Optional>().unwrap()
        };
        let color = |words: &[&str]| parse(words).color;
        assert_eq!(color(&["-Lnever"]).as_deref(), Some("never"));
        assert_eq!(color(&["-L=never"]).as_deref(), Some("never"));
        assert_eq!(color(&["-L"]).as_deref(), Some("always"));
        assert_eq!(color(&["-vv", "-Lauto"]).as_deref(), Some("auto"));
        assert_eq!(parse(&["-v2"]).verbose, Some(2));
        assert_eq!(parse(&["-vv"]).verbose, Some(1));
        assert_eq!(parse(&["word", "-Lauto"]).words, ["word", "-Lauto"]);
        assert_eq!(parse(&["--", "-Lauto"]).words, ["-Lauto"]);
    }

    #[test]
    fn mistakes_are_one_line() {
        insta::assert_snapshot!(
            [&["--bogus"][..], &["-n", "x", "w"], &["-n"], &[], &["a", "b"]].map(fault).join("\n"),
            @r"
        unrecognized option '--bogus'
        -n <COUNT>: invalid value 'x': invalid digit found in string
        a value is required for '-n <COUNT>' but none was supplied
        missing <WORD>; usage: flux sample <WORD>
        unrecognized argument 'b'
        "
        );
    }
}
