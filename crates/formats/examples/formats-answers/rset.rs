//! Answers on resource sets (RFC 20) and constraints (RFC 31, 35).

use formats::constraint::query::Syntax;
use formats::resource_set::{ResourceSetError, hwloc, verify};
use formats::{Constraint, Idset, ResourceSet};
use serde_json::{Value, json};

type Answer = Result<Value, String>;

/// Our answer, or `None` if the question is not one of ours.
pub(crate) fn answer(op: &str, input: &Value) -> Option<Answer> {
    Some(match op {
        "r.parse" => set(input).map(|r| all(&r)),
        "r.union" => two(input, |a, b| Ok(all(&a.union(&b)))),
        "r.diff" => two(input, |a, b| Ok(all(&a.difference(&b)))),
        "r.intersect" => two(input, |a, b| Ok(all(&a.intersection(&b)))),
        "r.append" => two(input, |mut a, b| {
            a.append(&b).map_err(|e| e.to_string())?;
            Ok(all(&a))
        }),
        "r.add" => two(input, |mut a, b| {
            a.merge(&b);
            Ok(all(&a))
        }),
        "r.copy_ranks" => change(input, |r, arg| Ok(r.on_ranks(&ids(arg)?))),
        "r.remove_ranks" => change(input, |mut r, arg| {
            r.remove_ranks(&ids(arg)?);
            Ok(r)
        }),
        "r.remap" => set(input).map(|r| all(&r.remap())),
        "r.rerank" => change(input, |r, arg| {
            let hosts = text(arg)?.parse().map_err(|e| format!("{e}"))?;
            r.rerank_by_hosts(&hosts).map_err(|e| e.to_string())
        }),
        "r.set_property" => change(input, |mut r, arg| {
            let (name, ranks) = (text(&arg[0])?, ids(&arg[1])?);
            r.set_property(name, &ranks).map_err(|e| e.to_string())?;
            Ok(r)
        }),
        "r.count" => set(&input["R"]).map(|r| json!(r.count(input["arg"].as_str().unwrap_or("")))),
        "r.verify" => verified(input),
        "r.from_config" => ResourceSet::from_config(input)
            .map(|r| all(&r))
            .map_err(|e| e.to_string()),
        "r.hwloc" => {
            let node =
                text(input).and_then(|xml| hwloc::Node::parse(xml).map_err(|e| e.to_string()));
            node.map(|node| all(&node.to_set(0, "host")))
        }
        "constraint.validate" => Constraint::from_value(input)
            .map(|_| json!(true))
            .map_err(|e| e.to_string()),
        "constraint.match" => change(input, |r, arg| {
            let constraint = Constraint::from_value(arg).map_err(|e| e.to_string())?;
            let matching = constraint.ranks_of(&r);
            let each =
                r.filter(|t| constraint.matches(&t.host, t.rank, &|p| r.has_property(t.rank, p)));
            assert_eq!(each.ranks(), matching, "two ways to match agree");
            Ok(r.on_ranks(&matching))
        }),
        "query.parse" => {
            text(input).and_then(|query| Syntax::requires().parse(query).map_err(|e| e.to_string()))
        }
        "query.message" => Ok(
            match Syntax::requires().parse(input.as_str().unwrap_or("")) {
                Ok(_) => Value::Null,
                Err(e) => json!(e.to_string()),
            },
        ),
        _ => return None,
    })
}

/// A set as R, in the short form and by its parts.
fn all(set: &ResourceSet) -> Value {
    json!({ "R": set, "short": set.to_string(), "ranks": set.ranks(), "cores": set.ncores() })
}

fn set(value: &Value) -> Result<ResourceSet, String> {
    let fault = |e: ResourceSetError| e.to_string();
    match value {
        Value::String(text) => text.parse().map_err(fault),
        value => ResourceSet::try_from(value).map_err(fault),
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| "a string is expected".to_owned())
}

fn ids(value: &Value) -> Result<Idset, String> {
    text(value)?.parse().map_err(|e| format!("{e}"))
}

fn two(input: &Value, op: impl Fn(ResourceSet, ResourceSet) -> Answer) -> Answer {
    op(set(&input["a"])?, set(&input["b"])?)
}

fn change(
    input: &Value,
    op: impl Fn(ResourceSet, &Value) -> Result<ResourceSet, String>,
) -> Answer {
    op(set(&input["R"])?, &input["arg"]).map(|r| all(&r))
}

fn verified(input: &Value) -> Answer {
    let config = match &input["config"] {
        Value::Null => verify::Config::default(),
        value => verify::Config::from_value(value).map_err(|e| e.to_string())?,
    };
    let (a, b) = (set(&input["a"])?, set(&input["b"])?);
    Ok(match verify::verify(&a, &b, &config) {
        Ok(None) => json!([0, ""]),
        Ok(Some(extra)) => json!([1, extra.to_string()]),
        Err(e) => json!([-1, e.to_string()]),
    })
}
