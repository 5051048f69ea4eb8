//! A directory that files are unpacked in.
//!
//! Nothing is written elsewhere: no part of a path is followed if it is a symbolic link, be it from the archive or there
//! before. Permissions are subject to the umask, and set-user-id, set-group-id and sticky bits are not restored.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use formats::archive::{Entry, Object};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::Error;

/// Where files go.
#[derive(Debug)]
pub struct Target {
    dir: OwnedFd,
    overwrite: bool,
    /// Directories that were made here, and the permissions an entry wants for them.
    made: BTreeMap<String, Option<u32>>,
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

fn mode(permissions: u32) -> Mode {
    Mode::from_bits_truncate(permissions & 0o777)
}

/// The directory a path is in, if it names one, and its last part.
fn split(path: &str) -> (Option<&str>, &str) {
    match path.rsplit_once('/') {
        Some((parents, name)) => (Some(parents), name),
        None => (None, path),
    }
}

impl Target {
    /// The directory `dir`. Files that are there already are replaced or make unpacking fail.
    pub fn new(dir: &Path, overwrite: bool) -> Result<Target, Error> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = open(dir, flags, Mode::empty());
        let dir = opened.map_err(|e| Error::io(&dir.to_string_lossy())(e.into()))?;
        Ok(Target {
            dir,
            overwrite,
            made: BTreeMap::new(),
        })
    }

    /// Unpacks an entry. For one whose content is elsewhere, its file, of the right size, comes back to be filled.
    pub fn unpack(&mut self, entry: &Entry) -> Result<Option<File>, Error> {
        let fault = |e: io::Error| match e.raw_os_error() {
            Some(libc::EEXIST) => Error::Exists(entry.path.clone()),
            Some(libc::ELOOP | libc::ENOTDIR) => {
                let why = "part of its path is no directory, but a file or a symbolic link";
                Error::io(&entry.path)(io::Error::other(why))
            }
            _ => Error::io(&entry.path)(e),
        };
        self.write(entry).map_err(fault)
    }

    fn write(&mut self, entry: &Entry) -> io::Result<Option<File>> {
        let (parents, name) = split(&entry.path);
        if entry.object == Object::Directory {
            self.directory(&entry.path)?;
            if let Some(wanted) = self.made.get_mut(&entry.path) {
                *wanted = Some(entry.permissions);
            }
            return Ok(None);
        }
        let parent = self.parent(parents)?;
        if let Object::Symlink(to) = &entry.object {
            self.create(&parent, name, || symlinkat(to.as_str(), &parent, name))?;
            return Ok(None);
        }
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let create = || openat(&parent, name, flags, mode(entry.permissions));
        let mut file = File::from(self.create(&parent, name, create)?);
        match &entry.object {
            Object::Empty(size) => file.set_len(*size)?,
            Object::Json(value) => file.write_all(&serde_json::to_vec(value)?)?,
            Object::Text(text) => file.write_all(text.as_bytes())?,
            Object::Binary(bytes) => file.write_all(bytes)?,
            Object::Blobs { size, .. } => {
                file.set_len(*size)?;
                return Ok(Some(file));
            }
            // Made above.
            Object::Directory | Object::Symlink(_) => {}
        }
        Ok(None)
    }

    /// Creates what must not be there, after removing it if that is allowed.
    fn create<T>(
        &self,
        parent: &OwnedFd,
        name: &str,
        create: impl Fn() -> nix::Result<T>,
    ) -> io::Result<T> {
        match create() {
            Err(Errno::EEXIST) if self.overwrite => {
                unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
                Ok(create()?)
            }
            created => Ok(created?),
        }
    }

