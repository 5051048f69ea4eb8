//! Reading R. One pass over the text into borrowed strings; equal id sets are parsed once.
//!
//! What upstream takes is taken: an absent `nodelist`, a rank in several entries as long as they
//! have nothing in common, times and slots that are not positive (unset). Whatever is refused is
//! refused with its place.

use super::fault::{Fault, MAX_TARGETS, ResourceSetError, entry_place, explain, fault};
use super::{Children, HostName, ResourceSet, Target, property_fault};
use crate::{Hostlist, Idset, idset::IdsetError};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
};

#[derive(Deserialize)]
struct RawR<'a> {
    version: i64,
    #[serde(borrow)]
    execution: RawExecution<'a>,
    scheduling: Option<Value>,
}

#[derive(Deserialize)]
struct RawExecution<'a> {
    #[serde(borrow, rename = "R_lite")]
    r_lite: Vec<RawEntry<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    nodelist: Option<Vec<Text<'a>>>,
    #[serde(default, deserialize_with = "present")]
    nslots: Option<i64>,
    #[serde(borrow, default, deserialize_with = "present")]
    properties: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(default)]
    starttime: f64,
    #[serde(default)]
    expiration: f64,
}

#[derive(Deserialize)]
struct RawEntry<'a> {
    #[serde(borrow)]
    rank: Text<'a>,
    #[serde(borrow)]
    children: RawChildren<'a>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The types of an entry with their ids. The usual ones need no allocation.
#[derive(Default, PartialEq, Eq, Hash)]
struct RawChildren<'a> {
    core: Option<Text<'a>>,
    gpu: Option<Text<'a>>,
    other: Vec<(Text<'a>, Text<'a>)>,
}

/// `null` is not the same as absent.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

impl<'de: 'a, 'a> Deserialize<'de> for RawChildren<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<RawChildren<'a>, D::Error> {
        struct Types;

        impl<'de> Visitor<'de> for Types {
            type Value = RawChildren<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of id sets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut types = RawChildren::default();
                while let Some(kind) = map.next_key::<Text>()? {
                    let ids = map.next_value()?;
                    match &*kind.0 {
                        "core" => types.core = Some(ids),
                        "gpu" => types.gpu = Some(ids),
                        _ => types.other.push((kind, ids)),
                    }
                }
                Ok(types)
            }
        }

        d.deserialize_map(Types)
    }
}

fn children(raw: &RawChildren, i: usize) -> Result<Children, ResourceSetError> {
    let ids = |kind: &str, text: &str| -> Result<Idset, ResourceSetError> {
        let place = || format!("{}.children.{kind}", entry_place(i));
        text.parse().map_err(|e: IdsetError| fault(place(), e))
    };
    let usual = |kind: &str, text: &Option<Text>| match text {
        Some(Text(text)) => ids(kind, text),
        None => Ok(Idset::new()),
    };
    let mut children = Children {
        cores: usual("core", &raw.core)?,
        gpus: usual("gpu", &raw.gpu)?,
        other: BTreeMap::new(),
    };
    for (Text(kind), Text(text)) in &raw.other {
        let ids = ids(kind, text)?;
        if !ids.is_empty() {
            children.other.insert(kind.to_string(), ids);
        }
    }
    Ok(children)
}

