//! A GRUG recipe as it is written: GraphML with keys, nodes and edges.

use super::ReadError;
use quick_xml::{Reader, events::BytesStart, events::Event};
use rustc_hash::FxHashMap;

/// What there is to generate, and how.
#[derive(Debug, Default)]
pub(super) struct Recipe {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
}

/// A resource to generate.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) root: bool,
    pub(super) kind: String,
    pub(super) base: String,
    pub(super) unit: String,
    pub(super) size: i64,
    pub(super) subsystem: String,
}

/// How resources of two nodes relate.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) subsystem: String,
    pub(super) method: Method,
    pub(super) id_scope: i64,
    pub(super) id_start: i64,
    pub(super) id_stride: i64,
}

/// How the target of an edge comes to be.
#[derive(Debug)]
pub(super) enum Method {
    /// So many new ones for each source.
    Multiply(u32),
    /// All there are.
    Associate,
    /// Those whose path in a subsystem, so many levels up, is that of the source.
    AssociateByPath {
        subsystem: String,
        target_up: usize,
        source_up: usize,
    },
}

#[derive(Debug, Default)]
struct Keys {
    /// (node or edge, key id) to name and default.
    known: FxHashMap<(bool, String), (String, Option<String>)>,
}

type Fields = FxHashMap<String, String>;

/// An element that is open: what it is, its attributes, its data.
struct Open {
    edge: bool,
    name: String,
    ends: Option<(String, String)>,
    data: Fields,
}

fn xml(at: u64, message: impl ToString) -> ReadError {
    ReadError::Xml {
        at,
        message: message.to_string(),
    }
}

fn attributes(tag: &BytesStart, at: u64) -> Result<Fields, ReadError> {
    let mut fields = Fields::default();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|e| xml(at, e))?;
        let name = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
        let value = attribute.unescape_value().map_err(|e| xml(at, e))?;
        fields.insert(name, value.into_owned());
    }
    Ok(fields)
}

fn need(fields: &mut Fields, key: &str, element: &str, at: u64) -> Result<String, ReadError> {
    let missing = || xml(at, format!("<{element}> has no attribute {key}"));
    fields.remove(key).ok_or_else(missing)
}

impl Recipe {
    /// Reads GraphML.
    pub(super) fn parse(text: &str) -> Result<Recipe, ReadError> {
        let mut reader = Reader::from_str(text);
        let (mut keys, mut opened) = (Keys::default(), Vec::new());
        let (mut key, mut default, mut open, mut data) = (None, false, None::<Open>, None);
        loop {
            let at = reader.buffer_position();
            let event = reader.read_event().map_err(|e| xml(at, e))?;
            let (tag, empty) = match &event {
                Event::Start(tag) => (tag, false),
                Event::Empty(tag) => (tag, true),
                Event::Text(text) => {
                    let text = text.decode().map_err(|e| xml(at, e))?;
                    let text = text.trim().to_owned();
                    if let (Some(open), Some(name)) = (&mut open, &data) {
                        open.data.insert(String::clone(name), text);
                    } else if let (true, Some(key)) = (default, &key) {
                        keys.known
                            .entry(Clone::clone(key))
                            .and_modify(|k| k.1 = Some(text));
                    }
                    continue;
                }
                Event::End(tag) => {
                    match tag.name().as_ref() {
                        b"key" => key = None,
                        b"default" => default = false,
                        b"data" => data = None,
                        b"node" | b"edge" => opened.extend(open.take()),
                        _ => {}
                    }
                    continue;
                }
                Event::Eof => break,
                _ => continue,
            };
            let mut fields = attributes(tag, at)?;
            match tag.name().as_ref() {
                b"key" => {
                    let name = need(&mut fields, "attr.name", "key", at)?;
                    let of_edge = fields.get("for").is_some_and(|f| f == "edge");
                    let id = (of_edge, need(&mut fields, "id", "key", at)?);
                    keys.known.insert(id.clone(), (name, None));
                    key = Some(id).filter(|_| !empty);
                }
                b"default" => default = !empty,
                b"data" => data = Some(need(&mut fields, "key", "data", at)?).filter(|_| !empty),
                b"node" => {
                    let name = need(&mut fields, "id", "node", at)?;
                    open = Some(Open {
                        edge: false,
                        name,
                        ends: None,
                        data: Fields::default(),
                    });
                }
                b"edge" => {
                    let ends = (
                        need(&mut fields, "source", "edge", at)?,
                        need(&mut fields, "target", "edge", at)?,
                    );
                    let name = format!("{} to {}", ends.0, ends.1);
                    let ends = Some(ends);
                    open = Some(Open {
                        edge: true,
                        name,
                        ends,
                        data: Fields::default(),
                    });
                }
                _ => {}
            }
            if empty {
                opened.extend(open.take_if(|_| matches!(tag.name().as_ref(), b"node" | b"edge")));
            }
        }
        Recipe::assemble(opened, &keys)
    }