    /// Removes a file that could not be filled: it must not pass for a whole one.
    pub fn discard(&mut self, entry: &Entry) {
        let (parents, name) = split(&entry.path);
        // If it cannot be removed, the error that made it useless is still reported.
        if let Ok(parent) = self.parent(parents) {
            let _ = unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir);
        }
    }

    fn parent(&mut self, path: Option<&str>) -> io::Result<OwnedFd> {
        match path {
            Some(path) => self.directory(path),
            None => self.dir.try_clone(),
        }
    }

    /// The directory at this path, made if need be.
    fn directory(&mut self, path: &str) -> io::Result<OwnedFd> {
        let mut dir = self.dir.try_clone()?;
        let mut end = 0;
        for part in path.split('/') {
            end += part.len() + usize::from(end > 0);
            let enter = || openat(&dir, part, DIRECTORY, Mode::empty());
            let entered = match enter() {
                Err(Errno::ENOENT) => {
                    match mkdirat(&dir, part, Mode::from_bits_truncate(0o777)) {
                        Ok(()) => drop(self.made.insert(path[..end].to_owned(), None)),
                        // Somebody else was faster.
                        Err(Errno::EEXIST) => {}
                        Err(e) => return Err(e.into()),
                    }
                    enter()
                }
                entered => entered,
            };
            dir = entered?;
        }
        Ok(dir)
    }

    /// Gives the directories that were made their permissions, now that nothing is written in them any more.
    pub fn finish(mut self) -> Result<(), Error> {
        // What is below a directory comes after it in order, and is done first.
        while let Some((path, wanted)) = self.made.pop_last() {
            let Some(wanted) = wanted else { continue };
            self.restrict(&path, wanted).map_err(Error::io(&path))?;
        }
        Ok(())
    }

    fn restrict(&mut self, path: &str, wanted: u32) -> io::Result<()> {
        let dir = self.directory(path)?;
        // It was made with all that the umask allows.
        let allowed = fstat(&dir)?.st_mode;
        Ok(fchmod(&dir, mode(wanted & allowed))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

    fn text(path: &str, permissions: u32) -> Entry {
        Entry::new(path, permissions, Object::Text("new".into()))
    }

    fn unpack(dir: &Path, overwrite: bool, entries: &[Entry]) -> Result<(), Error> {
        let mut target = Target::new(dir, overwrite)?;
        for entry in entries {
            target.unpack(entry)?;
        }
        target.finish()
    }

    #[test]
    fn entries_become_files() {
        let dir = tempfile::tempdir().unwrap();
        let entries = [
            text("a/b/text", 0o600),
            Entry::new("a/b", 0o500, Object::Directory),
            Entry::new("hole", 0o600, Object::Empty(1 << 20)),
            Entry::new("raw", 0o4700, Object::Binary(vec![0, 255])),
            Entry::new("json", 0o600, Object::Json(serde_json::json!({"a": 1}))),
            Entry::new("link", 0o777, Object::Symlink("../x".into())),
        ];
        unpack(dir.path(), false, &entries).unwrap();
        let mode = |name: &str| {
            let meta = fs::symlink_metadata(dir.path().join(name)).unwrap();
            meta.permissions().mode() & 0o7777
        };
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        assert_eq!(
            (read("a/b/text"), mode("a/b/text")),
            (b"new".to_vec(), 0o600)
        );
        assert_eq!(mode("a/b"), 0o500);
        assert_eq!(read("hole").len(), 1 << 20);
        assert_eq!((read("raw"), mode("raw")), (vec![0, 255], 0o700));
        assert_eq!(read("json"), br#"{"a":1}"#);
        assert_eq!(
            fs::read_link(dir.path().join("link")).unwrap(),
            Path::new("../x")
        );
    }

    #[test]
    fn what_is_there_is_replaced_only_if_allowed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "old").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        for name in ["file", "link", "dir"] {
            let e = unpack(dir.path(), false, &[text(name, 0o600)]).unwrap_err();
            assert!(matches!(e, Error::Exists(_)), "{e}");
        }
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"old");
        unpack(dir.path(), true, &[text("link", 0o600)]).unwrap();
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"old");
        unpack(dir.path(), true, &[text("file", 0o600)]).unwrap();
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"new");
        unpack(dir.path(), true, &[text("dir", 0o600)]).unwrap_err();
        unpack(
            dir.path(),
            false,
            &[Entry::new("dir", 0o700, Object::Directory)],
        )
        .unwrap();
    }

    #[test]
    fn links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let to = elsewhere.path().to_str().unwrap();
        let entries = [
            Entry::new("out", 0o777, Object::Symlink(to.into())),
            text("out/file", 0o600),
        ];
        for overwrite in [false, true] {
            let e = unpack(dir.path(), overwrite, &entries).unwrap_err();
            assert!(e.to_string().starts_with("out"), "{e}");
        }
        let e = unpack(
            dir.path(),
            true,
            &[Entry::new("out", 0o700, Object::Directory)],
        );
        assert!(e.is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn blobs_are_filled_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut target = Target::new(dir.path(), false).unwrap();
        let regions = vec![];
        let blobs = Entry::new("x", 0o400, Object::Blobs { size: 9, regions });
        let file = target.unpack(&blobs).unwrap().unwrap();
        file.write_all_at(b"end", 6).unwrap();
        assert_eq!(fs::read(dir.path().join("x")).unwrap(), b"\0\0\0\0\0\0end");
        target.discard(&blobs);
        assert!(!dir.path().join("x").exists());
    }
}
