//! Modules as tasks and as processes, with a router and a stand-in for the broker's own task.

use std::os::unix::fs::PermissionsExt as _;

use client::module::{Context, ModuleResult};
use client::{Handle, Inbox, Node};
use overlay::Topology;
use overlay::topology::Shape;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

async fn echo(mut ctx: Context) -> ModuleResult {
    if ctx.args.iter().any(|a| a == "fail") {
        return Err(ModuleError::unknown_argument("fail"));
    }
    while let Some(msg) = ctx.inbox.recv().await {
        match msg.method() {
            "echo" => ctx.handle.respond_raw(&msg, msg.payload().cloned()),
            "args" => ctx
                .handle
                .respond(&msg, &json!({ "args": ctx.args, "name": ctx.name })),
            "panic" => panic!("as asked"),
            "exit" => std::process::exit(3),
            "never" => {}
            _ => ctx.handle.respond_enosys(&msg),
        }
    }
    Ok(())
}

/// Not a test of its own: what the program of `processes_are_modules` runs.
#[tokio::test]
async fn module_program() {
    if std::env::var_os(client::external::URI_VARIABLE).is_some() {
        let code = client::external::serve(echo).await.is_err();
        std::process::exit(code.into());
    }
}

struct Broker {
    host: Host,
    news: UnboundedReceiver<News>,
    inbox: Inbox,
    handle: Handle,
    attrs: Attrs,
    config: Value,
}

const OWNER: Credentials = Credentials {
    userid: 1000,
    rolemask: wire::ROLE_OWNER,
};

impl Broker {
    fn new() -> Self {
        let (router, _) = crate::router::start(0, OWNER, Topology::new(Shape::Kary(2), 1));
        let (_, handle) = router.attach(OWNER, vec!["module".to_owned()]);
        let spec = ModuleSpec {
            name: "echo",
            services: &["other"],
            ranks: Ranks::Chosen {
                by: "none",
                default: false,
            },
            args: &[],
            main: |ctx| Box::pin(echo(ctx)),
        };
        let plain = ModuleSpec {
            name: "plain",
            services: &[],
            ..spec.clone()
        };
        let (tx, news) = unbounded_channel();
        let mut attrs = Attrs::default();
        attrs.fix("rank", "0");
        attrs.fix("size", "1");
        Self {
            host: Host::new(vec![spec, plain], router, OWNER, (0, 1), tx),
            news,
            inbox: handle.inbox().unwrap(),
            handle,
            attrs,
            config: json!({ "x": 1 }),
        }
    }

    fn load(&mut self, path: &str, name: Option<&str>, args: &[&str]) -> Result<(), RpcError> {
        let request = LoadRequest {
            path: path.to_owned(),
            name: name.map(str::to_owned),
            loader: None,
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            exec: false,
        };
        let around = Surroundings {
            attrs: &self.attrs,
            config: &self.config,
        };
        self.host.load(request, None, around)
    }

    /// What happens next to a module; what it reports of itself is taken meanwhile.
    async fn next(&mut self) -> Option<Ended> {
        loop {
            tokio::select! {
                biased;
                Some(msg) = self.inbox.recv() => {
                    let body: Value = msg.json().unwrap();
                    let field = |name: &str| body[name].as_i64().unwrap_or(0) as i32;
                    self.host.report(msg.sender().unwrap(), field("status"), field("errnum"));
                    self.handle.respond_ok(&msg);
                }
                news = self.news.recv() => match news.unwrap() {
                    News::Running(id) => {
                        self.host.running(&id);
                        return None;
                    }
                    News::Ended(id, result) => return self.host.forget(id, result),
                },
            }
        }
    }

    async fn ended(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.next().await {
                return ended;
            }
        }
    }

    fn listed(&self, name: &str) -> Value {
        let list = self.host.list();
        let mods = list["mods"].as_array().unwrap();
        mods.iter().find(|m| m["name"] == name).unwrap().clone()
    }
}

#[tokio::test]
async fn tasks_are_modules_under_any_name() {
    let mut b = Broker::new();
    b.load("echo", None, &[]).unwrap();
    b.load("plain", Some("two"), &["a=1"]).unwrap();
    assert_eq!(b.load("echo", None, &[]).unwrap_err().errno, libc::EEXIST);
    let taken = b.load("echo", Some("three"), &[]).unwrap_err();
    assert_eq!(
        taken.to_string(),
        "File exists: module echo has the service other"
    );
    assert_eq!(b.load("none", None, &[]).unwrap_err().errno, libc::ENOENT);
    assert_eq!(
        b.load("echo", Some("a.b"), &[]).unwrap_err().errno,
        libc::EINVAL
    );
    assert!(b.next().await.is_none() && b.next().await.is_none());
    let said: Value = b
        .handle
        .call("two.args", Node::Any, &json!({}))
        .await
        .unwrap();
    assert_eq!(said, json!({"args": ["a=1"], "name": "two"}));
    let stats: Value = b
        .handle
        .call("two.stats-get", Node::Any, &json!({}))
        .await
        .unwrap();
    assert_eq!(
        (&stats["rx"]["request"], &stats["tx"]["response"]),
        (&json!(2), &json!(1))
    );
    let echo = b.listed("echo");
    assert_eq!(
        (&echo["status"], &echo["path"]),
        (&json!(1), &json!("builtin"))
    );
    assert_eq!(b.host.last(), Some("two"));
    b.host.unload("two", None, false).unwrap();
    let ended = b.ended().await;
    assert!(ended.expected && ended.result.is_ok());
    assert_eq!(
        b.host.unload("two", None, false).unwrap_err().errno,
        libc::ENOENT
    );
}

