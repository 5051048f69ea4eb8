//! Shell options (`flux run -o KEY=VALUE`), read once into types.

use crate::{Fatal, info::JobInfo, pty, stage_in::StageIn, template};
use formats::fsd;
use serde_json::Value;
use std::time::Duration;

/// Where a stream of the tasks goes.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamOptions {
    /// The template of a file's path; without one the stream goes to the KVS.
    pub path: Option<String>,
    /// The path differs by node or task, so every shell writes its own files.
    pub per_shell: bool,
    pub label: bool,
    pub append: bool,
    pub line_buffered: bool,
}

/// Where standard input comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum InputOptions {
    /// The `stdin` service.
    Service,
    File(String),
}

/// How tasks are bound to cores.
#[derive(Debug, Clone, PartialEq)]
pub enum CpuAffinity {
    Off,
    /// All tasks to all cores of the node's share.
    On,
    /// Each task to its part of the cores.
    PerTask,
    /// Explicit CPU sets, used in turn.
    Map(String),
}

/// How tasks see GPUs.
#[derive(Debug, Clone, PartialEq)]
pub enum GpuAffinity {
    Off,
    On,
    PerTask,
    Map(String),
}

/// The warning signal before the job's time is up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warning {
    pub signum: i32,
    pub timeleft: f64,
}

/// All options the shell reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub verbose: i64,
    pub stdout: StreamOptions,
    pub stderr: StreamOptions,
    /// Bytes of each stream the KVS takes; `None` is the default.
    pub output_limit: Option<u64>,
    pub input: InputOptions,
    /// Serve PMI-1 to the tasks.
    pub pmi: bool,
    /// Tell the tasks where all tasks run.
    pub pmi_map: bool,
    pub cpu_affinity: CpuAffinity,
    pub gpu_affinity: GpuAffinity,
    /// Seconds other tasks may go on after the first has exited; `None` is forever.
    pub exit_timeout: Option<f64>,
    pub exit_on_error: bool,
    /// Leave the tasks in the shell's process group.
    pub nosetpgrp: bool,
    pub signal: Option<Warning>,
    pub pty: Option<pty::Options>,
    /// How long processes beside the tasks have to end when the tasks have ended, before they are killed.
    pub rexec_shutdown: Duration,
    pub stage_in: Option<StageIn>,
}

/// The greatest `output.limit`.
const OUTPUT_LIMIT_MAX: u64 = 1 << 30;

/// What [`Options::rexec_shutdown`] is by default.
const REXEC_SHUTDOWN: Duration = Duration::from_secs(60);

pub(crate) fn bad(option: &str, value: &Value, want: &str) -> Fatal {
    Fatal::new(format!(
        "shell option {option}={value} is invalid: must be {want}"
    ))
}

/// A size such as `10M`.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    let number: f64 = digits.parse().ok().filter(|n| *n >= 0.)?;
    Some((number * scale as f64) as u64)
}

/// Seconds, as a number or as RFC 23 has them.
fn duration(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => fsd::parse(text).ok(),
        other => other.as_f64().filter(|s| *s >= 0.),
    }
}

pub(crate) fn flag(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(b)) => *b,
        Some(Value::Number(n)) => n.as_f64() != Some(0.),
        Some(_) => true,
    }
}

