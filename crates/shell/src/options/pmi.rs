//! Options `pmi` and `pmi-simple`: whether and how tasks are served PMI-1.

use super::bad;
use crate::Fatal;
use serde_json::Value;

/// What is served under the name `simple`, which has two more.
const SIMPLE: [&str; 3] = ["simple", "pmi1", "pmi2"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PmiOptions {
    pub serve: bool,
    /// Serve PMIx.
    pub pmix: bool,
    /// Tell the tasks where all tasks run.
    pub map: bool,
}

/// Reads both options: by default PMI-1 is served. Kinds of PMI that are unknown are no error: they may be known elsewhere.
pub(super) fn read(pmi: Option<&Value>, simple: Option<&Value>) -> Result<PmiOptions, Fatal> {
    let (serve, pmix) = match pmi {
        None => (true, false),
        Some(Value::String(list)) => {
            let has = |kinds: &[&str]| list.split(',').any(|kind| kinds.contains(&kind));
            (has(&SIMPLE), has(&["pmix"]))
        }
        Some(other) => return Err(bad("pmi", other, "a list of kinds, such as \"simple\"")),
    };
    let nomap = |key| simple.and_then(|s| s.get(key));
    let map = match nomap("nomap") {
        None => true,
        Some(value) => {
            value
                .as_i64()
                .ok_or_else(|| bad("pmi-simple.nomap", value, "0 or 1"))?
                == 0
        }
    };
    exchange(nomap("exchange"))?;
    if let Some(kvs) = nomap("kvs").filter(|kvs| *kvs != "exchange") {
        return Err(bad("pmi-simple.kvs", kvs, "\"exchange\""));
    }
    Ok(PmiOptions { serve, pmix, map })
}

/// Shells exchange entries in one round through their leader: the fan-out of a tree is checked, and not needed.
fn exchange(option: Option<&Value>) -> Result<(), Fatal> {
    let Some(option) = option else { return Ok(()) };
    let fields = option
        .as_object()
        .ok_or_else(|| bad("pmi-simple.exchange", option, "an object"))?;
    for (key, value) in fields {
        let option = format!("pmi-simple.exchange.{key}");
        if key != "k" {
            return Err(Fatal::new(format!(
                "shell option {option} is unknown: there is k"
            )));
        }
        if value.as_u64().is_none_or(|k| k == 0) {
            return Err(bad(&option, value, "a positive number"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds() {
        for (list, serve, pmix) in [
            ("simple", true, false),
            ("x,pmi2", true, false),
            ("x", false, false),
            ("off", false, false),
            ("pmix", false, true),
            ("simple,pmix", true, true),
        ] {
            let pmi = read(Some(&json!(list)), None).unwrap();
            assert_eq!((pmi.serve, pmi.pmix), (serve, pmix), "{list}");
        }
        assert!(read(Some(&json!({"x": 1})), None).is_err());
    }

    #[test]
    fn simple() {
        let map = |option: Value| read(None, Some(&option)).map(|pmi| pmi.map).ok();
        assert_eq!(map(json!({})), Some(true));
        assert_eq!(map(json!({"nomap": 1, "exchange": {"k": 3}})), Some(false));
        for bad in [
            json!({"nomap": "foo"}),
            json!({"exchange": {"k": "foo"}}),
            json!({"exchange": {"k": 0}}),
            json!({"exchange": {"bad": 1}}),
            json!({"kvs": "unknown"}),
        ] {
            assert_eq!(map(bad.clone()), None, "{bad}");
        }
    }
}
