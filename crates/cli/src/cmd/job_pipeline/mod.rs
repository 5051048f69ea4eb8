//! `flux job-validator` and `flux job-frobnicator`: the stages of job-ingest (flux-config-ingest(5)) as filters.
//!
//! A line of standard input is a request (or with `--jobspec-only` a jobspec), a line of standard output what the
//! stage says to it: `{"errnum": 0}`, with the completed jobspec as `data` from the frobnicator, or `errnum` and
//! `errstr`. Plugins are built in or programs; where another command of the same name is installed, as upstream's that
//! runs plugins in Python, it is run instead.

mod program;

use clap::Parser;
use client::installation::{self, External, is_program};
use client::{Handle, Node};
use formats::Urgency;
use formats::admission::{Minimum, check_jobspec, policy};
use formats::queues::Queues;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::Args;
use crate::cmd::python;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome, rpc_text};
use crate::exec_path;
use crate::jobs::own_user;
use crate::output::outln;
use program::Program;

/// What both commands take.
#[derive(clap::Args)]
struct Common {
    /// Lines of input are jobspecs, not requests
    #[arg(long)]
    jobspec_only: bool,
    /// Print the plugins that are built in
    #[arg(long)]
    list_plugins: bool,
    /// Plugins: names of built-in ones, and paths of programs
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    plugins: Option<Vec<String>>,
    /// Arguments of plugins that are programs
    #[arg(last = true)]
    args: Vec<String>,
}

/// Check jobspecs: one JSON object a line.
#[derive(Parser)]
struct Validator {
    #[command(flatten)]
    common: Common,
    /// jobspec: the version, 1 or any
    #[arg(long, value_name = "V", default_value = "1", value_parser = ["1", "any"])]
    require_version: String,
    /// require-instance: refuse jobs from N nodes on
    #[arg(long, value_name = "N", default_value_t = 0)]
    require_instance_minnodes: u32,
    /// require-instance: refuse jobs from N cores on
    #[arg(long, value_name = "N", default_value_t = 0)]
    require_instance_mincores: u32,
}

/// Complete jobspecs by the configuration: one JSON object a line.
#[derive(Parser)]
struct Frobnicator {
    #[command(flatten)]
    common: Common,
}

/// A plugin that is built in, and what it is for.
type BuiltIn = (&'static str, &'static str);

const VALIDATORS: &[BuiltIn] = &[
    (
        "feasibility",
        "ask the scheduler whether a job can ever run",
    ),
    ("jobspec", "check the jobspec itself"),
    ("require-instance", "refuse jobs that are no instances"),
    ("schema", "the same as jobspec"),
];

const FROBNICATORS: &[BuiltIn] = &[
    ("constraints", "require the properties of a job's queue"),
    (
        "defaults",
        "set the queue and the duration where a job has none",
    ),
];

/// What a stage does to a request.
enum Step {
    Jobspec { any_version: bool },
    RequireInstance(Minimum),
    Feasibility(Handle),
    Defaults(Queues),
    Constraints(Queues),
    Program(Program),
}

/// What is known of a job that shall be submitted.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    jobspec: Value,
    userid: u32,
    #[serde(default)]
    rolemask: u32,
    urgency: Urgency,
    flags: i32,
}

/// An answer to a request.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    errnum: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errstr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// Why a request is refused.
#[derive(Debug)]
struct Refusal {
    errnum: i32,
    errstr: String,
}

impl Refusal {
    fn new(errnum: i32, errstr: impl Into<String>) -> Refusal {
        let errstr = errstr.into();
        Refusal { errnum, errstr }
    }

    fn invalid(errstr: impl Into<String>) -> Refusal {
        Refusal::new(libc::EINVAL, errstr)
    }
}

impl Answer {
    fn verdict(self) -> Result<Option<Value>, Refusal> {
        match self.errnum {
            0 => Ok(self.data),
            errnum => Err(Refusal::new(errnum, self.errstr.unwrap_or_default())),
        }
    }

