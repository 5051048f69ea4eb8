//! Reading a key under a root directory: lookup without I/O.
//!
//! A walk is a pure function of root, key, flags and the objects in memory. If it meets a
//! reference or namespace that is not known here it returns what is missing; the caller obtains
//! that and walks again.

use crate::flags;
use crate::key::normalize;
use crate::store::{Need, Objects};
use crate::treeobj::TreeObj;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::RpcError;
use content::BlobRef;

/// Symbolic links that may nest before a lookup fails with ELOOP.
const LINK_DEPTH_LIMIT: usize = 10;

/// What a walk came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Found(TreeObj),
    /// There is no such key. Whether that is an error is the requester's business.
    NotFound,
    /// These objects are needed first.
    Missing(Vec<Need>),
    /// The root of this namespace is needed first.
    MissingNamespace(String),
    Failed(Error),
}

/// Why a lookup failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("key is a directory")]
    IsDir,
    #[error("key is not a directory")]
    NotDir,
    #[error("key is not a symbolic link")]
    NotLink,
    #[error("too many nested symbolic links")]
    Loop,
    #[error("a link leads into namespace {0}, which belongs to someone else")]
    Permission(String),
    #[error("root reference {0} is not a directory")]
    BadRoot(BlobRef),
    #[error("stored object {0} is damaged: it should be a directory")]
    Damaged(BlobRef),
}

impl Error {
    /// The errno a requester sees.
    pub fn errno(&self) -> i32 {
        match self {
            Error::IsDir => libc::EISDIR,
            Error::NotDir => libc::ENOTDIR,
            Error::NotLink => libc::EINVAL,
            Error::Loop => libc::ELOOP,
            Error::Permission(_) => libc::EPERM,
            Error::BadRoot(_) => libc::EINVAL,
            Error::Damaged(_) => libc::ENOTRECOVERABLE,
        }
    }
}

impl From<Error> for RpcError {
    fn from(e: Error) -> RpcError {
        match e {
            // The requester knows the key; the system's words say the rest.
            Error::IsDir | Error::NotDir | Error::Loop => RpcError::errno(e.errno()),
            _ => RpcError::explained(e.errno(), e),
        }
    }
}

/// What a link into another namespace needs to know of it.
pub enum NamespaceRoot {
    Root(BlobRef),
    Unknown,
    Denied,
}

/// The namespaces a walk may enter.
pub trait Namespaces {
    /// The root of this namespace, as the requester may see it.
    fn root(&self, name: &str) -> NamespaceRoot;
}

/// Looks `key` up under `root`.
pub fn lookup(
    objects: &mut dyn Objects,
    namespaces: &dyn Namespaces,
    root: BlobRef,
    key: &str,
    flags: u32,
) -> Outcome {
    let mut walker = Walker {
        objects,
        namespaces,
        first_root: root,
        flags,
    };
    match walker
        .object(root, &normalize(key))
        .and_then(|obj| walker.resolve(obj))
    {
        Ok(obj) => Outcome::Found(obj),
        Err(stop) => stop,
    }
}

/// Looks up the part of a value that was appended after its first `start` blobs: the number of
/// blobs now, and those from `start` on, as one value each. A value that was never appended to
/// counts as one blob. Costs as much as there is new data.
pub fn lookup_appended(
    objects: &mut dyn Objects,
    namespaces: &dyn Namespaces,
    root: BlobRef,
    key: &str,
    start: usize,
) -> Result<Appended, Outcome> {
    let mut walker = Walker {
        objects,
        namespaces,
        first_root: root,
        flags: 0,
    };
    let obj = walker.object(root, &normalize(key))?;
    match &obj {
        TreeObj::Val(_) if start == 0 => Ok(Appended {
            is_val: true,
            count: 1,
            values: vec![obj],
        }),
        TreeObj::Val(_) => Ok(Appended {
            is_val: true,
            count: 1,
            values: vec![],
        }),
        TreeObj::ValRef(refs) => {
            let new = refs.get(start..).unwrap_or_default();
            let blobs = walker.blobs(new)?;
            let values = blobs.iter().map(|b| TreeObj::val(b)).collect();
            Ok(Appended {
                is_val: false,
                count: refs.len(),
                values,
            })
        }
        TreeObj::Dir(_) | TreeObj::DirRef(_) => Err(Outcome::Failed(Error::IsDir)),
        TreeObj::Symlink(_) => Err(Outcome::Failed(Error::NotLink)),
    }
}

/// What [`lookup_appended`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Appended {
    /// The value is held in place: it was never appended to.
    pub is_val: bool,
    /// Blobs the value consists of now.
    pub count: usize,
    /// The blobs asked for.
    pub values: Vec<TreeObj>,
}

