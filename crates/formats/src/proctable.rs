//! The table of a job's processes that the shell gives to debuggers, in the compact form that upstream's has.
//!
//! An object of five lists, one item each per task: `hosts` and `executables`, which are lists of names, `ids`, `pids` and
//! `ranks` (of brokers), which are lists of numbers. A list of numbers is an array of a number, `[first, more]` (as many
//! numbers follow, each one greater), `[same, -more]` (the number again as often) or either with a third item (the whole again
//! as often); each first number is told as the difference from the number before. A list of names is an array of a name or
//! `[prefix, numbers]`, where -1 stands for no suffix.

use serde_json::{Map, Value, json};

/// A task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The task's rank.
    pub task: u32,
    /// Its process id.
    pub pid: i64,
    /// The name of its node.
    pub host: String,
    /// The program, as the job names it.
    pub executable: String,
    /// The broker on its node.
    pub broker: u32,
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table of processes: {0}")]
pub struct ProctableError(&'static str);

/// More processes than any job has: a small text must not stand for any number of them.
const LIMIT: usize = 1 << 24;

/// Numbers that go up by one or stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: i64,
    /// How many follow the first.
    more: i64,
    is_same: bool,
}

impl Run {
    fn last(self) -> i64 {
        match self.is_same {
            true => self.first,
            false => self.first + self.more,
        }
    }

    /// Takes one more number, if it goes on like this.
    fn extend(&mut self, number: i64) -> bool {
        let goes_up = number == self.last() + 1 && (!self.is_same || self.more == 0);
        let stays = number == self.first && (self.is_same || self.more == 0);
        if goes_up || stays {
            self.is_same = stays;
            self.more += 1;
        }
        goes_up || stays
    }
}

fn encode_numbers(numbers: impl IntoIterator<Item = i64>) -> Value {
    let mut runs: Vec<Run> = Vec::new();
    for first in numbers {
        if !runs.last_mut().is_some_and(|run| run.extend(first)) {
            runs.push(Run {
                first,
                more: 0,
                is_same: false,
            });
        }
    }
    let mut items: Vec<Value> = Vec::new();
    let mut before = 0;
    for run in runs {
        let start = run.first - before;
        before = run.last();
        let more = if run.is_same { -run.more } else { run.more };
        if more == 0 {
            items.push(json!(start));
            continue;
        }
        match items.last_mut().and_then(Value::as_array_mut) {
            Some(last) if last[0] == start && last[1] == more => {
                let again = last.get(2).and_then(Value::as_i64).unwrap_or(0) + 1;
                last.truncate(2);
                last.push(json!(again));
            }
            _ => items.push(json!([start, more])),
        }
    }
    Value::Array(items)
}

fn decode_numbers(value: Option<&Value>) -> Result<Vec<i64>, ProctableError> {
    let items = value.and_then(Value::as_array);
    let items = items.ok_or(ProctableError("a list is missing"))?;
    let bad = || ProctableError("an item of a list is no number and no run");
    let mut numbers: Vec<i64> = Vec::new();
    let mut before = 0_i64;
    for item in items {
        let parts: Vec<i64> = match item {
            Value::Array(parts) if (2..=3).contains(&parts.len()) => {
                let parts: Option<_> = parts.iter().map(Value::as_i64).collect();
                parts.ok_or_else(bad)?
            }
            number => vec![number.as_i64().ok_or_else(bad)?, 0],
        };
        let times = parts.get(2).copied().unwrap_or(0);
        for _ in 0..=times.max(0) {
            let first = before.checked_add(parts[0]).ok_or_else(bad)?;
            let run = Run {
                first,
                more: parts[1].checked_abs().ok_or_else(bad)?,
                is_same: parts[1] < 0,
            };
            let count = usize::try_from(run.more).unwrap_or(LIMIT);
            if count >= LIMIT || numbers.len() + count >= LIMIT {
                return Err(ProctableError("there are too many processes"));
            }
            first.checked_add(run.more).ok_or_else(bad)?;
            let step = i64::from(!run.is_same);
            numbers.extend((0..=run.more).map(|i| first + i * step));
            before = run.last();
        }
    }
    Ok(numbers)
}

/// A name as what comes before its number, and the number; -1 if it has none that can be told so.
fn split(name: &str) -> (&str, i64) {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[prefix.len()..];
    match digits.parse::<i64>() {
        Ok(number) if number.to_string() == digits && number < i64::from(i32::MAX) => {
            (prefix, number)
        }
        _ => (name, -1),
    }
}

fn encode_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    let mut groups: Vec<(&str, Vec<i64>)> = Vec::new();
    for (prefix, number) in names.into_iter().map(split) {
        match groups.last_mut() {
            Some((last, numbers)) if *last == prefix => numbers.push(number),
            _ => groups.push((prefix, vec![number])),
        }
    }
    let encode = |(prefix, numbers): (&str, Vec<i64>)| match numbers[..] {
        [number] => json!(join(prefix, number)),
        _ => json!([prefix, encode_numbers(numbers)]),
    };
    groups.into_iter().map(encode).collect()
}

fn join(prefix: &str, number: i64) -> String {
    match number {
        -1 => prefix.to_owned(),
        number => format!("{prefix}{number}"),
    }
}