    fn of(result: Result<Option<Value>, Refusal>) -> Answer {
        match result {
            Ok(data) => Answer {
                errnum: 0,
                errstr: None,
                data,
            },
            Err(refusal) => Answer {
                errnum: refusal.errnum,
                errstr: Some(refusal.errstr),
                data: None,
            },
        }
    }
}

impl Request {
    fn parse(line: &str, jobspec_only: bool) -> Result<Request, Refusal> {
        let invalid = |e: serde_json::Error| Refusal::invalid(e.to_string());
        let value: Value = serde_json::from_str(line).map_err(invalid)?;
        match jobspec_only {
            false => serde_json::from_value(value).map_err(invalid),
            true => Ok(Request {
                jobspec: value,
                userid: own_user(),
                rolemask: wire::ROLE_OWNER,
                urgency: Urgency::DEFAULT,
                flags: 0,
            }),
        }
    }

    fn describe(&self) -> Value {
        json!(self)
    }
}

impl Step {
    async fn apply(&mut self, request: &mut Request) -> Result<(), Refusal> {
        let invalid = |e: String| Refusal::invalid(e);
        match self {
            Step::Jobspec { any_version } => {
                check_jobspec(&request.jobspec, *any_version).map_err(invalid)
            }
            Step::RequireInstance(minimum) => minimum.check(&request.jobspec).map_err(invalid),
            Step::Defaults(queues) => {
                policy::set_defaults(queues, &mut request.jobspec).map_err(invalid)
            }
            Step::Constraints(queues) => {
                policy::set_constraints(queues, &mut request.jobspec).map_err(invalid)
            }
            Step::Feasibility(handle) => {
                let asked = handle.rpc("feasibility.check", Node::Any, &request.describe());
                match asked.await {
                    // Without a scheduler that knows, there is no objection.
                    Err(e) if e.errno != libc::ENOSYS => Err(Refusal::new(e.errno, rpc_text(&e))),
                    _ => Ok(()),
                }
            }
            Step::Program(program) => {
                if let Some(jobspec) = program.ask(&request.describe()).await? {
                    request.jobspec = jobspec;
                }
                Ok(())
            }
        }
    }
}

/// Where another command of this name is installed, become that.
fn yield_to_others(args: &Args) -> Result<(), Failure> {
    let words = args.words.clone();
    match installation::find_command(&args.name) {
        Some(External::Program(path)) => Err(exec_path::exec(&path, words)),
        Some(External::Python(path)) => python::script(&path, words).map(|_| ()),
        None => Ok(()),
    }
}

fn list(plugins: &[BuiltIn]) -> Outcome {
    outln!("Available plugins:");
    for (name, what) in plugins {
        outln!("{name:<20}  {what}");
    }
    Ok(0)
}

/// A plugin that is not built in.
fn program(name: &str, known: &[BuiltIn], args: &[String]) -> Result<Step, Failure> {
    if name.contains('/') && is_program(name.as_ref()) {
        return Ok(Step::Program(Program::start(name, args)?));
    }
    let known: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    Err(Failure::new(format!(
        "plugin '{name}' is neither built in ({}) nor the path of a program; plugins in Python need a command of Flux's \
         Python package in FLUX_EXEC_PATH",
        known.join(", ")
    )))
}

pub(crate) fn validator(args: Args) -> Outcome {
    yield_to_others(&args)?;
    let options: Validator = args.parse()?;
    let common = &options.common;
    if common.list_plugins {
        return list(VALIDATORS);
    }
    let minimum = Minimum {
        nodes: options.require_instance_minnodes,
        cores: options.require_instance_mincores,
    };
    block_on(async {
        let mut steps = Vec::new();
        let default = || vec!["jobspec".to_owned()];
        for name in common.plugins.clone().unwrap_or_else(default) {
            steps.push(match name.as_str() {
                "jobspec" | "schema" => Step::Jobspec {
                    any_version: options.require_version == "any",
                },
                "require-instance" => Step::RequireInstance(minimum.complete()),
                "feasibility" => Step::Feasibility(Handle::open(None).await?),
                name => program(name, VALIDATORS, &common.args)?,
            });
        }
        filter(steps, common.jobspec_only, |_| None).await
    })
}