impl Options {
    pub fn read(info: &JobInfo) -> Result<Options, Fatal> {
        let get = |path: &str| info.jobspec.shell_option(path);
        let text = |path: &'static str| match get(path) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(bad(path, other, "a string")),
        };
        let append = match text("output.mode")? {
            None | Some("truncate") => false,
            Some("append") => true,
            Some(other) => {
                return Err(bad(
                    "output.mode",
                    &other.into(),
                    "\"truncate\" or \"append\"",
                ));
            }
        };
        let stdout = StreamOptions {
            path: None,
            per_shell: false,
            label: false,
            append,
            line_buffered: true,
        };
        let stdout = stream(info, "stdout", stdout)?;
        // What is said of stdout holds for stderr too, except how it is buffered.
        let stderr = StreamOptions {
            line_buffered: false,
            ..stdout.clone()
        };
        let stderr = stream(info, "stderr", stderr)?;
        let output_limit = match get("output.limit") {
            None => None,
            Some(value) => {
                let size = value
                    .as_u64()
                    .or_else(|| value.as_str().and_then(parse_size));
                let valid = size.filter(|n| (1..=OUTPUT_LIMIT_MAX).contains(n));
                Some(valid.ok_or_else(|| bad("output.limit", value, "a size from 1 to 1G"))?)
            }
        };
        let input = match text("input.stdin.type")? {
            None | Some("service") => InputOptions::Service,
            Some("file") => {
                let path = text("input.stdin.path")?;
                let missing = || Fatal::new("shell option input.stdin.path is missing");
                InputOptions::File(path.ok_or_else(missing)?.to_owned())
            }
            Some(other) => {
                return Err(bad(
                    "input.stdin.type",
                    &other.into(),
                    "\"service\" or \"file\"",
                ));
            }
        };
        let pmi = text("pmi")?.is_none_or(|list| {
            list.split(',')
                .any(|n| ["simple", "pmi1", "pmi2"].contains(&n))
        });
        let cpu = text("cpu-affinity")?.unwrap_or("on");
        let cpu = cpu.trim_start_matches("verbose").trim_start_matches(',');
        let gpu = text("gpu-affinity")?.unwrap_or("on");
        let exit_timeout = match get("exit-timeout") {
            None => Some(30.),
            Some(Value::String(s)) if s.eq_ignore_ascii_case("none") => None,
            Some(value) => Some(
                duration(value)
                    .ok_or_else(|| bad("exit-timeout", value, "a duration or \"none\""))?,
            ),
        };
        let signal = match get("signal") {
            None => None,
            Some(value) if value.as_i64() == Some(0) => None,
            Some(value) => {
                let field = |key| value.get(key);
                let signum = field("signum").map_or(Some(libc::SIGUSR1.into()), Value::as_i64);
                let timeleft = match field("timeleft") {
                    None => Some(60.),
                    Some(Value::String(text)) => fsd::parse(text).ok(),
                    Some(other) => other.as_f64(),
                };
                let want = "an object with signum and timeleft";
                let (signum, timeleft) = signum
                    .zip(timeleft)
                    .ok_or_else(|| bad("signal", value, want))?;
                Some(Warning {
                    signum: signum as i32,
                    timeleft,
                })
            }
        };
        Ok(Options {
            verbose: get("verbose").and_then(Value::as_i64).unwrap_or(0),
            stdout,
            stderr,
            output_limit,
            input,
            pmi,
            pmi_map: !flag(get("pmi-simple.nomap")),
            cpu_affinity: match cpu {
                "off" => CpuAffinity::Off,
                "per-task" => CpuAffinity::PerTask,
                other => match other.strip_prefix("map:") {
                    Some(map) => CpuAffinity::Map(map.to_owned()),
                    None => CpuAffinity::On,
                },
            },
            gpu_affinity: match gpu {
                "off" => GpuAffinity::Off,
                "per-task" => GpuAffinity::PerTask,
                other => match other.strip_prefix("map:") {
                    Some(map) => GpuAffinity::Map(map.to_owned()),
                    None => GpuAffinity::On,
                },
            },
            exit_timeout,
            exit_on_error: flag(get("exit-on-error")),
            nosetpgrp: flag(get("nosetpgrp")),
            signal,
            pty: get("pty").map(pty::Options::read).transpose()?,
            rexec_shutdown: match get("rexec-shutdown-timeout") {
                None => REXEC_SHUTDOWN,
                Some(value) => duration(value)
                    .and_then(|s| Duration::try_from_secs_f64(s).ok())
                    .ok_or_else(|| bad("rexec-shutdown-timeout", value, "a duration"))?,
            },
            stage_in: get("stage-in").map(StageIn::read).transpose()?,
        })
    }
}

