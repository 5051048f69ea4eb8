//! Archives of keys and values: POSIX tar, in which a file is a value and a symbolic link is one.
//!
//! A link into another namespace leads to `NAMESPACE::KEY`. Paths and targets that do not fit into a header are in
//! pax records before it.

use std::io::{self, Read, Write};

use bytes::Bytes;
use kvs::Symlink;
use tar::{EntryType, Header};

/// Room for a path, and for a link's target, in a header.
const NAME: usize = 100;
const BLOCK: usize = 512;

/// What is at a path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// The parts of a value.
    Value(Vec<Bytes>),
    Link(Symlink),
}

/// What all entries of an archive have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamp {
    pub(crate) mtime: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Writes an archive.
pub(crate) struct Writer<W: Write> {
    out: W,
    stamp: Stamp,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W, stamp: Stamp) -> Writer<W> {
        Writer { out, stamp }
    }

    /// Add an entry.
    pub(crate) fn append(&mut self, path: &str, body: &Body) -> io::Result<()> {
        match body {
            Body::Value(parts) => {
                let size: usize = parts.iter().map(Bytes::len).sum();
                self.header(path, None, size, EntryType::Regular)?;
                for part in parts {
                    self.out.write_all(part)?;
                }
                self.pad(size)
            }
            Body::Link(Symlink { namespace, target }) => {
                let target = match namespace {
                    Some(namespace) => format!("{namespace}::{target}"),
                    None => target.clone(),
                };
                self.header(path, Some(&target), 0, EntryType::Symlink)
            }
        }
    }

    fn header(
        &mut self,
        path: &str,
        target: Option<&str>,
        size: usize,
        kind: EntryType,
    ) -> io::Result<()> {
        let target = target.unwrap_or_default();
        let mut records = Vec::new();
        for (name, text) in [("path", path), ("linkpath", target)] {
            if text.len() > NAME {
                record(&mut records, name, text);
            }
        }
        if !records.is_empty() {
            self.block("pax", "", records.len(), EntryType::XHeader)?;
            self.out.write_all(&records)?;
            self.pad(records.len())?;
        }
        self.block(path, target, size, kind)
    }

    fn block(&mut self, path: &str, target: &str, size: usize, kind: EntryType) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(self.stamp.mtime);
        header.set_uid(self.stamp.uid.into());
        header.set_gid(self.stamp.gid.into());
        header.set_size(size as u64);
        let fields = header.as_old_mut();
        fill(&mut fields.name, path);
        fill(&mut fields.linkname, target);
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn pad(&mut self, size: usize) -> io::Result<()> {
        let zeros = [0; BLOCK];
        self.out
            .write_all(&zeros[..size.next_multiple_of(BLOCK) - size])
    }

    /// Write the end of the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

fn fill(field: &mut [u8; NAME], text: &str) {
    let len = text.len().min(NAME);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
}

/// A pax record: its own length in digits, a blank, name and text, a newline.
fn record(out: &mut Vec<u8>, name: &str, text: &str) {
    let rest = name.len() + text.len() + 3;
    let digits = |n: usize| n.to_string().len();
    let mut len = rest + digits(rest);
    len = rest + digits(len);
    out.extend_from_slice(format!("{len} {name}={text}\n").as_bytes());
}

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) body: Body,
    pub(crate) mtime: u64,
}

/// Counts the zeros at the end of what is read.
struct Ending<R> {
    from: R,
    zeros: usize,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(buf)?;
        let zeros = buf[..len].iter().rev().take_while(|b| **b == 0).count();
        self.zeros = match zeros == len {
            true => self.zeros + len,
            false => zeros,
        };
        Ok(len)
    }
}

/// Hand each entry on until that fails; a value of more than `limit` bytes only by its path and size.
pub(crate) fn read(
    from: impl Read,
    limit: Option<u64>,
    mut take: impl FnMut(Result<Entry, (String, u64)>) -> io::Result<()>,
) -> io::Result<()> {
    let ending = Ending { from, zeros: 0 };
    let mut archive = tar::Archive::new(ending);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec());
            text.map_err(|e| invalid(&format!("a path is not UTF-8: {e}")))
        };
        let path = text(&entry.path_bytes())?;
        let size = entry.size();
        let mtime = entry.header().mtime().unwrap_or_default();
        let body = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                if limit.is_some_and(|limit| size > limit) {
                    take(Err((path, size)))?;
                    continue;
                }
                let mut data = Vec::new();
                entry.read_to_end(&mut data)?;
                Body::Value(vec![data.into()])
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes();
                let target =
                    target.ok_or_else(|| invalid(&format!("{path}: a link to nowhere")))?;
                Body::Link(link(text(&target)?))
            }
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            other => {
                return Err(invalid(&format!(
                    "{path}: {other:?} is no file, link or directory"
                )));
            }
        };
        take(Ok(Entry { path, body, mtime }))?;
    }
    // What follows the last entry has the checksum of the compression, and shows that nothing is missing.
    let mut ending = archive.into_inner();
    io::copy(&mut ending, &mut io::sink())?;
    match ending.zeros >= 2 * BLOCK {
        true => Ok(()),
        false => Err(invalid("the archive is cut short: it has no end")),
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn link(text: String) -> Symlink {
    match text.split_once("::") {
        Some((namespace, target)) => Symlink {
            namespace: Some(namespace.to_owned()),
            target: target.to_owned(),
        },
        None => Symlink {
            namespace: None,
            target: text,
        },
    }
}
