//! Shell options (`flux run -o KEY=VALUE`), read once into types.

mod affinity;
mod output;
mod pmi;

pub use affinity::{CpuAffinity, Sharing, divide};
pub use output::{OutputOptions, StreamOptions};
pub use pmi::PmiOptions;

use crate::{Fatal, info::JobInfo, pty, stage_in::StageIn};
use formats::fsd;
use serde_json::Value;
use std::time::Duration;

/// Where standard input comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum InputOptions {
    /// The `stdin` service.
    Service,
    File(String),
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
    pub output: OutputOptions,
    pub input: InputOptions,
    /// Bytes of standard input the KVS takes.
    pub input_limit: usize,
    pub pmi: PmiOptions,
    pub cpu_affinity: CpuAffinity,
    pub gpu_affinity: Sharing,
    /// Seconds other tasks may go on after the first has exited; `None` is forever.
    pub exit_timeout: Option<f64>,
    pub exit_on_error: bool,
    /// Leave the tasks stopped, for a debugger.
    pub stop_in_exec: bool,
    /// Leave the tasks in the shell's process group.
    pub nosetpgrp: bool,
    pub signal: Option<Warning>,
    pub pty: Option<pty::Options>,
    /// How long processes beside the tasks have to end when the tasks have ended, before they are killed.
    pub rexec_shutdown: Duration,
    pub stage_in: Option<StageIn>,
    /// The tasks' `oom_score_adj`, proc(5).
    pub oom_adjust: Option<i32>,
    pub hwloc: Hwloc,
    /// What the user should know of how the options are understood.
    pub remarks: Vec<String>,
}

/// Option `hwloc`: the topology of the node as a file for the tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hwloc {
    pub xmlfile: bool,
    /// Only what the job has of the node.
    pub restrict: bool,
}

/// What [`Options::input_limit`] is by default, and its greatest value.
const INPUT_LIMIT: usize = 10 << 20;
const INPUT_LIMIT_MAX: usize = 32 << 20;

/// What [`Options::rexec_shutdown`] is by default.
const REXEC_SHUTDOWN: Duration = Duration::from_secs(60);

pub(crate) fn bad(option: &str, value: &Value, want: &str) -> Fatal {
    Fatal::new(format!(
        "shell option {option}={value} is invalid: must be {want}"
    ))
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
    /// The option that is needed before the others.
    pub fn verbose(info: &JobInfo) -> Result<i64, Fatal> {
        match info.jobspec.shell_option("verbose") {
            None => Ok(0),
            Some(value) => value
                .as_i64()
                .ok_or_else(|| bad("verbose", value, "a number")),
        }
    }

    pub fn read(info: &JobInfo) -> Result<Options, Fatal> {
        let get = |path: &str| info.jobspec.shell_option(path);
        let text = |path: &'static str| match get(path) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(bad(path, other, "a string")),
        };
        for path in ["input.batch-timeout", "output.batch-timeout"] {
            // Events are stored long before the times that are usual here are over.
            if let Some(value) = get(path).filter(|value| duration(value).is_none()) {
                return Err(bad(path, value, "a duration"));
            }
        }
        let mut remarks = Vec::new();
        let output = output::read(info, &mut remarks)?;
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
        let pmi = pmi::read(get("pmi"), get("pmi-simple"))?;
        let integer = |path: &'static str| match get(path) {
            None => Ok(None),
            Some(value) => value
                .as_i64()
                .map(Some)
                .ok_or_else(|| bad(path, value, "a number")),
        };
        Ok(Options {
            output,
            input,
            input_limit: get("input.limit").map_or(Ok(INPUT_LIMIT), input_limit)?,
            hwloc: Hwloc {
                // Programs that use PMIx look at the topology: to find it out takes each of them long.
                xmlfile: pmi.pmix || flag(get("hwloc.xmlfile")),
                restrict: flag(get("hwloc.restrict")),
            },
            pmi,
            cpu_affinity: affinity::cpu(get("cpu-affinity"), &mut remarks)?,
            gpu_affinity: affinity::gpu(get("gpu-affinity"), &mut remarks)?,
            exit_timeout,
            exit_on_error: flag(get("exit-on-error")),
            stop_in_exec: flag(get("stop-tasks-in-exec")),
            nosetpgrp: integer("nosetpgrp")?.is_some_and(|n| n != 0),
            signal,
            pty: get("pty").map(pty::Options::read).transpose()?,
            rexec_shutdown: match get("rexec-shutdown-timeout") {
                None => REXEC_SHUTDOWN,
                Some(value) => value
                    .as_str()
                    .and_then(|text| fsd::parse(text).ok())
                    .and_then(|s| Duration::try_from_secs_f64(s).ok())
                    .ok_or_else(|| {
                        bad(
                            "rexec-shutdown-timeout",
                            value,
                            "a duration such as \"30s\"",
                        )
                    })?,
            },
            stage_in: get("stage-in").map(StageIn::read).transpose()?,
            oom_adjust: get("oom").map(oom_adjust).transpose()?.flatten(),
            remarks,
        })
    }
}

