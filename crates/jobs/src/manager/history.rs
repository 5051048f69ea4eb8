//! `job-manager.history.get`: a user's latest jobs, newest first, for `flux job last`.

use std::collections::{HashMap, VecDeque};

use formats::jobid::JobId;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{Message, RpcError};

/// Jobs remembered for each user: enough for people, and a bound on memory.
const LIMIT: usize = 1000;

/// The latest jobs of each user, newest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    by_user: HashMap<u32, VecDeque<JobId>>,
}

/// The indices that the Python-style slice `[start:stop:step]` or `[index]` picks of `len`.
fn slice(text: &str, len: usize) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let number = |part: &str| match part.trim() {
        "" => Some(None),
        digits => digits.parse::<i64>().ok().map(Some),
    };
    let parts = inner.split(':').map(number).collect::<Option<Vec<_>>>()?;
    let len = i64::try_from(len).ok()?;
    let absolute = |index: i64| if index < 0 { index + len } else { index };
    let (start, stop, step) = match parts.as_slice() {
        [Some(index)] => {
            let index = absolute(*index);
            let found = (0..len).contains(&index).then_some(index as usize);
            return Some(found.into_iter().collect());
        }
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] => (*start, *stop, step.unwrap_or(1)),
        _ => return None,
    };
    if step == 0 {
        return None;
    }
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |index: Option<i64>, or: i64| index.map_or(or, |i| absolute(i).clamp(low, high));
    let (mut at, end) = if step > 0 {
        (clamp(start, 0), clamp(stop, len))
    } else {
        (clamp(start, len - 1), clamp(stop, -1))
    };
    let mut picked = Vec::new();
    while (step > 0 && at < end) || (step < 0 && at > end) {
        picked.push(at as usize);
        at += step;
    }
    Some(picked)
}

impl History {
    pub(crate) fn add(&mut self, userid: u32, id: JobId) {
        let list = self.by_user.entry(userid).or_default();
        list.push_front(id);
        list.truncate(LIMIT);
    }

    /// Forget a job.
    pub(crate) fn remove(&mut self, userid: u32, id: JobId) {
        if let Some(list) = self.by_user.get_mut(&userid) {
            list.retain(|known| *known != id);
        }
    }

    pub(crate) fn get(&self, msg: &Message) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Request {
            slice: String,
        }
        let Request { slice: text } = msg.json()?;
        let none = VecDeque::new();
        let list = self.by_user.get(&msg.userid()).unwrap_or(&none);
        let picked = slice(&text, list.len()).ok_or_else(|| {
            RpcError::new(libc::EINVAL, format!("{text:?} is not a slice like [0:10]"))
        })?;
        let jobs: Vec<JobId> = picked.into_iter().map(|i| list[i]).collect();
        Ok(json!({ "jobs": jobs }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_pythons() {
        for (text, want) in [
            ("[:1]", vec![0]),
            ("[0]", vec![0]),
            ("[-1]", vec![4]),
            ("[7]", vec![]),
            ("[:]", vec![0, 1, 2, 3, 4]),
            ("[1:3]", vec![1, 2]),
            ("[-2:]", vec![3, 4]),
            ("[::2]", vec![0, 2, 4]),
            ("[::-1]", vec![4, 3, 2, 1, 0]),
            ("[3:0:-2]", vec![3, 1]),
            ("[:100]", vec![0, 1, 2, 3, 4]),
        ] {
            assert_eq!(slice(text, 5), Some(want), "{text}");
        }
        for bad in ["", "1", "[x]", "[1:2:3:4]", "[::0]"] {
            assert_eq!(slice(bad, 5), None, "{bad}");
        }
    }
}
