//! What hwloc's XML says of a node: cores and gpus as resources count them.
//!
//! Cores are numbered by their order in the topology, as hwloc numbers them logically. A gpu is
//! an OS device of a compute back end; one device that several back ends show counts once, and
//! parts of one device under one back end count each. Only the elements that matter are read:
//! this is no XML validator.

use super::ResourceSet;
use crate::Idset;
use std::collections::HashMap;

/// A node as its topology describes it.
///
/// ```
/// use formats::resource_set::hwloc::Node;
///
/// let node = Node::parse(r#"<topology version="2.0">
///   <object type="Machine" cpuset="0x0000000f">
///     <info name="HostName" value="n1"/>
///     <object type="Core" cpuset="0x00000003"/><object type="Core" cpuset="0x0000000c"/>
///   </object></topology>"#)?;
/// assert_eq!(node.to_set(3, "n1").to_string(), "rank3/core[0-1]");
/// # Ok::<(), formats::resource_set::hwloc::HwlocError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Name of the host, if the topology has it.
    pub host: Option<String>,
    /// The logical CPUs of each core that may be used, in logical order.
    pub cores: Vec<Idset>,
    /// How many gpus.
    pub gpus: u32,
}

/// Why text is not a topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum HwlocError {
    #[error("hwloc XML: byte {0}: a tag is not closed")]
    Tag(usize),
    #[error("hwloc XML: byte {0}: an attribute has no quoted value")]
    Attribute(usize),
    #[error("hwloc XML: byte {at}: cpuset '{text}' is not a list of hexadecimal words")]
    Cpuset { at: usize, text: String },
    #[error("hwloc XML: there is no <topology>")]
    NoTopology,
    #[error("hwloc XML: the topology has no cores")]
    NoCores,
}

/// A start tag: its name and attributes.
struct Tag<'a> {
    at: usize,
    name: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
    /// `<a/>`.
    empty: bool,
}

impl<'a> Tag<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        let mut all = self.attributes.iter();
        all.find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    /// `body` is what is between `<` and `>`.
    fn parse(at: usize, body: &'a str) -> Result<Tag<'a>, HwlocError> {
        let (body, empty) = match body.strip_suffix('/') {
            Some(body) => (body, true),
            None => (body, false),
        };
        let end = body.find(char::is_whitespace).unwrap_or(body.len());
        let (name, mut rest) = body.split_at(end);
        let mut attributes = Vec::new();
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                break;
            }
            let fault = HwlocError::Attribute(at);
            let (key, value) = rest.split_once('=').ok_or(fault.clone())?;
            let value = value.trim_start();
            let quote = value.chars().next().filter(|c| "\"'".contains(*c));
            let quote = quote.ok_or(fault.clone())?;
            let (value, after) = value[1..].split_once(quote).ok_or(fault)?;
            attributes.push((key.trim_end(), value));
            rest = after;
        }
        Ok(Tag {
            at,
            name,
            attributes,
            empty,
        })
    }
}

fn unescape(text: &str) -> String {
    let named = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    let all = named.iter();
    all.fold(text.to_owned(), |text, (name, c)| text.replace(name, c))
}

/// The most words of 32 CPUs a cpuset may have.
const MAX_WORDS: usize = 1 << 12;

/// `0x00000003,0xffffffff`: words of 32 bits, the highest first. An endless set (`0xf...f`) is
/// none.
fn cpuset(tag: &Tag, key: &str) -> Result<Option<Idset>, HwlocError> {
    let Some(text) = tag.get(key) else {
        return Ok(None);
    };
    if text.starts_with("0xf...f") {
        return Ok(None);
    }
    let fault = || HwlocError::Cpuset {
        at: tag.at,
        text: text.to_owned(),
    };
    let words: Vec<&str> = text.split(',').collect();
    if words.len() > MAX_WORDS {
        return Err(fault());
    }
    let mut cpus = Vec::new();
    for (i, word) in (0u32..).zip(words.into_iter().rev()) {
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let bits = match digits {
            "" => 0,
            digits => u32::from_str_radix(digits, 16).map_err(|_| fault())?,
        };
        cpus.extend((0..32).filter(|b| bits >> b & 1 == 1).map(|b| i * 32 + b));
    }
    Ok(Some(cpus.into_iter().collect()))
}

/// Back ends whose OS devices are compute devices.
const BACKENDS: [&str; 4] = ["CUDA", "NVML", "OpenCL", "RSMI"];

/// An `<object>` that is open.
struct Object<'a> {
    kind: &'a str,
    /// The nearest PCI device around it or itself.
    pci: Option<usize>,
}

