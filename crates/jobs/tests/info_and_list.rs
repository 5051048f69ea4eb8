//! The job-info and job-list modules, with real content and KVS modules and a made-up job
//! manager.

use client::module::{Context, ModuleError};
use client::{Handle, Message, Node};
use formats::JobId;
use formats::job_schema::JobKey;
use kvs::Txn;
use serde_json::{Value, json};
use testbed::{Instance, Running};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

struct Bed {
    instance: Instance,
    modules: Vec<Running>,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::new(1);
        instance.set_attr("rundir", dir.path().to_str().unwrap());
        let mut modules = vec![
            instance.start(0, "content", &[], content::cache::main),
            instance.start(0, "kvs", &[], kvs::module::main),
        ];
        modules.push(instance.start(0, "kvs-watch", &[], kvs::kvs_watch::main));
        modules.push(instance.start(0, "job-info", &[], jobs::info::main));
        Bed {
            instance,
            modules,
            _dir: dir,
        }
    }

    async fn stop(mut self) {
        while let Some(module) = self.modules.pop() {
            module.stop().await.unwrap();
        }
    }
}

fn event(name: &str, context: Value) -> String {
    format!(
        "{}\n",
        json!({"timestamp": 1.0, "name": name, "context": context})
    )
}

/// Appends events to one of a job's eventlogs.
async fn post(h: &Handle, ns: Option<&str>, key: &str, name: &str, context: Value) {
    let mut txn = Txn::new();
    txn.append(key, event(name, context).as_bytes());
    kvs::client::commit(h, ns, &txn).await.unwrap();
}

const ID: JobId = JobId(4711);

async fn make_job(h: &Handle) {
    let dir = ID.kvs_path();
    let mut txn = Txn::new();
    txn.put(
        &format!("{dir}.jobspec"),
        r#"{"attributes":{"system":{"duration":1.0}}}"#,
    );
    txn.put(
        &format!("{dir}.R"),
        r#"{"version":1,"execution":{"R_lite":[],"expiration":5.0}}"#,
    );
    kvs::client::commit(h, None, &txn).await.unwrap();
    post(
        h,
        None,
        &format!("{dir}.eventlog"),
        "submit",
        json!({"userid": 42}),
    )
    .await;
}

#[tokio::test]
async fn lookups_are_for_the_owner_and_the_submitter() {
    let bed = Bed::new();
    let owner = bed.instance.client(0);
    make_job(&owner).await;
    let ask = |h: Handle, keys: Value, flags: u32| async move {
        let request = json!({"id": ID.0, "keys": keys, "flags": flags});
        h.call::<Value>("job-info.lookup", Node::Any, &request)
            .await
    };
    let (me, other) = (bed.instance.guest(0, 42), bed.instance.guest(0, 43));
    let got = ask(me.clone(), json!(["R", "eventlog"]), 0).await.unwrap();
    assert_eq!(got["id"], ID.0);
    assert!(got["R"].is_string() && got["eventlog"].as_str().unwrap().contains("submit"));
    assert_eq!(
        ask(other, json!(["R"]), 0).await.unwrap_err().errno,
        libc::EPERM
    );
    let e = ask(owner.clone(), json!(["nope"]), 0).await.unwrap_err();
    assert_eq!(
        (e.errno, e.to_string().as_str()),
        (libc::ENOENT, "nope: key not found")
    );
    let request = json!({"id": 1, "keys": ["R"], "flags": 0});
    let e = owner
        .call::<Value>("job-info.lookup", Node::Any, &request)
        .await
        .unwrap_err();
    assert_eq!(e.to_string(), "invalid job id");
    let log = ID.key(JobKey::Eventlog);
    post(
        &owner,
        None,
        &log,
        "resource-update",
        json!({"expiration": 9.0}),
    )
    .await;
    let got = ask(me, json!(["R", "jobspec"]), 3).await.unwrap();
    assert_eq!(got["R"]["execution"]["expiration"], 9.0);
    assert_eq!(got["jobspec"]["attributes"]["system"]["duration"], 1.0);

    let request = json!({"id": ID.0, "key": "R", "flags": 0});
    let mut watch = owner.stream("job-info.update-watch", Node::Any, &request);
    let first: Value = watch.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(first["R"]["execution"]["expiration"], 9.0);
    post(
        &owner,
        None,
        &log,
        "resource-update",
        json!({"expiration": 10.0}),
    )
    .await;
    let next: Value = watch.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(next["R"]["execution"]["expiration"], 10.0);
    post(&owner, None, &log, "clean", json!({})).await;
    assert!(watch.next().await.is_none());
    bed.stop().await;
}

