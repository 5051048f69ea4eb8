//! What plugins may ask of the shell, by the names of the functions in `ferroflux/shell.h`.

use super::{Job, Stack, Task, Wish};
use crate::{Fatal, template::Scope};
use plugin_sdk::{Args, host::Failure};
use serde_json::{Map, Value};
use std::rc::Weak;

/// The parameters of a question.
struct Params<'a>(&'a Value);

impl<'a> Params<'a> {
    fn value(&self, name: &str) -> &'a Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    fn text(&self, name: &str) -> Result<&'a str, Failure> {
        let text = self.value(name).as_str();
        text.ok_or_else(|| Failure::invalid(format!("{name} must be a text")))
    }

    fn number(&self, name: &str) -> Result<i32, Failure> {
        let number = self.value(name).as_i64().and_then(|n| n.try_into().ok());
        number.ok_or_else(|| Failure::invalid(format!("{name} must be a number")))
    }

    /// A number where -1 stands for what is at hand.
    fn index(&self, name: &str) -> Result<Option<u32>, Failure> {
        match self.number(name)? {
            -1 => Ok(None),
            n => {
                let index = u32::try_from(n);
                let bad = |_| Failure::invalid(format!("{name} must not be below -1"));
                index.map(Some).map_err(bad)
            }
        }
    }

    fn object(&self, name: &str) -> Result<Map<String, Value>, Failure> {
        let map = self.value(name).as_object().cloned();
        map.ok_or_else(|| Failure::invalid(format!("{name} must be an object")))
    }

    fn is_set(&self, name: &str) -> bool {
        self.value(name).as_bool() == Some(true)
    }
}

fn missing(what: &str) -> Failure {
    Failure::new(libc::ENOENT, format!("there is no {what}"))
}

/// Sets a variable of an environment.
fn set(env: &mut crate::environment::Environment, params: &Params) -> Result<Value, Failure> {
    let (name, value) = (params.text("name")?, params.text("value")?);
    if params.is_set("overwrite") || !env.contains_key(name) {
        env.insert(name.to_owned(), value.to_owned());
    }
    Ok(Value::Null)
}

fn with_task<T>(job: &Job, f: impl FnOnce(&mut Task) -> Result<T, Failure>) -> Result<T, Failure> {
    let outcome = job.with_task(f);
    outcome.unwrap_or_else(|| Err(Failure::invalid("this is for callbacks about a task")))
}