    fn assemble(opened: Vec<Open>, keys: &Keys) -> Result<Recipe, ReadError> {
        let mut recipe = Recipe::default();
        let mut numbers = FxHashMap::default();
        let (edges, nodes): (Vec<Open>, Vec<Open>) = opened.into_iter().partition(|o| o.edge);
        for open in nodes {
            let values = Values::new(&open, keys);
            numbers.insert(open.name.clone(), recipe.nodes.len());
            recipe.nodes.push(Node {
                root: values.number("root", 0)? != 0,
                kind: values.text("type")?,
                base: values.text("basename")?,
                unit: values.find("unit").unwrap_or_default(),
                size: values.number("size", 1)?,
                subsystem: values.text("subsystem")?,
            });
        }
        for open in edges {
            let values = Values::new(&open, keys);
            let end = |name: &String| {
                let unknown = || values.fault(format!("there is no node {name}"));
                numbers.get(name).copied().ok_or_else(unknown)
            };
            let Some((from, to)) = &open.ends else {
                continue;
            };
            let method = match values.text("gen_method")?.as_str() {
                "MULTIPLY" => {
                    let scale = values.number("multi_scale", 1)?;
                    let scale = u32::try_from(scale).ok();
                    Method::Multiply(scale.ok_or_else(|| values.fault("multi_scale is no count"))?)
                }
                "ASSOCIATE_IN" => Method::Associate,
                "ASSOCIATE_BY_PATH_IN" => Method::AssociateByPath {
                    subsystem: values.text("as_tgt_subsystem")?,
                    target_up: values.number("as_tgt_uplvl", 1)?.max(0) as usize,
                    source_up: values.number("as_src_uplvl", 1)?.max(0) as usize,
                },
                other => return Err(values.fault(format!("unknown generation method {other}"))),
            };
            let edge = Edge {
                from: end(from)?,
                to: end(to)?,
                subsystem: values.text("e_subsystem")?,
                method,
                id_scope: values.number("id_scope", 0)?,
                id_start: values.number("id_start", 0)?,
                id_stride: values.number("id_stride", 1)?,
            };
            recipe.edges.push(edge);
        }
        Ok(recipe)
    }
}

/// The data of an element, with defaults.
struct Values<'a> {
    open: &'a Open,
    keys: &'a Keys,
}

impl Values<'_> {
    fn new<'a>(open: &'a Open, keys: &'a Keys) -> Values<'a> {
        Values { open, keys }
    }

    fn fault(&self, message: impl Into<String>) -> ReadError {
        ReadError::Recipe {
            place: self.open.name.clone(),
            message: message.into(),
        }
    }

    fn find(&self, name: &str) -> Option<String> {
        let known = self.keys.known.iter();
        let mut named = known.filter(|((edge, _), key)| *edge == self.open.edge && key.0 == name);
        let ((_, id), key) = named.next()?;
        self.open.data.get(id).or(key.1.as_ref()).cloned()
    }

    fn text(&self, name: &str) -> Result<String, ReadError> {
        self.find(name)
            .ok_or_else(|| self.fault(format!("{name} is missing")))
    }

    fn number(&self, name: &str, default: i64) -> Result<i64, ReadError> {
        match self.find(name) {
            None => Ok(default),
            Some(text) => {
                (text.parse()).map_err(|_| self.fault(format!("{name}: no number: {text}")))
            }
        }
    }
}
