//! Readers take what is right, and say what is wrong with everything else.

use fluxion::find::Criteria;
use fluxion::write::{Format, Frame};
use fluxion::{Context, Error, Options, read, request};
use proptest::prelude::*;

const GRUG: &str = r#"<graphml>
  <key id="root" for="node" attr.name="root"><default>0</default></key>
  <key id="type" for="node" attr.name="type"/>
  <key id="basename" for="node" attr.name="basename"/>
  <key id="size" for="node" attr.name="size"><default>1</default></key>
  <key id="subsystem" for="node" attr.name="subsystem"><default>containment</default></key>
  <key id="e_subsystem" for="edge" attr.name="e_subsystem"><default>containment</default></key>
  <key id="id_scope" for="edge" attr.name="id_scope"><default>1</default></key>
  <key id="gen_method" for="edge" attr.name="gen_method"><default>MULTIPLY</default></key>
  <key id="multi_scale" for="edge" attr.name="multi_scale"><default>1</default></key>
  <graph>
    <node id="c"><data key="root">1</data><data key="type">cluster</data><data key="basename">big</data></node>
    <node id="n"><data key="type">node</data><data key="basename">n</data></node>
    <node id="m"><data key="type">memory</data><data key="basename">memory</data><data key="size">8</data></node>
    <node id="k"><data key="type">core</data><data key="basename">core</data></node>
    <edge source="c" target="n"><data key="multi_scale">3</data></edge>
    <edge source="n" target="m"><data key="multi_scale">2</data></edge>
    <edge source="n" target="k"><data key="id_scope">0</data><data key="multi_scale">4</data></edge>
  </graph>
</graphml>"#;

const RV1: &str = r#"{"version": 1, "execution": {"R_lite": [{"rank": "0-1,5", "children": {"core": "0-3", "gpu": "0"}}],
  "nodelist": ["a[0-2]"], "properties": {"big": "0-1", "fast": "5"}, "starttime": 0, "expiration": 0}}"#;

const XML: &str = r#"<topology><object type="Machine"><info name="HostName" value="corona7"/>
  <object type="NUMANode"><object type="Package"><object type="Core"><object type="PU"/></object><object type="Core"/></object>
  <object type="Bridge"><object type="OSDev" name="sda" osdev_type="0"><info name="Size" value="5000000"/></object></object>
  </object></object></topology>"#;

fn load(text: &str, format: read::Format) -> Context {
    Context::load(text, format, Options::default()).expect("it is right")
}

/// All vertices as JSON Graph Format.
fn dump(context: &Context) -> String {
    let all = context.find(&Criteria::parse("status=up").expect("it is right"));
    Format::Jgf.write(context.graph(), &all, Frame::default())
}

#[test]
fn a_recipe_makes_what_it_says() {
    let context = load(GRUG, read::Format::Grug);
    let graph = context.graph();
    assert_eq!(graph.len(), 1 + 3 + 6 + 12);
    let memory = context
        .at("/big0/n2/memory4")
        .expect("ids go on through nodes");
    assert_eq!(
        (
            graph.size(memory[0]),
            graph.rank(graph.parent(memory[0]).expect("in a node"))
        ),
        (8, 2)
    );
    assert!(context.at("/big0/n0/core3").is_ok() && context.at("/big0/n0/core4").is_err());
}

#[test]
fn a_graph_is_written_as_it_is_read() {
    for (text, format) in [
        (GRUG, read::Format::Grug),
        (RV1, read::Format::Rv1),
        (XML, read::Format::Hwloc),
    ] {
        let first = dump(&load(text, format));
        let second = dump(&load(&first, read::Format::Jgf));
        assert_eq!(first, second);
    }
}

#[test]
fn devices_of_memory_go_to_its_processors() {
    let context = load(XML, read::Format::Hwloc);
    let found = context
        .at("/cluster0/corona7/socket0/storage0")
        .expect("sda is near the package");
    assert_eq!(context.graph().size(found[0]), 5);
}

#[test]
fn an_error_names_its_place() {
    let fails = |text: &str, format| match Context::load(text, format, Options::default()) {
        Ok(_) => panic!("{text} is wrong"),
        Err(error) => error.to_string(),
    };
    let twice = GRUG.replace("target=\"m\"", "target=\"x\"");
    assert_eq!(
        fails(&twice, read::Format::Grug),
        "recipe n to x: there is no node x"
    );
    let short = RV1.replace("a[0-2]", "a[0-1]");
    assert_eq!(
        fails(&short, read::Format::Rv1),
        "R.execution.nodelist: 2 hosts for 3 ranks"
    );
    let lost = r#"{"graph": {"nodes": [{"id": "0", "metadata": {"type": "cluster", "paths": {"containment": "/c"}}}],
        "edges": [{"source": "0", "target": "7"}]}}"#;
    assert_eq!(
        fails(lost, read::Format::Jgf),
        "edge 0 to 7: there is no vertex 7"
    );
}