pub(crate) fn frobnicator(args: Args) -> Outcome {
    yield_to_others(&args)?;
    let Frobnicator { common } = args.parse()?;
    if common.list_plugins {
        return list(FROBNICATORS);
    }
    block_on(async {
        let mut steps = Vec::new();
        let default = || vec!["defaults".to_owned(), "constraints".to_owned()];
        for name in common.plugins.clone().unwrap_or_else(default) {
            steps.push(match name.as_str() {
                "defaults" => Step::Defaults(queues().await?),
                "constraints" => Step::Constraints(queues().await?),
                name => program(name, FROBNICATORS, &common.args)?,
            });
        }
        filter(steps, common.jobspec_only, |request| Some(request.jobspec)).await
    })
}

/// The queues and defaults the instance is configured to have.
async fn queues() -> Result<Queues, Failure> {
    let handle = Handle::open(None).await?;
    let config: Value = handle
        .call("config.get", Node::Any, &json!({}))
        .await
        .context("configuration")?;
    Queues::from_config(&config).map_err(|e| Failure::new(format!("configuration: {e}")))
}

/// Answer all of standard input; 1 if anything was refused.
async fn filter(
    mut steps: Vec<Step>,
    jobspec_only: bool,
    data: impl Fn(Request) -> Option<Value>,
) -> Outcome {
    let mut code = 0;
    // There is nothing to do while there is no request: reading may block.
    for line in std::io::stdin().lines() {
        let line = line.context("standard input")?;
        let result = through(&mut steps, &line, jobspec_only).await;
        code = code.max(u8::from(result.is_err()));
        let answer = Answer::of(result.map(&data));
        outln!("{}", json!(answer));
    }
    for step in steps {
        if let Step::Program(program) = step {
            program.end().await;
        }
    }
    Ok(code)
}

async fn through(steps: &mut [Step], line: &str, jobspec_only: bool) -> Result<Request, Refusal> {
    let mut request = Request::parse(line, jobspec_only)?;
    for step in steps {
        step.apply(&mut request).await?;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(steps: Vec<Step>, line: &str, jobspec_only: bool) -> String {
        let mut steps = steps;
        let result = futures::executor::block_on(through(&mut steps, line, jobspec_only));
        json!(Answer::of(result.map(|request| Some(request.jobspec)))).to_string()
    }

    #[test]
    fn requests_are_answered() {
        let config = json!({"policy": {"jobspec": {"defaults": {"system": {"duration": "1m"}}}}});
        let defaults = || vec![Step::Defaults(Queues::from_config(&config).unwrap())];
        let jobspec = r#"{"attributes":{"system":{}}}"#;
        let request = format!(r#"{{"jobspec":{jobspec},"userid":1,"urgency":16,"flags":0}}"#);
        let strict = || vec![Step::Jobspec { any_version: false }];
        let answers = [
            answer(defaults(), jobspec, true),
            answer(defaults(), &request, false),
            answer(defaults(), jobspec, false),
            answer(strict(), r#"{"version":1}"#, true),
            answer(strict(), "{", true),
        ];
        insta::assert_snapshot!(answers.join("\n"), @r#"
        {"errnum":0,"data":{"attributes":{"system":{"duration":60.0}}}}
        {"errnum":0,"data":{"attributes":{"system":{"duration":60.0}}}}
        {"errnum":22,"errstr":"missing field `jobspec`"}
        {"errnum":22,"errstr":"jobspec: key 'resources' is missing"}
        {"errnum":22,"errstr":"EOF while parsing an object at line 1 column 1"}
        "#);
    }

    #[test]
    fn verdicts_of_programs() {
        let verdict = |text: &str| serde_json::from_str::<Answer>(text).unwrap().verdict();
        assert_eq!(verdict(r#"{"errnum": 0}"#).unwrap(), None);
        assert_eq!(
            verdict(r#"{"errnum": 0, "data": {}}"#).unwrap(),
            Some(json!({}))
        );
        let refusal = verdict(r#"{"errnum": 22, "errstr": "no"}"#).unwrap_err();
        assert_eq!((refusal.errnum, refusal.errstr.as_str()), (22, "no"));
    }
}