impl Node {
    /// Reads a topology that hwloc 1.11 or 2 exported.
    pub fn parse(xml: &str) -> Result<Node, HwlocError> {
        let mut node = Node::default();
        let mut open: Vec<Object> = Vec::new();
        let (mut cores, mut threads, mut allowed) = (Vec::new(), Vec::new(), None);
        // Back ends seen by PCI device; devices of another back end are the same gpus again.
        let mut devices: HashMap<usize, &str> = HashMap::new();
        let (mut at, mut topology, mut pci_count) = (0, false, 0);
        while let Some(found) = xml[at..].find('<') {
            let start = at + found;
            let rest = &xml[start..];
            let (skip, close) = match rest {
                r if r.starts_with("<!--") => (4, "-->"),
                r => (usize::from(r.len() > 1), ">"),
            };
            let end = rest[skip..].find(close).ok_or(HwlocError::Tag(start))? + skip;
            let body = &rest[1..end];
            at = start + end + close.len();
            if body.starts_with(['!', '?']) {
                continue;
            }
            if let Some(name) = body.strip_prefix('/') {
                if name.trim() == "object" {
                    open.pop();
                }
                continue;
            }
            let tag = Tag::parse(start, body)?;
            match tag.name {
                "topology" => topology = true,
                "object" => {
                    let kind = tag.get("type").unwrap_or("");
                    let around = open.last().and_then(|o| o.pci);
                    let mut pci = around;
                    match kind {
                        "Core" => cores.push(cpuset(&tag, "cpuset")?.unwrap_or_default()),
                        "PU" => threads.push(cpuset(&tag, "cpuset")?.unwrap_or_default()),
                        "PCIDev" => {
                            pci = Some(pci_count);
                            pci_count += 1;
                        }
                        _ => {}
                    }
                    if open.is_empty() {
                        allowed = cpuset(&tag, "allowed_cpuset")?;
                    }
                    if !tag.empty {
                        open.push(Object { kind, pci });
                    }
                }
                "info" => {
                    let pair = tag.get("name").zip(tag.get("value"));
                    match (pair, open.last()) {
                        (Some(("HostName", value)), Some(o)) if o.kind == "Machine" => {
                            node.host = Some(unescape(value));
                        }
                        (Some(("Backend", name)), Some(o)) if o.kind == "OSDev" => {
                            let compute = BACKENDS.contains(&name);
                            let first = match o.pci.filter(|_| compute) {
                                Some(pci) => *devices.entry(pci).or_insert(name) == name,
                                None => true,
                            };
                            node.gpus += u32::from(compute && first);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        if !topology {
            return Err(HwlocError::NoTopology);
        }
        if pci_count == 0 {
            node.gpus = 0;
        }
        // Some virtual machines have processing units but no cores.
        node.cores = if cores.is_empty() { threads } else { cores };
        if let Some(allowed) = &allowed {
            node.restrict(allowed);
        }
        match node.cores.is_empty() {
            true => Err(HwlocError::NoCores),
            false => Ok(node),
        }
    }

    /// Leaves only the cores of which some logical CPU is in `cpus`.
    pub fn restrict(&mut self, cpus: &Idset) {
        self.cores
            .retain(|core| core.is_empty() || !core.intersection(cpus).is_empty());
    }

    /// The node as execution target `rank`.
    pub fn to_set(&self, rank: u32, host: &str) -> ResourceSet {
        let ids = |n: usize| (0..n as u32).collect::<Idset>();
        let mut set = ResourceSet::new();
        set.add(rank, host, &ids(self.cores.len()), &ids(self.gpus as usize));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
  <object type="Machine" os_index="0" cpuset="0x00000001,0x0000000f" allowed_cpuset="0x0000000f">
    <info name="HostName" value="n&amp;1"/>
    <!-- <object type="Core" cpuset="0x1"/> -->
    <object type="Package">
      <object type="Core" cpuset="0x00000003"><object type="PU" cpuset="0x00000001"/></object>
      <object type="Core" cpuset="0x0000000c"/>
      <object type="Core" cpuset="0x00000001,0x0"/>
    </object>
    <object type="PCIDev"><object type="OSDev" name="cuda0"><info name="Backend" value="CUDA"/></object>
      <object type="OSDev" name="opencl0d0"><info name="Backend" value="OpenCL"/></object></object>
    <object type="PCIDev"><object type="OSDev"><info name="Backend" value="RSMI"/></object>
      <object type="OSDev"><info name="Backend" value="RSMI"/></object></object>
    <object type="PCIDev"><object type="OSDev" name="eth0"><info name="Address" value="0"/></object></object>
  </object>
</topology>"#;

    #[test]
    fn cores_and_gpus() {
        let mut node = Node::parse(XML).unwrap();
        assert_eq!(node.host.as_deref(), Some("n&1"));
        assert_eq!(node.to_set(0, "x").to_string(), "rank0/core[0-1],gpu[0-2]");
        node.restrict(&"2".parse().unwrap());
        assert_eq!(node.to_set(0, "x").to_string(), "rank0/core0,gpu[0-2]");
    }

    #[test]
    fn faults() {
        let fails = |xml: &str| Node::parse(xml).unwrap_err().to_string();
        insta::assert_snapshot!([
            fails(""),
            fails("<topology>"),
            fails("<topology"),
            fails("<topology><object type=Core/>"),
            fails("<topology><object type='Core' cpuset='0xz'/>"),
        ].join("\n"), @r"
        hwloc XML: there is no <topology>
        hwloc XML: the topology has no cores
        hwloc XML: byte 0: a tag is not closed
        hwloc XML: byte 10: an attribute has no quoted value
        hwloc XML: byte 10: cpuset '0xz' is not a list of hexadecimal words
        ");
    }
}
