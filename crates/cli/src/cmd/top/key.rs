//! From the bytes a terminal sends to the keys that mean something here.

/// A key, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Down,
    Up,
    Left,
    Right,
    Details,
    Enter,
    Redraw,
    /// Leave the instance that is shown.
    Quit,
    /// Leave the program: the terminal does not make a signal of it.
    Interrupt,
    /// Any other.
    Other,
}

/// Where a byte stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    Outside,
    /// After an escape character.
    Escape,
    /// In a sequence, which a letter or `~` ends.
    Sequence,
}

/// Makes keys of bytes, which may come in pieces.
#[derive(Debug, Default)]
pub(super) struct Decoder(At);

impl Decoder {
    pub(super) fn keys(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|byte| self.key(*byte)).collect()
    }

    fn key(&mut self, byte: u8) -> Option<Key> {
        let at = std::mem::take(&mut self.0);
        let key = match (at, byte) {
            (_, 0x1b) => {
                self.0 = At::Escape;
                return None;
            }
            // Terminals send either, as the program before has set them.
            (At::Escape, b'[' | b'O') => {
                self.0 = At::Sequence;
                return None;
            }
            (At::Sequence, b'A') => Key::Up,
            (At::Sequence, b'B') => Key::Down,
            (At::Sequence, b'C') => Key::Right,
            (At::Sequence, b'D') => Key::Left,
            (At::Sequence, 0x40..=0x7e) => Key::Other,
            (At::Sequence, _) => {
                self.0 = At::Sequence;
                return None;
            }
            (_, b'j') => Key::Down,
            (_, b'k') => Key::Up,
            (_, b'h') => Key::Left,
            (_, b'l') => Key::Right,
            (_, b'd') => Key::Details,
            (_, b'\r' | b'\n') => Key::Enter,
            (_, 0x0c) => Key::Redraw,
            (_, b'q') => Key::Quit,
            (_, 0x03) => Key::Interrupt,
            _ => Key::Other,
        };
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_pieces() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.keys(b"jk\n\rq"), {
            use Key::{Down, Enter, Quit, Up};
            [Down, Up, Enter, Enter, Quit]
        });
        assert_eq!(decoder.keys(b"\x1b"), []);
        assert_eq!(decoder.keys(b"[A\x1bOB\x1b["), [Key::Up, Key::Down]);
        assert_eq!(decoder.keys(b"1;5C"), [Key::Right]);
        assert_eq!(decoder.keys(b"\x1b[5~\x1bq\x03"), {
            [Key::Other, Key::Quit, Key::Interrupt]
        });
    }
}
