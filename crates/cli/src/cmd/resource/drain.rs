//! `flux resource drain`, `undrain`.

use clap::Args;
use client::{Handle, Node};
use serde_json::{Value, json};

use super::status::{Status, View};
use crate::error::{Failure, Outcome};
use crate::format::named::{Formats, Named};

const BUILTIN: [Named; 2] = [
    (
        "long",
        "Long flux-resource drain format string",
        "{timestamp!d:%b%d %R::<12} {state:<8.8} {ranks:<8.8+} +:{reason:<30.30} {nodelist}",
    ),
    (
        "default",
        "Default flux-resource drain format string",
        "{timestamp!d:%b%d %R::<12} {state:<8.8} {reason:<30.30+} {nodelist}",
    ),
];

/// What to do with nodes that are in the state already.
#[derive(Args)]
struct Mode {
    /// Overwrite the reason; twice also the time
    #[arg(short, long, action = clap::ArgAction::Count)]
    force: u8,
    /// Leave nodes that are in the state already as they are
    #[arg(short, long)]
    update: bool,
}

impl Mode {
    fn request(&self, targets: &str, reason: &[String]) -> Result<Value, Failure> {
        let mut request = json!({ "targets": targets });
        match (self.update, self.force) {
            (true, 1..) => {
                return Err(Failure::new(
                    "Only one of --force and --update may be specified",
                ));
            }
            (true, 0) => request["mode"] = json!("update"),
            (false, 0) => {}
            (false, 1) => request["mode"] = json!("overwrite"),
            (false, _) => request["mode"] = json!("force-overwrite"),
        }
        if !reason.is_empty() {
            request["reason"] = json!(reason.join(" "));
        }
        Ok(request)
    }
}

#[derive(Args)]
pub(super) struct Drain {
    #[command(flatten)]
    mode: Mode,
    /// Format of the list that is printed without targets
    #[arg(short = 'o', long, default_value = "default")]
    format: String,
    #[command(flatten)]
    view: View,
    /// Ranks or hosts
    targets: Option<String>,
    /// Why
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    reason: Vec<String>,
}

impl Drain {
    pub(super) async fn run(self) -> Outcome {
        let Some(targets) = &self.targets else {
            let formats = Formats {
                config: "flux-resource",
                tool: "flux-resource",
                subcommand: Some("drain"),
                builtin: &BUILTIN,
            };
            return match formats.resolve(&self.format)? {
                Some(format) => Status::drained(format, self.view).run().await,
                None => Ok(0),
            };
        };
        let request = self.mode.request(targets, &self.reason)?;
        let handle = Handle::open(None).await?;
        let answer = handle.rpc("resource.drain", Node::Rank(0), &request).await;
        match answer {
            Err(e) if e.errno == libc::EEXIST => {
                let why = crate::error::rpc_text(&e);
                Err(Failure::new(format!(
                    "{why} (--force overwrites the reason)"
                )))
            }
            answer => answer.map(|_| 0).map_err(Failure::from),
        }
    }
}

#[derive(Args)]
pub(super) struct Undrain {
    #[command(flatten)]
    mode: Mode,
    /// Ranks or hosts
    targets: String,
    /// Why
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    reason: Vec<String>,
}

impl Undrain {
    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let request = self.mode.request(&self.targets, &self.reason)?;
        handle
            .rpc("resource.undrain", Node::Rank(0), &request)
            .await?;
        Ok(0)
    }
}
