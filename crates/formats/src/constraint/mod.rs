//! Job constraints, RFC 31: a JSON expression over properties, hosts and ranks of a target.
//!
//! [`query`] reads the short syntax of RFC 35 into such an expression.

pub mod query;

use crate::{Hostlist, Idset, ResourceSet};
use serde_json::{Value, json};

/// A parsed constraint.
///
/// ```
/// use formats::{Constraint, ResourceSet};
/// use serde_json::json;
///
/// let set = ResourceSet::from_config(&json!([
///     {"hosts": "n[0-3]", "cores": "0"},
///     {"hosts": "n[2-3]", "gpus": "0", "properties": ["big"]},
/// ]))?;
/// let c = Constraint::from_value(&json!({"and": [{"properties": ["big"]}, {"hostlist": ["n[0-2]"]}]}))?;
/// assert_eq!(set.satisfying(&c).nodelist().to_string(), "n2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// Every listed property holds.
    Properties(Vec<Property>),
    /// The host is one of the list.
    Hosts(Hostlist),
    /// The rank is one of the set.
    Ranks(Idset),
    /// All of them hold.
    And(Vec<Constraint>),
    /// One of them holds.
    Or(Vec<Constraint>),
    /// Not all of the values hold.
    Not(Vec<Constraint>),
}

/// A required property, or one that must be absent (`^name`). A host has its own name as a
/// property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// The property.
    pub name: String,
    /// Whether it must not be there.
    pub absent: bool,
}

/// Why JSON is not a constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("constraint{place}: {message}")]
#[allow(missing_docs)] // their messages say it
pub struct ConstraintError {
    pub place: String,
    pub message: String,
}

fn error(place: &str, message: impl Into<String>) -> ConstraintError {
    ConstraintError {
        place: place.to_owned(),
        message: message.into(),
    }
}

impl Constraint {
    /// Reads a constraint object; faults name their place: `constraint.and[0].ranks[1]: ...`.
    pub fn from_value(value: &Value) -> Result<Constraint, ConstraintError> {
        parse(value, "")
    }

    /// Whether a target satisfies the constraint.
    pub fn matches(&self, host: &str, rank: u32, has_property: &dyn Fn(&str) -> bool) -> bool {
        let holds = |c: &Constraint| c.matches(host, rank, has_property);
        match self {
            Constraint::Properties(list) => list
                .iter()
                .all(|p| p.absent != (has_property(&p.name) || host == p.name)),
            Constraint::Hosts(list) => list.contains(host),
            Constraint::Ranks(ranks) => ranks.contains(rank),
            Constraint::And(list) => list.iter().all(holds),
            Constraint::Or(list) => list.is_empty() || list.iter().any(holds),
            Constraint::Not(list) => !list.iter().all(holds),
        }
    }

    /// The ranks of a set whose targets satisfy the constraint: what [`Constraint::matches`] says
    /// of each, by operations on sets of ranks.
    pub fn ranks_of(&self, set: &ResourceSet) -> Idset {
        let all = set.ranks();
        self.ranks_within(set, &all)
    }

    fn ranks_within(&self, set: &ResourceSet, all: &Idset) -> Idset {
        let of = |c: &Constraint| c.ranks_within(set, all);
        let each = |list: &[Constraint]| {
            let mut ranks = all.clone();
            for constraint in list.iter() {
                ranks = ranks.intersection(&of(constraint));
            }
            ranks
        };
        match self {
            Constraint::Properties(list) => list.iter().fold(all.clone(), |ranks, property| {
                let name = &property.name;
                let named = set.targets().iter().filter(|t| t.host == **name);
                let mut with: Idset = named.map(|t| t.rank).collect();
                if let Some(on) = set.properties.get(name) {
                    with = with.union(on);
                }
                match property.absent {
                    true => ranks.difference(&with),
                    false => ranks.intersection(&with),
                }
            }),
            Constraint::Hosts(list) => {
                let index = list.index();
                let named = set.targets().iter();
                let named = named.filter(|t| index.contains(&t.host));
                named.map(|t| t.rank).collect()
            }
            Constraint::Ranks(ranks) => ranks.intersection(all),
            Constraint::And(list) => each(list),
            Constraint::Or(list) if list.is_empty() => all.clone(),
            Constraint::Or(list) => list
                .iter()
                .fold(Idset::new(), |ranks, c| ranks.union(&of(c))),
            Constraint::Not(list) => all.difference(&each(list)),
        }
    }

    /// The constraint as a JSON object.
    pub fn to_value(&self) -> Value {
        let values = |list: &[Constraint]| list.iter().map(Constraint::to_value).collect::<Value>();
        match self {
            Constraint::Properties(list) => {
                let name = |p: &Property| format!("{}{}", if p.absent { "^" } else { "" }, p.name);
                json!({"properties": list.iter().map(name).collect::<Vec<_>>()})
            }
            Constraint::Hosts(list) => json!({"hostlist": [list]}),
            Constraint::Ranks(ranks) => json!({"ranks": [ranks]}),
            Constraint::And(list) => json!({"and": values(list)}),
            Constraint::Or(list) => json!({"or": values(list)}),
            Constraint::Not(list) => json!({"not": values(list)}),
        }
    }
}

