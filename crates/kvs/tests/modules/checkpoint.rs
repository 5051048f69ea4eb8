//! Checkpoints in periods: `kvs.checkpoint-period`, read at the start and on each `config-reload`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use client::module::{Context, ModuleResult};
use client::{Handle, Node};
use content::{BlobRef, HashAlg, batch};
use kvs::client as kv;
use kvs::flags;
use serde_json::{Value, json};
use testbed::{Instance, Running};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wire::RpcError;

use crate::bed::put;

/// A module `content` that shows the checkpoints it is given to the test, and fails them on demand.
struct Content {
    blobs: HashMap<BlobRef, Bytes>,
    checkpoints: UnboundedSender<i64>,
    is_broken: Arc<AtomicBool>,
}

impl Content {
    fn store(&mut self, blob: Bytes) -> BlobRef {
        let blobref = HashAlg::Sha1.hash(&blob);
        self.blobs.insert(blobref, blob);
        blobref
    }

    async fn run(mut self, ctx: Context) -> ModuleResult {
        let (handle, mut inbox) = (ctx.handle, ctx.inbox);
        while let Some(msg) = inbox.recv().await {
            let payload = msg.payload().cloned().unwrap_or_default();
            match msg.method() {
                "store" => {
                    let raw = Bytes::copy_from_slice(self.store(payload).raw());
                    handle.respond_raw(&msg, Some(raw));
                }
                "store-batch" => {
                    let (_, blobs) = batch::decode(payload).unwrap();
                    for blob in blobs {
                        self.store(blob);
                    }
                    handle.respond_ok(&msg);
                }
                "checkpoint-put" => {
                    let request: Value = msg.json().unwrap();
                    let sequence = request["value"]["sequence"].as_i64().unwrap();
                    // The test may have all it wants.
                    let _ = self.checkpoints.send(sequence);
                    match self.is_broken.load(Ordering::Relaxed) {
                        true => handle.respond_error(&msg, &RpcError::errno(libc::ENOSPC)),
                        false => handle.respond_ok(&msg),
                    }
                }
                _ => handle.respond_error(&msg, &RpcError::errno(libc::ENOENT)),
            }
        }
        Ok(())
    }
}

struct Bench {
    instance: Instance,
    kvs: Running,
    content: Running,
    checkpoints: UnboundedReceiver<i64>,
    is_broken: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    /// With this configuration of the kvs.
    fn new(config: &'static str) -> Bench {
        let instance = Instance::new(1);
        instance.serve("config.get", move |_| {
            Ok(serde_json::from_str(config).unwrap())
        });
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        instance.serve("log.append", move |msg| {
            let text = String::from_utf8_lossy(msg.payload().unwrap()).into_owned();
            lines.lock().unwrap().push(text);
            Ok(Value::Null)
        });
        let (tx, checkpoints) = unbounded_channel();
        let is_broken = Arc::new(AtomicBool::new(false));
        let content = Content {
            blobs: HashMap::new(),
            checkpoints: tx,
            is_broken: is_broken.clone(),
        };
        Bench {
            content: instance.start(0, "content", &[], |ctx| content.run(ctx)),
            kvs: instance.start(0, "kvs", &[], kvs::module::main),
            instance,
            checkpoints,
            is_broken,
            log,
        }
    }

    /// Waits for a checkpoint with this number.
    async fn expect(&mut self, sequence: i64) {
        while self.checkpoints.recv().await.unwrap() != sequence {}
    }

    async fn stop(self) {
        self.kvs.stop().await.unwrap();
        self.content.stop().await.unwrap();
    }
}

async fn reload(h: &Handle, config: Value) -> Result<(), RpcError> {
    let rpc = h.rpc("kvs.config-reload", Node::Any, &config);
    rpc.await.map(drop)
}

