//! Formats that are JSON.

use formats::exec_event::ExecEvent;
use formats::iodata::IoData;
use formats::job_event::JobEvent;
use formats::queues::Queues;
use formats::resource_event::ResourceEvent;
use formats::resource_set::{jgf::Graph, treepool::TreePool, verify};
use formats::{Constraint, Jobspec, ResourceSet, archive::Archive, eventlog};
use serde_json::{Map, Value};

fn json(data: &[u8]) -> Value {
    serde_json::from_slice(data).unwrap_or_default()
}

pub(crate) fn eventlog(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(events) = eventlog::decode(text) else {
        return;
    };
    let written = eventlog::encode(&events);
    assert_eq!(
        eventlog::decode(&written).expect("what is written can be read"),
        events
    );
    for event in &events {
        if let Ok(typed) = JobEvent::try_from(event) {
            let again = JobEvent::try_from(&typed.to_event(event.timestamp));
            assert_eq!(again.expect("what is written can be read"), typed);
        }
        if let Ok(typed) = ResourceEvent::try_from(event) {
            let again = ResourceEvent::try_from(&typed.to_event(event.timestamp));
            assert_eq!(again.expect("what is written can be read"), typed);
        }
        if let Ok(typed) = ExecEvent::try_from(event) {
            let again = ExecEvent::try_from(&typed.to_event(event.timestamp));
            assert_eq!(again.expect("what is written can be read"), typed);
        }
    }
}

pub(crate) fn jobspec(data: &[u8]) {
    if let Ok(spec) = Jobspec::from_value(json(data)) {
        let value = serde_json::to_value(&spec).expect("a jobspec is JSON");
        assert_eq!(Jobspec::from_value(value), Ok(spec.clone()));
        let _ = (spec.resource_counts(), spec.check_v1(), spec.job_name());
        assert!(spec.duration() >= 0.);
    }
}

pub(crate) fn resource_set(data: &[u8]) {
    let (a, b) = match json(data) {
        Value::Array(list) if list.len() == 2 => {
            let mut list = list.into_iter();
            (
                list.next().unwrap_or_default(),
                list.next().unwrap_or_default(),
            )
        }
        one => (one, Value::Null),
    };
    let Ok(a) = ResourceSet::try_from(a) else {
        return;
    };
    if a.ranks().len() > 1000 {
        return;
    }
    let back = ResourceSet::try_from(a.to_value()).expect("what is written can be read");
    assert_eq!(back.to_string(), a.to_string());
    if let Ok(b) = ResourceSet::try_from(b)
        && b.ranks().len() <= 1000
    {
        let (common, rest) = (a.intersection(&b), a.difference(&b));
        // Targets of one rank on two hosts have nothing in common and are taken away nevertheless.
        let same_host = |t: &formats::resource_set::Target| {
            let other = b.get(t.rank).map(|o| &o.host);
            other.is_none_or(|host| *host == t.host || host.is_empty() || t.host.is_empty())
        };
        if a.targets().iter().all(same_host) {
            assert_eq!(common.ncores() + rest.ncores(), a.ncores());
        }
        assert!(rest.intersection(&b).is_empty());
    }
}

pub(crate) fn archive(data: &[u8]) {
    crate::stored::archive(data);
    if let Ok(archive) = Archive::from_value(&json(data)) {
        assert_eq!(
            Archive::from_value(&archive.to_value()),
            Ok(archive.clone())
        );
        for entry in &archive.entries {
            assert!(!entry.path.starts_with('/') && !entry.path.split('/').any(|p| p == ".."));
        }
    }
}

pub(crate) fn iodata(data: &[u8]) {
    let context: Map<String, Value> = serde_json::from_slice(data).unwrap_or_default();
    if let Ok(data) = IoData::from_context(&context) {
        let back = IoData::from_context(&data.to_context());
        assert_eq!(back.expect("what is written can be read"), data);
    }
}

pub(crate) fn queues(data: &[u8]) {
    if let Ok(queues) = Queues::from_config(&json(data)) {
        for name in queues.named.keys() {
            assert_eq!(queues.assign(Some(name)), Ok(Some(name.as_str())));
            let _ = (queues.policy(Some(name)), queues.properties(name));
        }
    }
}

pub(crate) fn constraint(data: &[u8]) {
    // A constraint, or a constraint and an R.
    let (constraint, set) = match json(data) {
        Value::Array(list) if list.len() == 2 => {
            let mut list = list.into_iter();
            (
                list.next().unwrap_or_default(),
                list.next().unwrap_or_default(),
            )
        }
        one => (one, Value::Null),
    };
    let Ok(constraint) = Constraint::from_value(&constraint) else {
        return;
    };
    assert_eq!(
        Constraint::from_value(&constraint.to_value()),
        Ok(constraint.clone())
    );
    let Ok(set) = ResourceSet::try_from(set) else {
        return;
    };
    if set.nnodes() > 1000 {
        return;
    }
    let ranks = constraint.ranks_of(&set);
    for target in set.targets() {
        let has = |name: &str| set.has_property(target.rank, name);
        let matches = constraint.matches(&target.host, target.rank, &has);
        assert_eq!(matches, ranks.contains(target.rank), "rank {}", target.rank);
    }
}

pub(crate) fn config_r(data: &[u8]) {
    let value = json(data);
    if let Ok(set) = ResourceSet::from_config(&value)
        && set.nnodes() <= 1000
    {
        let back = ResourceSet::try_from(set.to_value()).expect("what is written can be read");
        assert_eq!(back.to_string(), set.to_string());
    }
    let _ = verify::Config::from_value(&value);
}

pub(crate) fn scheduling(data: &[u8]) {
    let value = json(data);
    if let Ok(Some(graph)) = Graph::from_scheduling(&value) {
        let back = Graph::from_scheduling(&graph.to_scheduling());
        assert_eq!(back.expect("what is written can be read"), Some(graph));
    }
    if let Ok(Some(pool)) = TreePool::from_scheduling(&value) {
        let back = TreePool::from_scheduling(&pool.to_scheduling());
        assert_eq!(back.expect("what is written can be read"), Some(pool));
    }
}