#[tokio::test]
async fn eventlogs_are_followed_to_their_end() {
    let bed = Bed::new();
    let h = bed.instance.client(0);
    make_job(&h).await;
    let log = ID.key(JobKey::Eventlog);
    let watch = |h: &Handle, path: &str, flags: u32| {
        let request = json!({"id": ID.0, "path": path, "flags": flags});
        h.stream("job-info.eventlog-watch", Node::Any, &request)
    };
    async fn next(s: &mut client::RpcStream) -> String {
        let item: Value = s.next().await.unwrap().unwrap().json().unwrap();
        let line = item["event"].as_str().unwrap().to_owned();
        assert!(line.ends_with('\n'));
        serde_json::from_str::<Value>(&line).unwrap()["name"]
            .as_str()
            .unwrap()
            .to_owned()
    }
    let me = bed.instance.guest(0, 42);
    let mut main = watch(&me, "eventlog", 2);
    let mut out = watch(&me, "guest.output", 1);
    let mut cancelled = watch(&me, "guest.input", 1);
    assert_eq!(next(&mut main).await, "submit");
    assert!(
        main.next().await.unwrap().unwrap().payload().is_none(),
        "the sentinel"
    );
    let e = watch(&bed.instance.guest(0, 43), "eventlog", 0)
        .next()
        .await
        .unwrap();
    assert_eq!(e.unwrap_err().errno, libc::EPERM);

    // The job runs: its output is in its own namespace.
    let ns = ID.namespace();
    kvs::client::namespace_create(&h, &ns, 42).await.unwrap();
    post(&h, None, &log, "start", json!({})).await;
    post(&h, Some(&ns), "output", "header", json!({})).await;
    post(&h, Some(&ns), "output", "data", json!({})).await;
    assert_eq!(
        (next(&mut out).await, next(&mut out).await),
        ("header".into(), "data".into())
    );
    cancelled.cancel("job-info.eventlog-watch-cancel");
    assert!(cancelled.next().await.is_none());

    // It ends: the namespace moves to the primary one.
    let copy = ID.key(JobKey::InGuest("output"));
    for name in ["header", "data", "last"] {
        post(&h, None, &copy, name, json!({})).await;
    }
    kvs::client::namespace_remove(&h, &ns).await.unwrap();
    assert_eq!(next(&mut out).await, "last");
    assert!(out.next().await.is_none());
    post(&h, None, &log, "release", json!({"final": true})).await;
    post(&h, None, &log, "clean", json!({})).await;
    for name in ["start", "release", "clean"] {
        assert_eq!(next(&mut main).await, name);
    }
    assert!(main.next().await.is_none());
    // Afterwards all of it is there to read.
    let mut late = watch(&me, "guest.output", 0);
    for name in ["header", "data", "last"] {
        assert_eq!(next(&mut late).await, name);
    }
    assert!(late.next().await.is_none());
    bed.stop().await;
}

