//! Words that many vertices share, each kept once.

use rustc_hash::FxHashMap;

/// A word of a graph: a type, a basename, a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(pub(crate) u16);

/// What a jobspec calls a slot.
pub const SLOT: Word = Word(0);
/// What a jobspec calls one of several slots.
pub const XOR_SLOT: Word = Word(1);
/// Types every graph knows, whether it has them or not.
pub const COMMON: [&str; 10] = [
    "slot",
    "xor_slot",
    "cluster",
    "rack",
    "node",
    "socket",
    "gpu",
    "core",
    "ssd",
    "storage_node",
];
/// A type that no vertex has.
pub const UNKNOWN: Word = Word(u16::MAX);

/// The words of one graph.
#[derive(Debug, Clone)]
pub struct Words {
    texts: Vec<Box<str>>,
    places: FxHashMap<Box<str>, Word>,
}

impl Default for Words {
    fn default() -> Words {
        let mut words = Words {
            texts: Vec::new(),
            places: FxHashMap::default(),
        };
        COMMON.into_iter().for_each(|text| {
            words.add(text);
        });
        words
    }
}

impl Words {
    /// The word of a text, which is added if it is new; none if there are too many.
    pub fn add(&mut self, text: &str) -> Option<Word> {
        if let Some(word) = self.places.get(text) {
            return Some(*word);
        }
        let word = Word(u16::try_from(self.texts.len()).ok()?);
        if word == UNKNOWN {
            return None;
        }
        self.texts.push(text.into());
        self.places.insert(text.into(), word);
        Some(word)
    }

    /// The word of a text that was added.
    pub fn find(&self, text: &str) -> Option<Word> {
        self.places.get(text).copied()
    }

    /// The text of a word.
    pub fn text(&self, word: Word) -> &str {
        &self.texts[usize::from(word.0)]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}
