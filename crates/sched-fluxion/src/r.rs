//! What R (RFC 20) says of times, and of a graph in it.

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

/// Whether a graph in R has all its vertices.
pub(crate) fn is_complete(scheduling: &Value) -> bool {
    let writer = scheduling.get("writer").and_then(Value::as_str);
    !writer.is_some_and(|w| w.contains("shorthand"))
}

/// The ranks of a JSON graph become those of the R it came with, in order; returns the pairs.
pub(crate) fn renumber(scheduling: &mut Value, ranks: &Idset) -> Vec<(i64, i64)> {
    let nodes = scheduling["graph"]["nodes"].as_array_mut();
    let Some(nodes) = nodes else {
        return Vec::new();
    };
    let of = |node: &Value| node["metadata"]["rank"].as_i64().filter(|r| *r >= 0);
    let mut known: Vec<i64> = nodes.iter().filter_map(of).collect();
    known.sort_unstable();
    known.dedup();
    let pairs: Vec<(i64, i64)> = known.into_iter().zip(ranks.iter().map(i64::from)).collect();
    if pairs.iter().any(|(was, is)| was != is) {
        for node in nodes {
            let new = of(node).and_then(|r| pairs.iter().find(|p| p.0 == r));
            if let Some((_, new)) = new {
                node["metadata"]["rank"] = json!(new);
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_takes_the_ranks_of_its_r() {
        let node = |rank: i64| json!({"metadata": {"rank": rank}});
        let mut graph = json!({"graph": {"nodes": [node(-1), node(7), node(3), node(7)]}});
        assert_eq!(
            renumber(&mut graph, &"0-1".parse().unwrap()),
            [(3, 0), (7, 1)]
        );
        assert_eq!(
            graph["graph"]["nodes"],
            json!([node(-1), node(1), node(0), node(1)])
        );
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
