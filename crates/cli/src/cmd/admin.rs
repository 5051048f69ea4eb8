//! `flux admin`: small tasks of the instance owner.

use clap::{Parser, Subcommand};
use client::{Handle, Node};
use serde_json::json;

use crate::args::Args;
use crate::environment::block_on;
use crate::error::Outcome;

/// Administer the instance.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Add a command, or those of standard input, to what is run when the initial program has ended
    CleanupPush {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

pub(crate) fn run(args: Args) -> Outcome {
    let What::CleanupPush { command } = args.parse::<Options>()?.command;
    let mut commands = match command.is_empty() {
        false => vec![command.join(" ")],
        true => std::io::read_to_string(std::io::stdin())?
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(str::to_owned)
            .collect(),
    };
    // The broker runs what was pushed last first; lines of one call keep their order.
    commands.reverse();
    block_on(async {
        let handle = Handle::open(None).await?;
        let request = json!({ "name": "cleanup", "commands": commands });
        handle.rpc("runat.push", Node::Any, &request).await?;
        Ok(0)
    })
}
