//! The resource module on several ranks, with real content and kvs modules.

use client::{Handle, Node};
use serde_json::{Value, json};
use testbed::{Instance, Running};

struct Bed {
    instance: Instance,
    modules: Vec<Running>,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new(size: u32, config: Value) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::new(size);
        instance.set_attr("statedir", dir.path().to_str().unwrap());
        instance.set_attr("hostlist", &format!("node[0-{}]", size - 1));
        instance.serve("config.get", move |_| Ok(config.clone()));
        let mut bed = Bed {
            instance,
            modules: Vec::new(),
            _dir: dir,
        };
        bed.modules
            .push(bed.instance.start(0, "content", &[], content::cache::main));
        bed.modules
            .push(bed.instance.start(0, "kvs", &[], kvs::module::main));
        bed
    }

    fn start(&mut self, rank: u32) {
        self.modules.push(
            self.instance
                .start(rank, "resource", &[], resource::module::main),
        );
    }

    async fn stop(&mut self) {
        while let Some(module) = self.modules.pop() {
            module.stop().await.unwrap();
        }
    }
}

async fn waitup(h: &Handle, up: u32) {
    h.rpc(
        "resource.monitor-waitup",
        Node::Rank(0),
        &json!({ "up": up }),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn ranks_discover_and_come_online() {
    let mut bed = Bed::new(3, json!({}));
    let h = bed.instance.client(0);
    let (members_tx, mut members) = tokio::sync::mpsc::unbounded_channel::<String>();
    let groups = move |mut ctx: client::module::Context| async move {
        let Some(request) = ctx.inbox.recv().await else {
            return Ok(());
        };
        while let Some(members) = members.recv().await {
            ctx.handle.respond(&request, &json!({ "members": members }));
        }
        Ok(())
    };
    let groups = bed.instance.start(0, "groups", &[], groups);
    // Ranks that come before their parent try again.
    bed.start(2);
    bed.start(0);
    let mut acquire = h.stream("resource.acquire", Node::Any, &json!({}));
    bed.start(1);
    let first: Value = acquire.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(first["resources"]["execution"]["R_lite"][0]["rank"], "0-2");
    assert_eq!(first["up"], "0-2");
    let e = h
        .rpc("resource.acquire", Node::Any, &json!({}))
        .await
        .unwrap_err();
    assert_eq!(e.errno, libc::EBUSY);
    let log = kvs::client::get(&h, None, "resource.eventlog")
        .await
        .unwrap();
    assert!(
        String::from_utf8(log)
            .unwrap()
            .contains("dynamic-discovery")
    );
    let stored = kvs::client::get(&h, None, "resource.R").await.unwrap();
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored, first["resources"]);

    let drain = json!({"targets": "1", "reason": "testing"});
    h.rpc("resource.drain", Node::Any, &drain).await.unwrap();
    let next: Value = acquire.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(next, json!({"down": "1"}));
    let e = h
        .rpc("resource.drain", Node::Any, &drain)
        .await
        .unwrap_err();
    assert_eq!(
        (e.errno, e.to_string().as_str()),
        (libc::EEXIST, "rank 1 already drained")
    );
    let status: Value = h
        .call("resource.status", Node::Rank(0), &json!({}))
        .await
        .unwrap();
    assert_eq!(status["drain"]["1"]["reason"], "testing");
    assert_eq!(
        (&status["online"], &status["offline"]),
        (&json!("0-2"), &json!(""))
    );
    let sched: Value = h
        .call("resource.sched-status", Node::Rank(0), &json!({}))
        .await
        .unwrap();
    assert_eq!(sched["down"]["execution"]["R_lite"][0]["rank"], "1");
    h.rpc("resource.undrain", Node::Any, &json!({"targets": "1"}))
        .await
        .unwrap();
    let next: Value = acquire.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(next, json!({"up": "1"}));
    h.rpc(
        "resource.monitor-force-down",
        Node::Any,
        &json!({"ranks": "2"}),
    )
    .await
    .unwrap();
    let next: Value = acquire.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(next, json!({"down": "2", "shrink": "2"}));
    // The broker says who is there: rank 1 leaves.
    for (members, want) in [
        ("0-1", None),
        ("0", Some(json!({"down": "1", "shrink": "1"}))),
    ] {
        members_tx.send(members.into()).unwrap();
        if let Some(want) = want {
            let next: Value = acquire.next().await.unwrap().unwrap().json().unwrap();
            assert_eq!(next, want);
        }
    }
    // Any rank tells the set, and draws its own topology.
    let far = bed.instance.client(2);
    let got: Value = far
        .call("resource.get", Node::Any, &json!({}))
        .await
        .unwrap();
    assert_eq!(got["method"], "dynamic-discovery");
    let xml = far
        .rpc("resource.topo-get", Node::Any, &json!({}))
        .await
        .unwrap();
    assert!(xml.text().unwrap().contains("<topology"));
    drop(members_tx);
    groups.stop().await.unwrap();
    bed.stop().await;
}

#[tokio::test]
async fn configured_sets_name_targets_that_may_come() {
    let config = json!({"resource": {"noverify": true, "exclude": "node0", "config": [
        {"hosts": "node[0-1]", "cores": "0-3"}, {"hosts": "node1", "properties": ["p"]},
    ]}});
    let mut bed = Bed::new(2, config);
    let h = bed.instance.client(0);
    bed.start(0);
    let mut acquire = h.stream("resource.acquire", Node::Any, &json!({}));
    let first: Value = acquire.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(
        (
            &first["resources"]["execution"]["R_lite"][0]["rank"],
            &first["up"]
        ),
        (&json!("1"), &json!(""))
    );
    bed.start(1);
    let next: Value = acquire.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(next, json!({"up": "1"}));
    waitup(&h, 2).await;
    h.rpc("resource.drain", Node::Any, &json!({"targets": "node1"}))
        .await
        .unwrap();
    let mut journal = h.stream("resource.journal", Node::Any, &json!({}));
    let all: Value = journal.next().await.unwrap().unwrap().json().unwrap();
    let names: Vec<_> = all["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["restart", "resource-define", "online", "online", "drain"]
    );
    let sentinel: Value = journal.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(sentinel, json!({"events": []}));
    // After a restart the node is still drained.
    while bed.modules.len() > 2 {
        bed.modules.pop().unwrap().stop().await.unwrap();
    }
    bed.start(0);
    let status: Value = h
        .call("resource.status", Node::Rank(0), &json!({}))
        .await
        .unwrap();
    assert!(status["drain"]["1"].is_object(), "{status}");
    bed.stop().await;
}

#[tokio::test]
async fn ranks_without_what_is_configured_are_drained_before_they_are_online() {
    let wanted = json!({"resource": {"verify": {"hostname": "ignore"}, "config": [
        {"hosts": "node[0-1]", "cores": "0-9999"},
    ]}});
    let mut bed = Bed::new(2, wanted);
    let h = bed.instance.client(0);
    bed.start(0);
    bed.start(1);
    waitup(&h, 2).await;
    let status: Value = h
        .call("resource.status", Node::Any, &json!({}))
        .await
        .unwrap();
    for rank in ["0", "1"] {
        let reason = status["drain"][rank]["reason"].as_str().unwrap();
        assert!(reason.contains("missing resources: core"), "{status}");
    }
    let mut acquire = h.stream("resource.acquire", Node::Any, &json!({}));
    let first: Value = acquire.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(first["up"], json!(""), "{first}");
}
