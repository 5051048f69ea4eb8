//! The command line.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

pub(crate) const USAGE: &str = "Usage: flux-module-exec [--name=NAME] PATH [ARGS...]";

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// The name to run under; otherwise the file says it.
    pub(crate) name: Option<String>,
    pub(crate) path: OsString,
    pub(crate) args: Vec<OsString>,
}

/// Why there is nothing to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The usage was asked for.
    Help,
    NoPath,
    Unknown(String),
    NoName,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Help => Ok(()),
            Self::NoPath => f.write_str("the path of a module is missing"),
            Self::Unknown(option) => write!(f, "unrecognized option '{option}'"),
            Self::NoName => f.write_str("--name needs the name of the module"),
        }
    }
}

/// Options come before the path; what follows the path is the module's.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Args, Refusal> {
    let mut words = words.into_iter();
    let mut name = None;
    loop {
        let word = words.next().ok_or(Refusal::NoPath)?;
        match word.to_str() {
            Some("-h" | "--help") => return Err(Refusal::Help),
            Some("--name") => name = Some(named(words.next())?),
            Some(option) if option.starts_with("--name=") => {
                name = Some(named(option.strip_prefix("--name=").map(OsString::from))?);
            }
            Some(option) if option.starts_with('-') => {
                return Err(Refusal::Unknown(option.to_owned()));
            }
            _ => {
                let args = words.collect();
                let path = word;
                return Ok(Args { name, path, args });
            }
        }
    }
}

fn named(value: Option<OsString>) -> Result<String, Refusal> {
    let name = value.and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).ok_or(Refusal::NoName)
}

impl Args {
    /// `--name`, or the file's name up to `.so`.
    pub(crate) fn module_name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let path = self.path.as_bytes();
        let start = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        let file = OsString::from_vec(path[start..].to_owned());
        let file = file.to_string_lossy();
        file.split(".so").next().unwrap_or(&file).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Args, Refusal> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn options_end_where_the_module_begins() {
        let args = read(&["--name=a", "/x/b.so", "--name=c", "-v"]).unwrap();
        assert_eq!(args.module_name(), "a");
        assert_eq!(args.args, ["--name=c", "-v"]);
        assert_eq!(read(&["--name", "a", "b"]), read(&["--name=a", "b"]));
    }

    #[test]
    fn the_file_names_the_module() {
        for (path, name) in [
            ("/x.so/testmod.so", "testmod"),
            ("kvs.so.1.2", "kvs"),
            ("plain", "plain"),
        ] {
            assert_eq!(read(&[path]).unwrap().module_name(), name);
        }
    }

    #[test]
    fn refusals() {
        let unknown = Refusal::Unknown("--badopt".to_owned());
        assert_eq!(unknown.to_string(), "unrecognized option '--badopt'");
        for (words, refusal) in [
            (&["--badopt", "x.so"][..], unknown),
            (&[], Refusal::NoPath),
            (&["--name="], Refusal::NoName),
            (&["--name"], Refusal::NoName),
            (&["-h", "x.so"], Refusal::Help),
        ] {
            assert_eq!(read(words), Err(refusal), "{words:?}");
        }
    }
}
