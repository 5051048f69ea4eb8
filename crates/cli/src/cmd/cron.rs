//! `flux cron`: commands that the instance runs at intervals, at times and on events.

use clap::{Parser, Subcommand};
use client::{Handle, Node};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Failure, Outcome};
use crate::output::outln;

/// Schedule commands.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Run COMMAND once every INTERVAL
    Interval(Interval),
    /// Run COMMAND on every event that begins with TOPIC
    Event(Event),
    /// Read lines of crontab(5) from FILE or standard input
    Tab(Tab),
    /// Run COMMAND once, at a date and time as date(1) takes it
    At(At),
    /// List entries
    List,
    /// Print all about an entry
    Dump {
        /// Print only this value
        #[arg(short, long)]
        key: Option<String>,
        id: u64,
    },
    /// Delete entries
    Delete {
        /// Also kill the command if it runs
        #[arg(short, long)]
        kill: bool,
        #[arg(required = true)]
        ids: Vec<u64>,
    },
    /// Stop entries
    Stop {
        #[arg(required = true)]
        ids: Vec<u64>,
    },
    /// Start stopped entries
    Start {
        #[arg(required = true)]
        ids: Vec<u64>,
    },
    /// Look at or change the event that commands wait for
    Sync {
        /// Run commands up to this time after the event
        #[arg(short, long, value_name = "TIME", value_parser = duration)]
        epsilon: Option<f64>,
        /// Wait for no event
        #[arg(short, long)]
        disable: bool,
        topic: Option<String>,
    },
}

/// Options of all kinds of entries.
#[derive(Parser)]
struct Common {
    /// Further members of the request: KEY=NUMBER,…
    #[arg(short, long, value_name = "OPTS")]
    options: Option<String>,
    /// Run commands with this environment
    #[arg(short = 'E', long)]
    preserve_env: bool,
    /// Run commands in this directory
    #[arg(short = 'd', long, value_name = "DIR")]
    working_dir: Option<String>,
}

#[derive(Parser)]
struct Interval {
    /// At most N times
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Name of the entry
    #[arg(short = 'N', long)]
    name: Option<String>,
    /// Time before the first run
    #[arg(short, long, value_name = "INTERVAL", value_parser = duration)]
    after: Option<f64>,
    #[command(flatten)]
    common: Common,
    #[arg(value_parser = duration)]
    interval: f64,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Parser)]
struct Event {
    /// Only every Nth event
    #[arg(short, long, value_name = "N")]
    nth: Option<u64>,
    /// Only after N events
    #[arg(short, long, value_name = "N")]
    after: Option<u64>,
    /// Time between two runs at least
    #[arg(short = 'i', long, value_name = "T", value_parser = duration)]
    min_interval: Option<f64>,
    /// At most N times
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Name of the entry
    #[arg(short = 'N', long)]
    name: Option<String>,
    #[command(flatten)]
    common: Common,
    topic: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Parser)]
struct Tab {
    #[command(flatten)]
    common: Common,
    file: Option<String>,
}