#[tokio::test]
async fn a_panic_ends_one_module_and_its_calls() {
    let mut b = Broker::new();
    b.load("echo", None, &[]).unwrap();
    assert!(b.next().await.is_none());
    let waiting = b.handle.rpc("echo.never", Node::Any, &json!({}));
    let panicking = b.handle.rpc("echo.panic", Node::Any, &json!({}));
    let ended = b.ended().await;
    assert!(!ended.expected && !ended.at_start);
    assert_eq!(ended.result.unwrap_err().text, "panicked: as asked");
    for call in [waiting, panicking] {
        let error = call.await.unwrap_err();
        assert_eq!(error.errno, libc::EHOSTUNREACH);
        assert!(error.to_string().starts_with("module disconnect: echo"));
    }
    b.load("echo", None, &["fail"]).unwrap();
    let ended = b.ended().await;
    assert!(ended.at_start);
    assert_eq!(ended.result.unwrap_err().errno, libc::EINVAL);
}

#[tokio::test]
async fn what_does_not_end_is_ended() {
    let mut b = Broker::new();
    b.load("echo", None, &[]).unwrap();
    assert!(b.next().await.is_none());
    b.host.unload("echo", None, true).unwrap();
    assert_eq!(b.ended().await.result.unwrap_err().errno, libc::ETIMEDOUT);
}

#[tokio::test]
async fn a_module_that_is_ended_before_it_has_begun_ends_well() {
    let mut b = Broker::new();
    b.load("echo", None, &[]).unwrap();
    // It reports that it runs, and is ended before anybody has heard of it.
    let News::Running(id) = b.news.recv().await.unwrap() else {
        panic!("it has not begun");
    };
    b.host.unload("echo", None, false).unwrap();
    b.host.running(&id);
    assert_eq!(b.ended().await.result, Ok(()));
}

#[tokio::test]
async fn messages_can_be_kept_back() {
    let mut b = Broker::new();
    b.load("echo", None, &[]).unwrap();
    assert!(b.next().await.is_none());
    b.host.defer("echo", true).unwrap();
    let call = b.handle.rpc("echo.echo", Node::Any, &json!({"n": 1}));
    // Answered by the router itself, after the request was kept.
    b.handle
        .call::<Value>("module.ping", Node::Any, &json!({}))
        .await
        .unwrap();
    b.host.defer("echo", false).unwrap();
    assert_eq!(call.await.unwrap().json::<Value>().unwrap()["n"], 1);
}

#[tokio::test]
async fn processes_are_modules() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prog");
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\nexec {} --exact host::tests::module_program --nocapture\n",
        exe.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = path.to_str().unwrap();

    let mut b = Broker::new();
    b.load(path, None, &["x"]).unwrap();
    assert_eq!(b.listed("prog")["status"], 0);
    assert!(b.next().await.is_none());
    let said: Value = b
        .handle
        .call("prog.args", Node::Any, &json!({}))
        .await
        .unwrap();
    assert_eq!(said, json!({"args": ["x"], "name": "prog"}));
    b.handle
        .call::<Value>("prog.stats-get", Node::Any, &json!({}))
        .await
        .unwrap();
    assert_eq!(b.listed("prog")["path"], path);
    // A process may be named by its file.
    b.host.unload(path, None, false).unwrap();
    let ended = b.ended().await;
    assert!(ended.expected && ended.result.is_ok());

    b.load(path, Some("dying"), &[]).unwrap();
    assert!(b.next().await.is_none());
    let call = b.handle.rpc("dying.exit", Node::Any, &json!({}));
    let ended = b.ended().await;
    assert!(
        ended
            .result
            .unwrap_err()
            .text
            .ends_with("exited with exit code 3")
    );
    assert_eq!(call.await.unwrap_err().errno, libc::EHOSTUNREACH);

    b.load(path, Some("failing"), &["fail"]).unwrap();
    let ended = b.ended().await;
    assert_eq!(ended.result.unwrap_err().errno, libc::EINVAL);
}
