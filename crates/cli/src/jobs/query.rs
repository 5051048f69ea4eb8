//! Which jobs to list, as a `job-list` request with a constraint (RFC 43).

use client::{Handle, Node};
use formats::Idset;
use formats::job::{self, JobResult, JobState};
use serde_json::{Map, Value, json};

use super::{ANY_USER, own_user};
use crate::error::Failure;
use crate::jobid::JobIdArg;

/// A list of states and results to keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    states: u32,
    results: u32,
}

impl Filter {
    /// Jobs that are not inactive.
    pub(crate) fn active() -> Filter {
        Filter {
            states: job::PENDING | job::RUNNING,
            results: 0,
        }
    }

    pub(crate) fn everything() -> Filter {
        Filter {
            states: job::PENDING | job::RUNNING | JobState::Inactive.bit(),
            results: 0,
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Filter::default()
    }

    /// Add states and results by long name, separated by commas.
    pub(crate) fn add(&mut self, words: &str) -> Result<(), Failure> {
        for word in words.split(',') {
            let lower = word.to_ascii_lowercase();
            let result = JobResult::ALL
                .into_iter()
                .find(|r| r.name().eq_ignore_ascii_case(&lower));
            match (result, lower.as_str()) {
                (Some(result), _) => self.results |= result.bit(),
                (None, name) if name.len() > 2 && name != "new" => {
                    let mask = job::state_mask(name)
                        .map_err(|_| Failure::new(format!("Invalid filter specified: {lower}")))?;
                    self.states |= mask;
                }
                _ => return Err(Failure::new(format!("Invalid filter specified: {lower}"))),
            }
        }
        Ok(())
    }

    pub(crate) fn union(self, other: Filter) -> Filter {
        Filter {
            states: self.states | other.states,
            results: self.results | other.results,
        }
    }
}

/// A user's name, number, or `all`.
pub(crate) fn parse_user(text: &str) -> Result<u32, Failure> {
    if text == "all" {
        return Ok(ANY_USER);
    }
    if let Ok(Some(user)) = nix::unistd::User::from_name(text) {
        return Ok(user.uid.as_raw());
    }
    text.parse()
        .map_err(|_| Failure::new(format!("Invalid user {text} specified")))
}

/// What is listed.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) ids: Vec<JobIdArg>,
    pub(crate) attrs: Vec<String>,
    pub(crate) filter: Filter,
    pub(crate) user: u32,
    pub(crate) max_entries: i64,
    pub(crate) since: f64,
    pub(crate) name: Option<String>,
    pub(crate) queues: Vec<String>,
    /// Ranks or hosts the jobs ran on.
    pub(crate) include: Option<String>,
}

impl Query {
    /// This user's active jobs, with all attributes.
    pub(crate) fn new() -> Query {
        Query {
            ids: Vec::new(),
            attrs: vec!["all".to_owned()],
            filter: Filter::active(),
            user: own_user(),
            max_entries: 1000,
            since: 0.,
            name: None,
            queues: Vec::new(),
            include: None,
        }
    }

    /// Keep jobs that were active after a time, which the user wrote as `text`.
    pub(crate) fn active_since(&mut self, text: &str, time: f64, now: f64) -> Result<(), Failure> {
        if time > now {
            let text = format!("--since={text} appears to be in the future");
            return Err(Failure::new(text));
        }
        self.since = time;
        Ok(())
    }

    fn constraint(&self) -> Result<Value, Failure> {
        let mut all = Vec::new();
        if let Some(targets) = &self.include {
            all.push(include(targets)?);
        }
        if self.user != ANY_USER {
            all.push(json!({"userid": [self.user]}));
        }
        if let Some(name) = &self.name {
            all.push(json!({"name": [name]}));
        }
        if !self.queues.is_empty() {
            all.push(json!({"queue": self.queues}));
        }
        let states = json!({"states": [self.filter.states]});
        let results = json!({"results": [self.filter.results]});
        match (self.filter.states, self.filter.results) {
            (0, 0) => {}
            (_, 0) => all.push(states),
            (0, _) => all.push(results),
            (_, _) => all.push(json!({"or": [states, results]})),
        }
        Ok(json!({ "and": all }))
    }

    /// The jobs, and for ids that could not be listed why.
    pub(crate) async fn fetch(
        &self,
        handle: &Handle,
    ) -> Result<(Vec<Map<String, Value>>, Vec<String>), Failure> {
        if !self.ids.is_empty() {
            return Ok(self.fetch_ids(handle).await);
        }
        let request = json!({
            "max_entries": self.max_entries,
            "attrs": self.attrs,
            "since": self.since,
            "constraint": self.constraint()?,
        });
        #[derive(serde::Deserialize)]
        struct Answer {
            jobs: Vec<Map<String, Value>>,
            #[serde(default)]
            version: i64,
        }
        let mut stream = handle.stream("job-list.list", Node::Any, &request);
        let mut jobs = Vec::new();
        let mut is_first = true;
        while let Some(answer) = stream.next().await {
            let answer: Answer = answer?.json()?;
            jobs.extend(answer.jobs);
            // Version 0 of the protocol, told in the first answer, has no other.
            if std::mem::take(&mut is_first) && answer.version == 0 {
                break;
            }
        }
        Ok((jobs, Vec::new()))
    }

    async fn fetch_ids(&self, handle: &Handle) -> (Vec<Map<String, Value>>, Vec<String>) {
        let asked = self
            .ids
            .iter()
            .map(|id| super::list_id(handle, id.id, &self.attrs));
        let answers = futures::future::join_all(asked).await;
        let (mut jobs, mut errors) = (Vec::new(), Vec::new());
        for (id, answer) in self.ids.iter().zip(answers) {
            match answer {
                Ok(job) => jobs.push(job),
                Err(e) if e.errno == libc::ENOENT => {
                    errors.push(format!("JobID {id} unknown"));
                }
                Err(e) => errors.push(format!("rpc: {}", crate::error::rpc_text(&e))),
            }
        }
        (jobs, errors)
    }
}

fn include(targets: &str) -> Result<Value, Failure> {
    if let Ok(ranks) = targets.parse::<Idset>() {
        return Ok(json!({"ranks": [ranks.to_string()]}));
    }
    match targets.parse::<formats::Hostlist>() {
        Ok(hosts) => Ok(json!({"hostlist": [hosts.to_string()]})),
        Err(_) => Err(Failure::new(format!(
            "-i/--include: invalid targets: {targets}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_constraints() {
        let mut query = Query::new();
        query.user = 7;
        query.filter = Filter::default();
        for words in ["pending,FAILED", "run"] {
            query.filter.add(words).unwrap();
        }
        query.queues = vec!["batch".into()];
        query.include = Some("0-3".into());
        insta::assert_snapshot!(query.constraint().unwrap().to_string(), @r#"{"and":[{"ranks":["0-3"]},{"userid":[7]},{"queue":["batch"]},{"or":[{"states":[30]},{"results":[2]}]}]}"#);
        let fault = query.filter.add("pd").unwrap_err().message;
        assert_eq!(fault, "Invalid filter specified: pd");
    }
}