#[derive(Parser)]
struct At {
    #[command(flatten)]
    common: Common,
    time: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// A time with s, m, h or d after it; seconds without.
fn duration(text: &str) -> Result<f64, String> {
    formats::fsd::parse(text).map_err(|_| format!("Invalid duration '{text}'"))
}

pub(crate) fn run(args: Args) -> Outcome {
    let command = args.parse::<Options>()?.command;
    block_on(async {
        let handle = Handle::open(None).await?;
        match command {
            What::Interval(o) => interval(&handle, o).await,
            What::Event(o) => event(&handle, o).await,
            What::Tab(o) => tab(&handle, o).await,
            What::At(o) => at(&handle, o).await,
            What::List => list(&handle).await,
            What::Dump { key, id } => dump(&handle, id, key.as_deref()).await,
            What::Delete { kill, ids } => delete(&handle, &ids, kill).await,
            What::Stop { ids } => each(&handle, &ids, "stop", "Stopped").await,
            What::Start { ids } => each(&handle, &ids, "start", "Started").await,
            What::Sync {
                epsilon,
                disable,
                topic,
            } => sync(&handle, epsilon, disable, topic.as_deref()).await,
        }
    })
}

async fn call(handle: &Handle, method: &str, request: &Value) -> Result<Value, Failure> {
    Ok(handle
        .call(&format!("cron.{method}"), Node::Any, request)
        .await?)
}

/// The request to make an entry.
fn request(
    kind: &str,
    args: Value,
    command: &str,
    name: Option<String>,
    count: Option<u64>,
    common: &Common,
) -> Result<Value, Failure> {
    let word = command.split_whitespace().next().unwrap_or_default();
    let mut request = json!({
        "type": kind,
        "args": args,
        "command": command,
        "name": name.unwrap_or_else(|| word.to_owned()),
    });
    if let Some(dir) = &common.working_dir {
        request["cwd"] = dir.as_str().into();
    }
    if let Some(count) = count {
        request["repeat"] = count.into();
    }
    if common.preserve_env {
        let env = std::env::vars().map(|(k, v)| (k, v.into()));
        request["environ"] = env.collect::<Map<String, Value>>().into();
    }
    for option in common.options.iter().flat_map(|o| o.split(',')) {
        let pair = option.split_once('=');
        let number = pair.and_then(|(_, v)| serde_json::from_str::<Value>(v).ok());
        match (pair, number.filter(Value::is_number)) {
            (Some((key, _)), Some(number)) => request[key] = number,
            _ => {
                let text = format!("--options: expected KEY=NUMBER, found '{option}'");
                return Err(Failure::new(text));
            }
        }
    }
    Ok(request)
}

async fn interval(handle: &Handle, o: Interval) -> Outcome {
    let mut args = json!({ "interval": o.interval });
    if let Some(after) = o.after {
        args["after"] = after.into();
    }
    let line = o.command.join(" ");
    let request = request("interval", args, &line, o.name, o.count, &o.common)?;
    created(&call(handle, "create", &request).await?);
    Ok(0)
}

async fn event(handle: &Handle, o: Event) -> Outcome {
    let mut args = json!({ "topic": o.topic });
    if let Some(n) = o.nth {
        args["nth"] = n.into();
    }
    if let Some(n) = o.after {
        args["after"] = n.into();
    }
    if let Some(t) = o.min_interval {
        args["min_interval"] = t.into();
    }
    let line = o.command.join(" ");
    let request = request("event", args, &line, o.name, o.count, &o.common)?;
    created(&call(handle, "create", &request).await?);
    Ok(0)
}

fn created(entry: &Value) {
    outln!("flux-cron: cron-{} created", entry["id"]);
}

fn scheduled(entry: &Value) {
    let next = entry["typedata"]["next_wakeup"].as_f64().unwrap_or(0.);
    let date = local(next).strftime("%a %b %e %H:%M:%S %Y").to_string();
    let left = next - now();
    outln!(
        "flux-cron: cron-{} created: scheduled in {left:.3}s at {date}",
        entry["id"]
    );
}

/// Months of crontab(5) count from 1, those of requests from 0. Names stay.
fn month(text: &str) -> String {
    let shift = |n: &str| match n.parse::<u32>() {
        Ok(n) if n > 0 => (n - 1).to_string(),
        _ => n.to_owned(),
    };
    let part = |part: &str| {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, format!("/{step}")),
            None => (part, String::new()),
        };
        let ends: Vec<String> = range.split('-').map(shift).collect();
        ends.join("-") + &step
    };
    text.split(',').map(part).collect::<Vec<_>>().join(",")
}

/// A line of crontab(5): times and command. `None` for one that says nothing.
fn crontab_line(line: &str) -> Option<Result<(Value, String), Failure>> {
    let text = line.split('#').next().unwrap_or_default().trim();
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut fields = Vec::new();
    while fields.len() < 5 {
        let Some((word, more)) = rest.split_once(char::is_whitespace) else {
            let e = format!("Failed to process crontab line: {line}");
            return Some(Err(Failure::new(e)));
        };
        fields.push(word);
        rest = more.trim_start();
    }
    let args = json!({
        "second": 0, "minute": fields[0], "hour": fields[1], "mday": fields[2],
        "month": month(fields[3]), "weekday": fields[4],
    });
    Some(Ok((args, rest.to_owned())))
}

