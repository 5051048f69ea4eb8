//! hwloc's XML: one node with what is in it, below a cluster.

use super::ReadError;
use crate::graph::{Builder, NewVertex, Word};
use quick_xml::{Reader, events::BytesStart, events::Event};
use rustc_hash::FxHashMap;

/// How deep objects may be.
const DEPTH: usize = 256;

/// An object that is open.
#[derive(Debug, Default)]
pub(super) struct Object {
    /// The id it has in R.
    pub(super) id: Option<i64>,
    kind: String,
    cpuset: String,
    name: String,
    device: String,
    infos: FxHashMap<String, String>,
    cache: i64,
    pub(super) children: Vec<Object>,
}

fn xml(at: u64, message: impl ToString) -> ReadError {
    ReadError::Xml {
        at,
        message: message.to_string(),
    }
}

fn attribute(tag: &BytesStart, name: &str, at: u64) -> Result<String, ReadError> {
    let found = tag.try_get_attribute(name).map_err(|e| xml(at, e))?;
    let value = found.map(|a| a.unescape_value().map(|v| v.into_owned()));
    Ok(value
        .transpose()
        .map_err(|e| xml(at, e))?
        .unwrap_or_default())
}

/// What is outside of all objects; in it, the machine.
pub(super) fn parse(text: &str) -> Result<Object, ReadError> {
    let mut reader = Reader::from_str(text);
    let mut open = vec![Object::default()];
    loop {
        let at = reader.buffer_position();
        let event = reader.read_event().map_err(|e| xml(at, e))?;
        let (tag, empty) = match &event {
            Event::Start(tag) => (tag, false),
            Event::Empty(tag) => (tag, true),
            Event::End(tag) if tag.name().as_ref() == b"object" => {
                close(&mut open);
                continue;
            }
            Event::Eof => break,
            _ => continue,
        };
        match tag.name().as_ref() {
            b"object" if open.len() > DEPTH => return Err(xml(at, "objects are nested too deep")),
            b"object" => {
                open.push(Object {
                    kind: attribute(tag, "type", at)?,
                    cpuset: attribute(tag, "cpuset", at)?,
                    name: attribute(tag, "name", at)?,
                    device: attribute(tag, "osdev_type", at)?,
                    cache: attribute(tag, "cache_size", at)?.parse().unwrap_or(0),
                    ..Object::default()
                });
                if empty {
                    close(&mut open);
                }
            }
            b"info" => {
                if let Some(object) = open.last_mut() {
                    let value = attribute(tag, "value", at)?;
                    object.infos.insert(attribute(tag, "name", at)?, value);
                }
            }
            _ => {}
        }
    }
    while open.len() > 1 {
        close(&mut open);
    }
    let mut top = open.pop().unwrap_or_default();
    top.normalize();
    Ok(top)
}

fn close(open: &mut Vec<Object>) {
    if open.len() > 1
        && let Some(object) = open.pop()
        && let Some(above) = open.last_mut()
    {
        above.children.push(object);
    }
}

/// Types of which only some are wanted, as vertices below one another.
pub(super) struct Reading<'a> {
    pub(super) builder: Builder,
    contained: Word,
    allowed: &'a [&'a str],
    /// The rank of what is read, if there is one.
    rank: i64,
    /// The next logical index of each type.
    next: FxHashMap<&'static str, i64>,
}

/// What an object is as a vertex.
struct Kind {
    kind: &'static str,
    base: &'static str,
    id: i64,
    size: i64,
}

impl Object {
    pub(super) fn is_core(&self) -> bool {
        self.kind == "Core"
    }

    /// OS devices that compute: coprocessors, and GPUs that are known as such by their driver.
    pub(super) fn is_gpu(&self) -> bool {
        self.device == "5" || (self.device == "1" && self.name.starts_with("rsmi"))
    }

    /// The number a device's name ends with.
    pub(super) fn device_number(&self) -> i64 {
        let digits = self
            .name
            .trim_end_matches(|c: char| c.is_ascii_digit())
            .len();
        self.name[digits..].parse().unwrap_or(0)
    }

    /// What comes first among siblings: processors, then memory, then devices.
    fn class(&self) -> u8 {
        match self.kind.as_str() {
            "NUMANode" => 1,
            "Bridge" | "PCIDev" | "OSDev" | "Misc" => 2,
            _ => 0,
        }
    }

    /// A group of one object that has all its processors is that object.
    fn leave_group(&mut self) {
        let inner = &self.children;
        let Some(only) = inner.iter().position(|o| o.class() == 0) else {
            return;
        };
        let is_same = inner[only].cpuset == self.cpuset && !self.cpuset.is_empty();
        let others = inner.iter().filter(|o| o.class() == 0).count() - 1;
        if self.kind == "Group" && is_same && others == 0 {
            let mut object = self.children.remove(only);
            object.children.append(&mut self.children);
            object.children.sort_by_key(Object::class);
            *self = object;
        }
    }

    /// Makes of the form of hwloc 1, where memory contains processors, that of hwloc 2, where it is
    /// beside them.
    fn normalize(&mut self) {
        for mut child in std::mem::take(&mut self.children) {
            child.normalize();
            child.leave_group();
            if child.kind != "NUMANode" || child.children.is_empty() {
                self.children.push(child);
                continue;
            }
            let inner = std::mem::take(&mut child.children);
            let (mut processors, devices): (Vec<_>, Vec<_>) =
                inner.into_iter().partition(|o| o.class() == 0);
            let around = match processors.as_mut_slice() {
                [only] => &mut only.children,
                _ => &mut self.children,
            };
            around.push(child);
            around.extend(devices);
            processors
                .iter_mut()
                .for_each(|o| o.children.sort_by_key(Object::class));
            self.children.extend(processors);
        }
        self.children.sort_by_key(Object::class);
    }
}

