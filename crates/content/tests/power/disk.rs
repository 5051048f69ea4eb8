//! A disk without power: what a trace has left on it.
//!
//! Sure are bytes of files that were synced since, and names in directories that were synced since. Of the rest any part
//! may be there: sectors of writes one by one, truncations, and the first so many changes of names.

use std::collections::HashMap;
use std::path::Path;

/// Bytes that are written as a whole or not at all.
const SECTOR: usize = 512;

/// Something a program did.
#[derive(Debug)]
pub(crate) enum Event {
    Open(u64, String),
    Write(u64, usize, Vec<u8>),
    Truncate(u64, usize),
    /// A file, or the directory.
    Sync(u64),
    SyncAll,
    Rename(String, String),
    Unlink(String),
}

/// The directory's number.
const DIRECTORY: u64 = 1;

/// The events of a trace.
pub(crate) fn read_trace(mut trace: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((head, rest)) = trace.split_first_chunk::<25>() {
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let (file, offset, len) = (number(1), number(9) as usize, number(17) as usize);
        let (data, rest) = rest.split_at(len);
        let text = || String::from_utf8(data.to_vec()).unwrap();
        events.push(match head[0] {
            b'O' => Event::Open(file, text()),
            b'W' => Event::Write(file, offset, data.to_vec()),
            b'T' => Event::Truncate(file, offset),
            b'S' => Event::Sync(file),
            b'A' => Event::SyncAll,
            b'R' => {
                let both = text();
                let (from, to) = both.split_once('\0').unwrap();
                Event::Rename(from.to_owned(), to.to_owned())
            }
            b'U' => Event::Unlink(text()),
            other => panic!("a record of kind {other}"),
        });
        trace = rest;
    }
    events
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    sure: Vec<u8>,
    unsure: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Naming {
    Link(String, usize),
    Rename(String, String),
    Unlink(String),
}

type Names = HashMap<String, usize>;

/// The disk.
#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// Files by inode, as long as they have a name.
    inodes: HashMap<u64, usize>,
    /// Names as programs see them, and as they are sure.
    names: Names,
    sure: Names,
    unsure: Vec<Naming>,
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
}

fn name(names: &mut Names, naming: &Naming) {
    match naming {
        Naming::Link(path, file) => drop(names.insert(path.clone(), *file)),
        Naming::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Naming::Unlink(path) => drop(names.remove(path)),
    }
}

impl File {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsure) {
            match change {
                Change::Write(at, data) => put(&mut self.sure, at, &data),
                Change::Truncate(size) => self.sure.resize(size, 0),
            }
        }
    }

    /// What is left of it, if each part that is unsure is there with this chance of 256.
    fn left(&self, chance: u8, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.sure.clone();
        for change in &self.unsure {
            match change {
                Change::Truncate(size) if dice.hit(chance) => bytes.resize(*size, 0),
                Change::Truncate(_) => {}
                Change::Write(at, data) => {
                    let (mut at, mut data) = (*at, &data[..]);
                    while !data.is_empty() {
                        let (sector, rest) = data.split_at(data.len().min(SECTOR - at % SECTOR));
                        if dice.hit(chance) {
                            put(&mut bytes, at, sector);
                        }
                        (at, data) = (at + sector.len(), rest);
                    }
                }
            }
        }
        bytes
    }
}

impl Disk {
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Open(inode, path) => {
                let known = self.inodes.get(inode);
                if known.is_some() && self.names.get(path) == known {
                    return;
                }
                let file = self.files.len();
                self.files.push(File::default());
                self.inodes.insert(*inode, file);
                self.change(Naming::Link(path.clone(), file));
            }
            Event::Write(inode, at, data) => {
                let change = Change::Write(*at, data.clone());
                self.files[self.inodes[inode]].unsure.push(change);
            }
            Event::Truncate(inode, size) => {
                let file = &mut self.files[self.inodes[inode]];
                file.unsure.push(Change::Truncate(*size));
            }
            Event::Sync(DIRECTORY) => self.sync_names(),
            Event::Sync(inode) => self.files[self.inodes[inode]].sync(),
            Event::SyncAll => {
                self.files.iter_mut().for_each(File::sync);
                self.sync_names();
            }
            Event::Rename(from, to) => self.change(Naming::Rename(from.clone(), to.clone())),
            Event::Unlink(path) => self.change(Naming::Unlink(path.clone())),
        }
    }

    fn change(&mut self, naming: Naming) {
        name(&mut self.names, &naming);
        self.unsure.push(naming);
    }

    fn sync_names(&mut self) {
        self.unsure.clear();
        self.sure.clone_from(&self.names);
    }

    /// Writes what is left after a power loss, except files whose names end so, into a directory.
    pub(crate) fn fail(&self, dice: &mut Dice, dir: &Path, except: &[&str]) {
        // All, nothing or any part of what is unsure.
        let chance = [0, 32, 128, 224, 255][dice.below(5)];
        let mut names = self.sure.clone();
        let count = match chance {
            0 => 0,
            255 => self.unsure.len(),
            _ => dice.below(self.unsure.len() + 1),
        };
        self.unsure[..count]
            .iter()
            .for_each(|n| name(&mut names, n));
        for (path, file) in names {
            if except.iter().any(|end| path.ends_with(end)) {
                continue;
            }
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, self.files[file].left(chance, dice)).unwrap();
        }
    }
}

/// Chance that repeats itself.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn hit(&mut self, chance: u8) -> bool {
        self.below(255) < usize::from(chance)
    }
}
