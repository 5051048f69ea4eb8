//! What may be wrong with an R, and where.
//!
//! Reading stops at a value of the wrong type without saying which one: [`explain`] looks for it
//! afterwards, so that only faulty input pays for good messages.

use crate::{Idset, hostlist::HostlistError, idset::IdsetError};
use serde_json::Value;

/// The most targets a set may have: a guard against `"rank": "0-4000000000"`.
pub(super) const MAX_TARGETS: usize = 1 << 20;

/// Why JSON is not an R, and where: `R.execution.R_lite[0].rank: ...`.
#[derive(Debug, thiserror::Error)]
#[error("R{place}: {fault}")]
#[allow(missing_docs)] // their messages say it
pub struct ResourceSetError {
    /// A path such as `.execution.nslots`; empty for the whole.
    pub place: String,
    pub fault: Fault,
}

/// What is wrong at a place of an R.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum Fault {
    #[error("{0}")]
    Json(serde_json::Error),
    #[error("is required")]
    Missing,
    #[error("must be {expected}, found {found}")]
    Type {
        expected: &'static str,
        found: &'static str,
    },
    #[error("version {0} is not supported; version 1 is")]
    Version(i64),
    #[error("{0}")]
    Idset(#[from] IdsetError),
    #[error("{0}")]
    Hostlist(#[from] HostlistError),
    #[error("rank {rank} has {kind} {ids} in an earlier entry too")]
    Overlap { rank: u32, kind: String, ids: Idset },
    #[error("there are more than {MAX_TARGETS} targets")]
    TooMany,
    #[error("names {hosts} hosts for {ranks} ranks")]
    HostCount { hosts: usize, ranks: usize },
    #[error("the names of the hosts are too long")]
    HostNames,
    #[error("character {0:?} is not allowed in the name of a property")]
    PropertyName(char),
    #[error("ranks {0} are not in the set")]
    UnknownRanks(Idset),
}

pub(super) fn fault(place: impl Into<String>, fault: impl Into<Fault>) -> ResourceSetError {
    ResourceSetError {
        place: place.into(),
        fault: fault.into(),
    }
}

pub(super) fn entry_place(i: usize) -> String {
    format!(".execution.R_lite[{i}]")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The place of the value whose type does not fit; `error` if none is found.
pub(super) fn explain(r: &Value, error: serde_json::Error) -> ResourceSetError {
    wrong_type(r)
        .err()
        .unwrap_or_else(|| fault("", Fault::Json(error)))
}

fn wrong_type(r: &Value) -> Result<(), ResourceSetError> {
    type Check = fn(&Value) -> bool;
    const OBJECT: (&str, Check) = ("an object", Value::is_object);
    const ARRAY: (&str, Check) = ("an array", Value::is_array);
    const STRING: (&str, Check) = ("a string", Value::is_string);
    const INTEGER: (&str, Check) = ("an integer", Value::is_i64);
    const NUMBER: (&str, Check) = ("a number", Value::is_number);

    fn check(
        value: &Value,
        place: &str,
        (expected, fits): (&'static str, Check),
    ) -> Result<(), ResourceSetError> {
        let found = kind(value);
        match fits(value) {
            true => Ok(()),
            false => Err(fault(place, Fault::Type { expected, found })),
        }
    }
    fn member<'a>(
        value: &'a Value,
        place: &str,
        key: &str,
        required: bool,
        want: (&'static str, Check),
    ) -> Result<Option<&'a Value>, ResourceSetError> {
        let place = format!("{place}.{key}");
        match value.get(key) {
            Some(member) => check(member, &place, want).map(|()| Some(member)),
            None if required => Err(fault(place, Fault::Missing)),
            None => Ok(None),
        }
    }
    fn members(value: &Value, place: &str) -> Result<(), ResourceSetError> {
        let mut members = value.as_object().into_iter().flatten();
        members.try_for_each(|(key, member)| check(member, &format!("{place}.{key}"), STRING))
    }

    check(r, "", OBJECT)?;
    member(r, "", "version", true, INTEGER)?;
    let Some(exec) = member(r, "", "execution", true, OBJECT)? else {
        return Ok(());
    };
    let place = ".execution";
    let entries = member(exec, place, "R_lite", true, ARRAY)?;
    for (i, entry) in entries
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
    {
        let place = entry_place(i);
        check(entry, &place, OBJECT)?;
        member(entry, &place, "rank", true, STRING)?;
        if let Some(children) = member(entry, &place, "children", true, OBJECT)? {
            members(children, &format!("{place}.children"))?;
        }
    }
    let nodelist = member(exec, place, "nodelist", false, ARRAY)?;
    for (i, hosts) in nodelist
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
    {
        check(hosts, &format!(".execution.nodelist[{i}]"), STRING)?;
    }
    if let Some(properties) = member(exec, place, "properties", false, OBJECT)? {
        members(properties, ".execution.properties")?;
    }
    member(exec, place, "nslots", false, INTEGER)?;
    member(exec, place, "starttime", false, NUMBER)?;
    member(exec, place, "expiration", false, NUMBER)?;
    Ok(())
}
