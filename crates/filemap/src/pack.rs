//! Files as entries of an archive.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use content::extents::{Extent, extents};
use content::{BlobRef, HashAlg};
use formats::archive::{Entry, Object, Region};

use crate::{Error, below};

/// A file that was looked at.
#[derive(Debug)]
pub enum Packed {
    /// All of it is in the entry.
    Whole(Entry),
    /// Its content goes to the content store.
    Large(Large),
}

/// A file whose content is read piece by piece.
#[derive(Debug)]
pub struct Large {
    file: File,
    entry: Entry,
    size: u64,
    rest: std::vec::IntoIter<Extent>,
    regions: Vec<Region>,
}

/// The files at and below `path`, what is in a directory before the directory itself.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let fault = |e| Error::io(&path.to_string_lossy())(e);
    let mut found = Vec::new();
    if fs::symlink_metadata(path).map_err(fault)?.is_dir() {
        let entries = fs::read_dir(path).map_err(fault)?;
        let names = entries.map(|entry| entry.map(|e| e.path()));
        let mut names = names.collect::<io::Result<Vec<_>>>().map_err(fault)?;
        names.sort_unstable();
        for name in names {
            found.extend(files(&name)?);
        }
    }
    found.push(path.to_owned());
    Ok(found)
}

/// Makes an entry of a file, unless it is the working directory itself. Files with more than `small` bytes are to be
/// read in pieces of `chunk` bytes at most (0: no limit).
pub fn pack(path: &Path, small: u64, chunk: u64) -> Result<Option<Packed>, Error> {
    let shown = path.to_string_lossy();
    let fault = |e| Error::io(&shown)(e);
    let name = match path.to_str() {
        Some(name) => below(name)?,
        None => return Err(fault(io::Error::other("its name is not UTF-8"))),
    };
    if name.is_empty() {
        return Ok(None);
    }
    let (file, meta) = open(path).map_err(fault)?;
    let whole = |object| Ok(Some(Packed::Whole(entry(&name, &meta, object))));
    match file {
        None => {
            let target = fs::read_link(path).map_err(fault)?;
            match std::str::from_utf8(target.as_os_str().as_bytes()) {
                Ok(target) => whole(Object::Symlink(target.to_owned())),
                Err(_) => Err(fault(io::Error::other("its target is not UTF-8"))),
            }
        }
        Some(_) if meta.is_dir() => whole(Object::Directory),
        Some(mut file) if meta.is_file() => {
            let size = meta.len();
            let parts = extents(&file, size, chunk).map_err(fault)?;
            if parts.is_empty() {
                return whole(Object::Empty(size));
            }
            if size > small {
                return Ok(Some(Packed::Large(Large {
                    entry: entry(&name, &meta, Object::Empty(size)),
                    file,
                    size,
                    rest: parts.into_iter(),
                    regions: Vec::new(),
                })));
            }
            let mut data = Vec::new();
            file.read_to_end(&mut data).map_err(fault)?;
            whole(inline(data))
        }
        Some(_) => Err(Error::Kind(shown.into_owned())),
    }
}

/// The file and what it is; no file where it is a symbolic link.
fn open(path: &Path) -> io::Result<(Option<File>, Metadata)> {
    // A FIFO that nobody writes to must not keep us.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file.metadata().map(|meta| (Some(file), meta)),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            fs::symlink_metadata(path).map(|meta| (None, meta))
        }
        Err(e) => Err(e),
    }
}

fn entry(name: &str, meta: &Metadata, object: Object) -> Entry {
    Entry {
        path: name.to_owned(),
        permissions: meta.permissions().mode() & 0o7777,
        mtime: Some(meta.mtime()),
        ctime: Some(meta.ctime()),
        object,
    }
}

/// Content as text, where every reader of JSON takes it.
fn inline(data: Vec<u8>) -> Object {
    match String::from_utf8(data) {
        Ok(text) if !text.contains('\0') => Object::Text(text),
        Ok(text) => Object::Binary(text.into_bytes()),
        Err(e) => Object::Binary(e.into_bytes()),
    }
}

