//! Files carried in the jobspec (`attributes.system.files`, RFC 37), unpacked into the job's
//! temporary directory before its tasks start. Batch scripts travel this way.

use filemap::Target;
use formats::archive::Archive;
use serde_json::Value;
use std::path::Path;

/// Unpacks an archive below `dir`.
pub fn extract(dir: &Path, files: &Value) -> Result<(), filemap::Error> {
    let archive = Archive::from_value(files)?;
    let mut target = Target::new(dir, true)?;
    for entry in &archive.entries {
        if target.unpack(entry)?.is_some() {
            return Err(filemap::Error::Blob {
                what: entry.path.clone(),
                reason: "its content is in the content store, not in the jobspec".to_owned(),
            });
        }
    }
    target.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn unpacks_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let files = json!({
            "script": {"mode": 33216, "data": "#!/bin/sh\n", "encoding": "utf-8"},
            "conf.json": {"mode": 33152, "data": {"a": {"b": 1}}},
            "sub/raw": {"mode": 33152, "data": "AP8=", "encoding": "base64", "size": 2},
            "empty": {"mode": 33152, "size": 0},
            "link": {"mode": 41471, "data": "script"},
            "d": {"mode": 16832},
        });
        extract(dir.path(), &files).unwrap();
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        assert_eq!(read("script"), b"#!/bin/sh\n");
        assert_eq!(read("conf.json"), br#"{"a":{"b":1}}"#);
        assert_eq!(read("sub/raw"), [0, 255]);
        assert_eq!(read("empty"), b"");
        assert_eq!(read("link"), b"#!/bin/sh\n");
        let mode = fs::metadata(dir.path().join("script"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(dir.path().join("d").is_dir());
    }

    #[test]
    fn refuses_bad_entries() {
        let dir = tempfile::tempdir().unwrap();
        for (path, entry) in [
            ("../x", json!({"mode": 33152})),
            ("/x", json!({"mode": 33152})),
            ("", json!({"mode": 33152})),
            ("x", json!({})),
            ("x", json!({"mode": 4480})),
            (
                "x",
                json!({"mode": 33152, "size": 1, "data": [[0, 1, "sha1-00"]], "encoding": "blobvec"}),
            ),
            (
                "x",
                json!({"mode": 33152, "data": "x", "encoding": "base64"}),
            ),
        ] {
            assert!(
                extract(dir.path(), &json!({ path: entry.clone() })).is_err(),
                "{path} {entry}"
            );
        }
    }
}
