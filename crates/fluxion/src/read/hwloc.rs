//! hwloc's XML: one node with what is in it, below a cluster.

use super::ReadError;
use crate::graph::{Builder, NewVertex, Word};
use quick_xml::{Reader, events::BytesStart, events::Event};
use rustc_hash::FxHashMap;

/// How deep objects may be.
const DEPTH: usize = 256;

/// An object that is open.
#[derive(Debug, Default)]
struct Object {
    kind: String,
    name: String,
    device: String,
    infos: FxHashMap<String, String>,
    cache: i64,
    children: Vec<Object>,
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

fn parse(text: &str) -> Result<Object, ReadError> {
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
struct Reading<'a> {
    builder: Builder,
    contained: Word,
    allowed: &'a [&'a str],
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
    /// OS devices that compute: coprocessors, and GPUs that are known as such by their driver.
    fn is_gpu(&self) -> bool {
        self.device == "5" || (self.device == "1" && self.name.starts_with("rsmi"))
    }

    /// The number a device's name ends with.
    fn device_number(&self) -> i64 {
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

    /// Makes of the form of hwloc 1, where memory contains processors, that of hwloc 2, where it is
    /// beside them.
    fn normalize(&mut self) {
        for mut child in std::mem::take(&mut self.children) {
            child.normalize();
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

impl Reading<'_> {
    fn allows(&self, kind: &str) -> bool {
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
            let id = self.index(base);
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
            let (kind, base, id) = ("gpu", "gpu", object.device_number());
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
            "Machine" => self.machine(object)?,
            _ => match self.kind_of(object) {
                None => None,
                Some(Kind {
                    kind,
                    base,
                    id,
                    size,
                }) => {
                    let uniq = self.builder.len() as u64;
                    let new = NewVertex {
                        size,
                        ..NewVertex::new(kind, base, id, uniq)
                    };
                    let v = self.builder.vertex(new)?;
                    if kind == "storage" {
                        let device = object
                            .infos
                            .get("LinuxDeviceID")
                            .map_or("-1", String::as_str);
                        self.builder.property(v, "LinuxDeviceID", device);
                    }
                    Some(v)
                }
            },
        };
        if let Some(v) = at {
            self.builder.edge(self.contained, above, v);
        }
        object
            .children
            .iter()
            .try_for_each(|child| self.add(child, at.unwrap_or(above)))
    }

    fn machine(&mut self, object: &Object) -> Result<Option<u32>, ReadError> {
        let Some(host) = object.infos.get("HostName").filter(|_| self.allows("node")) else {
            return Ok(None);
        };
        let base = host.trim_end_matches(|c: char| c.is_ascii_digit());
        let id = host[base.len()..].parse().unwrap_or(-1);
        let usual = if id == -1 {
            base == host
        } else {
            format!("{base}{id}") == *host
        };
        let uniq = self.builder.len() as u64;
        Ok(Some(self.builder.vertex(NewVertex {
            rank: 0,
            name: Some(host.as_str()).filter(|_| !usual),
            ..NewVertex::new("node", base, id, uniq)
        })?))
    }
}

/// Reads a topology; only the types of `allowed`, unless there are none.
pub fn read(text: &str, allowed: &[&str]) -> Result<Builder, ReadError> {
    let top = parse(text)?;
    let mut builder = Builder::default();
    let contained = builder.subsystem("containment")?;
    let root = builder.vertex(NewVertex::new("cluster", "cluster", 0, 0))?;
    let mut reading = Reading {
        builder,
        contained,
        allowed,
        next: FxHashMap::default(),
    };
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
