//! The `flux-keygen` program: make a certificate for the overlay (flux-keygen(1)).
//!
//! A program of its own, beside the broker: the `flux` command itself needs no cryptography.

use std::path::PathBuf;
use std::process::ExitCode;

use overlay::{Certificate, KeyPair};

const USAGE: &str = "Usage: flux-keygen [--name=NAME] [--meta=KEY=VAL,...] [PATH]";

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    name: Option<String>,
    meta: Vec<(String, String)>,
    path: Option<PathBuf>,
    help: bool,
}

fn parse(args: impl IntoIterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    let mut only_paths = false;
    while let Some(arg) = args.next() {
        if only_paths || !arg.starts_with('-') || arg == "-" {
            if options.path.replace(arg.into()).is_some() {
                return Err("only one PATH can be given".into());
            }
            continue;
        }
        let (flag, inline) = match (arg.strip_prefix("--"), arg.split_once('=')) {
            (Some(_), Some((flag, value))) => (flag.to_owned(), Some(value.to_owned())),
            (None, _) if arg.starts_with("-n") && arg.len() > 2 => {
                ("-n".to_owned(), Some(arg[2..].to_owned()))
            }
            _ => (arg.clone(), None),
        };
        let mut value = || inline.clone().or_else(|| args.next());
        let mut needed = || value().ok_or_else(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--" => only_paths = true,
            "-h" | "--help" => options.help = true,
            "-n" | "--name" => options.name = Some(needed()?),
            "--meta" => {
                for pair in needed()?.split(',').filter(|p| !p.is_empty()) {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    options.meta.push((key.to_owned(), value.to_owned()));
                }
            }
            _ => return Err(format!("unknown option {arg:?}")),
        }
    }
    Ok(options)
}

fn certificate(options: &Options) -> Result<Certificate, String> {
    let keys = KeyPair::generate().map_err(|e| format!("cannot make keys: {e}"))?;
    let host = nix::unistd::gethostname().map_or_else(
        |_| "localhost".to_owned(),
        |h| h.to_string_lossy().into_owned(),
    );
    let mut metadata: Vec<(String, String)> = Vec::new();
    // What was said first stays.
    let mut set = |key: &str, value: String| {
        if !metadata.iter().any(|(known, _)| known == key) {
            metadata.push((key.to_owned(), value));
        }
    };
    if let Some(name) = &options.name {
        set("name", name.clone());
    }
    for (key, value) in &options.meta {
        set(key, value.clone());
    }
    set("name", host.clone());
    set("keygen.hostname", host);
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%T").to_string();
    set("keygen.time", now);
    set("keygen.userid", nix::unistd::getuid().to_string());
    set(
        "keygen.flux-core-version",
        env!("CARGO_PKG_VERSION").to_owned(),
    );
    Ok(Certificate { metadata, keys })
}

fn run() -> Result<(), String> {
    let options = parse(std::env::args().skip(1)).map_err(|e| format!("{e}\n{USAGE}"))?;
    if options.help {
        println!("{USAGE}");
        return Ok(());
    }
    let certificate = certificate(&options)?;
    match &options.path {
        Some(path) => certificate.write(path).map_err(|e| e.to_string()),
        None => {
            eprintln!("flux-keygen: nothing is saved: add a PATH for the certificate");
            Ok(())
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("flux-keygen: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Options, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options() {
        let o = args("--name=x --meta=a=b,c --meta d=e=f -- -p").unwrap();
        assert_eq!((o.name.as_deref(), o.path), (Some("x"), Some("-p".into())));
        let meta: Vec<_> = o.meta.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(meta, [("a", "b"), ("c", ""), ("d", "e=f")]);
        for bad in ["a b", "--bogus", "--name"] {
            assert!(args(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_value_of_a_key_stays() {
        let options = args("-nx --meta=name=y,keygen.userid=me").unwrap();
        let text = certificate(&options).unwrap().text();
        assert!(
            text.contains("    name = \"x\"\n    keygen.userid = \"me\"\n"),
            "{text}"
        );
        assert_eq!(text.matches("userid").count(), 1);
    }
}
