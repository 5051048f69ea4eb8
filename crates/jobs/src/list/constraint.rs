//! Which jobs a listing wants: an expression of operators over attributes (RFC 31 syntax).

use formats::job::{ACTIVE, JobState, state_mask};
use formats::queues::{Queue, Queues};
use formats::{Hostlist, Idset, JobResult};
use serde_json::Value;

use super::job::Job;

/// Hosts or ranks one constraint may name: matching costs as much.
const MAX_HOSTS: usize = 1024;
const ALL_STATES: u32 = ACTIVE | JobState::New as u32 | JobState::Inactive as u32;
// Every bit of [`JobResult`].
const ALL_RESULTS: u32 = 15;

/// Why a constraint is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConstraintError(String);

/// A point in a job's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Submit,
    Depend,
    Priority,
    Sched,
    Run,
    Cleanup,
    Inactive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Ge,
    Le,
    Gt,
    Lt,
}

/// A constraint.
#[derive(Clone, Debug)]
pub enum Constraint {
    True,
    And(Vec<Constraint>),
    Or(Vec<Constraint>),
    Not(Vec<Constraint>),
    Userid(Vec<u32>),
    Name(Vec<String>),
    Queue(Vec<String>),
    States(u32),
    Results(u32),
    Hosts(Vec<String>),
    Ranks(Idset),
    Time(TimeConstraint),
}

/// A bound on one of a job's times.
#[derive(Clone, Copy, Debug)]
pub struct TimeConstraint {
    moment: Moment,
    comparison: Comparison,
    value: f64,
}

fn error<T>(text: impl Into<String>) -> Result<T, ConstraintError> {
    Err(ConstraintError(text.into()))
}

impl Constraint {
    /// Reads a constraint object. `null` and `{}` match everything.
    pub fn parse(value: &Value) -> Result<Constraint, ConstraintError> {
        let map = match value {
            Value::Null => return Ok(Constraint::True),
            Value::Object(map) => map,
            _ => return error("constraint must be JSON object"),
        };
        let mut entries = map.iter();
        let Some((op, values)) = entries.next() else {
            return Ok(Constraint::True);
        };
        if entries.next().is_some() {
            return error("constraint must only contain 1 element");
        }
        let Value::Array(values) = values else {
            return error(format!("operator {op} values not an array"));
        };
        let all = || {
            values
                .iter()
                .map(Constraint::parse)
                .collect::<Result<_, _>>()
        };
        match op.as_str() {
            "and" => Ok(Constraint::And(all()?)),
            "or" => Ok(Constraint::Or(all()?)),
            "not" => Ok(Constraint::Not(all()?)),
            "userid" => values
                .iter()
                .map(|v| match v.as_i64() {
                    Some(uid) => Ok(uid as u32),
                    None => error("userid value must be an integer"),
                })
                .collect::<Result<_, _>>()
                .map(Constraint::Userid),
            "name" => Ok(Constraint::Name(strings(op, values)?)),
            "queue" => Ok(Constraint::Queue(strings(op, values)?)),
            "states" => {
                let named = |text: &str| state_mask(text).ok();
                Ok(Constraint::States(mask(op, values, ALL_STATES, named)?))
            }
            "results" => {
                let named = |text: &str| text.parse::<JobResult>().ok().map(JobResult::bit);
                Ok(Constraint::Results(mask(op, values, ALL_RESULTS, named)?))
            }
            "hostlist" => {
                let mut hosts = Hostlist::new();
                for text in strings("host", values)? {
                    if hosts.append_str(&text).is_err() {
                        return error("host value not in valid Hostlist format");
                    }
                }
                if hosts.len() > MAX_HOSTS {
                    return error("too many hosts specified");
                }
                Ok(Constraint::Hosts(hosts.iter().collect()))
            }
            "ranks" => {
                let mut ranks = Idset::new();
                for text in strings(op, values)? {
                    match text.parse::<Idset>() {
                        Ok(ids) => ranks = ranks.union(&ids),
                        Err(e) => return error(format!("ranks value '{text}': {e}")),
                    }
                }
                if ranks.len() > MAX_HOSTS {
                    return error("too many ranks specified");
                }
                Ok(Constraint::Ranks(ranks))
            }
            _ => match moment(op) {
                Some(moment) => time(op, moment, values),
                None => error(format!("unknown constraint operator: {op}")),
            },
        }
    }

    /// A queue stands for its virtual queues as well.
    pub fn with_virtual_queues(mut self, queues: &Queues) -> Self {
        match &mut self {
            Constraint::And(all) | Constraint::Or(all) | Constraint::Not(all) => {
                let inner = std::mem::take(all).into_iter();
                *all = inner.map(|c| c.with_virtual_queues(queues)).collect();
            }
            Constraint::Queue(names) => {
                let is_child =
                    |queue: &Queue| queue.parent.as_ref().is_some_and(|p| names.contains(p));
                let children = queues.named.iter().filter(|(_, queue)| is_child(queue));
                let children: Vec<String> = children.map(|(name, _)| name.clone()).collect();
                names.extend(children);
            }
            _ => {}
        }
        self
    }

