//! `flux kvs ls`, `flux kvs dir`: directories.

use clap::Args;
use client::Handle;
use futures::future::{BoxFuture, FutureExt};
use kvs::{TreeObj, flags};

use super::{Place, data, join};
use crate::error::{Context, Failure, Outcome};
use crate::output;

/// The columns there are: what was asked, the terminal's, COLUMNS, or 80; 0 is no limit.
fn width(asked: Option<usize>) -> usize {
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    asked
        .or_else(output::terminal_width)
        .or_else(columns)
        .unwrap_or(80)
}

fn is_dir(object: &TreeObj) -> bool {
    matches!(object, TreeObj::Dir(_) | TreeObj::DirRef(_))
}

#[derive(Args)]
pub(super) struct Ls {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    /// List all below directories
    #[arg(short = 'R', long)]
    recursive: bool,
    /// List directories, not what is in them
    #[arg(short, long)]
    directory: bool,
    /// Columns to use; 0 is no limit
    #[arg(short, long, value_name = "COLS")]
    width: Option<usize>,
    /// One entry a line
    #[arg(short = '1', long = "1")]
    one: bool,
    /// Show types: . directory, @ link
    #[arg(short = 'F', long)]
    classify: bool,
    /// Keys (default: the root)
    key: Vec<String>,
}

/// Names in columns as wide as the longest (by its bare name, marks not counted) and four spaces.
fn columns(names: &[(String, usize)], width: usize) -> String {
    let column = names.iter().map(|n| n.1).max().unwrap_or(0) + 4;
    let mut out = String::new();
    let mut at = 0;
    let mut last = 0;
    for (name, _) in names {
        if width != 0 && at > 0 && at + column > width {
            out.push('\n');
            at = 0;
        } else if last > 0 {
            out.push_str(&" ".repeat(column.saturating_sub(last)));
        }
        out.push_str(name);
        last = name.len();
        at += column;
    }
    if at > 0 {
        out.push('\n');
    }
    out
}

/// What a key of the command line is: a name to print, or a directory to list.
enum Kind {
    Name(String),
    Dir(String),
}

impl Ls {
    async fn classify(&self, handle: &Handle, place: &Place, key: &str) -> Result<Kind, Failure> {
        let mut name = key;
        while name.len() > 1 && name.ends_with('.') {
            name = &name[..name.len() - 1];
        }
        let must_be_dir = name.len() < key.len();
        let found = place
            .lookup(handle, name, flags::TREEOBJ)
            .await
            .context(name)?;
        let name = name.to_owned();
        if is_dir(&found) {
            return Ok(match (self.directory, self.classify) {
                (true, true) => Kind::Name(name + "."),
                (true, false) => Kind::Name(name),
                (false, _) => Kind::Dir(name),
            });
        }
        if must_be_dir {
            return Err(Failure::new(format!("{name}: Not a directory")));
        }
        if !matches!(found, TreeObj::Symlink(_)) {
            return Ok(Kind::Name(name));
        }
        if self.classify {
            return Ok(Kind::Name(name + "@"));
        }
        if self.directory {
            return Ok(Kind::Name(name));
        }
        // A link to a directory lists it; a dangling one is still a name.
        match place.lookup(handle, &name, 0).await {
            Err(e) if e.errno == libc::EISDIR => Ok(Kind::Dir(name)),
            Err(e) if e.errno != libc::ENOENT => Err(e).context(name),
            _ => Ok(Kind::Name(name)),
        }
    }

