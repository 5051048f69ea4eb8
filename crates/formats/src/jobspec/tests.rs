use super::*;
use proptest::prelude::*;
use serde_json::json;

fn basic() -> Value {
    json!({"resources": [{"type": "node", "count": 2, "with": [
        {"type": "slot", "count": 3, "label": "task", "with": [
            {"type": "core", "count": 2}, {"type": "gpu", "count": 1}]}]}],
        "tasks": [{"command": ["/bin/app", "-x"], "slot": "task", "count": {"total": 5}}],
        "attributes": {"system": {"duration": 5400.0, "cwd": "/tmp", "environment": {"A": "b"},
            "shell": {"options": {"verbose": 1, "output": {"stdout": {"type": "file"}}}}}},
        "version": 1})
}

/// The message for `basic()` with the value at `pointer` replaced.
fn fault(pointer: &str, value: Value) -> String {
    let mut doc = basic();
    *doc.pointer_mut(pointer)
        .expect("pointer into the basic jobspec") = value;
    Jobspec::from_value(doc).unwrap_err().to_string()
}

#[test]
fn accessors() {
    let spec = Jobspec::from_value(basic()).unwrap();
    let counts = spec.resource_counts().unwrap();
    assert_eq!(
        counts,
        ResourceCounts {
            nnodes: 2,
            nslots: 6,
            slot_size: 2,
            slot_gpus: 1,
            exclusive: false
        }
    );
    assert_eq!(counts.slots_per_node(), Some(3));
    assert_eq!(spec.duration(), 5400.);
    assert_eq!(spec.cwd(), Some("/tmp"));
    assert_eq!(spec.environment().collect::<Vec<_>>(), [("A", "b")]);
    assert_eq!(
        spec.shell_option("output.stdout.type"),
        Some(&json!("file"))
    );
    assert_eq!(spec.shell_option("output.stderr.type"), None);
    assert_eq!(spec.job_name(), "app");
    assert_eq!(spec.ntasks(6), 5);
    assert_eq!(serde_json::to_value(&spec).unwrap(), basic());
}

#[test]
fn faults_name_their_place() {
    for (pointer, value, want) in [
        (
            "/resources/0/with/0/with/1/count",
            json!(-1),
            "jobspec.resources[0].with[0].with[1].count: must be positive, found -1",
        ),
        (
            "/resources/0/with/0/with/0/count",
            json!(0),
            "jobspec.resources[0].with[0].with[0].count: must be positive, found 0",
        ),
        (
            "/resources/0/count",
            json!([1]),
            "jobspec.resources[0].count: must be an integer or a range, found a list",
        ),
        (
            "/resources/0/count",
            json!("2-4"),
            "jobspec.resources[0].count: must be an integer in version 1",
        ),
        (
            "/resources/0/type",
            json!(1),
            "jobspec.resources[0].type: must be a string, found a number",
        ),
        (
            "/resources",
            json!([]),
            "jobspec.resources: must not be empty",
        ),
        (
            "/tasks/0/command",
            json!([]),
            "jobspec.tasks[0].command: must not be empty",
        ),
        (
            "/tasks/0/command",
            json!(["a", 1]),
            "jobspec.tasks[0].command[1]: must be a string, found a number",
        ),
        (
            "/tasks/0/count",
            json!({"total": 1, "per_slot": 1}),
            "jobspec.tasks[0].count: must have exactly one key: per_slot or total",
        ),
        (
            "/attributes/system",
            json!({}),
            "jobspec.attributes.system: key 'duration' is missing",
        ),
        (
            "/attributes/system/duration",
            json!(-1),
            "jobspec.attributes.system.duration: must not be negative, found -1",
        ),
        (
            "/attributes/system/environment/A",
            json!(1),
            "jobspec.attributes.system.environment.A: must be a string or null, found a number",
        ),
        (
            "/attributes/system/cwd",
            json!({}),
            "jobspec.attributes.system.cwd: must be a string, found a mapping",
        ),
        (
            "/attributes",
            json!({"system": {"duration": 0}, "x": 1}),
            "jobspec.attributes: unknown key 'x'; attributes are system and user",
        ),
        (
            "/version",
            json!("1"),
            "jobspec.version: must be an integer, found a string",
        ),
    ] {
        assert_eq!(fault(pointer, value), want);
    }
    let constraint = json!({"duration": 0, "constraints": {"and": [{"ranks": ["3-1"]}]}});
    assert_eq!(
        fault("/attributes/system", constraint),
        "jobspec.attributes.system.constraints.and[0].ranks[0]: idset '3-1': \
         '3-1' is not an id or a range such as 2-5"
    );
    assert_eq!(
        Jobspec::from_value(json!(1)).unwrap_err().to_string(),
        "jobspec: must be a mapping, found a number"
    );
    assert!(
        "{".parse::<Jobspec>()
            .unwrap_err()
            .to_string()
            .starts_with("jobspec: not valid JSON:")
    );
}