impl Large {
    /// The next piece, with its name in the content store.
    pub fn next(&mut self, alg: HashAlg) -> Result<Option<(BlobRef, Bytes)>, Error> {
        let Some(Extent { offset, size }) = self.rest.next() else {
            return Ok(None);
        };
        let mut data = vec![0; size as usize];
        let path = &self.entry.path;
        self.file
            .read_exact_at(&mut data, offset)
            .map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => Error::Changed(path.clone()),
                _ => Error::io(path)(e),
            })?;
        let blobref = alg.hash(&data);
        self.regions.push(Region {
            offset,
            size,
            blobref: blobref.to_string(),
        });
        Ok(Some((blobref, data.into())))
    }

    /// The entry, once all pieces were read.
    pub fn finish(self) -> Entry {
        let (size, regions) = (self.size, self.regions);
        Entry {
            object: Object::Blobs { size, regions },
            ..self.entry
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn packed(path: &Path, small: u64, chunk: u64) -> Packed {
        pack(path, small, chunk).unwrap().unwrap()
    }

    fn object(path: &Path) -> Object {
        match packed(path, 1000, 0) {
            Packed::Whole(entry) => entry.object,
            Packed::Large(large) => panic!("{large:?}"),
        }
    }

    #[test]
    fn small_files_are_in_their_entries() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, data: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, data).unwrap();
            path
        };
        assert_eq!(object(&file("text", b"hi\n")), Object::Text("hi\n".into()));
        assert_eq!(object(&file("raw", b"\xff")), Object::Binary(vec![255]));
        assert_eq!(object(&file("zero", b"\0")), Object::Binary(vec![0]));
        assert_eq!(object(&file("empty", b"")), Object::Empty(0));
        let hole = file("hole", b"");
        File::options()
            .write(true)
            .open(&hole)
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        assert_eq!(object(&hole), Object::Empty(1 << 20));
        assert_eq!(object(dir.path()), Object::Directory);
        let link = dir.path().join("link");
        symlink("nowhere", &link).unwrap();
        assert_eq!(object(&link), Object::Symlink("nowhere".into()));
        let names: Vec<_> = files(dir.path()).unwrap();
        assert_eq!(names.len(), 7);
        assert_eq!(names[6], dir.path());
    }

    #[test]
    fn large_files_are_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        fs::write(&path, [7; 2500]).unwrap();
        let Packed::Large(mut large) = packed(&path, 1000, 1000) else {
            panic!("it is large");
        };
        let mut sizes = vec![];
        while let Some((blobref, data)) = large.next(HashAlg::Sha1).unwrap() {
            assert_eq!(HashAlg::Sha1.hash(&data), blobref);
            sizes.push(data.len());
        }
        assert_eq!(sizes, [1000, 1000, 500]);
        let Object::Blobs { size, regions } = large.finish().object else {
            panic!("it has blobs");
        };
        assert_eq!((size, regions.len(), regions[2].offset), (2500, 3, 2000));
    }

    #[test]
    fn a_file_that_shrinks_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        fs::write(&path, [7; 2500]).unwrap();
        let Packed::Large(mut large) = packed(&path, 0, 0) else {
            panic!("it is large");
        };
        fs::write(&path, b"x").unwrap();
        let e = large.next(HashAlg::Sha1).unwrap_err();
        assert!(matches!(e, Error::Changed(_)), "{e}");
    }

    #[test]
    fn other_files_are_refused() {
        let e = pack(Path::new("/dev/null"), 0, 0).unwrap_err();
        assert!(matches!(e, Error::Kind(_)), "{e}");
        assert!(pack(Path::new("."), 0, 0).unwrap().is_none());
        assert!(matches!(pack(Path::new(".."), 0, 0), Err(Error::Path(_))));
    }
}
