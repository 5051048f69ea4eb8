//! An instance with the content, kvs and kvs-watch modules.

use client::Handle;
use kvs::{Txn, client as kv};
use testbed::{Instance, Running};

pub(crate) struct Bed {
    pub(crate) instance: Instance,
    modules: Vec<Running>,
    args: &'static [&'static str],
    _dir: tempfile::TempDir,
}

impl Bed {
    pub(crate) async fn new(size: u32) -> Bed {
        Bed::with(size, &[]).await
    }

    /// With these arguments for the kvs modules.
    pub(crate) async fn with(size: u32, args: &'static [&'static str]) -> Bed {
        let mut bed = Bed::idle(size);
        bed.args = args;
        bed.start(size);
        bed
    }

    /// With no modules started.
    pub(crate) fn idle(size: u32) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::new(size);
        instance.set_attr("statedir", dir.path().to_str().unwrap());
        Bed {
            instance,
            modules: Vec::new(),
            args: &[],
            _dir: dir,
        }
    }

    pub(crate) fn start(&mut self, size: u32) {
        for rank in 0..size {
            let i = &self.instance;
            self.modules
                .push(i.start(rank, "content", &["await-backing"], content::cache::main));
            if rank == 0 {
                let sqlite = content::backing::module::sqlite;
                self.modules.push(i.start(0, "content-sqlite", &[], sqlite));
            }
            self.modules
                .push(i.start(rank, "kvs", self.args, kvs::module::main));
            self.modules
                .push(i.start(rank, "kvs-watch", &[], kvs::kvs_watch::main));
        }
    }

    pub(crate) async fn stop(&mut self) {
        while let Some(module) = self.modules.pop() {
            module.stop().await.unwrap();
        }
    }

    pub(crate) async fn kill(&mut self) {
        while let Some(module) = self.modules.pop() {
            module.kill().await;
        }
    }
}

pub(crate) fn put(key: &str, value: &str) -> Txn {
    let mut t = Txn::new();
    t.put(key, value);
    t
}

pub(crate) fn append(key: &str, value: &str) -> Txn {
    let mut t = Txn::new();
    t.append(key, value.as_bytes());
    t
}

pub(crate) async fn get(h: &Handle, key: &str) -> String {
    String::from_utf8(kv::get(h, None, key).await.unwrap()).unwrap()
}