    /// Whether the job is wanted.
    pub fn matches(&self, job: &Job) -> bool {
        match self {
            Constraint::True => true,
            Constraint::And(all) => all.iter().all(|c| c.matches(job)),
            // RFC 31: an empty alternative is true.
            Constraint::Or(any) => any.is_empty() || any.iter().any(|c| c.matches(job)),
            Constraint::Not(all) => !all.iter().all(|c| c.matches(job)),
            Constraint::Userid(ids) => ids
                .iter()
                .any(|id| *id == wire::USERID_UNKNOWN || *id == job.userid),
            Constraint::Name(names) => names.iter().any(|n| job.name.as_deref() == Some(n)),
            Constraint::Queue(names) => names.iter().any(|n| job.queue.as_deref() == Some(n)),
            Constraint::States(mask) => mask & job.state.bit() != 0,
            Constraint::Results(mask) => {
                job.state == JobState::Inactive && mask & job.result().bit() != 0
            }
            Constraint::Hosts(hosts) => {
                let list = job
                    .nodelist
                    .as_deref()
                    .and_then(|l| l.parse::<Hostlist>().ok());
                list.is_some_and(|list| hosts.iter().any(|h| list.contains(h)))
            }
            Constraint::Ranks(ranks) => job
                .ranks
                .as_ref()
                .is_some_and(|r| !r.intersection(ranks).is_empty()),
            Constraint::Time(t) => t.matches(job),
        }
    }

    /// What an index can tell of wanted jobs.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        match self {
            Constraint::And(all) => {
                return all.iter().map(Constraint::needs).fold(needs, Needs::and);
            }
            Constraint::Or(any) => match &any[..] {
                [one] => return one.needs(),
                // One index serves all alternatives.
                [_, ..] => {
                    let masks = any.iter().map(|c| c.needs().results);
                    needs.results = masks.reduce(|a, b| Some(a? | b?)).flatten();
                }
                [] => {}
            },
            Constraint::Userid(ids) if !ids.contains(&wire::USERID_UNKNOWN) => {
                needs.users = Some(ids.clone());
            }
            Constraint::Name(names) => needs.names = Some(names.clone()),
            Constraint::Queue(names) => needs.queues = Some(names.clone()),
            Constraint::Results(mask) => needs.results = Some(*mask),
            _ => {}
        }
        needs
    }

    /// States that a wanted job can be in: no job in another state needs to be looked at.
    pub fn possible_states(&self) -> u32 {
        match self {
            Constraint::And(all) => all
                .iter()
                .fold(ALL_STATES, |mask, c| mask & c.possible_states()),
            Constraint::Or(any) if !any.is_empty() => {
                any.iter().fold(0, |mask, c| mask | c.possible_states())
            }
            Constraint::Not(all) => match &all[..] {
                [Constraint::States(mask)] => ALL_STATES & !mask,
                _ => ALL_STATES,
            },
            Constraint::States(mask) => *mask,
            Constraint::Results(_) => JobState::Inactive.bit(),
            _ => ALL_STATES,
        }
    }
}

/// What every wanted job must have, as far as there are indexes of it.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    pub users: Option<Vec<u32>>,
    pub queues: Option<Vec<String>>,
    pub names: Option<Vec<String>>,
    pub results: Option<u32>,
}

impl Needs {
    fn and(self, other: Needs) -> Needs {
        Needs {
            users: self.users.or(other.users),
            queues: self.queues.or(other.queues),
            names: self.names.or(other.names),
            results: self.results.or(other.results),
        }
    }
}

impl TimeConstraint {
    fn matches(&self, job: &Job) -> bool {
        let t = &job.times;
        let (was, time) = match self.moment {
            Moment::Submit => (true, t.submit),
            Moment::Depend => (job.was(JobState::Depend), t.depend),
            Moment::Priority => (t.priority != 0.0, t.priority),
            Moment::Sched => (t.sched != 0.0, t.sched),
            Moment::Run => (job.was(JobState::Run), t.run),
            Moment::Cleanup => (job.was(JobState::Cleanup), t.cleanup),
            Moment::Inactive => (job.was(JobState::Inactive), t.inactive),
        };
        was && match self.comparison {
            Comparison::Ge => time >= self.value,
            Comparison::Le => time <= self.value,
            Comparison::Gt => time > self.value,
            Comparison::Lt => time < self.value,
        }
    }
}

fn strings(op: &str, values: &[Value]) -> Result<Vec<String>, ConstraintError> {
    values
        .iter()
        .map(|v| match v.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => error(format!("{op} value must be a string")),
        })
        .collect()
}

fn mask(
    op: &str,
    values: &[Value],
    valid: u32,
    named: impl Fn(&str) -> Option<u32>,
) -> Result<u32, ConstraintError> {
    let mut mask = 0;
    for value in values {
        mask |= match value {
            Value::String(text) => match named(text) {
                Some(bits) => bits,
                None => return error(format!("invalid {op} value '{text}' specified")),
            },
            Value::Number(n) => match n.as_u64() {
                Some(bits) if bits & !u64::from(valid) == 0 => bits as u32,
                _ => return error(format!("invalid {op} value '{n}' specified")),
            },
            _ => return error(format!("{op} value invalid type")),
        };
    }
    Ok(mask)
}