#[test]
fn growing_and_shrinking_keep_jobs() -> Result<(), Error> {
    let mut context = load(RV1, read::Format::Rv1);
    let before = dump(&context);
    let jobspec = request::parse(
        "version: 1\nresources: [{type: node, count: 1, exclusive: true, with: [{type: slot, count: 1, label: t, with: [{type: core, count: 1}]}]}]\ntasks: [{command: [a], slot: t, count: {per_slot: 1}}]\nattributes:\n",
    )?;
    let request = context.request(&jobspec)?;
    let found = context
        .submit(fluxion::Op::Allocate, 1, &request, 0)
        .expect("all is free");
    let held = context
        .graph()
        .path(found.selection.holds(context.graph())[0].vertex);
    let other = if held.ends_with("a0") {
        "/cluster0/a1"
    } else {
        "/cluster0/a0"
    };
    let tops = context.at(other)?;
    context.shrink(&tops)?;
    assert!(context.at(other).is_err());
    let kept = context.jobs()[&1].holds()[0].vertex;
    assert_eq!(context.graph().path(kept), held);
    context.grow(&before)?;
    assert!(context.at(other).is_ok());
    context.cancel(1)?;
    assert_eq!(context.ledger().busy(), 0);
    Ok(())
}

#[test]
fn what_is_too_deep_is_refused() {
    let many = 100_000;
    let nodes: Vec<String> = (0..many)
        .map(|i| format!(r#"{{"id": "{i}", "metadata": {{"type": "x", "id": {i}, "paths": {{"containment": "/"}}}}}}"#))
        .collect();
    let edges: Vec<String> = (1..many)
        .map(|i| format!(r#"{{"source": "{}", "target": "{i}"}}"#, i - 1))
        .collect();
    let chain = format!(
        r#"{{"graph": {{"nodes": [{}], "edges": [{}]}}}}"#,
        nodes.join(","),
        edges.join(",")
    );
    let xml = format!("<topology>{}", "<object type='Group'>".repeat(many));
    for (text, format) in [(chain, read::Format::Jgf), (xml, read::Format::Hwloc)] {
        let error = Context::load(&text, format, Options::default()).expect_err("it is too deep");
        let told = ["inside more than", "too deep"];
        assert!(
            told.iter().any(|t| error.to_string().contains(t)),
            "{error}"
        );
    }
    let with = |n: usize| format!("{{resources: {}{}}}", "[{with: ".repeat(n), "}]".repeat(n));
    for text in [
        with(many),
        with(5000),
        format!("resources: {}{}", "[".repeat(many), "]".repeat(many)),
    ] {
        assert!(request::parse(&text).is_err());
    }
    assert!(Criteria::parse(&"(".repeat(many)).is_err());
}

/// A text with some bytes changed, cut or doubled.
fn damaged(text: &'static str) -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4u8);
    proptest::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, b"0919-<>{}[],:\""[usize::from(byte) % 14]),
                _ => {
                    let part = bytes[at..(at + usize::from(byte)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #[test]
    fn damaged_texts_are_read_or_refused(
        grug in damaged(GRUG),
        rv1 in damaged(RV1),
        xml in damaged(XML),
        any in ".{0,200}",
    ) {
        for format in [read::Format::Grug, read::Format::Jgf, read::Format::Rv1, read::Format::Hwloc] {
            for text in [&grug, &rv1, &xml, &any] {
                if let Err(error) = Context::load(text, format, Options::default()) {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
        let _ = request::parse(&any);
        let _ = Criteria::parse(&any);
    }

    #[test]
    fn a_damaged_graph_changes_nothing(text in damaged(RV1)) {
        let mut context = load(RV1, read::Format::Rv1);
        let before = dump(&context);
        if context.grow(&text).is_err() {
            prop_assert_eq!(dump(&context), before);
        }
    }
}

/// In the form of hwloc 1, where what is beside a socket is in it.
#[test]
fn a_group_of_one_socket_is_that_socket() {
    let group = |cpus: &str, inner: &str| {
        format!(
            r#"<object type="Group" cpuset="{cpus}">{inner}<object type="OSDev" name="cuda3" osdev_type="5"/></object>"#
        )
    };
    let socket =
        r#"<object type="Socket" cpuset="0x3"><object type="Core"/><object type="Core"/></object>"#;
    let read = |group: String| {
        let text = format!(
            r#"<topology><object type="Machine"><info name="HostName" value="n1"/><object type="NUMANode" cpuset="0x3">{group}</object></object></topology>"#
        );
        let builder = read::Format::Hwloc.read_allowed(&text, &["node", "socket", "core", "gpu"]);
        let graph = builder
            .expect("right XML")
            .finish("containment")
            .expect("a tree")
            .0;
        let gpu = graph.vertices().find(|v| graph.kind_text(*v) == "gpu");
        graph.path(gpu.expect("there is one"))
    };
    assert_eq!(read(group("0x3", socket)), "/cluster0/n1/socket0/gpu3");
    assert_eq!(read(group("0xf", socket)), "/cluster0/n1/gpu3");
}