/// What the entries say, as targets without hosts, ascending; some may be empty.
fn targets(entries: &[RawEntry]) -> Result<Vec<Target>, ResourceSetError> {
    let mut known: HashMap<&RawChildren, Arc<Children>> = HashMap::new();
    let mut targets: Vec<(u32, usize, Arc<Children>)> = Vec::new();
    let mut ascending = true;
    for (i, entry) in entries.iter().enumerate() {
        let place = || format!("{}.rank", entry_place(i));
        let ranks: Idset = entry
            .rank
            .0
            .parse()
            .map_err(|e: IdsetError| fault(place(), e))?;
        if targets.len() + ranks.len() > MAX_TARGETS {
            return Err(fault(place(), Fault::TooMany));
        }
        let like_last = targets.last().filter(|(_, last, _)| {
            // Neighbours are often alike: compare before hashing.
            *last + 1 == i && entries[*last].children == entry.children
        });
        let children = match like_last
            .map(|(.., c)| c)
            .or_else(|| known.get(&entry.children))
        {
            Some(children) => children.clone(),
            None => {
                let children = Arc::new(children(&entry.children, i)?);
                known.insert(&entry.children, children.clone());
                children
            }
        };
        if let (Some((last, ..)), Some(first)) = (targets.last(), ranks.first()) {
            ascending &= *last < first;
        }
        targets.extend(ranks.iter().map(|rank| (rank, i, children.clone())));
    }
    if !ascending {
        targets.sort_by_key(|(rank, ..)| *rank);
    }
    let same_rank = targets.chunk_by(|(a, ..), (b, ..)| a == b);
    same_rank
        .map(|parts| {
            let (rank, host) = (parts[0].0, HostName::default());
            let children = match parts {
                [(_, _, children)] => children.clone(),
                parts => Arc::new(joined(rank, parts)?),
            };
            Ok(Target {
                rank,
                host,
                children,
            })
        })
        .collect()
}

/// What several entries give one rank. Halves are joined, so that the cost of `n` entries is
/// that of `log n` merges.
fn joined(rank: u32, parts: &[(u32, usize, Arc<Children>)]) -> Result<Children, ResourceSetError> {
    if let [(_, _, children)] = parts {
        return Ok(Children::clone(children));
    }
    let (first, second) = parts.split_at(parts.len() / 2);
    let (a, b) = (joined(rank, first)?, joined(rank, second)?);
    let both = a.intersection(&b);
    if let Some((kind, ids)) = both.iter().next() {
        // The entry to blame is the first whose ids an earlier one has.
        let clash = second
            .iter()
            .find(|(.., c)| !c.intersection(&both).is_empty());
        let (_, i, _) = clash.unwrap_or(&second[0]);
        let (kind, ids) = (kind.to_owned(), ids.clone());
        return Err(fault(
            format!("{}.children.{kind}", entry_place(*i)),
            Fault::Overlap { rank, kind, ids },
        ));
    }
    Ok(a.union(&b))
}

fn assign_hosts(targets: &mut [Target], nodelist: &[Text]) -> Result<(), ResourceSetError> {
    let mut hosts = Hostlist::new();
    for (i, Text(part)) in nodelist.iter().enumerate() {
        let part = part.parse::<Hostlist>();
        hosts.append(&part.map_err(|e| fault(format!(".execution.nodelist[{i}]"), e))?);
    }
    let place = ".execution.nodelist";
    let (hosts_n, ranks) = (hosts.len(), targets.len());
    if hosts_n != ranks {
        let hosts = hosts_n;
        return Err(fault(place, Fault::HostCount { hosts, ranks }));
    }
    let names = HostName::all(&hosts).ok_or_else(|| fault(place, Fault::HostNames))?;
    for (target, host) in targets.iter_mut().zip(names) {
        target.host = host;
    }
    Ok(())
}

impl TryFrom<RawR<'_>> for ResourceSet {
    type Error = ResourceSetError;

    fn try_from(raw: RawR) -> Result<ResourceSet, ResourceSetError> {
        if raw.version != 1 {
            return Err(fault(".version", Fault::Version(raw.version)));
        }
        let exec = raw.execution;
        let mut targets = targets(&exec.r_lite)?;
        if let Some(nodelist) = &exec.nodelist {
            assign_hosts(&mut targets, nodelist)?;
        }
        let mut properties = BTreeMap::new();
        if let Some(raw) = &exec.properties {
            let ranks: Idset = targets.iter().map(|t| t.rank).collect();
            for (Text(property), Text(on)) in raw {
                let at = |f: Fault| fault(format!(".execution.properties.{property}"), f);
                if let Some(c) = property_fault(property) {
                    return Err(at(Fault::PropertyName(c)));
                }
                let on: Idset = on.parse().map_err(|e: IdsetError| at(e.into()))?;
                let unknown = on.difference(&ranks);
                if !unknown.is_empty() {
                    return Err(at(Fault::UnknownRanks(unknown)));
                }
                if !on.is_empty() {
                    properties.insert(property.to_string(), on);
                }
            }
        }
        let all = targets.len();
        targets.retain(|target| !target.children.is_empty());
        let mut set = ResourceSet {
            starttime: exec.starttime.max(0.),
            expiration: exec.expiration.max(0.),
            nslots: exec
                .nslots
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0),
            properties,
            scheduling: raw.scheduling.map(Arc::new),
            targets,
        };
        if set.targets.len() < all {
            set.trim_properties();
        }
        Ok(set)
    }
}