struct Walker<'a> {
    objects: &'a mut dyn Objects,
    namespaces: &'a dyn Namespaces,
    first_root: BlobRef,
    flags: u32,
}

impl Walker<'_> {
    fn follows_last(&self) -> bool {
        self.flags & (flags::READLINK | flags::TREEOBJ) == 0
    }

    /// The object at a normalized key, its last link followed unless flags say otherwise.
    fn object(&mut self, root: BlobRef, key: &str) -> Result<TreeObj, Outcome> {
        self.walk(root, key, 0, self.follows_last())
    }

    /// Walks down from `root`. Relative targets of links met on the way start at `root` again.
    fn walk(
        &mut self,
        root: BlobRef,
        key: &str,
        depth: usize,
        follow_last: bool,
    ) -> Result<TreeObj, Outcome> {
        let mut at = TreeObj::DirRef(root);
        if key == "." {
            return Ok(at);
        }
        let mut names = key.split('.').peekable();
        while let Some(name) = names.next() {
            let entry = match &at {
                TreeObj::DirRef(r) => {
                    let dir = match self.objects.dir(r) {
                        Some(Some(dir)) => dir,
                        Some(None) if *r == self.first_root => {
                            return Err(Outcome::Failed(Error::BadRoot(*r)));
                        }
                        Some(None) => return Err(Outcome::Failed(Error::Damaged(*r))),
                        None => return Err(Outcome::Missing(vec![Need::Dir(*r)])),
                    };
                    dir.get(name).cloned()
                }
                TreeObj::Dir(dir) => dir.get(name).cloned(),
                // A value has nothing below it.
                TreeObj::Val(_) | TreeObj::ValRef(_) | TreeObj::Symlink(_) => None,
            };
            at = entry.ok_or(Outcome::NotFound)?;
            if let TreeObj::Symlink(link) = &at
                && (names.peek().is_some() || follow_last)
            {
                if depth == LINK_DEPTH_LIMIT {
                    return Err(Outcome::Failed(Error::Loop));
                }
                let base = match &link.namespace {
                    None => root,
                    Some(name) => match self.namespaces.root(name) {
                        NamespaceRoot::Root(r) => r,
                        NamespaceRoot::Unknown => {
                            return Err(Outcome::MissingNamespace(name.clone()));
                        }
                        NamespaceRoot::Denied => {
                            return Err(Outcome::Failed(Error::Permission(name.clone())));
                        }
                    },
                };
                at = self.walk(base, &normalize(&link.target), depth + 1, true)?;
            }
        }
        Ok(at)
    }

    /// What a lookup returns for the object it arrived at.
    fn resolve(&mut self, obj: TreeObj) -> Result<TreeObj, Outcome> {
        let has = |flag| self.flags & flag != 0;
        if has(flags::TREEOBJ) {
            return Ok(obj);
        }
        let is_link = matches!(obj, TreeObj::Symlink(_));
        let is_dir = matches!(obj, TreeObj::Dir(_) | TreeObj::DirRef(_));
        if is_dir && !has(flags::READDIR) && !has(flags::READLINK) {
            return Err(Outcome::Failed(Error::IsDir));
        }
        if has(flags::READLINK) && !is_link {
            return Err(Outcome::Failed(Error::NotLink));
        }
        if has(flags::READDIR) && !is_dir {
            return Err(Outcome::Failed(Error::NotDir));
        }
        match obj {
            TreeObj::DirRef(r) => match self.objects.dir(&r) {
                Some(Some(dir)) => Ok(TreeObj::Dir(dir)),
                Some(None) if r == self.first_root => Err(Outcome::Failed(Error::BadRoot(r))),
                Some(None) => Err(Outcome::Failed(Error::Damaged(r))),
                None => Err(Outcome::Missing(vec![Need::Dir(r)])),
            },
            TreeObj::ValRef(refs) => {
                let blobs = self.blobs(&refs)?;
                if let [one] = &blobs[..] {
                    return Ok(TreeObj::val(one));
                }
                let mut all = Vec::with_capacity(blobs.iter().map(|b| b.len()).sum());
                for b in blobs {
                    all.extend_from_slice(&b);
                }
                Ok(TreeObj::Val(BASE64.encode(all).into()))
            }
            other => Ok(other),
        }
    }

    fn blobs(&mut self, refs: &[BlobRef]) -> Result<Vec<bytes::Bytes>, Outcome> {
        let mut blobs = Vec::with_capacity(refs.len());
        let mut missing = Vec::new();
        for r in refs {
            match self.objects.val(r) {
                Some(data) => blobs.push(data),
                None => missing.push(Need::Val(*r)),
            }
        }
        if missing.is_empty() {
            Ok(blobs)
        } else {
            Err(Outcome::Missing(missing))
        }
    }
}
