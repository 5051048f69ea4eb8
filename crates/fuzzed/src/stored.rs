//! What the key-value store keeps and is told (RFC 11), and the archives in it (RFC 37).

use kvs::{Dir, TreeObj, Txn};
use serde_json::Value;

pub(crate) fn treeobj(data: &[u8]) {
    if let Ok(object) = serde_json::from_slice::<TreeObj>(data) {
        let written = object.encode();
        let again: TreeObj = serde_json::from_slice(&written).expect("what is written can be read");
        assert_eq!(again, object);
        assert_eq!(again.encode(), written);
        if let Some(value) = object.data()
            && matches!(object, TreeObj::Val(_))
        {
            assert_eq!(TreeObj::val(&value).data(), Some(value));
        }
    }
    if let Ok(dir) = Dir::decode(data) {
        let again = Dir::decode(&dir.encode()).expect("what is written can be read");
        assert_eq!(again, dir);
        for (name, object) in dir.iter() {
            assert_eq!(dir.get(name), Some(object));
        }
    }
}

pub(crate) fn transaction(data: &[u8]) {
    if let Ok(txn) = serde_json::from_slice::<Txn>(data) {
        let written = serde_json::to_vec(&txn).expect("operations are JSON");
        let again: Txn = serde_json::from_slice(&written).expect("what is written can be read");
        assert_eq!(again, txn);
        for op in txn.ops() {
            let key = kvs::normalize(&op.key).into_owned();
            assert_eq!(kvs::normalize(&key), key);
        }
    }
}

/// An archive as it is read from the store: whoever wrote it, what it has stays below the directory it is unpacked in.
pub(crate) fn archive(data: &[u8]) {
    if let Ok(Value::Array(objects)) = serde_json::from_slice(data)
        && let Ok(entries) = filemap::stored::entries(objects)
    {
        for entry in entries {
            let parts = entry.path.split('/');
            assert!(
                parts
                    .into_iter()
                    .all(|part| !["", ".", ".."].contains(&part))
            );
        }
    }
}
