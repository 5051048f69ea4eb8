//! What R (RFC 20) says of times, and of a graph in it.

use std::collections::{BTreeMap, HashMap};

use fluxion::HORIZON;
use fluxion::plan::Time;
use formats::Idset;
use serde_json::{Value, json};
use wire::RpcError;

fn invalid(why: String) -> RpcError {
    RpcError::new(libc::EINVAL, why)
}

/// A moment of R. Those before 1970 are the first.
pub(crate) fn moment(seconds: f64) -> Time {
    seconds.clamp(0.0, HORIZON as f64) as Time
}

/// The numbers of R's `starttime` and `expiration`.
pub(crate) fn term(r: &Value) -> Result<(f64, f64), RpcError> {
    let number = |key: &str| match &r["execution"][key] {
        Value::Null => Ok(0.0),
        value => value
            .as_f64()
            .ok_or_else(|| invalid(format!("R.execution.{key}: must be a number"))),
    };
    let (start, end) = (number("starttime")?, number("expiration")?);
    if start < 0.0 || (end != 0.0 && end < start) {
        return Err(RpcError::new(
            libc::EPROTO,
            format!("R: ends at {end}, before it starts at {start}"),
        ));
    }
    Ok((start, end))
}

/// Whether an R's `scheduling` has to be a graph with all its vertices: unless there is none, its writer left some out, or
/// its writer writes something else.
pub(crate) fn promises_graph(scheduling: &Value) -> bool {
    match scheduling.get("writer").and_then(Value::as_str) {
        None => !scheduling.is_null(),
        Some(writer) => !writer.contains("shorthand") && scheduling.get("graph").is_some(),
    }
}

/// A JSON graph gets the ranks, and the ids of cores, that its R has: those of the instance, which differ from the
/// enclosing one's. Each in its order. Returns the pairs of ranks.
pub(crate) fn renumber(r: &Value, scheduling: &mut Value) -> Vec<(i64, i64)> {
    let cores = cores_of(r);
    let nodes = scheduling.pointer_mut("/graph/nodes");
    let Some(nodes) = nodes.and_then(Value::as_array_mut) else {
        return Vec::new();
    };
    let rank_of = |node: &Value| node["metadata"]["rank"].as_i64().filter(|r| *r >= 0);
    let mut known: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for node in nodes.iter() {
        if let Some(rank) = rank_of(node) {
            let ids = known.entry(rank).or_default();
            if node["metadata"]["type"] == "core" {
                ids.extend(node["metadata"]["id"].as_i64());
            }
        }
    }
    let mut ranks = BTreeMap::new();
    let mut ids = HashMap::new();
    for ((was, mut numbers), (is, cores)) in known.into_iter().zip(cores) {
        ranks.insert(was, is);
        numbers.sort_unstable();
        if numbers.len() == cores.len() {
            ids.insert(
                was,
                numbers
                    .into_iter()
                    .zip(cores.iter().map(i64::from))
                    .collect(),
            );
        }
    }
    for node in nodes {
        let Some(was) = rank_of(node) else { continue };
        let metadata = &mut node["metadata"];
        if let Some(is) = ranks.get(&was) {
            metadata["rank"] = json!(is);
        }
        if metadata["type"] == "core" {
            renumber_core(metadata, ids.get(&was));
        }
    }
    ranks.into_iter().collect()
}

/// The ids of cores on each rank.
fn cores_of(r: &Value) -> BTreeMap<i64, Idset> {
    let mut cores = BTreeMap::new();
    let set = |text: &Value| -> Idset {
        text.as_str()
            .and_then(|t| t.parse().ok())
            .unwrap_or_default()
    };
    for entry in r["execution"]["R_lite"].as_array().into_iter().flatten() {
        for rank in set(&entry["rank"]).iter() {
            cores.insert(i64::from(rank), set(&entry["children"]["core"]));
        }
    }
    cores
}

fn renumber_core(metadata: &mut Value, ids: Option<&HashMap<i64, i64>>) {
    let was = metadata["id"].as_i64();
    let Some((was, is)) = was.and_then(|was| Some((was, *ids?.get(&was)?))) else {
        return;
    };
    if was == is {
        return;
    }
    let ending = |text: &Value| {
        let stem = text.as_str()?.strip_suffix(&was.to_string())?;
        Some(json!(format!("{stem}{is}")))
    };
    metadata["id"] = json!(is);
    if let Some(name) = metadata.get("name").and_then(ending) {
        metadata["name"] = name;
    }
    for path in metadata["paths"]
        .as_object_mut()
        .into_iter()
        .flat_map(|p| p.values_mut())
    {
        if let Some(renamed) = ending(path) {
            *path = renamed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_takes_the_numbers_of_its_r() {
        let node = |rank: i64| json!({"metadata": {"type": "node", "rank": rank}});
        let core = |rank: i64, id: i64| {
            let path = format!("/cluster0/n/core{id}");
            json!({"metadata": {"type": "core", "id": id, "rank": rank, "paths": {"containment": path}}})
        };
        let mut graph =
            json!({"graph": {"nodes": [node(-1), node(7), core(7, 35), core(7, 34), core(3, 2)]}});
        let r = json!({"execution": {"R_lite": [
            {"rank": "0", "children": {"core": "2"}}, {"rank": "1", "children": {"core": "0-1"}}]}});
        assert_eq!(renumber(&r, &mut graph), [(3, 0), (7, 1)]);
        let expected = json!([node(-1), node(1), core(1, 1), core(1, 0), core(0, 2)]);
        assert_eq!(graph["graph"]["nodes"], expected);
    }

    #[test]
    fn graphs_in_r() {
        let graph = json!({"nodes": []});
        for (scheduling, promises) in [
            (Value::Null, false),
            (json!({"graph": graph}), true),
            (json!({"graph": graph, "writer": "fluxion:jgf"}), true),
            (
                json!({"graph": graph, "writer": "fluxion:jgf_shorthand"}),
                false,
            ),
            (json!({"writer": "fluxion:none", "trees": []}), false),
            (json!({}), true),
            (json!("nonsense"), true),
        ] {
            assert_eq!(promises_graph(&scheduling), promises, "{scheduling}");
        }
    }

    #[test]
    fn times() {
        let r =
            |start: f64, end: f64| json!({"execution": {"starttime": start, "expiration": end}});
        assert_eq!(term(&r(3.5, 0.0)).unwrap(), (3.5, 0.0));
        assert_eq!(term(&json!({"execution": {}})).unwrap(), (0.0, 0.0));
        assert_eq!(term(&r(3.0, 2.0)).unwrap_err().errno, libc::EPROTO);
        assert_eq!((moment(-1.0), moment(f64::MAX)), (0, HORIZON));
    }
}