async fn tab(handle: &Handle, o: Tab) -> Outcome {
    let text = match o.file.as_deref() {
        None | Some("-") => std::io::read_to_string(std::io::stdin())?,
        Some(file) => std::fs::read_to_string(file)?,
    };
    for line in text.lines().filter_map(crontab_line) {
        let (args, command) = line?;
        let request = request("datetime", args, &command, None, None, &o.common)?;
        scheduled(&call(handle, "create", &request).await?);
    }
    Ok(0)
}

async fn at(handle: &Handle, o: At) -> Outcome {
    let output = tokio::process::Command::new("date")
        .arg("+%s")
        .arg(format!("--date={}", o.time))
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds: f64 = text
        .trim()
        .parse()
        .map_err(|_| Failure::new("Failed to parse datetime arg"))?;
    let t = local(seconds);
    let args = json!({
        "second": t.second(), "minute": t.minute(), "hour": t.hour(), "mday": t.day(),
        "month": t.month() - 1, "year": t.year() - 1900,
    });
    let line = o.command.join(" ");
    let request = request("datetime", args, &line, None, Some(1), &o.common)?;
    scheduled(&call(handle, "create", &request).await?);
    Ok(0)
}

fn now() -> f64 {
    Timestamp::now().as_microsecond() as f64 * 1e-6
}

fn local(seconds: f64) -> jiff::Zoned {
    Timestamp::from_microsecond((seconds * 1e6) as i64)
        .unwrap_or_default()
        .to_zoned(TimeZone::system())
}

/// How long ago, in words.
fn ago(at: f64, now: f64) -> String {
    let seconds = now - at;
    let (minutes, hours, days) = (seconds / 60., seconds / 3600., seconds / 86400.);
    match () {
        () if seconds < 0. => "in the future".to_owned(),
        () if seconds < 2. => "a second ago".to_owned(),
        () if seconds < 90. => format!("{seconds:.0} seconds ago"),
        () if minutes < 2. => "a minute ago".to_owned(),
        () if minutes < 90. => format!("{minutes:.0} minutes ago"),
        () if hours < 36. => format!("{hours:.1} hours ago"),
        () if days < 14. => format!("{days:.1} days ago"),
        () if days < 70. => format!("{:.0} weeks ago", days / 7.),
        () if days < 365. => format!("{:.0} months ago", days / 30.),
        () => format!("{:.1} years ago", days / 365.),
    }
}

fn span(seconds: f64) -> String {
    match () {
        () if seconds > 86400. => format!("{:.3}d", seconds / 86400.),
        () if seconds > 3600. => format!("{:.3}h", seconds / 3600.),
        () if seconds > 60. => format!("{:.3}m", seconds / 60.),
        () if seconds > 1. => format!("{seconds:.3}s"),
        () => format!("{:.2}ms", seconds * 1000.),
    }
}

async fn entries(handle: &Handle) -> Result<Vec<Value>, Failure> {
    let answer = call(handle, "list", &json!({})).await?;
    Ok(answer["entries"].as_array().cloned().unwrap_or_default())
}

async fn list(handle: &Handle) -> Outcome {
    let row = |id: &str, name: &str, state: &str, runs: &str, last: &str, status: &str| {
        outln!("{id:>6} {name:<15} {state:<8} {runs:>9} {last:>18}  {status:<18}");
    };
    row("ID", "CMD/NAME", "STATE", "#RUNS", "LASTRUN", "STATUS");
    for entry in entries(handle).await? {
        let last = (0..2).find_map(|i| entry["tasks"][i]["start-time"].as_f64());
        let last = last.map_or("None".to_owned(), |at| ago(at, now()));
        let task = &entry["tasks"][0];
        let status = match (task["state"].as_str(), task["code"].as_i64()) {
            (None, _) => "None".to_owned(),
            (Some("Failed"), Some(127)) => "Exec-Error".to_owned(),
            (Some("Failed"), Some(code)) => format!("Failed:rc={code}"),
            (Some("Exited"), _) => "Success".to_owned(),
            (Some(state), _) => state.to_owned(),
        };
        let count = &entry["stats"]["count"];
        let runs = match entry["repeat"].as_u64() {
            Some(n) if n > 0 => format!("{count}/{n}"),
            _ => count.to_string(),
        };
        let state = match entry["stopped"].as_bool() {
            Some(true) => "Stopped",
            _ => "Active",
        };
        let name = entry["name"].as_str().unwrap_or_default();
        row(&entry["id"].to_string(), name, state, &runs, &last, &status);
    }
    Ok(0)
}

