//! Formats that are lines of text.

use formats::constraint::query::Syntax;
use formats::resource_set::hwloc::Node;
use formats::{
    Constraint, Count, Dependency, Hostlist, Idset, JobId, Taskmap, batch_directives, fsd, shape,
    signed,
};

fn utf8(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap_or_default()
}

pub(crate) fn idset(data: &[u8]) {
    let text = utf8(data);
    // The second half of the input makes a second set.
    let (a, b) = text.split_once('|').unwrap_or((text, ""));
    let (Ok(a), Ok(b)) = (a.parse::<Idset>(), b.parse::<Idset>()) else {
        return;
    };
    assert_eq!(a.to_string().parse(), Ok(a.clone()));
    assert_eq!(a.to_string_brackets().parse(), Ok(a.clone()));
    let (union, common, rest) = (a.union(&b), a.intersection(&b), a.difference(&b));
    assert_eq!(union.len() + common.len(), a.len() + b.len());
    assert_eq!(rest.len() + common.len(), a.len());
    assert!(rest.intersection(&b).is_empty() && common.is_subset(&b) && a.is_subset(&union));
}

pub(crate) fn hostlist(data: &[u8]) {
    let Ok(list) = utf8(data).parse::<Hostlist>() else {
        return;
    };
    let written = list.to_string();
    let back: Hostlist = written.parse().expect("what is written can be read");
    assert_eq!(back.len(), list.len());
    if list.len() > 2000 {
        return;
    }
    assert!(back.iter().eq(list.iter()), "{written}");
    let index = list.index();
    for host in list.iter() {
        assert_eq!(index.find(&host), list.find(&host), "{host}");
    }
    let mut sorted = list.clone();
    sorted.uniq();
    assert!(sorted.difference(&list).is_empty() && list.difference(&sorted).is_empty());
}

pub(crate) fn fsd(data: &[u8]) {
    if let Ok(seconds) = fsd::parse(utf8(data)) {
        assert!(seconds >= 0.);
        let back = fsd::parse(&fsd::format(seconds)).expect("what is written can be read");
        assert!(back == seconds || (back - seconds).abs() <= seconds * 1e-4);
    }
}

pub(crate) fn jobid(data: &[u8]) {
    if let Ok(id) = utf8(data).parse::<JobId>() {
        for kind in formats::jobid::ENCODINGS {
            let text = id.encode(kind).expect("a known encoding");
            assert_eq!(text.parse(), Ok(id), "{text}");
        }
    }
}

pub(crate) fn count(data: &[u8]) {
    if let Ok(count) = utf8(data).parse::<Count>() {
        assert!(count.min() > 0);
        let back: Count = count
            .to_string()
            .parse()
            .expect("what is written can be read");
        let values: Vec<u32> = count.iter().take(50).collect();
        assert!(back.iter().take(50).eq(values.iter().copied()));
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(values.iter().all(|n| count.allows(*n)));
    }
}

pub(crate) fn taskmap(data: &[u8]) {
    let Ok(map) = utf8(data).parse::<Taskmap>() else {
        return;
    };
    assert_eq!(Taskmap::from_value(&map.to_value()), Ok(map.clone()));
    if map.ntasks() > 1000 || map.nnodes() > 1000 {
        return;
    }
    let total: u32 = map.counts().iter().sum();
    assert_eq!(total, map.ntasks());
    for task in 0..map.ntasks() {
        let node = map.node_of(task).expect("a task of the map");
        assert!(map.task_ids(node).contains(task));
    }
    if !map.is_unknown() {
        let back = Taskmap::from_raw(&map.to_raw()).expect("what is written can be read");
        assert_eq!(back.to_raw(), map.to_raw());
    }
}

pub(crate) fn shape(data: &[u8]) {
    if let Ok(list) = shape::parse(utf8(data), "task") {
        let value = serde_json::to_value(&list).expect("a request is JSON");
        let back = formats::jobspec::Resource::list_from_value(value);
        assert_eq!(back, Ok(list));
    }
}

pub(crate) fn batch_directives(data: &[u8]) {
    if let Ok(directives) = batch_directives::parse(utf8(data)) {
        for directive in directives {
            assert!(directive.line > 0);
        }
    }
}

pub(crate) fn signed(data: &[u8]) {
    if let Ok(signed) = signed::unwrap(utf8(data)) {
        let again = signed::wrap_none(signed.userid, &signed.payload);
        let back = signed::unwrap(&again).expect("what is written can be read");
        assert_eq!((back.userid, back.payload), (signed.userid, signed.payload));
    }
}

pub(crate) fn dependency(data: &[u8]) {
    if let Ok(dependency) = utf8(data).parse::<Dependency>() {
        let value = serde_json::to_value(&dependency).expect("a dependency is JSON");
        let back: Dependency = serde_json::from_value(value).expect("what is written can be read");
        assert_eq!(back, dependency);
        let _ = dependency.requirement();
    }
}

pub(crate) fn query(data: &[u8]) {
    if let Ok(value) = Syntax::requires().parse(utf8(data)) {
        // Values of operators are checked when the constraint is read.
        if let Ok(constraint) = Constraint::from_value(&value) {
            assert_eq!(
                Constraint::from_value(&constraint.to_value()),
                Ok(constraint)
            );
        }
    }
}

pub(crate) fn hwloc(data: &[u8]) {
    let _ = Node::parse(utf8(data));
}

pub(crate) fn uri(data: &[u8]) {
    if let Ok(uri) = utf8(data).parse::<client::uri::Uri>() {
        assert_eq!(uri.to_string().parse(), Ok(uri));
    }
}