#[test]
fn counts_of_rfc_14() {
    let count = |value: Value| {
        let mut doc = basic();
        doc["version"] = json!(2);
        doc["resources"][0]["count"] = value;
        Jobspec::from_value(doc).map(|spec| spec.resources[0].count.clone())
    };
    let text = |value: Value| count(value).map(|c| c.to_string());
    let written = |value: Value| count(value).map(|c| json!(c));
    assert_eq!(count(json!(4)), Ok(Count::Fixed(4)));
    assert_eq!(count(json!("7")), Ok(Count::Fixed(7)));
    assert_eq!(text(json!({"min": 3})), Ok("3+".into()));
    let full = json!({"min": 2, "max": 16, "operator": "*", "operand": 2});
    assert_eq!(text(full.clone()), Ok("2-16:2:*".into()));
    for as_it_was in [full, json!("2-16:2:*"), json!("3+"), json!("1,4-5")] {
        assert_eq!(written(as_it_was.clone()), Ok(as_it_was));
    }
    for bad in [
        json!("x"),
        json!("0"),
        json!("4-2:1"),
        json!("2-4:1:*"),
        json!({"max": 2}),
        json!({"min": 2, "max": 1}),
        json!({"min": 1, "x": 1}),
    ] {
        assert!(count(bad.clone()).is_err(), "{bad}");
    }
}

