//! The TreePool scheduler's topology in an R's `scheduling` key: RFC 49.
//!
//! For ranks of the same build it says how cores, gpus and memory of a node lie together: trees
//! of locality domains such as `socket` and `numa`. Ranks follow those of R: they are trimmed
//! when a part is allocated and counted from 0 when an instance starts on that part.

use crate::{Idset, idset::IdsetError};
use serde_json::{Map, Value, json};

/// The value of `scheduling.writer`.
pub const WRITER: &str = "TreePool";

/// Node topologies by ranks.
///
/// ```
/// use formats::resource_set::treepool::TreePool;
/// use serde_json::json;
///
/// let value = json!({"writer": "TreePool", "children": [
///     {"ranks": "0-3", "topo": {"numa": [{"cores": "0-3", "gpus": "0"}, {"cores": "4-7"}]}},
/// ]});
/// let pool = TreePool::from_scheduling(&value)?.expect("TreePool wrote this");
/// assert_eq!(pool.topo(2).expect("rank 2 is described").domains("numa").count(), 2);
/// let part = pool.on_ranks(&"1-2".parse()?).normalized(&"1-2".parse()?);
/// assert_eq!(part.to_scheduling()["children"][0]["ranks"], "0-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TreePool {
    /// Groups of ranks of one build.
    pub children: Vec<Group>,
    /// Members of `scheduling` that are not defined.
    pub extra: Map<String, Value>,
}

/// Ranks whose nodes are built alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Ranks of that build.
    pub ranks: Idset,
    /// How their resources lie.
    pub topo: Domain,
}

/// A locality domain: what is local to it and the domains in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Domain {
    /// Cores of the domain itself.
    pub cores: Option<Idset>,
    /// Gpus of the domain itself.
    pub gpus: Option<Idset>,
    /// GiB.
    pub memory: Option<u64>,
    /// Local storage.
    pub storage: Vec<Storage>,
    /// Domains by the name of their kind, in the order of the text.
    pub inner: Vec<(String, Vec<Domain>)>,
}

/// Storage of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// Mount point or another name.
    pub path: String,
    /// In `unit`s.
    pub capacity: f64,
    /// `GiB` if absent.
    pub unit: Option<String>,
}

/// Why scheduler data is not a TreePool topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("R.scheduling{place}: {message}")]
#[allow(missing_docs)] // their messages say it
pub struct TreePoolError {
    pub place: String,
    pub message: String,
}

fn error(place: &str, message: impl ToString) -> TreePoolError {
    TreePoolError {
        place: place.to_owned(),
        message: message.to_string(),
    }
}

fn text<'a>(value: &'a Value, place: &str) -> Result<&'a str, TreePoolError> {
    value
        .as_str()
        .ok_or_else(|| error(place, "must be a string"))
}

fn ids(value: &Value, place: &str) -> Result<Idset, TreePoolError> {
    let text = text(value, place)?;
    text.parse().map_err(|e: IdsetError| error(place, e))
}

fn list<'a>(value: &'a Value, place: &str) -> Result<&'a Vec<Value>, TreePoolError> {
    value
        .as_array()
        .ok_or_else(|| error(place, "must be an array"))
}

fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>, TreePoolError> {
    value
        .as_object()
        .ok_or_else(|| error(place, "must be an object"))
}

fn required<'a>(
    map: &'a Map<String, Value>,
    key: &str,
    place: &str,
) -> Result<&'a Value, TreePoolError> {
    map.get(key)
        .ok_or_else(|| error(&format!("{place}.{key}"), "is required"))
}

impl TreePool {
    /// The topology in the value of `scheduling`; `None` if another writer wrote that.
    pub fn from_scheduling(scheduling: &Value) -> Result<Option<TreePool>, TreePoolError> {
        if scheduling.get("writer").and_then(Value::as_str) != Some(WRITER) {
            return Ok(None);
        }
        let mut pool = TreePool::default();
        for (key, value) in object(scheduling, "")? {
            match key.as_str() {
                "writer" => {}
                "children" => {
                    for (i, group) in list(value, ".children")?.iter().enumerate() {
                        pool.children
                            .push(Group::parse(group, &format!(".children[{i}]"))?);
                    }
                }
                _ => drop(pool.extra.insert(key.clone(), value.clone())),
            }
        }
        Ok(Some(pool))
    }

