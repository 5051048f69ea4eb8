//! `flux ion-R`: give an R the graph that the graph scheduler would make of it, to be added to by hand or by scripts.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use formats::ResourceSet;
use formats::resource_set::jgf::Graph;
use serde_json::{Value, json};

use crate::args::Args;
use crate::error::{Failure, Outcome};
use crate::input;
use crate::output::outln;
use crate::pyjson;

/// Work on the graph in an R.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put the graph of an R's nodes into its key scheduling, in place of what is there
    Encode {
        /// Where to read R (default: standard input)
        #[arg(long, value_name = "FILENAME")]
        input: Option<PathBuf>,
        /// Where to write it (default: standard output)
        #[arg(long, value_name = "FILENAME")]
        output: Option<PathBuf>,
    },
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse_or(1)?;
    let Command::Encode { input, output } = options.command;
    let r = pyjson::dumps(&encode(&read(input.as_deref())?)?);
    match output {
        Some(path) => {
            let failed = |e| Failure::new(format!("error in writing {}: {e}", path.display()));
            std::fs::write(&path, r + "\n").map_err(failed)?;
        }
        None => outln!("{r}"),
    }
    Ok(0)
}

fn read(path: Option<&Path>) -> Result<String, Failure> {
    let (name, text) = input::text(path);
    text.map_err(|e| Failure::new(format!("error in reading {name}: {e}")))
}

fn encode(text: &str) -> Result<Value, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("error in R: {e}"));
    let mut r: Value = serde_json::from_str(text).map_err(|e| failed(&e))?;
    r.as_object_mut().map(|r| r.remove("scheduling"));
    let set: ResourceSet = r.to_string().parse().map_err(|e| failed(&e))?;
    // Without a writer, as others read it, too.
    r["scheduling"] = json!({ "graph": Graph::of_nodes(&set) });
    Ok(r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_stays_but_for_the_graph() {
        let r = json!({"version": 1, "execution": {"R_lite": [{"rank": "3", "children": {"core": "0"}}],
            "nodelist": ["a3"], "starttime": 0.0, "expiration": 0.0}, "attributes": {"x": 1}});
        let mut with = r.clone();
        with["scheduling"] = json!("nonsense");
        let mut encoded = encode(&with.to_string()).unwrap();
        let graph = encoded["scheduling"]["graph"].take();
        assert_eq!(graph["nodes"].as_array().map(Vec::len), Some(3));
        encoded.as_object_mut().unwrap().remove("scheduling");
        assert_eq!(encoded, r);
    }

    #[test]
    fn a_wrong_r_is_an_error() {
        let twice = json!({"version": 1, "execution": {"nodelist": ["a[3-4]"], "starttime": 0, "expiration": 0,
            "R_lite": [{"rank": "3", "children": {"core": "0"}}, {"rank": "3-4", "children": {"core": "0"}}]}});
        for text in ["", "[1]", "{}", &twice.to_string()] {
            let error = encode(text).expect_err(text);
            assert!(
                error.message.starts_with("error in R: "),
                "{}",
                error.message
            );
        }
    }
}