fn stream(info: &JobInfo, name: &str, mut base: StreamOptions) -> Result<StreamOptions, Fatal> {
    let Some(option) = info
        .jobspec
        .shell_option("output")
        .and_then(|o| o.get(name))
    else {
        return Ok(base);
    };
    let place = |key: &str| format!("output.{name}.{key}");
    let text = |key: &str| match option.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(bad(&place(key), other, "a string")),
    };
    if let Some(label) = option.get("label") {
        base.label = flag(Some(label));
    }
    if let Some(kind) = option.get("buffer").and_then(|b| b.get("type")) {
        base.line_buffered = match kind.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("none") => false,
            Some("line") => true,
            _ => return Err(bad(&place("buffer.type"), kind, "\"none\" or \"line\"")),
        };
    }
    if text("type")?.as_deref() == Some("kvs") {
        base.path = None;
        base.per_shell = false;
    } else if let Some(path) = text("path")? {
        base.per_shell = template::is_per_rank(info, &path);
        base.path = Some(path);
    }
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::{info, resources};
    use formats::jobspec::JobspecBuilder;
    use serde_json::json;

    fn read(options: Value) -> Result<Options, Fatal> {
        let mut job = JobspecBuilder::new(["a"]).slots(4, 1, 0, None, false);
        for (key, value) in options.as_object().unwrap() {
            job = job.shell_option(key, value.clone());
        }
        Options::read(&info(job, &resources(&["0-1", "0-1"], None), 3))
    }

    #[test]
    fn defaults() {
        let o = read(json!({})).unwrap();
        assert_eq!(
            (o.stdout.line_buffered, o.stderr.line_buffered),
            (true, false)
        );
        assert_eq!(
            (o.stdout.path, o.input, o.exit_timeout),
            (None, InputOptions::Service, Some(30.))
        );
        assert!(o.pmi && o.pmi_map && !o.exit_on_error);
        assert_eq!(
            (o.cpu_affinity, o.gpu_affinity),
            (CpuAffinity::On, GpuAffinity::On)
        );
    }

    #[test]
    fn values() {
        let o = read(json!({
            "output": {"mode": "append", "limit": "2K", "stdout": {"type": "file", "path": "o.{{taskid}}", "label": true}},
            "input.stdin": {"type": "file", "path": "in"}, "pmi": "off", "exit-timeout": "none",
            "exit-on-error": 1, "cpu-affinity": "per-task", "gpu-affinity": "map:0;1",
            "signal": {"signum": 12, "timeleft": "2m"}
        }))
        .unwrap();
        let stdout = StreamOptions {
            path: Some("o.{{taskid}}".into()),
            per_shell: true,
            label: true,
            append: true,
            line_buffered: true,
        };
        assert_eq!(
            o.stderr,
            StreamOptions {
                line_buffered: false,
                ..stdout.clone()
            }
        );
        assert_eq!(o.stdout, stdout);
        assert_eq!(
            (o.output_limit, o.input),
            (Some(2048), InputOptions::File("in".into()))
        );
        assert!(!o.pmi && o.exit_on_error && o.exit_timeout.is_none());
        assert_eq!(o.cpu_affinity, CpuAffinity::PerTask);
        assert_eq!(o.gpu_affinity, GpuAffinity::Map("0;1".into()));
        assert_eq!(
            o.signal,
            Some(Warning {
                signum: 12,
                timeleft: 120.
            })
        );
        assert!(read(json!({"pmi": "cray,simple"})).unwrap().pmi);
    }

    #[test]
    fn faults() {
        for (options, want) in [
            (
                json!({"exit-timeout": "soon"}),
                "shell option exit-timeout=\"soon\" is invalid: must be a duration or \"none\"",
            ),
            (
                json!({"output.limit": "2G"}),
                "shell option output.limit=\"2G\" is invalid: must be a size from 1 to 1G",
            ),
            (
                json!({"output.mode": "x"}),
                "shell option output.mode=\"x\" is invalid: must be \"truncate\" or \"append\"",
            ),
            (
                json!({"pmi": 1}),
                "shell option pmi=1 is invalid: must be a string",
            ),
            (
                json!({"input.stdin.type": "file"}),
                "shell option input.stdin.path is missing",
            ),
        ] {
            assert_eq!(read(options).unwrap_err().message, want);
        }
    }
}