    /// The value of `scheduling` that holds the topology.
    pub fn to_scheduling(&self) -> Value {
        let mut map = Map::from_iter([("writer".to_owned(), json!(WRITER))]);
        if !self.children.is_empty() {
            let groups = self.children.iter();
            let group = |g: &Group| json!({"ranks": g.ranks, "topo": g.topo.to_value()});
            map.insert("children".into(), groups.map(group).collect());
        }
        map.extend(self.extra.clone());
        map.into()
    }

    /// The topology of a rank's node.
    pub fn topo(&self, rank: u32) -> Option<&Domain> {
        let mut groups = self.children.iter();
        groups.find(|g| g.ranks.contains(rank)).map(|g| &g.topo)
    }

    fn map_ranks(&self, new: impl Fn(&Idset) -> Idset) -> TreePool {
        let groups = self.children.iter().map(|g| Group {
            ranks: new(&g.ranks),
            topo: g.topo.clone(),
        });
        TreePool {
            children: groups.filter(|g| !g.ranks.is_empty()).collect(),
            extra: self.extra.clone(),
        }
    }

    /// The part for an allocation of these ranks.
    pub fn on_ranks(&self, ranks: &Idset) -> TreePool {
        self.map_ranks(|mine| mine.intersection(ranks))
    }

    /// The part for an instance that runs on `ranks` of this one: each of them becomes its place
    /// in their order, from 0.
    pub fn normalized(&self, ranks: &Idset) -> TreePool {
        self.map_ranks(|mine| {
            let mine = mine.intersection(ranks);
            mine.iter().map(|rank| ranks.rank_of(rank) as u32).collect()
        })
    }
}

impl Group {
    fn parse(value: &Value, place: &str) -> Result<Group, TreePoolError> {
        let map = object(value, place)?;
        if let Some(key) = map
            .keys()
            .find(|k| !["ranks", "topo"].contains(&k.as_str()))
        {
            return Err(error(
                &format!("{place}.{key}"),
                "only ranks and topo are allowed",
            ));
        }
        let topo = required(map, "topo", place)?;
        Ok(Group {
            ranks: ids(required(map, "ranks", place)?, &format!("{place}.ranks"))?,
            topo: Domain::parse(topo, &format!("{place}.topo"))?,
        })
    }
}

impl Domain {
    fn parse(value: &Value, place: &str) -> Result<Domain, TreePoolError> {
        let mut domain = Domain::default();
        for (key, value) in object(value, place)? {
            let place = format!("{place}.{key}");
            match key.as_str() {
                "cores" => domain.cores = Some(ids(value, &place)?),
                "gpus" => domain.gpus = Some(ids(value, &place)?),
                "memory" => {
                    let memory = value.as_u64();
                    let fault = || error(&place, "must be an integer of GiB");
                    domain.memory = Some(memory.ok_or_else(fault)?);
                }
                "storage" => {
                    for (i, storage) in list(value, &place)?.iter().enumerate() {
                        domain
                            .storage
                            .push(Storage::parse(storage, &format!("{place}[{i}]"))?);
                    }
                }
                _ => {
                    let inner = list(value, &place)?.iter().enumerate();
                    let inner = inner.map(|(i, v)| Domain::parse(v, &format!("{place}[{i}]")));
                    let inner = inner.collect::<Result<_, _>>()?;
                    domain.inner.push((key.clone(), inner));
                }
            }
        }
        Ok(domain)
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        put("cores", self.cores.as_ref().map(|ids| json!(ids)));
        put("gpus", self.gpus.as_ref().map(|ids| json!(ids)));
        put("memory", self.memory.map(Value::from));
        let storage = self.storage.iter().map(Storage::to_value);
        put(
            "storage",
            (!self.storage.is_empty()).then(|| storage.collect()),
        );
        for (kind, domains) in &self.inner {
            put(kind, Some(domains.iter().map(Domain::to_value).collect()));
        }
        map.into()
    }

    /// The domains of a kind at any depth, in the order of the text.
    pub fn domains<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Domain> {
        let mut found = Vec::new();
        self.collect(kind, &mut found);
        found.into_iter()
    }