impl<'a> Reading<'a> {
    pub(super) fn new(mut builder: Builder, allowed: &'a [&'a str]) -> Result<Self, ReadError> {
        Ok(Reading {
            contained: builder.subsystem("containment")?,
            builder,
            allowed,
            rank: -1,
            next: FxHashMap::default(),
        })
    }

    /// Goes on with another machine, whose vertices have a rank.
    pub(super) fn begin(&mut self, rank: i64) {
        self.rank = rank;
        self.next.clear();
    }

    /// Adds a vertex with the next number.
    pub(super) fn vertex(&mut self, new: NewVertex, above: u32) -> Result<u32, ReadError> {
        let uniq = self.builder.len() as u64;
        let v = self.builder.vertex(NewVertex {
            uniq,
            rank: self.rank,
            ..new
        })?;
        self.builder.edge(self.contained, above, v);
        Ok(v)
    }

    /// Adds what is in the machine of a topology.
    pub(super) fn contents(&mut self, topology: &Object, at: u32) -> Result<(), ReadError> {
        let machines = topology.children.iter();
        machines
            .flat_map(|machine| &machine.children)
            .try_for_each(|object| self.add(object, at))
    }

    pub(super) fn allows(&self, kind: &str) -> bool {
        self.allowed.is_empty() || self.allowed.contains(&kind)
    }

    fn index(&mut self, kind: &'static str) -> i64 {
        let next = self.next.entry(kind).or_insert(0);
        *next += 1;
        *next - 1
    }

    fn kind_of(&mut self, object: &Object) -> Option<Kind> {
        let simple = [
            ("Group", "group", "group", "group"),
            ("NUMANode", "numanode", "numanode", "numanode"),
            ("Package", "socket", "socket", "socket"),
            ("Socket", "socket", "socket", "socket"),
            ("L1Cache", "L1cache", "cache", "L1cache"),
            ("L2Cache", "L2cache", "cache", "L2cache"),
            ("L3Cache", "L3cache", "cache", "L3cache"),
            ("Core", "core", "core", "core"),
            ("PU", "pu", "pu", "pu"),
        ];
        if let Some((_, listed, kind, base)) = simple.iter().find(|s| s.0 == object.kind) {
            let index = self.index(base);
            let id = object.id.unwrap_or(index);
            let size = if *kind == "cache" {
                object.cache / 1024
            } else {
                1
            };
            return self.allows(listed).then_some(Kind {
                kind,
                base,
                id,
                size,
            });
        }
        if object.kind != "OSDev" {
            return None;
        }
        if object.is_gpu() {
            let id = object.id.unwrap_or_else(|| object.device_number());
            let (kind, base) = ("gpu", "gpu");
            return self.allows("gpu").then_some(Kind {
                kind,
                base,
                id,
                size: 1,
            });
        }
        let id = self.index("OSDev");
        if object.device == "0" && self.allows("storage") {
            let size: i64 = object.infos.get("Size")?.parse().ok()?;
            let (kind, base) = ("storage", "storage");
            return Some(Kind {
                kind,
                base,
                id,
                size: size / 1_000_000,
            });
        }
        None
    }

    fn add(&mut self, object: &Object, above: u32) -> Result<(), ReadError> {
        let at = match object.kind.as_str() {
            "Machine" => self.machine(object, above)?,
            _ => self.object(object, above)?,
        };
        object
            .children
            .iter()
            .try_for_each(|child| self.add(child, at.unwrap_or(above)))
    }

    fn object(&mut self, object: &Object, above: u32) -> Result<Option<u32>, ReadError> {
        let Some(Kind {
            kind,
            base,
            id,
            size,
        }) = self.kind_of(object)
        else {
            return Ok(None);
        };
        let new = NewVertex {
            size,
            ..NewVertex::new(kind, base, id, 0)
        };
        let v = self.vertex(new, above)?;
        if kind == "storage" {
            let device = object
                .infos
                .get("LinuxDeviceID")
                .map_or("-1", String::as_str);
            self.builder.property(v, "LinuxDeviceID", device);
        }
        Ok(Some(v))
    }

    fn machine(&mut self, object: &Object, above: u32) -> Result<Option<u32>, ReadError> {
        let Some(host) = object.infos.get("HostName").filter(|_| self.allows("node")) else {
            return Ok(None);
        };
        let v = self.builder.vertex(NewVertex {
            rank: 0,
            uniq: self.builder.len() as u64,
            ..NewVertex::host(host)
        })?;
        self.builder.edge(self.contained, above, v);
        Ok(Some(v))
    }
}

/// Reads a topology; only the types of `allowed`, unless there are none.
pub fn read(text: &str, allowed: &[&str]) -> Result<Builder, ReadError> {
    let top = parse(text)?;
    let mut builder = Builder::default();
    let root = builder.vertex(NewVertex::new("cluster", "cluster", 0, 0))?;
    let mut reading = Reading::new(builder, allowed)?;
    for object in &top.children {
        reading.add(object, root)?;
    }
    if reading.builder.len() == 1 {
        return Err(super::content(
            "hwloc",
            "there is nothing of the wanted types",
        ));
    }
    Ok(reading.builder)
}
