//! What a jobspec asks of a graph.
//!
//! A [`Request`] is a jobspec's resource section in the words of one graph, with what each entry
//! demands at least summed up below it, so that a subtree that cannot have it is not searched.

use crate::graph::{Graph, SLOT, UNKNOWN, Word, XOR_SLOT};
use formats::yaml::{self, YamlError};
use formats::{
    Constraint, Count, Jobspec, constraint::ConstraintError, jobspec::JobspecError,
    jobspec::Resource,
};
use serde_json::{Value, json};

/// How many variants `xor_slot`s may expand to.
const VARIANTS: usize = 1000;

/// Amounts of types.
pub type Amounts = Vec<(Word, i64)>;

/// One entry of a resource section.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its type, or [`SLOT`].
    pub kind: Word,
    /// How many.
    pub count: Count,
    /// Whether exclusivity was asked for or refused.
    pub exclusive: Option<bool>,
    /// Its label.
    pub label: Option<Box<str>>,
    /// What it contains.
    pub with: Vec<Entry>,
    /// What one of it needs below it, at least.
    pub demand: Amounts,
}

impl Entry {
    /// The greatest count there may ever be.
    pub fn most(&self) -> u64 {
        self.count.at_most(u32::MAX).map_or(0, u64::from)
    }
}

/// A request for resources.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Alternatives, each a resource section; the first that can be had is taken.
    pub variants: Vec<Vec<Entry>>,
    /// What is needed in all, at least.
    pub demand: Amounts,
    /// Types of which every one that is part of the match is taken whole.
    pub whole: Vec<Word>,
    /// Which nodes may be used.
    pub constraint: Option<Constraint>,
    /// How long, in seconds; 0 for as long as there is.
    pub duration: i64,
    /// The queue.
    pub queue: Option<String>,
}