fn parse(value: &Value, place: &str) -> Result<Constraint, ConstraintError> {
    let map = value
        .as_object()
        .ok_or_else(|| error(place, "must be a mapping"))?;
    let mut entries = map.iter();
    let Some((operator, values)) = entries.next() else {
        // The empty constraint matches everything, as an empty conjunction does.
        return Ok(Constraint::And(Vec::new()));
    };
    if entries.next().is_some() {
        return Err(error(
            place,
            "must hold one operator; join several with \"and\"",
        ));
    }
    let place = format!("{place}.{operator}");
    let known = ["properties", "hostlist", "ranks", "and", "or", "not"];
    if !known.contains(&operator.as_str()) {
        return Err(error(
            &place,
            format!(
                "unknown constraint operator: {operator}; use {}",
                known.join(", ")
            ),
        ));
    }
    let values = values
        .as_array()
        .ok_or_else(|| error(&place, "must be a list"))?;
    let at = |i: usize| format!("{place}[{i}]");
    let strings = || {
        values.iter().enumerate().map(|(i, value)| {
            value
                .as_str()
                .map(|text| (i, text))
                .ok_or_else(|| error(&at(i), "must be a string"))
        })
    };
    let nested = || -> Result<Vec<Constraint>, ConstraintError> {
        values
            .iter()
            .enumerate()
            .map(|(i, v)| parse(v, &at(i)))
            .collect()
    };
    Ok(match operator.as_str() {
        "properties" => {
            let mut list = Vec::new();
            for item in strings() {
                let (i, text) = item?;
                if let Some(c) = text.chars().find(|c| "!&'\"`|()".contains(*c)) {
                    let message = format!("invalid character '{c}' in property \"{text}\"");
                    return Err(error(&at(i), message));
                }
                let name = text.strip_prefix('^');
                list.push(Property {
                    absent: name.is_some(),
                    name: name.unwrap_or(text).to_owned(),
                });
            }
            Constraint::Properties(list)
        }
        "hostlist" => {
            let mut list = Hostlist::new();
            for item in strings() {
                let (i, text) = item?;
                list.append_str(text)
                    .map_err(|e| error(&at(i), e.to_string()))?;
            }
            Constraint::Hosts(list)
        }
        "ranks" => {
            let mut ranks = Idset::new();
            for item in strings() {
                let (i, text) = item?;
                let more: Idset = text
                    .parse()
                    .map_err(|e: crate::idset::IdsetError| error(&at(i), e.to_string()))?;
                ranks = ranks.union(&more);
            }
            Constraint::Ranks(ranks)
        }
        "and" => Constraint::And(nested()?),
        "or" => Constraint::Or(nested()?),
        _ => Constraint::Not(nested()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(constraint: Value) -> Vec<u32> {
        let c = Constraint::from_value(&constraint).unwrap();
        assert_eq!(Constraint::from_value(&c.to_value()).unwrap(), c);
        let properties = |rank: u32| match rank {
            0 => vec!["ssd"],
            1 => vec!["ssd", "huge"],
            _ => vec![],
        };
        let holds = |rank: &u32| {
            c.matches(&format!("host{rank}"), *rank, &|p| {
                properties(*rank).contains(&p)
            })
        };
        (0..4).filter(holds).collect()
    }

    #[test]
    fn expressions() {
        for (constraint, ranks) in [
            (json!({}), vec![0, 1, 2, 3]),
            (json!({"properties": ["ssd"]}), vec![0, 1]),
            (json!({"properties": ["ssd", "^huge"]}), vec![0]),
            (json!({"properties": ["host2"]}), vec![2]),
            (json!({"not": [{"properties": ["ssd"]}]}), vec![2, 3]),
            (
                json!({"not": [{"properties": ["ssd"]}, {"properties": ["huge"]}]}),
                vec![0, 2, 3],
            ),
            (
                json!({"or": [{"ranks": ["3"]}, {"properties": ["huge"]}]}),
                vec![1, 3],
            ),
            (
                json!({"and": [{"hostlist": ["host[0-2]"]}, {"ranks": ["1-3"]}]}),
                vec![1, 2],
            ),
            (json!({"or": []}), vec![0, 1, 2, 3]),
            (json!({"and": []}), vec![0, 1, 2, 3]),
            (json!({"not": []}), vec![]),
            (json!({"ranks": ["0", "2-3"]}), vec![0, 2, 3]),
        ] {
            assert_eq!(matching(constraint.clone()), ranks, "{constraint}");
        }
    }

    #[test]
    fn faults_name_their_place() {
        for (constraint, want) in [
            (json!([]), "constraint: must be a mapping"),
            (
                json!({"foo": []}),
                "constraint.foo: unknown constraint operator: foo; use properties, hostlist, ranks, and, or, not",
            ),
            (
                json!({"and": [{"ranks": ["x"]}]}),
                "constraint.and[0].ranks[0]: idset 'x': 'x' is not an id or a range such as 2-5",
            ),
            (
                json!({"properties": [1]}),
                "constraint.properties[0]: must be a string",
            ),
            (
                json!({"properties": ["a|b"]}),
                "constraint.properties[0]: invalid character '|' in property \"a|b\"",
            ),
            (json!({"or": 1}), "constraint.or: must be a list"),
        ] {
            assert_eq!(
                Constraint::from_value(&constraint).unwrap_err().to_string(),
                want
            );
        }
    }
}