impl FromStr for ResourceSet {
    type Err = ResourceSetError;

    fn from_str(text: &str) -> Result<ResourceSet, ResourceSetError> {
        serde_json::from_str::<RawR>(text)
            .map_err(|e| match serde_json::from_str::<Value>(text) {
                Ok(value) => explain(&value, e),
                Err(_) => fault("", Fault::Json(e)),
            })?
            .try_into()
    }
}

impl TryFrom<&Value> for ResourceSet {
    type Error = ResourceSetError;

    fn try_from(value: &Value) -> Result<ResourceSet, ResourceSetError> {
        RawR::deserialize(value)
            .map_err(|e| explain(value, e))?
            .try_into()
    }
}

impl TryFrom<Value> for ResourceSet {
    type Error = ResourceSetError;

    fn try_from(value: Value) -> Result<ResourceSet, ResourceSetError> {
        ResourceSet::try_from(&value)
    }
}

impl<'de> Deserialize<'de> for ResourceSet {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<ResourceSet, D::Error> {
        RawR::deserialize(d)?
            .try_into()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn r() -> Value {
        json!({"version": 1, "execution": {"R_lite": [
            {"rank": "19-20", "children": {"core": "0-47", "gpu": "0-7"}},
            {"rank": "21,23", "children": {"core": "0-3"}}],
            "starttime": 1676560554.0, "expiration": 1676562354.0, "nslots": 32,
            "nodelist": ["node[186-188]", "node190"], "properties": {"ssd": "19,23"}},
            "scheduling": {"graph": [1]}})
    }

    fn fails(change: impl Fn(&mut Value)) -> String {
        let mut value = r();
        change(&mut value);
        let from_value = ResourceSet::try_from(&value).unwrap_err().to_string();
        let from_text = value.to_string().parse::<ResourceSet>().unwrap_err();
        assert_eq!(from_value, from_text.to_string());
        from_value
    }

