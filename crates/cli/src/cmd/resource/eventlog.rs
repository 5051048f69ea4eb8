//! `flux resource eventlog`: what happened to resources.

use clap::Args;
use client::{Handle, Node};
use formats::{Event, Hostlist, Idset};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::environment::within;
use crate::error::{Context, Failure, Outcome};
use crate::eventlog::{Printer, Style};
use crate::output;

#[derive(Args)]
pub(super) struct Eventlog {
    /// text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// raw, iso, offset or human
    #[arg(short = 'T', long, value_name = "FORMAT", default_value = "raw",
          value_parser = ["raw", "iso", "offset", "human", "reltime"])]
    time_format: String,
    /// Print times for humans
    #[arg(short = 'H', long)]
    human: bool,
    /// Use color: always, never or auto
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, require_equals = true,
          default_missing_value = "always")]
    color: Option<String>,
    /// Print new events as they come
    #[arg(short = 'F', long)]
    follow: bool,
    /// With --follow or --wait, give up after this long
    #[arg(short, long, value_name = "TIME", value_parser = formats::fsd::parse)]
    timeout: Option<f64>,
    /// Print events until this one
    #[arg(short, long, value_name = "EVENT")]
    wait: Option<String>,
    /// With --wait, the event has this in its context
    #[arg(short, long, value_name = "KEY=VAL")]
    match_context: Vec<String>,
    /// Only events about these ranks or hosts
    #[arg(short, long, value_name = "TARGETS")]
    include: Option<String>,
}

/// The nodes events are shown of.
enum Targets {
    Ranks(Idset),
    Hosts { hosts: Vec<String>, ranks: Idset },
}

impl Targets {
    async fn new(handle: &Handle, text: &str) -> Result<Targets, Failure> {
        if let Ok(ranks) = text.parse() {
            return Ok(Targets::Ranks(ranks));
        }
        let hosts: Hostlist = text
            .parse()
            .map_err(|_| Failure::new(format!("invalid targets {text}")))?;
        let all = handle.getattr("hostlist").await.context("hostlist")?;
        let all: Hostlist = all
            .parse()
            .map_err(|e| Failure::new(format!("attribute hostlist: {e}")))?;
        let hosts: Vec<String> = hosts.iter().collect();
        let ranks = hosts
            .iter()
            .filter_map(|host| u32::try_from(all.find(host)?).ok());
        let ranks = ranks.collect();
        Ok(Targets::Hosts { hosts, ranks })
    }

    fn has(&self, event: &Event) -> bool {
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let ids = text("ranks").or_else(|| text("idset"));
        let ids: Idset = ids.and_then(|t| t.parse().ok()).unwrap_or_default();
        match self {
            Targets::Ranks(ranks) => !ids.intersection(ranks).is_empty(),
            Targets::Hosts { hosts, ranks } => {
                let list = text("nodelist").and_then(|t| t.parse::<Hostlist>().ok());
                let named = list.is_some_and(|list| hosts.iter().any(|h| list.contains(h)));
                named || !ids.intersection(ranks).is_empty()
            }
        }
    }
}

/// `KEY=VAL`; a number matches one that is nearly the same.
fn matches(event: &Event, wanted: &[(String, Value)]) -> bool {
    wanted
        .iter()
        .all(|(key, value)| match (event.get(key), value.as_f64()) {
            (Some(found), Some(wanted)) if found.is_f64() => found
                .as_f64()
                .is_some_and(|found| (found - wanted).abs() <= 1e-5),
            (found, _) => found == Some(value),
        })
}

impl Eventlog {
    fn context(&self) -> Result<Vec<(String, Value)>, Failure> {
        let pair = |text: &String| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
                Ok((key.to_owned(), value))
            }
            _ => Err(Failure::new(format!("invalid KEY=VAL argument: '{text}'")).code(2)),
        };
        self.match_context.iter().map(pair).collect()
    }

    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let mut printer = Printer::new(&Style {
            format: Some(&self.format),
            time: Some(&self.time_format),
            human: self.human,
            color: self.color.as_deref(),
            offset_width: 15,
        })?;
        let run = self.print(handle, &mut printer);
        match within(self.timeout, run).await {
            Some(outcome) => outcome,
            None => Err(Failure::new("timeout")),
        }
    }

    async fn print(&self, handle: &Handle, printer: &mut Printer) -> Outcome {
        #[derive(Deserialize)]
        struct Answer {
            events: Vec<Event>,
        }
        let context = self.context()?;
        let targets = match &self.include {
            Some(text) => Some(Targets::new(handle, text).await?),
            None => None,
        };
        let follow = self.follow || self.wait.is_some();
        let mut stream = handle.stream("resource.journal", Node::Rank(0), &json!({}));
        while let Some(answer) = stream.next().await {
            let Answer { events } = answer?.json()?;
            // An answer without events ends the past.
            if events.is_empty() && !follow {
                break;
            }
            for event in events {
                if targets.as_ref().is_some_and(|t| !t.has(&event)) {
                    continue;
                }
                output::write(&printer.line(&event));
                if self.wait.as_ref() == Some(&event.name) && matches(&event, &context) {
                    return Ok(0);
                }
            }
        }
        Ok(0)
    }
}