/// Why a jobspec is no request.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // their messages say it
pub enum RequestError {
    #[error("jobspec: {0}")]
    Yaml(#[from] YamlError),
    #[error("jobspec: {0}")]
    Text(&'static str),
    #[error(transparent)]
    Jobspec(#[from] JobspecError),
    #[error("jobspec.attributes.system.constraints: {0}")]
    Constraint(#[from] ConstraintError),
    #[error("jobspec.attributes.system.duration: {0} is no duration")]
    Duration(f64),
    #[error("Value of \"type\" must be a resource type known to fluxion")]
    Kind(String),
    #[error("jobspec.attributes.system.constraints: property {0} is invalid")]
    Property(String),
    #[error("jobspec.resources: xor_slots expand to more than {VARIANTS} variants")]
    Variants,
}

/// Reads a jobspec from YAML, of which JSON is a part. `attributes` may be empty.
pub fn parse(text: &str) -> Result<Jobspec, RequestError> {
    let mut value = yaml::first(text)?.ok_or(RequestError::Text("empty"))?;
    if let Some(top) = value.as_object_mut() {
        let attributes = top.entry("attributes").or_insert(Value::Null);
        if attributes.is_null() {
            *attributes = json!({});
        }
        if let Some(attributes) = attributes.as_object_mut() {
            let system = attributes.entry("system").or_insert_with(|| json!({}));
            if let Some(system) = system.as_object_mut() {
                system.entry("duration").or_insert(json!(0));
            }
        }
    }
    Ok(Jobspec::from_value(value)?)
}

impl Request {
    /// A jobspec in the words of a graph. With `flexible`, sibling slots are alternatives of each
    /// other and `xor_slot`s are understood.
    pub fn new(jobspec: &Jobspec, graph: &Graph, flexible: bool) -> Result<Request, RequestError> {
        let duration = jobspec.duration();
        if !(0.0..=i64::MAX as f64 / 2.).contains(&duration) {
            return Err(RequestError::Duration(duration));
        }
        let compile = Compile { graph, flexible };
        let mut whole = Vec::new();
        compile.check(&jobspec.resources)?;
        let (entries, demand) = compile.entries(&jobspec.resources, &mut whole);
        let variants = match flexible {
            true => split(&entries).ok_or(RequestError::Variants)?,
            false => vec![entries],
        };
        let constraint = jobspec
            .constraints()
            .map(Constraint::from_value)
            .transpose()?;
        if let Some(name) = constraint.as_ref().and_then(unspeakable) {
            return Err(RequestError::Property(name.to_owned()));
        }
        Ok(Request {
            variants,
            demand,
            whole,
            constraint,
            duration: duration.ceil() as i64,
            queue: jobspec.queue().map(str::to_owned),
        })
    }
}

/// A property whose name could not be written in a constraint's short form.
fn unspeakable(constraint: &Constraint) -> Option<&str> {
    match constraint {
        Constraint::Properties(list) => {
            let mut names = list.iter().map(|p| p.name.as_str());
            names.find(|name| name.contains(['!', '&', '\'', '"', '^', '`', '|', '(', ')']))
        }
        Constraint::And(list) | Constraint::Or(list) | Constraint::Not(list) => {
            list.iter().find_map(unspeakable)
        }
        Constraint::Hosts(_) | Constraint::Ranks(_) => None,
    }
}

struct Compile<'a> {
    graph: &'a Graph,
    flexible: bool,
}

fn add(to: &mut Amounts, kind: Word, amount: i64) {
    match to.iter_mut().find(|a| a.0 == kind) {
        Some(known) => known.1 += amount,
        None => to.push((kind, amount)),
    }
}

impl Compile<'_> {
    /// Whether all types are known.
    fn check(&self, resources: &[Resource]) -> Result<(), RequestError> {
        resources.iter().try_for_each(|r| {
            if self.graph.words().find(&r.kind).is_none() {
                return Err(RequestError::Kind(r.kind.clone()));
            }
            self.check(&r.with)
        })
    }

    fn entries(&self, resources: &[Resource], whole: &mut Vec<Word>) -> (Vec<Entry>, Amounts) {
        let (mut entries, mut needed) = (Vec::new(), Amounts::new());
        let mut alternatives: Vec<Amounts> = Vec::new();
        for resource in resources {
            let kind = self.graph.words().find(&resource.kind).unwrap_or(UNKNOWN);
            let (with, demand) = self.entries(&resource.with, whole);
            if resource.exclusive == Some(true) && !whole.contains(&kind) {
                whole.push(kind);
            }
            let count = i64::from(resource.count.min());
            let times = demand
                .iter()
                .map(|(kind, n)| (*kind, n.saturating_mul(count)));
            if self.flexible && (kind == SLOT || kind == XOR_SLOT) {
                alternatives.push(times.collect());
            } else {
                times.for_each(|(kind, n)| add(&mut needed, kind, n));
            }
            add(&mut needed, kind, count);
            entries.push(Entry {
                kind,
                count: resource.count.clone(),
                exclusive: resource.exclusive,
                label: resource.label.as_deref().map(Box::from),
                with,
                demand,
            });
        }
        // Of slots that are alternatives, only what all of them need is sure to be needed.
        if let Some((first, rest)) = alternatives.split_first() {
            for (kind, n) in first {
                let of = |a: &Amounts| a.iter().find(|x| x.0 == *kind).map_or(0, |x| x.1);
                add(&mut needed, *kind, rest.iter().map(of).fold(*n, i64::min));
            }
        }
        (entries, needed)
    }
}

/// The variants that choosing one of the `xor_slot`s among siblings makes; none if too many.
fn split(entries: &[Entry]) -> Option<Vec<Vec<Entry>>> {
    let mut variants = vec![Vec::new()];
    let mut options: Vec<Entry> = Vec::new();
    for entry in entries {
        let inner = split(&entry.with)?;
        let made = inner.into_iter().map(|with| Entry {
            with,
            ..entry.clone()
        });
        if entry.kind == XOR_SLOT {
            options.extend(made.map(|e| Entry { kind: SLOT, ..e }));
        } else {
            let made: Vec<Entry> = made.collect();
            let extended = variants.iter().flat_map(|v: &Vec<Entry>| {
                made.iter().map(|e| v.iter().chain([e]).cloned().collect())
            });
            variants = extended.take(VARIANTS + 1).collect();
        }
        if variants.len() > VARIANTS || options.len() > VARIANTS {
            return None;
        }
    }
    if options.is_empty() {
        return Some(variants);
    }
    if variants.len() * options.len() > VARIANTS {
        return None;
    }
    let with = |v: &Vec<Entry>| -> Vec<Vec<Entry>> {
        options
            .iter()
            .map(|o| v.iter().chain([o]).cloned().collect())
            .collect()
    };
    Some(variants.iter().flat_map(with).collect())
}
