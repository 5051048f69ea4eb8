//! Shell option `stage-in`: files of archives in the primary KVS namespace (RFC 37), unpacked before any task starts.

use std::path::{Path, PathBuf};

use client::Handle;
use filemap::{Target, stored};
use formats::archive::Entry;
use serde_json::{Map, Value};

use crate::{
    Fatal,
    log::{Level, Logger},
};

/// What is unpacked, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct StageIn {
    names: Vec<String>,
    pattern: Option<String>,
    destination: Destination,
    /// The names were given under the option's former name.
    tags: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Destination {
    /// The job's temporary directory.
    Tmpdir,
    /// A directory that each node has.
    Local(PathBuf),
    /// A directory that all nodes share.
    Global(PathBuf),
}

fn destination(text: &str) -> Result<Destination, Fatal> {
    match text.split_once(':') {
        None => Ok(Destination::Local(text.into())),
        Some(("local", path)) => Ok(Destination::Local(path.into())),
        Some(("global", path)) => Ok(Destination::Global(path.into())),
        Some(_) => Err(Fatal::new(format!(
            "shell option stage-in.destination={text} is invalid: its prefix must be local: or global:"
        ))),
    }
}

impl StageIn {
    pub fn read(option: &Value) -> Result<StageIn, Fatal> {
        let none = Map::new();
        let map = option.as_object().unwrap_or(&none);
        let known = ["names", "tags", "pattern", "destination"];
        if let Some(key) = map.keys().find(|key| !known.contains(&key.as_str())) {
            let message = format!(
                "shell option stage-in.{key} is unknown: there are {}",
                known.join(", ")
            );
            return Err(Fatal::new(message));
        }
        let text = |key: &str| match map.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(Fatal::new(format!(
                "shell option stage-in.{key}={other} is invalid: must be a string"
            ))),
        };
        let (names, tags) = (text("names")?, text("tags")?);
        let list = tags.or(names).unwrap_or("main").split(',');
        Ok(StageIn {
            names: list.filter(|n| !n.is_empty()).map(str::to_owned).collect(),
            pattern: text("pattern")?.map(str::to_owned),
            destination: match text("destination")? {
                Some(text) => destination(text)?,
                None => Destination::Tmpdir,
            },
            tags: tags.is_some(),
        })
    }

    /// Unpacks on this node, if it is one that has to.
    pub async fn run(
        &self,
        handle: &Handle,
        tmpdir: &Path,
        is_leader: bool,
        logger: &Logger,
    ) -> Result<(), Fatal> {
        if self.tags && is_leader {
            let message = "shell option stage-in.tags is deprecated: use stage-in.names";
            logger.log(Level::Warning, message).await;
        }
        let dir = match &self.destination {
            Destination::Tmpdir => tmpdir,
            Destination::Local(dir) => dir,
            Destination::Global(dir) if is_leader => dir,
            Destination::Global(_) => return Ok(()),
        };
        for name in &self.names {
            self.unpack(handle, name, dir, logger)
                .await
                .map_err(|e| Fatal::new(format!("stage-in: {e}")))?;
        }
        Ok(())
    }

    async fn unpack(
        &self,
        handle: &Handle,
        name: &str,
        dir: &Path,
        logger: &Logger,
    ) -> Result<(), filemap::Error> {
        const PRIMARY: Option<&str> = Some("primary");
        let objects = stored::objects(handle, PRIMARY, name, false).await?;
        let mut objects = objects.ok_or_else(|| filemap::Error::Stored {
            key: stored::key(name),
            reason: "it does not exist".to_owned(),
        })?;
        if let Some(pattern) = &self.pattern {
            stored::select(&mut objects, pattern);
        }
        let entries = stored::entries(objects)?;
        let began = async |entry: &Entry| logger.log(Level::Trace, &entry.path).await;
        stored::extract(handle, &entries, Target::new(dir, true)?, began).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options() {
        let read = |option| StageIn::read(&option).unwrap();
        let plain = read(json!(1));
        assert_eq!(
            (plain.names, plain.destination),
            (vec!["main".into()], Destination::Tmpdir)
        );
        let full = read(json!({"names": "a,b", "pattern": "x/*", "destination": "global:/d"}));
        assert_eq!(full.names, ["a", "b"]);
        assert_eq!(full.pattern.as_deref(), Some("x/*"));
        assert_eq!(full.destination, Destination::Global("/d".into()));
        assert!(read(json!({"tags": "a"})).tags);
        let local = read(json!({"destination": "local:d"})).destination;
        assert_eq!(local, Destination::Local("d".into()));
        for bad in [
            json!({"names": 1}),
            json!({"badopt": 1}),
            json!({"destination": "wrong:/d"}),
        ] {
            assert!(StageIn::read(&bad).is_err(), "{bad}");
        }
    }
}