/// A job manager that only has a journal; the test says what is in it.
fn journal(bed: &mut Bed) -> UnboundedSender<Value> {
    let (tx, mut rx) = unbounded_channel::<Value>();
    let main = move |mut ctx: Context| async move {
        let mut reader: Option<Message> = None;
        let mut backlog = Vec::new();
        loop {
            tokio::select! {
                msg = ctx.inbox.recv() => match msg {
                    Some(msg) if msg.topic() == "job-manager.events-journal" => {
                        backlog.drain(..).for_each(|v: Value| ctx.handle.respond(&msg, &v));
                        ctx.handle.respond(&msg, &json!({"id": -1, "events": []}));
                        reader = Some(msg);
                    }
                    Some(_) => {}
                    None => return Ok::<(), ModuleError>(()),
                },
                Some(item) = rx.recv() => match &reader {
                    Some(msg) => ctx.handle.respond(msg, &item),
                    None => backlog.push(item),
                },
            }
        }
    };
    bed.modules
        .push(bed.instance.start(0, "job-manager", &[], main));
    bed.modules
        .push(bed.instance.start(0, "job-list", &[], jobs::list::main));
    tx
}

#[tokio::test]
async fn listings_follow_the_journal() {
    let mut bed = Bed::new();
    let tx = journal(&mut bed);
    let h = bed.instance.client(0);
    let item = |id: u64, names: &[&str]| {
        let events: Vec<Value> = names
            .iter()
            .map(|n| {
                json!({"timestamp": 1.0, "name": n,
                "context": {"userid": 42, "urgency": 16, "priority": 16, "status": 0}})
            })
            .collect();
        json!({"id": id, "events": events})
    };
    tx.send(item(1, &["submit", "validate", "depend", "priority"]))
        .unwrap();
    tx.send(item(
        2,
        &["submit", "validate", "depend", "priority", "alloc"],
    ))
    .unwrap();
    // A job that the journal has not told of yet is waited for if it exists.
    make_job(&h).await;
    let wait = h.rpc(
        "job-list.list-id",
        Node::Any,
        &json!({"id": ID.0, "attrs": ["state"]}),
    );
    tx.send(item(ID.0, &["submit", "validate"])).unwrap();
    let got: Value = wait.await.unwrap().json().unwrap();
    assert_eq!(got, json!({"job": {"id": ID.0, "state": 2}}));
    let e = h
        .rpc(
            "job-list.list-id",
            Node::Any,
            &json!({"id": 99, "attrs": []}),
        )
        .await
        .unwrap_err();
    assert_eq!(e.errno, libc::ENOENT);

    let list = json!({"max_entries": 0, "attrs": ["userid", "state"], "constraint": {"states": ["pending", "running"]}});
    let got: Value = h.call("job-list.list", Node::Any, &list).await.unwrap();
    let ids: Vec<_> = got["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|j| j["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [1, ID.0, 2]);
    let mut stream = h.stream("job-list.list", Node::Any, &list);
    let got: Value = stream.next().await.unwrap().unwrap().json().unwrap();
    assert_eq!(
        (&got["version"], got["jobs"].as_array().unwrap().len()),
        (&json!(1), 3)
    );
    assert!(stream.next().await.is_none());
    let e = h
        .rpc(
            "job-list.list",
            Node::Any,
            &json!({"max_entries": 0, "attrs": ["foo"]}),
        )
        .await
        .unwrap_err();
    assert_eq!(
        (e.errno, e.to_string().as_str()),
        (libc::EINVAL, "foo is not a valid attribute")
    );

    // Waiting for a state, and stats, and a purge.
    let wait = h.rpc(
        "job-list.list-id",
        Node::Any,
        &json!({"id": 2, "attrs": ["result"], "state": 64}),
    );
    tx.send(item(2, &["finish", "clean"])).unwrap();
    let got: Value = wait.await.unwrap().json().unwrap();
    assert_eq!(got["job"]["result"], 1);
    let stats: Value = h
        .call("job-list.job-stats", Node::Any, &json!({}))
        .await
        .unwrap();
    assert_eq!(
        (&stats["job_states"]["inactive"], &stats["successful"]),
        (&json!(1), &json!(1))
    );
    h.publish("job-purge-inactive", &json!({"jobs": [2]}))
        .await
        .unwrap();
    let stats: Value = h
        .call("job-list.job-stats", Node::Any, &json!({}))
        .await
        .unwrap();
    assert_eq!(
        (&stats["job_states"]["inactive"], &stats["inactive_purged"]),
        (&json!(0), &json!(1))
    );
    bed.stop().await;
}
