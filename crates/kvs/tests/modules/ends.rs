//! What a request is told that cannot be served, or not to its end.

use client::RpcError;
use kvs::{Txn, client as kv, flags};
use testbed::Instance;

use crate::bed::{Bed, put};

#[tokio::test]
async fn who_waits_when_a_module_ends_hears_that_there_is_no_service() {
    let mut bed = Bed::new(2).await;
    let h = bed.instance.client(1);
    kv::commit(&h, None, &put("a", "1")).await.unwrap();
    let mut watch = kv::watch(&h, None, "a", 0);
    assert_eq!(watch.next().await.unwrap().unwrap(), b"1");
    let waiting = tokio::spawn({
        let h = h.clone();
        async move { kv::wait_version(&h, None, 99).await }
    });
    // Requests of one client are taken in order.
    while pending(&h).await == 0 {}
    bed.stop().await;
    for e in [
        waiting.await.unwrap().unwrap_err(),
        watch.next().await.unwrap().unwrap_err(),
    ] {
        assert_eq!(e.errno, libc::ENOSYS);
        assert_eq!(e.to_string(), "Function not implemented");
    }
}

async fn pending(h: &client::Handle) -> u64 {
    crate::stats::of(h).await["pending_requests"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn errors_start_with_the_words_of_the_system() {
    let mut bed = Bed::new(2).await;
    let (h, guest) = (bed.instance.client(1), bed.instance.guest(1, 7));
    kv::namespace_create(&h, "theirs", 7).await.unwrap();
    let mut t = Txn::new();
    t.put("d.k", "1").symlink("loop", None, "loop");
    kv::commit(&h, None, &t).await.unwrap();
    let txn = |f: fn(&mut Txn) -> &mut Txn| {
        let mut t = Txn::new();
        f(&mut t);
        t
    };
    let mut said = Vec::new();
    for (key, flags) in [
        ("d", 0),
        ("d.k", flags::READDIR),
        ("d.k", flags::READLINK),
        ("loop", 0),
    ] {
        let e = kv::lookup(&h, None, key, flags).await.unwrap_err();
        said.push(e.to_string());
    }
    said.push(
        kv::get(&h, Some("none"), "k")
            .await
            .unwrap_err()
            .to_string(),
    );
    said.push(kv::get(&guest, None, "d.k").await.unwrap_err().to_string());
    for t in [
        txn(|t| t.append("d", b"x")),
        txn(|t| t.put(".", "x")),
        txn(|t| t.put("loop.k", "x")),
    ] {
        let e = kv::commit(&h, None, &t).await.unwrap_err();
        said.push(e.to_string());
    }
    let link = txn(|t| t.symlink("l", None, "k"));
    for client in [&guest, &bed.instance.guest(0, 7)] {
        let e = kv::commit(client, Some("theirs"), &link).await.unwrap_err();
        said.push(e.to_string());
    }
    let e = kv::namespace_remove(&h, "primary").await.unwrap_err();
    said.push(e.to_string());
    // Who owns the namespace depends on who runs the test.
    let said = said.join("\n").replace(&uid(), "OWNER");
    insta::assert_snapshot!(said, @r"
    Is a directory
    Not a directory
    Invalid argument: key is not a symbolic link
    Too many levels of symbolic links
    Operation not supported: KVS namespace none does not exist
    Operation not permitted: KVS namespace primary OWNER
    Is a directory: `d` is a directory and cannot be appended to
    Invalid argument: the root directory cannot be replaced
    Too many levels of symbolic links: `loop.k` leads through too many symbolic links
    Operation not permitted: guests may not commit symlink objects
    Operation not permitted: guests may not commit symlink objects
    Operation not supported: KVS namespace primary cannot be removed
    ");
    bed.stop().await;
}

fn uid() -> String {
    // SAFETY: getuid has no preconditions and cannot fail.
    format!("belongs to user {}", unsafe { libc::getuid() })
}

#[tokio::test]
async fn arguments_that_mean_nothing_are_refused() {
    let instance = Instance::new(1);
    for arg in ["bogus=1", "initial-rootref=x", "transaction-merge=x"] {
        let module = instance.start(0, "kvs", &[arg], kvs::module::main);
        let e = module.stop().await.unwrap_err();
        assert_eq!(e.errno, libc::EINVAL, "{arg}");
    }
}

/// An instance whose disk is full starts, and what is stored can be read.
#[tokio::test]
async fn a_full_store_can_be_read() {
    let instance = Instance::new(1);
    let fails = |topic, errno| instance.serve(topic, move |_| Err(RpcError::errno(errno)));
    fails("content.store", libc::ENOSPC);
    fails("content.store-batch", libc::ENOSPC);
    fails("content.checkpoint-get", libc::ENOENT);
    let _kvs = instance.start(0, "kvs", &[], kvs::module::main);
    let client = instance.client(0);
    let root = kv::getroot(&client, None).await.unwrap();
    assert_eq!(root.rootseq, 0);
    let refused = kv::commit(&client, None, &put("a", "1")).await.unwrap_err();
    assert_eq!(refused.errno, libc::ENOSPC);
}
