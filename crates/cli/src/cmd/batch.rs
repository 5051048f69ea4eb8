//! `flux batch`: submit a script that runs in an instance of its own.
//!
//! Options also come from the script's directives (RFC 36); those of the command line count more.

use clap::Parser;
use client::Handle;
use formats::batch_directives;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::output::outln;
use crate::submit::{Common, Initial, Nested, submitted};

/// Submit a batch script.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    nested: Nested,
    /// Make a script of the arguments, or of standard input
    #[arg(long)]
    wrap: bool,
    /// The script and its arguments; without it the script is standard input
    #[arg(trailing_var_arg = true)]
    script: Vec<String>,
}

/// The options with the script's directives taken in.
fn with_directives(args: &Args, name: &str, text: &str) -> Result<Options, Failure> {
    let directives =
        batch_directives::parse(text).map_err(|e| Failure::new(format!("{name}: {e}")))?;
    let mut words = Vec::new();
    for directive in directives {
        let line = Args {
            name: args.name.clone(),
            words: directive.args,
        };
        // Parsed alone first, so that a mistake names its line.
        line.parse_or::<Options>(2).map_err(|e| Failure {
            message: format!("{name} line {}: {}", directive.line, e.message),
            code: e.code,
        })?;
        words.extend(line.words);
    }
    words.extend(args.words.iter().cloned());
    let all = Args {
        name: args.name.clone(),
        words,
    };
    all.parse_or(2)
}

fn read(path: Option<&str>) -> Result<String, Failure> {
    let bytes = match path {
        Some(path) => std::fs::read(path),
        None => std::io::read_to_string(std::io::stdin()).map(String::into_bytes),
    };
    let name = path.unwrap_or("stdin");
    let bytes = bytes.map_err(|e| {
        let why = e
            .raw_os_error()
            .map_or_else(|| e.to_string(), crate::error::strerror);
        Failure::new(format!("{name}: {why}"))
    })?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(format!("{name}: not a script: it is not UTF-8 text")))
}

pub(crate) fn run(args: Args) -> Outcome {
    let mut options: Options = args.parse_or(2)?;
    let text = if options.wrap && !options.script.is_empty() {
        format!("#!/bin/sh\n{}\n", options.script.join(" "))
    } else {
        let path = options.script.first().cloned();
        let name = path.as_deref().unwrap_or("stdin");
        let text = read(path.as_deref())?;
        options = with_directives(&args, name, &text)?;
        if options.wrap {
            format!("#!/bin/sh\n{text}")
        } else {
            text
        }
    };
    let name = options
        .script
        .first()
        .map_or("batch", String::as_str)
        .to_owned();
    let common = &mut options.common;
    common
        .output
        .get_or_insert_with(|| "flux-{{id}}.out".into());
    let initial = Initial::Script {
        name: &name,
        text: &text,
        args: options.script.get(1..).unwrap_or(&[]),
    };
    let request = options.nested.request(common, initial, &[])?;
    if common.dry_run {
        outln!("{}", request.text());
        return Ok(0);
    }
    let id = block_on(async {
        let handle = Handle::open(None).await?;
        submitted(request.send(&handle)).await
    })?;
    if !options.common.quiet {
        outln!("{}", crate::jobid::shown(id));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &str, script: &str) -> Result<Options, String> {
        let args = Args {
            name: "batch".into(),
            words: words.split_whitespace().map(str::to_owned).collect(),
        };
        with_directives(&args, "s", script).map_err(|e| e.message)
    }

    #[test]
    fn directives_yield_to_the_command_line() {
        let script = "#!/bin/sh\n#flux: --job-name=a --output=x\n#flux: -l\n";
        let o = options("--job-name=b s 1 2", script).unwrap();
        assert_eq!(o.common.job_name.as_deref(), Some("b"));
        assert_eq!(o.common.output.as_deref(), Some("x"));
        assert!(o.common.label_io);
        assert_eq!(o.script, ["s", "1", "2"]);
        let fault = options("s", "#!/bin/sh\n\n#flux: --bogus\n").err().unwrap();
        assert_eq!(fault, "s line 3: unrecognized option '--bogus'");
    }
}
