//! Answers about ids, hosts, durations, counts, shapes, maps, jobspecs and directives.

use formats::{Count, Hostlist, Idset, JobId, Jobspec, Taskmap};
use formats::{batch_directives, eventlog, fsd, shape};
use serde_json::{Value, json};

type Answer = Result<Value, String>;

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(input: &Value) -> Result<T, String> {
    let text = input.as_str().ok_or("the input is a string")?;
    text.parse().map_err(|e: T::Err| e.to_string())
}

fn pair<T: std::str::FromStr<Err: std::fmt::Display>>(input: &Value) -> Result<(T, T), String> {
    Ok((parsed(&input[0])?, parsed(&input[1])?))
}

fn idset(op: &str, input: &Value) -> Answer {
    if op == "parse" {
        let set: Idset = parsed(input)?;
        return Ok(json!([set, set.len(), set.to_string_brackets()]));
    }
    let (a, b): (Idset, Idset) = pair(input)?;
    Ok(match op {
        "union" => json!(a.union(&b)),
        "intersect" => json!(a.intersection(&b)),
        "difference" => json!(a.difference(&b)),
        _ => return Err(format!("unknown op {op}")),
    })
}

fn hostlist(op: &str, input: &Value) -> Answer {
    let mut list: Hostlist = match op {
        "find" => parsed(&input[0])?,
        _ => parsed(input)?,
    };
    match op {
        "expand" => {}
        "sort" => list.sort(),
        "uniq" => list.uniq(),
        "encode" => return Ok(json!(list)),
        "find" => {
            let host = input[1].as_str().ok_or("a host is a string")?;
            return Ok(json!(list.index().find(host)));
        }
        _ => return Err(format!("unknown op {op}")),
    }
    Ok(list.iter().collect::<Vec<_>>().into())
}

fn taskmap(input: &Value) -> Answer {
    let map: Taskmap = parsed(input)?;
    Ok(json!({
        "json": map.to_value(),
        "pmi": map.to_pmi(),
        "raw": map.to_raw(),
        "nnodes": map.nnodes(),
        "ntasks": map.ntasks(),
    }))
}

fn checked_shape(input: &Value) -> Answer {
    let text = input.as_str().ok_or("a shape is a string")?;
    shape::parse(text, "task").map_err(|e| e.to_string())?;
    shape::to_value(text, "task").map_err(|e| e.to_string())
}

fn directives(input: &Value) -> Answer {
    let text = input.as_str().ok_or("a script is a string")?;
    let list = batch_directives::parse(text).map_err(|e| e.to_string())?;
    Ok(list.iter().map(|d| json!(d.args)).collect())
}

fn jobspec(input: &Value) -> Answer {
    Jobspec::from_value(input.clone()).map_err(|e| e.to_string())?;
    Ok(json!(true))
}

pub(crate) fn answer(op: &str, input: &Value) -> Option<Answer> {
    let (family, name) = op.split_once('.')?;
    Some(match (family, name) {
        ("idset", name) => idset(name, input),
        ("hostlist", name) => hostlist(name, input),
        ("fsd", "parse") => input
            .as_str()
            .ok_or("a duration is a string".to_owned())
            .and_then(|text| fsd::parse(text).map_err(|e| e.to_string()))
            // JSON has no infinity.
            .map(|seconds| {
                if seconds.is_finite() {
                    json!(seconds)
                } else {
                    json!("inf")
                }
            }),
        ("fsd", "format") => Ok(json!(fsd::format(input.as_f64()?))),
        ("jobid", "parse") => parsed(input).map(|id: JobId| json!(id)),
        ("jobid", "encode") => JobId(input[0].as_u64()?)
            .encode(input[1].as_str()?)
            .map(Value::from)
            .map_err(|e| e.to_string()),
        ("count", "values") => {
            parsed(input).map(|count: Count| json!(count.iter().take(100).collect::<Vec<_>>()))
        }
        ("count", "encode") => parsed(input).map(|count: Count| json!(count.to_string())),
        ("taskmap", "decode") => taskmap(input),
        ("shape", "resources") => checked_shape(input),
        ("directives", "parse") => directives(input),
        ("jobspec", "validate") => jobspec(input),
        ("eventlog", "decode") => input
            .as_str()
            .ok_or("a log is a string".to_owned())
            .and_then(|log| eventlog::decode(log).map_err(|e| e.to_string()))
            .map(|events| events.iter().map(|e| json!(e)).collect()),
        _ => return None,
    })
}