/// What `flux submit --dry-run` of the reference prints, less the resource limits.
#[test]
fn built_like_the_submission_commands() {
    let base = |words: &[&str]| {
        JobspecBuilder::new(words.iter().copied())
            .environment([("A", "b")])
            .cwd("/tmp/wa")
    };
    let same = |builder: JobspecBuilder, want: &str| {
        let spec = builder.build().unwrap();
        let want: Value = serde_json::from_str(want).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), want);
        assert_eq!(Jobspec::from_value(want).unwrap(), spec);
    };
    same(
        base(&["hostname", "-a"]).slots(4, 1, 0, None, false),
        r#"{"resources": [{"type": "slot", "count": 4, "with": [{"type": "core", "count": 1}], "label": "task"}],
            "tasks": [{"command": ["hostname", "-a"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": 0, "environment": {"A": "b"}, "cwd": "/tmp/wa"}}, "version": 1}"#,
    );
    same(
        base(&["hostname"])
            .slots(4, 2, 1, Some(2), false)
            .duration(5400.)
            .name("foo")
            .queue("batch")
            .bank("bank")
            .shell_option("x", json!(1))
            .attribute("foo", json!(2))
            .attribute("attributes.system.bar.baz", json!(3))
            .attribute(".user.x", json!(1))
            .attribute("user.y", json!(2)),
        r#"{"resources": [{"type": "node", "count": 2, "with": [{"type": "slot", "count": 2, "with": [{"type": "core", "count": 2}, {"type": "gpu", "count": 1}], "label": "task"}]}],
            "tasks": [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": 5400.0, "environment": {"A": "b"}, "cwd": "/tmp/wa", "job": {"name": "foo"}, "queue": "batch", "bank": "bank", "shell": {"options": {"x": 1}}, "foo": 2, "bar": {"baz": 3}}, "user": {"x": 1, "y": 2}}, "version": 1}"#,
    );
    same(
        base(&["hostname"]).slots(5, 1, 0, Some(2), false),
        r#"{"resources": [{"type": "node", "count": 2, "with": [{"type": "slot", "count": 3, "with": [{"type": "core", "count": 1}], "label": "task"}]}],
            "tasks": [{"command": ["hostname"], "slot": "task", "count": {"total": 5}}],
            "attributes": {"system": {"duration": 0, "environment": {"A": "b"}, "cwd": "/tmp/wa"}}, "version": 1}"#,
    );
    let per_node = PerResource {
        kind: "node".into(),
        count: 3,
    };
    same(
        base(&["hostname"]).per_resource(None, Some(2), 0, true, Some(per_node)),
        r#"{"resources": [{"type": "node", "count": 2, "exclusive": true, "with": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}], "label": "task"}]}],
            "tasks": [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": 0, "shell": {"options": {"per-resource": {"type": "node", "count": 3}}}, "environment": {"A": "b"}, "cwd": "/tmp/wa"}}, "version": 1}"#,
    );
    same(
        base(&["hostname"])
            .output("a.out", true)
            .error("b.err", true)
            .input("in"),
        r#"{"resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}], "label": "task"}],
            "tasks": [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": 0, "environment": {"A": "b"}, "cwd": "/tmp/wa", "shell": {"options": {"input": {"stdin": {"type": "file", "path": "in"}}, "output": {"stdout": {"type": "file", "path": "a.out", "label": true}, "stderr": {"type": "file", "path": "b.err", "label": true}}}}}}, "version": 1}"#,
    );
    same(
        base(&["hostname"])
            .unbuffered()
            .signal(10, 30.)
            .taskmap("cyclic")
            .dependencies(&["afterany:ƒ1".parse().unwrap()])
            .constraints(json!({"properties": ["foo", "bar"]})),
        r#"{"resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}], "label": "task"}],
            "tasks": [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": 0, "environment": {"A": "b"}, "cwd": "/tmp/wa", "shell": {"options": {"output": {"stdout": {"buffer": {"type": "none"}}, "stderr": {"buffer": {"type": "none"}}, "batch-timeout": 0.05}, "input": {"batch-timeout": 0.0}, "signal": {"signum": 10, "timeleft": 30.0}, "taskmap": {"scheme": "cyclic", "value": ""}}}, "dependencies": [{"scheme": "afterany", "value": "ƒ1"}], "constraints": {"properties": ["foo", "bar"]}}}, "version": 1}"#,
    );
    same(
        JobspecBuilder::batch(
            Vec::<String>::new(),
            "sleep",
            "#!/bin/sh\nsleep 1\n",
            vec!["1".to_owned()],
        )
        .environment([("A", "b")])
        .cwd("/tmp/wa")
        .slots(1, 1, 0, None, false)
        .output("flux-{{id}}.out", false),
        r##"{"resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}], "label": "task"}],
            "tasks": [{"command": ["flux", "broker", "{{tmpdir}}/script", "1"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": 0, "environment": {"A": "b"}, "cwd": "/tmp/wa", "job": {"name": "sleep"}, "shell": {"options": {"output": {"stdout": {"type": "file", "path": "flux-{{id}}.out"}}, "per-resource": {"type": "node"}, "mpi": "none", "exit-timeout": "none"}}, "files": {"script": {"mode": 33216, "data": "#!/bin/sh\nsleep 1\n", "encoding": "utf-8"}}}}, "version": 1}"##,
    );
    same(
        JobspecBuilder::nested(Vec::<String>::new(), Vec::new()).slots(2, 1, 0, Some(2), true),
        r#"{"resources": [{"type": "node", "count": 2, "exclusive": true, "with": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}], "label": "task"}]}],
            "tasks": [{"command": ["flux", "broker"], "slot": "task", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": 0, "shell": {"options": {"per-resource": {"type": "node"}, "mpi": "none", "exit-timeout": "none"}}}}, "version": 1}"#,
    );
}

#[test]
fn impossible_options() {
    let new = || JobspecBuilder::new(["a"]);
    let error = |b: JobspecBuilder| b.build().unwrap_err();
    assert_eq!(
        error(JobspecBuilder::new(Vec::<String>::new())),
        BuildError::NoCommand
    );
    assert_eq!(
        error(new().slots(0, 1, 0, None, false)),
        BuildError::Zero("task count")
    );
    assert_eq!(
        error(new().slots(1, 1, 0, Some(2), false)),
        BuildError::MoreNodesThanTasks
    );
    assert_eq!(
        error(new().slots(1, 1, 0, None, true)),
        BuildError::ExclusiveWithoutNodes
    );
    assert_eq!(
        error(new().per_resource(Some(3), Some(2), 0, false, None)),
        BuildError::UnevenCores
    );
    assert_eq!(
        error(new().per_resource(None, Some(2), 0, false, None)),
        BuildError::NodesAlone
    );
    let script = JobspecBuilder::batch(Vec::<String>::new(), "x", "echo", Vec::new());
    assert_eq!(error(script), BuildError::NotAScript("x".into()));
}

#[test]
fn key_values() {
    assert_eq!(parse_key_value("verbose"), ("verbose", json!(1)));
    assert_eq!(parse_key_value("a.b=x=y"), ("a.b", json!("x=y")));
    assert_eq!(parse_key_value("a={\"b\":1}"), ("a", json!({"b": 1})));
}

proptest! {
    #[test]
    fn never_panics(text in r#"[\[\]{}:,"a-z0-9 -]{0,60}"#) {
        let _ = text.parse::<Jobspec>();
    }

    #[test]
    fn built_specs_are_valid(tasks in 1u32..50, cores in 1u32..9, gpus in 0u32..3, nodes in prop::option::of(1u32..20), exclusive: bool) {
        let exclusive = exclusive && nodes.is_some();
        let built = JobspecBuilder::new(["a"]).slots(tasks, cores, gpus, nodes, exclusive).build();
        if nodes.is_some_and(|n| n > tasks) {
            prop_assert_eq!(built.unwrap_err(), BuildError::MoreNodesThanTasks);
        } else {
            let spec = built.unwrap();
            prop_assert_eq!(Jobspec::from_value(serde_json::to_value(&spec).unwrap()).unwrap(), spec.clone());
            let counts = spec.resource_counts().unwrap();
            prop_assert_eq!(spec.ntasks(counts.nslots), tasks);
            prop_assert_eq!((counts.slot_size, counts.slot_gpus, counts.exclusive), (cores, gpus, exclusive));
        }
    }
}

#[test]
fn attributes_besides_system_and_user_are_written_and_refused() {
    let built = JobspecBuilder::new(["true"])
        .attribute(".z.y", json!(1))
        .build()
        .unwrap();
    let value = serde_json::to_value(&built).unwrap();
    assert_eq!(value["attributes"]["z"], json!({"y": 1}));
    let e = Jobspec::from_value(value).unwrap_err();
    assert!(e.to_string().contains("unknown key 'z'"), "{e}");
}
