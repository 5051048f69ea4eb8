//! `flux jobtap`: the plugins of the job manager.

use clap::{Parser, Subcommand};
use client::{Handle, Node};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::output::outln;

/// Plugins of the job manager.
#[derive(Parser)]
#[command(infer_long_args = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a plugin: a shared object or a program
    Load {
        /// First remove the plugins of this name, or that match this glob ("all": all but builtin ones)
        #[arg(short, long, value_name = "NAME")]
        remove: Option<String>,
        /// Its path; a name alone is looked for in FLUX_JOBTAP_PATH and where plugins are installed
        plugin: String,
        /// Its configuration; a dotted key makes a table
        #[arg(
            value_name = "KEY=VAL",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        conf: Vec<String>,
    },
    /// Remove plugins
    Remove {
        /// Name or glob; builtin plugins have a leading dot that has to be written; "all": all others
        plugin: String,
    },
    /// List plugins in the order in which they are asked
    List {
        /// Builtin plugins, too
        #[arg(short, long)]
        all: bool,
    },
    /// What a plugin says of itself, as JSON
    Query { plugin: String },
}

/// Set a value under a dotted key.
fn set(table: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), String> {
    let Some((head, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    let inner = table.entry(head).or_insert_with(|| json!({}));
    match inner.as_object_mut() {
        Some(inner) => set(inner, rest, value),
        None => Err(format!(
            "{head} is a value already, so it cannot have {rest}"
        )),
    }
}

/// A table of `KEY=VAL`; what is JSON is taken as that.
fn table(pairs: &[String]) -> Result<Map<String, Value>, String> {
    let mut table = Map::new();
    for pair in pairs {
        let (key, text) = pair
            .split_once('=')
            .ok_or_else(|| format!("Missing required value for key {pair}"))?;
        let value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        set(&mut table, key, value)?;
    }
    Ok(table)
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(jobtap(options.command))
}

async fn jobtap(command: Command) -> Outcome {
    const TOPIC: &str = "job-manager.jobtap";
    let handle = Handle::open(None).await?;
    let ask = async |topic: &str, request: &Value| {
        handle
            .call::<Option<Value>>(topic, Node::Any, request)
            .await
    };
    let (plugin, request) = match command {
        Command::Load {
            remove,
            plugin,
            conf,
        } => {
            let conf = table(&conf).map_err(Failure::new)?;
            let mut request = json!({ "load": plugin });
            if !conf.is_empty() {
                request["conf"] = Value::Object(conf);
            }
            if let Some(remove) = remove {
                request["remove"] = remove.into();
            }
            (plugin, request)
        }
        Command::Remove { plugin } => {
            let request = json!({ "remove": plugin });
            (plugin, request)
        }
        Command::List { all } => {
            #[derive(Deserialize)]
            struct List {
                plugins: Vec<String>,
            }
            let request = json!({ "query_only": true });
            let list = handle.call::<List>(TOPIC, Node::Any, &request).await;
            let list = list.context("jobtap")?;
            for name in list.plugins {
                if all || !name.starts_with('.') {
                    outln!("{name}");
                }
            }
            return Ok(0);
        }
        Command::Query { plugin } => {
            let found = ask("job-manager.jobtap-query", &json!({ "name": plugin })).await?;
            outln!("{}", found.unwrap_or_default());
            return Ok(0);
        }
    };
    match ask(TOPIC, &request).await {
        Ok(_) => Ok(0),
        Err(e) if e.errno == libc::ENOENT => Err(Failure::new(format!("{plugin} not found"))),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(pairs: &[&str]) -> Result<Value, String> {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        table(&pairs).map(Value::Object)
    }

    #[test]
    fn configurations() {
        let got = of(&["a=1", "b.c=x=y", "b.d=[1]", "e=\"1\""]).unwrap();
        assert_eq!(got, json!({"a": 1, "b": {"c": "x=y", "d": [1]}, "e": "1"}));
        assert_eq!(of(&["a"]).unwrap_err(), "Missing required value for key a");
        assert!(
            of(&["a=1", "a.b=2"])
                .unwrap_err()
                .contains("a is a value already")
        );
    }

    proptest! {
        #[test]
        fn what_is_set_is_found(path in "[a-z]{1,3}(\\.[a-z]{1,3}){0,3}", value: i32) {
            let table = of(&[&format!("{path}={value}")]).unwrap();
            let found = table.pointer(&format!("/{}", path.replace('.', "/")));
            prop_assert_eq!(found, Some(&json!(value)));
        }
    }
}