    fn list<'a>(
        &'a self,
        handle: &'a Handle,
        place: &'a Place,
        key: String,
        label: bool,
        space: bool,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let entries = place.dir(handle, &key).await.context(&key)?;
            let mut text = String::new();
            if label {
                let space = if space { "\n" } else { "" };
                text.push_str(&format!("{space}{key}:\n"));
            }
            let mark = |object: &TreeObj| match object {
                _ if !self.classify => "",
                TreeObj::Symlink(_) => "@",
                object if is_dir(object) => ".",
                _ => "",
            };
            let names: Vec<_> = entries
                .iter()
                .map(|(name, object)| (format!("{name}{}", mark(object)), name.len()))
                .collect();
            text.push_str(&columns(&names, self.columns_width()));
            output::write(&text);
            if self.recursive {
                for (name, _) in entries.iter().filter(|(_, object)| is_dir(object)) {
                    self.list(handle, place, join(&key, name), label, true)
                        .await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn columns_width(&self) -> usize {
        if self.one { 1 } else { width(self.width) }
    }

    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let place = Place::new(self.namespace.as_deref(), None)?;
        let (mut names, mut dirs, mut code) = (Vec::new(), Vec::new(), 0);
        let root = [".".to_owned()];
        let keys = if self.key.is_empty() {
            &root[..]
        } else {
            &self.key
        };
        for key in keys {
            match self.classify(handle, &place, key).await {
                Ok(Kind::Name(name)) => names.push((name.clone(), name.len())),
                Ok(Kind::Dir(name)) => dirs.push(name),
                Err(e) => {
                    eprintln!("{}", e.message);
                    code = 1;
                }
            }
        }
        names.sort();
        dirs.sort();
        output::write(&columns(&names, self.columns_width()));
        let mut space = !names.is_empty();
        let label = space || self.recursive || dirs.len() > 1;
        for dir in dirs {
            self.list(handle, &place, dir, label, space).await?;
            space = true;
        }
        Ok(code)
    }
}

#[derive(Args)]
pub(super) struct Dir {
    /// KVS namespace
    #[arg(short = 'N', long, value_name = "NAME")]
    namespace: Option<String>,
    /// Print all below directories
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Print keys only
    #[arg(short, long)]
    directory: bool,
    /// Columns to use; 0 is no limit
    #[arg(short, long, value_name = "COLS")]
    width: Option<usize>,
    /// Look up relative to a tree object
    #[arg(short, long, value_name = "TREEOBJ")]
    at: Option<String>,
    /// Directory (default: the root)
    key: Option<String>,
}

/// `KEY = VALUE`, cut at the width or the first line break.
fn pair(key: &str, value: &[u8], width: usize) -> Vec<u8> {
    let mut line = format!("{key} = ").into_bytes();
    line.extend_from_slice(value);
    // C's strings end at a null byte.
    let end = line.iter().position(|b| *b == 0).unwrap_or(line.len());
    line.truncate(end);
    let mut cut = false;
    if width > 3 {
        if line.len() > width - 3 {
            line.truncate(width - 3);
            cut = true;
        }
        if let Some(end) = line.iter().position(|b| *b == b'\n') {
            cut |= end + 1 < line.len();
            line.truncate(end);
        }
    }
    if cut {
        line.extend_from_slice(b"...");
    }
    line.push(b'\n');
    line
}

impl Dir {
    fn print<'a>(
        &'a self,
        handle: &'a Handle,
        place: &'a Place,
        dir: String,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            for (name, object) in place.dir(handle, &dir).await.context(&dir)? {
                let key = join(&dir, &name);
                if let TreeObj::Symlink(link) = &object {
                    let namespace = link.namespace.iter().map(|n| format!("{n}::"));
                    let namespace: String = namespace.collect();
                    output::write(&format!("{key} -> {namespace}{}\n", link.target));
                } else if is_dir(&object) {
                    let is_shown =
                        self.recursive && !place.dir(handle, &key).await.context(&key)?.is_empty();
                    match is_shown {
                        true => self.print(handle, place, key).await?,
                        false => output::write(&format!("{key}.\n")),
                    }
                } else if self.directory {
                    output::write(&format!("{key}\n"));
                } else {
                    let found = place.lookup(handle, &key, 0).await.context(&key)?;
                    let value = data(&found).context(&key)?;
                    output::write_bytes(&pair(&key, &value, width(self.width)));
                }
            }
            Ok(())
        }
        .boxed()
    }

    pub(super) async fn run(self, handle: &Handle) -> Outcome {
        let place = Place::new(self.namespace.as_deref(), self.at.as_deref())?;
        let dir = self.key.clone().unwrap_or_else(|| ".".to_owned());
        self.print(handle, &place, dir).await?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_the_width() {
        let names: Vec<_> = ["a", "bb.", "ccc", "d"]
            .map(|n| (n.to_owned(), n.trim_end_matches('.').len()))
            .into();
        insta::assert_snapshot!(columns(&names, 15), @r"
        a      bb.
        ccc    d
        ");
        assert_eq!(columns(&names, 1), "a\nbb.\nccc\nd\n");
        assert_eq!(columns(&names, 0), "a      bb.    ccc    d\n");
        assert_eq!(columns(&[], 80), "");
    }

    #[test]
    fn values_are_cut() {
        let shown =
            |value: &str, width| String::from_utf8(pair("k", value.as_bytes(), width)).unwrap();
        assert_eq!(shown("0123456789", 12), "k = 01234...\n");
        assert_eq!(shown("one\ntwo", 80), "k = one...\n");
        assert_eq!(shown("one\n", 80), "k = one\n");
        assert_eq!(shown("one\ntwo", 0), "k = one\ntwo\n");
    }
}