/// Values by their dotted names; runs count from 1.
fn flatten(prefix: &str, value: &Value, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let name = match (prefix, key.as_str()) {
                    ("", "tasks") => "task".to_owned(),
                    ("", key) => key.to_owned(),
                    (prefix, key) => format!("{prefix}.{key}"),
                };
                flatten(&name, value, out);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{prefix}.{}", index + 1), item, out);
            }
        }
        value => out.push((prefix.to_owned(), value.clone())),
    }
}

async fn dump(handle: &Handle, id: u64, key: Option<&str>) -> Outcome {
    let all = entries(handle).await?;
    let entry = all
        .iter()
        .find(|e| e["id"] == id)
        .ok_or_else(|| Failure::new(format!("cron-{id}: No such cron entry found")))?;
    let mut values = Vec::new();
    flatten("", entry, &mut values);
    for (name, value) in values {
        match key {
            None => outln!("{name} = {value}"),
            Some(key) if key == name => match value {
                Value::String(text) => outln!("{text}"),
                value => outln!("{value}"),
            },
            Some(_) => {}
        }
    }
    Ok(0)
}

async fn delete(handle: &Handle, ids: &[u64], kill: bool) -> Outcome {
    for id in ids {
        let entry = call(handle, "delete", &json!({ "id": id, "kill": kill })).await?;
        let task = &entry["tasks"][0];
        let (start, end) = (task["start-time"].as_f64(), task["end-time"].as_f64());
        let more = match (start, end) {
            (Some(start), Some(end)) => {
                format!(" last ran {} for {}", ago(end, now()), span(end - start))
            }
            (Some(start), None) => format!(" still running. Started {}", ago(start, now())),
            _ => String::new(),
        };
        let name = entry["name"].as_str().unwrap_or_default();
        outln!("Removed cron-{id}: {name}{more}");
    }
    Ok(0)
}

async fn each(handle: &Handle, ids: &[u64], method: &str, what: &str) -> Outcome {
    for id in ids {
        call(handle, method, &json!({ "id": id })).await?;
        outln!("{what} cron-{id}");
    }
    Ok(0)
}

async fn sync(
    handle: &Handle,
    epsilon: Option<f64>,
    disable: bool,
    topic: Option<&str>,
) -> Outcome {
    let mut request = json!({});
    if let Some(topic) = topic {
        request["topic"] = topic.into();
    }
    if disable {
        request["disable"] = true.into();
    }
    if let Some(epsilon) = epsilon {
        request["sync_epsilon"] = epsilon.into();
    }
    let answer = call(handle, "sync", &request).await?;
    match answer["sync_event"].as_str() {
        Some(topic) => {
            let epsilon = answer["sync_epsilon"].as_f64().unwrap_or(0.);
            outln!("flux-cron: sync to event \"{topic}\" epsilon={epsilon:.3}s.");
        }
        None => outln!("flux-cron: sync disabled."),
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crontab() {
        let (args, command) = crontab_line("*/5 1 * 1-3,Dec Mon  echo a b # note")
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(args["month"], "0-2,Dec");
        assert_eq!(
            (args["minute"].as_str(), command.as_str()),
            (Some("*/5"), "echo a b")
        );
        assert!(crontab_line("  # nothing").is_none());
        assert!(crontab_line("1 2 3").unwrap().is_err());
    }

    #[test]
    fn words() {
        assert_eq!(ago(100., 101.), "a second ago");
        assert_eq!(ago(0., 7200. * 13.), "26.0 hours ago");
        assert_eq!((span(0.5), span(90.)), ("500.00ms".into(), "1.500m".into()));
        let mut out = Vec::new();
        flatten(
            "",
            &json!({"tasks": [{"pid": 1}], "stats": {"count": 2}}),
            &mut out,
        );
        assert_eq!(
            out,
            [
                ("task.1.pid".to_owned(), json!(1)),
                ("stats.count".to_owned(), json!(2))
            ]
        );
    }
}