#[tokio::test]
async fn a_period_keeps_the_root_and_tries_again() {
    let mut bench = Bench::new(r#"{"kvs": {"checkpoint-period": "1ms"}}"#);
    let h = bench.instance.client(0);
    bench.is_broken.store(true, Ordering::Relaxed);
    kv::commit(&h, None, &put("a", "1")).await.unwrap();
    bench.expect(1).await;
    bench.expect(1).await;
    bench.is_broken.store(false, Ordering::Relaxed);
    kv::commit(&h, None, &put("a", "2")).await.unwrap();
    bench.expect(2).await;
    let log = bench.log.clone();
    bench.stop().await;
    let failures = log.lock().unwrap().concat();
    assert!(
        failures.contains("checkpoint of KVS root 1 failed: No space left on device"),
        "{failures}"
    );
}

#[tokio::test]
async fn the_period_changes_with_the_configuration() {
    let mut bench = Bench::new("{}");
    let h = bench.instance.client(0);
    kv::commit(&h, None, &put("a", "1")).await.unwrap();
    for (period, reason) in [
        (json!("soon"), "kvs.checkpoint-period"),
        (json!(3), "must be a duration"),
    ] {
        let config = json!({"kvs": {"checkpoint-period": period}});
        let e = reload(&h, config).await.unwrap_err();
        assert_eq!(e.errno, libc::EINVAL);
        assert!(e.to_string().contains(reason), "{e}");
    }
    let every = |period: &str| json!({"kvs": {"checkpoint-period": period}});
    let guest = bench.instance.guest(0, 7);
    let e = reload(&guest, every("1ms")).await.unwrap_err();
    assert_eq!(e.errno, libc::EPERM);
    assert!(bench.checkpoints.try_recv().is_err(), "no period yet");
    reload(&h, every("1ms")).await.unwrap();
    bench.expect(1).await;
    reload(&h, json!({})).await.unwrap();
    while bench.checkpoints.try_recv().is_ok() {}
    kv::commit(&h, None, &put("a", "2")).await.unwrap();
    assert!(bench.checkpoints.try_recv().is_err(), "none any more");
    bench.stop().await;
}

#[tokio::test]
async fn a_commit_that_waits_for_its_checkpoint_learns_how_it_ended() {
    let mut bench = Bench::new("{}");
    let h = bench.instance.client(0);
    bench.is_broken.store(true, Ordering::Relaxed);
    let e = kv::commit_with(&h, None, &put("a", "1"), flags::SYNC).await;
    assert_eq!(e.unwrap_err().errno, libc::ENOSPC);
    bench.is_broken.store(false, Ordering::Relaxed);
    let root = kv::commit_with(&h, None, &put("a", "2"), flags::SYNC).await;
    assert_eq!(root.unwrap().rootseq, 2);
    bench.expect(1).await;
    bench.expect(2).await;
    let mut other = kv::commit_with(&h, Some("other"), &put("a", "2"), flags::SYNC)
        .await
        .unwrap_err()
        .to_string();
    other.truncate(16);
    assert_eq!(other, "Invalid argument");
    bench.stop().await;
}

#[tokio::test]
async fn a_bad_period_stops_the_module_at_its_start() {
    let bench = Bench::new(r#"{"kvs": {"checkpoint-period": "x"}}"#);
    let e = bench.kvs.stop().await.unwrap_err();
    assert!(e.text.contains("kvs.checkpoint-period"), "{e}");
    bench.content.stop().await.unwrap();
}

#[tokio::test]
async fn the_log_tells_which_checkpoint_was_restored() {
    let mut bed = crate::Bed::new(1).await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = log.clone();
    bed.instance.serve("log.append", move |msg| {
        let text = String::from_utf8_lossy(msg.payload().unwrap()).into_owned();
        lines.lock().unwrap().push(text);
        Ok(Value::Null)
    });
    let h = bed.instance.client(0);
    kv::commit(&h, None, &put("a", "1")).await.unwrap();
    bed.stop().await;
    log.lock().unwrap().clear();
    bed.start(1);
    let root = kv::getroot(&h, None).await.unwrap();
    let text = log.lock().unwrap().concat();
    assert!(
        text.contains("KVS restored from the checkpoint of 20"),
        "{text}"
    );
    let told = format!("root {}, sequence 1", root.rootref);
    assert!(text.contains(&told), "{text}");
    bed.stop().await;
}