/// Answers a plugin.
pub(super) fn answer(
    job: &Job,
    stack: &Weak<Stack>,
    plugin: &str,
    method: &str,
    params: &Value,
) -> Result<Value, Failure> {
    let params = Params(params);
    let done = Ok(Value::Null);
    match method {
        "getopt" => {
            let info = job.info();
            let option = info.jobspec.shell_option(params.text("path")?);
            Ok(option.cloned().unwrap_or_default())
        }
        "setopt" => {
            job.set_option(params.text("path")?, params.value("json").clone());
            done
        }
        "getenv" => {
            let value = job.env().get(params.text("name")?).cloned();
            Ok(value.map_or(Value::Null, Value::String))
        }
        "environment" => Ok(job
            .env()
            .iter()
            .map(|(k, v)| (k.clone(), Value::from(v.as_str())))
            .collect()),
        "setenv" => job.change_env(|env| set(env, &params)),
        "unsetenv" => {
            let name = params.text("name")?;
            job.change_env(|env| env.remove(name));
            done
        }
        "info" => Ok(job.shell_info()),
        "rank_info" => {
            let info = job.rank_info(params.index("shell_rank")?);
            info.ok_or_else(|| Failure::invalid("there is no such shell rank"))
        }
        "jobspec_info" => Ok(job.jobspec_info()),
        "task_info" => match params.index("index")? {
            None => with_task(job, |task| Ok(task.info())),
            Some(index) => job.task_info(index).ok_or_else(|| missing("such task")),
        },
        "taskmap" => Ok(job.info().taskmap.to_wrapped().to_string().into()),
        "hostlist" => Ok(job.hostlist().into()),
        "task_getenv" => with_task(job, |task| {
            let value = task.env.get(params.text("name")?);
            Ok(value.map_or(Value::Null, |value| value.as_str().into()))
        }),
        "task_setenv" => with_task(job, |task| set(&mut task.env, &params)),
        "task_unsetenv" => with_task(job, |task| {
            task.env.remove(params.text("name")?);
            Ok(Value::Null)
        }),
        "task_command" => with_task(job, |task| Ok(task.argv.clone().into())),
        "set_task_command" => with_task(job, |task| {
            let command = serde_json::from_value::<Vec<String>>(params.value("command").clone());
            task.argv = command
                .ok()
                .filter(|command| !command.is_empty())
                .ok_or_else(|| Failure::invalid("a command is an array of texts"))?;
            Ok(Value::Null)
        }),
        "add_event_context" => {
            job.add_context(params.text("event")?, params.object("context")?);
            done
        }
        "add_completion_ref" => {
            job.add_reference(params.text("name")?);
            done
        }
        "remove_completion_ref" => match job.remove_reference(params.text("name")?) {
            true => done,
            false => Err(missing("such reference")),
        },
        "killall" => {
            job.wish(Wish::Kill(params.number("signum")?));
            done
        }
        "raise" => {
            job.wish(Wish::Raise {
                kind: params.text("kind")?.to_owned(),
                severity: params.number("severity")?,
                note: params.text("note")?.to_owned(),
            });
            done
        }
        "die" => {
            job.die(Fatal {
                code: params.number("code")?,
                ..Fatal::new(params.text("note")?)
            });
            done
        }
        "set_verbose" => {
            let level = params.number("level")?;
            job.logger.set_verbose(level.into());
            let mut args = Args::default();
            args.input.insert("level".into(), level.into());
            let stack = stack.upgrade().ok_or_else(|| missing("stack of plugins"))?;
            let called = stack.call("shell.log-setlevel", &mut args);
            called
                .map(|()| Value::Null)
                .map_err(|e| Failure::invalid(e.message))
        }
        "service_register" | "event_subscribe" => {
            let topic = match method {
                "service_register" => format!("service.{}", params.text("method")?),
                _ => format!("event.{}", params.text("subtopic")?),
            };
            let registered = job.register(topic, plugin);
            registered.map_err(|e| Failure::new(libc::EEXIST, e))?;
            done
        }
        "rpc" => {
            let shell_rank = params.index("shell_rank")?;
            let shell_rank = shell_rank.unwrap_or(job.info().shell_rank);
            if shell_rank >= job.info().size() {
                return Err(Failure::invalid("there is no such shell rank"));
            }
            job.wish(Wish::Rpc {
                plugin: plugin.to_owned(),
                method: params.text("method")?.to_owned(),
                shell_rank,
                payload: params.object("payload")?,
                topic: params.text("topic")?.to_owned(),
            });
            done
        }
        "render" => {
            let info = job.info();
            let tmpdir = job.env().get("FLUX_JOB_TMPDIR").cloned();
            let scope = Scope {
                info: &info,
                tmpdir: tmpdir.as_deref(),
                shell_rank: info.shell_rank,
                task: job.with_task(|task| task.tag),
            };
            Ok(scope.render(params.text("template")?).into())
        }
        "call" => {
            let stack = stack.upgrade().ok_or_else(|| missing("stack of plugins"))?;
            let mut args = Args::new(params.object("in")?);
            args.output = params.object("out")?;
            let called = stack.call(params.text("topic")?, &mut args);
            called.map_err(|e| Failure::new(libc::EINVAL, e.message))?;
            Ok(Value::Object(args.output))
        }
        _ => Err(Failure::new(
            libc::ENOSYS,
            format!("the shell has no function {method}"),
        )),
    }
}