fn decode_names(value: Option<&Value>) -> Result<Vec<String>, ProctableError> {
    let items = value.and_then(Value::as_array);
    let mut names = Vec::new();
    for item in items.ok_or(ProctableError("a list is missing"))? {
        match item {
            Value::String(name) => names.push(name.clone()),
            item => {
                let prefix = item.get(0).and_then(Value::as_str);
                let prefix = prefix.ok_or(ProctableError("a name has no prefix"))?;
                let numbers = decode_numbers(item.get(1))?;
                if names.len() + numbers.len() >= LIMIT {
                    return Err(ProctableError("there are too many processes"));
                }
                names.extend(numbers.into_iter().map(|number| join(prefix, number)));
            }
        }
    }
    Ok(names)
}

/// The table of some processes.
pub fn encode(processes: &[Process]) -> Value {
    let numbers = |of: fn(&Process) -> i64| encode_numbers(processes.iter().map(of));
    let mut table = Map::new();
    let hosts = processes.iter().map(|p| p.host.as_str());
    let executables = processes.iter().map(|p| p.executable.as_str());
    table.insert("hosts".into(), encode_names(hosts));
    table.insert("executables".into(), encode_names(executables));
    table.insert("ids".into(), numbers(|p| p.task.into()));
    table.insert("pids".into(), numbers(|p| p.pid));
    table.insert("ranks".into(), numbers(|p| p.broker.into()));
    Value::Object(table)
}

/// The processes of a table.
pub fn decode(table: &Value) -> Result<Vec<Process>, ProctableError> {
    let numbers = |key: &str| decode_numbers(table.get(key));
    let (tasks, pids, brokers) = (numbers("ids")?, numbers("pids")?, numbers("ranks")?);
    let hosts = decode_names(table.get("hosts"))?;
    let executables = decode_names(table.get("executables"))?;
    let lengths = [pids.len(), brokers.len(), hosts.len(), executables.len()];
    if lengths.iter().any(|length| *length != tasks.len()) {
        return Err(ProctableError("its lists are not of one length"));
    }
    let small = |number: i64| {
        let number = u32::try_from(number);
        number.map_err(|_| ProctableError("a rank is out of range"))
    };
    let names = hosts.into_iter().zip(executables);
    let ids = tasks.into_iter().zip(pids).zip(brokers);
    ids.zip(names)
        .map(|(((task, pid), broker), (host, executable))| {
            Ok(Process {
                task: small(task)?,
                pid,
                host,
                executable,
                broker: small(broker)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers() {
        for (numbers, text) in [
            (vec![], "[]"),
            (vec![5], "[5]"),
            (vec![1234, 1235, 1236, 1237, 1238], "[[1234,4]]"),
            (vec![18, 18, 18], "[[18,-2]]"),
            (vec![7, 9, 10, 4], "[7,[2,1],-6]"),
            // Each of two runs begins as far from the end of the one before.
            (vec![1, 1, 2, 2, 3, 3], "[[1,-1,2]]"),
        ] {
            let value = encode_numbers(numbers.clone());
            assert_eq!(value.to_string(), text);
            assert_eq!(decode_numbers(Some(&value)), Ok(numbers));
        }
    }

    #[test]
    fn names() {
        for (names, text) in [
            (&["n1"][..], r#"["n1"]"#),
            (
                &["n1", "n2", "n2", "vm", "vm"],
                r#"[["n",[[1,1],0]],["vm",[[-1,-1]]]]"#,
            ),
            (&["a01", "a01", "b"], r#"[["a01",[[-1,-1]]],"b"]"#),
        ] {
            let value = encode_names(names.iter().copied());
            assert_eq!(value.to_string(), text);
            assert_eq!(decode_names(Some(&value)).unwrap(), names);
        }
    }

    #[test]
    fn faults() {
        let whole =
            json!({"hosts": ["a"], "executables": ["x"], "ids": [0], "pids": [5], "ranks": [0]});
        assert_eq!(decode(&whole).unwrap().len(), 1);
        for (key, value, want) in [
            ("ids", json!([0, 1]), "its lists are not of one length"),
            ("ids", json!([-1]), "a rank is out of range"),
            (
                "pids",
                json!([[0, i64::MAX]]),
                "there are too many processes",
            ),
            (
                "pids",
                json!([[0, i64::MIN]]),
                "an item of a list is no number and no run",
            ),
            (
                "pids",
                json!([[0, 9, i64::MAX]]),
                "there are too many processes",
            ),
            (
                "pids",
                json!(["x"]),
                "an item of a list is no number and no run",
            ),
            ("hosts", json!([[1, []]]), "a name has no prefix"),
            ("hosts", json!([["a", 1]]), "a list is missing"),
            ("ranks", Value::Null, "a list is missing"),
        ] {
            let mut table = whole.clone();
            table[key] = value;
            assert_eq!(decode(&table), Err(ProctableError(want)));
        }
    }

    proptest! {
        #[test]
        fn there_and_back(list in prop::collection::vec((0..5_u32, 1..9_i64, 0..4_u32), 0..40)) {
            let process = |(task, pid, broker): (u32, i64, u32)| Process {
                task,
                pid,
                host: format!("n{broker}"),
                executable: "app".into(),
                broker,
            };
            let all: Vec<Process> = list.into_iter().map(process).collect();
            prop_assert_eq!(decode(&encode(&all)), Ok(all));
        }
    }
}
