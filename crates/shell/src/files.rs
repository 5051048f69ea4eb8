//! Files carried in the jobspec (`attributes.system.files`, RFC 37), unpacked into the job's
//! temporary directory before its tasks start. Batch scripts travel this way.

use formats::iodata::base64_decode;
use serde_json::Value;
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

/// Why a file could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("jobspec files: {0}: key '{1}' is missing or of the wrong type")]
    Key(String, &'static str),
    #[error("jobspec files: {0:?} is not a path below the job's directory")]
    Path(String),
    #[error("jobspec files: {path}: encoding '{encoding}' is not supported; use utf-8 or base64")]
    Encoding { path: String, encoding: String },
    #[error("jobspec files: {0}: data is not valid base64")]
    Base64(String),
    #[error("jobspec files: {0}: only regular files, directories and symbolic links are supported")]
    Kind(String),
    #[error("jobspec files: {path}: {source}")]
    Io { path: String, source: io::Error },
}

const TYPE_MASK: u64 = 0o170000;
const REGULAR: u64 = 0o100000;
const DIRECTORY: u64 = 0o040000;
const SYMLINK: u64 = 0o120000;

/// Unpacks an archive, a dictionary by path or a list of objects that name theirs, below `dir`.
pub fn extract(dir: &Path, files: &Value) -> Result<(), FilesError> {
    let list: Vec<(&str, &Value)> = match files {
        Value::Object(map) => map
            .iter()
            .map(|(path, entry)| (path.as_str(), entry))
            .collect(),
        Value::Array(list) => list
            .iter()
            .map(|entry| {
                (
                    entry.get("path").and_then(Value::as_str).unwrap_or(""),
                    entry,
                )
            })
            .collect(),
        _ => return Err(FilesError::Key("archive".into(), "files")),
    };
    list.into_iter()
        .try_for_each(|(path, entry)| extract_one(dir, path, entry))
}

/// A path that cannot leave the directory.
fn safe_path(dir: &Path, path: &str) -> Result<PathBuf, FilesError> {
    let relative = Path::new(path);
    let plain = relative
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !plain {
        return Err(FilesError::Path(path.to_owned()));
    }
    Ok(dir.join(relative))
}

fn extract_one(dir: &Path, path: &str, entry: &Value) -> Result<(), FilesError> {
    let target = safe_path(dir, path)?;
    let io_error = |source| FilesError::Io {
        path: path.to_owned(),
        source,
    };
    let mode = entry
        .get("mode")
        .and_then(Value::as_u64)
        .ok_or_else(|| FilesError::Key(path.to_owned(), "mode"))?;
    let permissions = fs::Permissions::from_mode(mode as u32 & 0o7777);
    let data = entry.get("data");
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(io_error)?;
    }
    match mode & TYPE_MASK {
        DIRECTORY => {
            fs::create_dir_all(&target).map_err(io_error)?;
            fs::set_permissions(&target, permissions).map_err(io_error)
        }
        SYMLINK => {
            let link = data.and_then(Value::as_str);
            let link = link.ok_or_else(|| FilesError::Key(path.to_owned(), "data"))?;
            symlink(link, &target).map_err(io_error)
        }
        REGULAR => {
            let encoding = entry.get("encoding").and_then(Value::as_str);
            let bytes = match (encoding, data) {
                (None, None) => Vec::new(),
                (None, Some(json)) => serde_json::to_vec(json).map_err(|e| io_error(e.into()))?,
                (Some("utf-8"), Some(Value::String(text))) => text.clone().into_bytes(),
                (Some("base64"), Some(Value::String(text))) => {
                    base64_decode(text).ok_or_else(|| FilesError::Base64(path.to_owned()))?
                }
                (Some("utf-8" | "base64"), _) => {
                    return Err(FilesError::Key(path.to_owned(), "data"));
                }
                (Some(other), _) => {
                    let (path, encoding) = (path.to_owned(), other.to_owned());
                    return Err(FilesError::Encoding { path, encoding });
                }
            };
            fs::write(&target, bytes).map_err(io_error)?;
            fs::set_permissions(&target, permissions).map_err(io_error)
        }
        _ => Err(FilesError::Kind(path.to_owned())),
    }
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
                json!({"mode": 33152, "data": "x", "encoding": "blobvec"}),
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