    fn collect<'a>(&'a self, kind: &str, found: &mut Vec<&'a Domain>) {
        for (name, domains) in &self.inner {
            for domain in domains {
                if name == kind {
                    found.push(domain);
                }
                domain.collect(kind, found);
            }
        }
    }

    /// Ids of all cores in the domain, at any depth.
    pub fn all_cores(&self) -> Idset {
        self.all(&|d| d.cores.as_ref())
    }

    /// Ids of all gpus in the domain, at any depth.
    pub fn all_gpus(&self) -> Idset {
        self.all(&|d| d.gpus.as_ref())
    }

    fn all(&self, of: &dyn Fn(&Domain) -> Option<&Idset>) -> Idset {
        let own = of(self).cloned().unwrap_or_default();
        let inner = self.inner.iter().flat_map(|(_, domains)| domains);
        inner.fold(own, |ids, domain| ids.union(&domain.all(of)))
    }
}

impl Storage {
    fn parse(value: &Value, place: &str) -> Result<Storage, TreePoolError> {
        let map = object(value, place)?;
        let at = |key: &str| format!("{place}.{key}");
        let capacity = required(map, "capacity", place)?.as_f64();
        let unit = map.get("unit").map(|unit| text(unit, &at("unit")));
        Ok(Storage {
            path: text(required(map, "path", place)?, &at("path"))?.to_owned(),
            capacity: capacity.ok_or_else(|| error(&at("capacity"), "must be a number"))?,
            unit: unit.transpose()?.map(str::to_owned),
        })
    }

    fn to_value(&self) -> Value {
        // Whole numbers are written as such.
        let capacity = match self.capacity {
            c if c.fract() == 0. && c.abs() < 1e15 => json!(c as i64),
            c => json!(c),
        };
        let mut value = json!({"path": self.path, "capacity": capacity});
        if let Some(unit) = &self.unit {
            value["unit"] = json!(unit);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 49's cluster A.
    fn cluster() -> Value {
        let numa = |c: &str, g: &str| json!({"cores": c, "gpus": g});
        json!({"writer": "TreePool", "children": [{"ranks": "0-15", "topo": {
        "storage": [{"path": "/mnt/nvme", "capacity": 2, "unit": "TiB"}],
        "socket": [
            {"numa": [numa("0-14", "0"), numa("15-29", "1"), numa("30-44", "2"), numa("45-59", "3")]},
            {"numa": [numa("60-74", "4"), numa("75-89", "5"), numa("90-104", "6"), numa("105-119", "7")]},
        ]}}]})
    }

    #[test]
    fn the_cluster_of_the_rfc() {
        let pool = TreePool::from_scheduling(&cluster()).unwrap().unwrap();
        assert_eq!(pool.to_scheduling(), cluster());
        let topo = pool.topo(15).unwrap();
        assert_eq!(
            (topo.domains("socket").count(), topo.domains("numa").count()),
            (2, 8)
        );
        assert_eq!(
            (topo.all_cores().to_string(), topo.all_gpus().to_string()),
            ("0-119".into(), "0-7".into())
        );
        assert!(pool.topo(16).is_none());
        let part: Idset = "3,7-8,20".parse().unwrap();
        assert_eq!(pool.on_ranks(&part).children[0].ranks.to_string(), "3,7-8");
        assert_eq!(pool.normalized(&part).children[0].ranks.to_string(), "0-2");
        assert!(pool.on_ranks(&Idset::from(16)).children.is_empty());
        assert_eq!(TreePool::from_scheduling(&json!({"graph": {}})), Ok(None));
    }

    #[test]
    fn faults_name_their_place() {
        let fails = |children: Value| {
            let value = json!({"writer": "TreePool", "children": children});
            TreePool::from_scheduling(&value).unwrap_err().to_string()
        };
        insta::assert_snapshot!([
            json!({}),
            json!([{"topo": {}}]),
            json!([{"ranks": "0", "topo": {}, "x": 1}]),
            json!([{"ranks": "1-0", "topo": {}}]),
            json!([{"ranks": "0", "topo": {"socket": [{}, {"numa": [{"cores": 1}]}]}}]),
            json!([{"ranks": "0", "topo": {"memory": "1"}}]),
            json!([{"ranks": "0", "topo": {"storage": [{"path": "/"}]}}]),
        ].map(fails).join("\n"), @r"
        R.scheduling.children: must be an array
        R.scheduling.children[0].ranks: is required
        R.scheduling.children[0].x: only ranks and topo are allowed
        R.scheduling.children[0].ranks: idset '1-0': '1-0' is not an id or a range such as 2-5
        R.scheduling.children[0].topo.socket[1].numa[0].cores: must be a string
        R.scheduling.children[0].topo.memory: must be an integer of GiB
        R.scheduling.children[0].topo.storage[0].capacity: is required
        ");
    }
}
