//! Files carried in the jobspec (`attributes.system.files`, RFC 37), unpacked into the job's
//! temporary directory before its tasks start. Batch scripts travel this way.

use formats::archive::{Archive, ArchiveError, Entry, Object};
use serde_json::Value;
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

/// Why a file could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("jobspec files: {0}")]
    Archive(#[from] ArchiveError),
    #[error("jobspec files: {path}: {source}")]
    Io { path: String, source: io::Error },
}

/// Unpacks an archive below `dir`.
pub fn extract(dir: &Path, files: &Value) -> Result<(), FilesError> {
    let archive = Archive::from_value(files)?;
    archive.entries.iter().try_for_each(|entry| {
        write(dir, entry).map_err(|source| FilesError::Io {
            path: entry.path.clone(),
            source,
        })
    })
}

fn write(dir: &Path, entry: &Entry) -> io::Result<()> {
    let target = dir.join(&entry.path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match &entry.object {
        Object::Symlink(link) => return symlink(link, &target),
        Object::Directory => fs::create_dir_all(&target)?,
        Object::Empty(size) => fs::File::create(&target)?.set_len(*size)?,
        Object::Json(value) => fs::write(&target, serde_json::to_vec(value)?)?,
        Object::Text(text) => fs::write(&target, text)?,
        Object::Binary(bytes) => fs::write(&target, bytes)?,
        Object::Blobs { .. } => {
            let why = "its content is in the content store, which a job cannot read";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
    }
    fs::set_permissions(&target, fs::Permissions::from_mode(entry.permissions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