    /// A pointer into R, what to put there, and the complaint.
    #[test]
    fn faults_name_their_place() {
        let table = [
            (
                "/version",
                json!(2),
                "R.version: version 2 is not supported; version 1 is",
            ),
            (
                "/version",
                json!("1"),
                "R.version: must be an integer, found a string",
            ),
            (
                "/execution",
                json!([]),
                "R.execution: must be an object, found an array",
            ),
            (
                "/execution/R_lite",
                json!({}),
                "R.execution.R_lite: must be an array, found an object",
            ),
            (
                "/execution/R_lite/1",
                json!(3),
                "R.execution.R_lite[1]: must be an object, found an integer",
            ),
            (
                "/execution/R_lite/0",
                json!({"rank": "0"}),
                "R.execution.R_lite[0].children: is required",
            ),
            (
                "/execution/R_lite/0/rank",
                json!(19),
                "R.execution.R_lite[0].rank: must be a string, found an integer",
            ),
            (
                "/execution/R_lite/0/rank",
                json!("20-19"),
                "R.execution.R_lite[0].rank: idset '20-19': '20-19' is not an id or a range such as 2-5",
            ),
            (
                "/execution/R_lite/0/rank",
                json!("0-4000000000"),
                "R.execution.R_lite[0].rank: there are more than 1048576 targets",
            ),
            (
                "/execution/R_lite/0/children/gpu",
                json!("x"),
                "R.execution.R_lite[0].children.gpu: idset 'x': 'x' is not an id or a range such as 2-5",
            ),
            (
                "/execution/R_lite/1/children/core",
                json!(true),
                "R.execution.R_lite[1].children.core: must be a string, found a boolean",
            ),
            (
                "/execution/R_lite/1/rank",
                json!("20,22"),
                "R.execution.R_lite[1].children.core: rank 20 has core 0-3 in an earlier entry too",
            ),
            (
                "/execution/nodelist",
                json!("node[186-189]"),
                "R.execution.nodelist: must be an array, found a string",
            ),
            (
                "/execution/nodelist",
                json!(null),
                "R.execution.nodelist: must be an array, found null",
            ),
            (
                "/execution/nodelist/1",
                json!(7),
                "R.execution.nodelist[1]: must be a string, found an integer",
            ),
            (
                "/execution/nodelist/1",
                json!("node[190-191]"),
                "R.execution.nodelist: names 5 hosts for 4 ranks",
            ),
            (
                "/execution/nodelist",
                json!([]),
                "R.execution.nodelist: names 0 hosts for 4 ranks",
            ),
            (
                "/execution/nslots",
                json!(1.5),
                "R.execution.nslots: must be an integer, found a number",
            ),
            (
                "/execution/expiration",
                json!("never"),
                "R.execution.expiration: must be a number, found a string",
            ),
            (
                "/execution/properties",
                json!({"ssd": "22"}),
                "R.execution.properties.ssd: ranks 22 are not in the set",
            ),
            (
                "/execution/properties",
                json!({"a|b": "19"}),
                "R.execution.properties.a|b: character '|' is not allowed in the name of a property",
            ),
            (
                "/execution/properties",
                json!({"a": 19}),
                "R.execution.properties.a: must be a string, found an integer",
            ),
        ];
        for (pointer, value, want) in table {
            let place = |r: &mut Value| *r.pointer_mut(pointer).unwrap() = value.clone();
            assert_eq!(fails(place), want, "{pointer}");
        }
        assert!(
            "{".parse::<ResourceSet>()
                .unwrap_err()
                .to_string()
                .starts_with("R: EOF")
        );
    }

    #[test]
    fn what_is_tolerated() {
        let read = |text: &str| text.parse::<ResourceSet>().unwrap();
        // No hosts, entries in any order, a rank in two of them, other types, an empty target.
        let set = read(
            r#"{"version":1,"more":0,"execution":{"R_lite":[
            {"rank":"7","children":{"core":"4-7","disk":"0"}},
            {"rank":"2,7","children":{"core":"0-3"}},
            {"rank":"3","children":{"core":""}}],"nslots":0,"starttime":-1,"properties":{"x":"","y":"3,7"}}}"#,
        );
        assert_eq!(set.to_string(), "rank2/core[0-3] rank7/core[0-7],disk0");
        assert_eq!((set.nslots, set.starttime), (None, 0.));
        assert_eq!(set.count("disk"), 1);
        assert_eq!(set.properties.len(), 1);
        assert_eq!(set.properties["y"].to_string(), "7");
        assert!(read(r#"{"version":1,"execution":{"R_lite":[],"nodelist":[]}}"#).is_empty());
    }

    #[test]
    fn hosts_go_to_ranks_in_their_order() {
        let set = r().to_string().parse::<ResourceSet>().unwrap();
        assert_eq!(set.get(23).unwrap().host, "node190");
        assert_eq!(set.nodelist().to_string(), "node[186-188,190]");
        assert!(Arc::ptr_eq(
            &set.targets()[0].children,
            &set.targets()[1].children
        ));
    }

    #[test]
    fn many_entries_for_one_rank_are_read_in_no_time() {
        let entry = |n: u32| json!({"rank": "0", "children": {"core": (2 * n).to_string()}});
        let entries: Vec<Value> = (0..20_000).map(entry).collect();
        let r = json!({"version": 1, "execution": {"R_lite": entries}});
        assert_eq!(ResourceSet::try_from(r).unwrap().ncores(), 20_000);
    }
}