fn input_limit(value: &Value) -> Result<usize, Fatal> {
    let size = output::size(value).and_then(|n| usize::try_from(n).ok());
    size.filter(|n| (1..=INPUT_LIMIT_MAX).contains(n))
        .ok_or_else(|| bad("input.limit", value, "a size from 1 to 32M"))
}

/// Reads option `oom`.
fn oom_adjust(option: &Value) -> Result<Option<i32>, Fatal> {
    let fields = option
        .as_object()
        .ok_or_else(|| bad("oom", option, "an object"))?;
    if let Some(key) = fields.keys().find(|key| *key != "adjust") {
        return Err(Fatal::new(format!(
            "shell option oom.{key} is unknown: there is adjust"
        )));
    }
    let adjust = |value: &Value| {
        let number = value.as_i64().filter(|n| (-1000..=1000).contains(n));
        let number = number.and_then(|n| i32::try_from(n).ok());
        number.ok_or_else(|| bad("oom.adjust", value, "a number from -1000 to 1000"))
    };
    fields.get("adjust").map(adjust).transpose()
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
            (o.output.stdout.line_buffered, o.output.stderr.line_buffered),
            (true, false)
        );
        assert_eq!(
            (o.output.stdout.path, o.input, o.exit_timeout),
            (None, InputOptions::Service, Some(30.))
        );
        assert!(o.pmi.serve && o.pmi.map && !o.exit_on_error && !o.hwloc.xmlfile);
        assert_eq!(
            (o.cpu_affinity.sharing, o.gpu_affinity),
            (Sharing::On, Sharing::On)
        );
    }

    #[test]
    fn values() {
        let o = read(json!({
            "output": {"mode": "append", "limit": "2K", "stdout": {"type": "file", "path": "o.{{taskid}}", "label": true}},
            "input.stdin": {"type": "file", "path": "in"}, "input.limit": "20M", "pmi": "off", "exit-timeout": "none",
            "exit-on-error": 1, "cpu-affinity": "per-task", "gpu-affinity": "map:0;1",
            "signal": {"signum": 12, "timeleft": "2m"}, "oom": {"adjust": -5}
        }))
        .unwrap();
        assert_eq!(o.input_limit, 20 << 20);
        let stdout = StreamOptions {
            path: Some("o.{{taskid}}".into()),
            per_shell: true,
            label: true,
            append: true,
            line_buffered: true,
        };
        assert_eq!(
            o.output.stderr,
            StreamOptions {
                line_buffered: false,
                ..stdout.clone()
            }
        );
        assert_eq!(o.output.stdout, stdout);
        assert_eq!(
            (o.output.limit, o.input),
            (Some(2048), InputOptions::File("in".into()))
        );
        assert!(!o.pmi.serve && o.exit_on_error && o.exit_timeout.is_none());
        assert_eq!(o.cpu_affinity.sharing, Sharing::PerTask);
        assert_eq!(o.oom_adjust, Some(-5));
        assert!(matches!(o.gpu_affinity, Sharing::Map(sets) if sets.len() == 2));
        assert_eq!(
            o.signal,
            Some(Warning {
                signum: 12,
                timeleft: 120.
            })
        );
        assert!(read(json!({"pmi": "cray,simple"})).unwrap().pmi.serve);
    }

    #[test]
    fn remarks() {
        let o = read(json!({
            "output": {"mode": "x", "stderr": {"buffer": {"type": "foobar"}}},
            "cpu-affinity": 1, "gpu-affinity": "most"
        }));
        let remarks = o.unwrap().remarks;
        assert_eq!(
            remarks,
            [
                "ignoring invalid output.mode=x: files are truncated",
                "output.stderr.buffer.type: invalid buffer type foobar: there are none and line",
                "cpu-affinity: invalid option: 1; it counts as on",
                "gpu-affinity: invalid option: most; it counts as on",
            ]
        );
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
                json!({"oom": {"adjust": 1001}}),
                "shell option oom.adjust=1001 is invalid: must be a number from -1000 to 1000",
            ),
            (
                json!({"output.batch-timeout": "x"}),
                "shell option output.batch-timeout=\"x\" is invalid: must be a duration",
            ),
            (
                json!({"input.limit": "64M"}),
                "shell option input.limit=\"64M\" is invalid: must be a size from 1 to 32M",
            ),
            (
                json!({"oom": {"score": 1}}),
                "shell option oom.score is unknown: there is adjust",
            ),
            (
                json!({"nosetpgrp": "x"}),
                "shell option nosetpgrp=\"x\" is invalid: must be a number",
            ),
            (
                json!({"rexec-shutdown-timeout": 1}),
                "shell option rexec-shutdown-timeout=1 is invalid: must be a duration such as \"30s\"",
            ),
            (
                json!({"pmi": 1}),
                "shell option pmi=1 is invalid: must be a list of kinds, such as \"simple\"",
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