fn moment(op: &str) -> Option<Moment> {
    Some(match op {
        "t_submit" => Moment::Submit,
        "t_depend" => Moment::Depend,
        "t_priority" => Moment::Priority,
        "t_sched" => Moment::Sched,
        "t_run" => Moment::Run,
        "t_cleanup" => Moment::Cleanup,
        "t_inactive" => Moment::Inactive,
        _ => return None,
    })
}

fn time(op: &str, moment: Moment, values: &[Value]) -> Result<Constraint, ConstraintError> {
    let Some(value) = values.first() else {
        return error("timestamp value not specified");
    };
    let Some(text) = value.as_str() else {
        return error(format!("{op} value must be a string"));
    };
    let operators = [
        (">=", Comparison::Ge),
        ("<=", Comparison::Le),
        (">", Comparison::Gt),
        ("<", Comparison::Lt),
    ];
    let found = operators
        .iter()
        .find_map(|(s, c)| Some((text.strip_prefix(s)?, *c)));
    let Some((number, comparison)) = found else {
        return error("timestamp comparison operator not specified");
    };
    match number.trim().parse::<f64>() {
        Ok(value) if value >= 0.0 => Ok(Constraint::Time(TimeConstraint {
            moment,
            comparison,
            value,
        })),
        Ok(_) => error("timestamp value must be >= 0.0"),
        Err(_) => error("Invalid timestamp value specified"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::tests::event;
    use super::*;
    use serde_json::json;

    fn job() -> Job {
        let mut job = Job::new(1);
        job.set_jobspec(super::super::job::tests::jobspec("q"));
        job.apply(&event(
            10.0,
            "submit",
            json!({"userid": 5, "urgency": 16, "flags": 0}),
        ));
        job.apply(&event(11.0, "validate", json!({})));
        job
    }

    #[test]
    fn a_queue_stands_for_its_virtual_queues() {
        let config = json!({"queues": {"batch": {}, "late": {"parent": "batch"}, "x": {}}});
        let queues = Queues::from_config(&config).unwrap();
        let of = |name: &str| {
            let parsed = Constraint::parse(&json!({"and": [{"queue": [name]}]})).unwrap();
            match parsed.with_virtual_queues(&queues) {
                Constraint::And(mut all) => match all.remove(0) {
                    Constraint::Queue(names) => names,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of("batch"), ["batch", "late"]);
        assert_eq!(of("late"), ["late"]);
    }

    #[test]
    fn operators() {
        let job = job();
        for (text, want, states) in [
            (json!({}), true, 127),
            (json!({"userid": [5]}), true, 127),
            (json!({"userid": [6, -1]}), true, 127),
            (json!({"userid": [6]}), false, 127),
            (json!({"name": ["prog"]}), true, 127),
            (json!({"queue": ["x", "q"]}), true, 127),
            (json!({"states": ["pending"]}), true, 14),
            (json!({"states": [2, "inactive"]}), true, 66),
            (json!({"results": ["completed"]}), false, 64),
            (json!({"hostlist": ["a[1-3]"]}), false, 127),
            (json!({"ranks": ["0-3"]}), false, 127),
            (json!({"t_submit": [">=10"]}), true, 127),
            (json!({"t_submit": ["<10.0"]}), false, 127),
            (json!({"t_run": [">0"]}), false, 127),
            (json!({"and": [{"userid": [5]}, {"states": [2]}]}), true, 2),
            (json!({"or": []}), true, 127),
            (json!({"or": [{"states": [16]}, {"states": [2]}]}), true, 18),
            (json!({"not": [{"states": [2]}]}), false, 125),
            (
                json!({"not": [{"userid": [5]}, {"states": [16]}]}),
                true,
                127,
            ),
        ] {
            let c = Constraint::parse(&text).unwrap();
            assert_eq!(c.matches(&job), want, "{text}");
            assert_eq!(c.possible_states(), states, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            (json!([]), "must be JSON object"),
            (json!({"a": [], "b": []}), "only contain 1"),
            (json!({"userid": 1}), "values not an array"),
            (json!({"foo": []}), "unknown constraint operator: foo"),
            (json!({"userid": ["x"]}), "must be an integer"),
            (json!({"states": ["foo"]}), "invalid states value 'foo'"),
            (json!({"states": [4096]}), "invalid states value"),
            (json!({"t_run": ["5"]}), "operator not specified"),
            (json!({"t_run": [">-5"]}), ">= 0.0"),
            (json!({"t_run": []}), "not specified"),
            (json!({"hostlist": ["a[0-9999]"]}), "too many hosts"),
            (json!({"and": [{"name": [1]}]}), "must be a string"),
        ] {
            let e = Constraint::parse(&text).unwrap_err().to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
    }
}
