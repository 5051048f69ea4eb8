//! Which parts of a file hold data.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte.
    pub offset: u64,
    /// In bytes, at least 1.
    pub size: u64,
}

/// The parts of a file of `size` bytes that hold data, in order, each of `chunk` bytes at most (0: no limit). What is
/// between them reads as zeros.
pub fn extents(file: &File, size: u64, chunk: u64) -> io::Result<Vec<Extent>> {
    let chunk = match chunk {
        0 => size,
        chunk => chunk,
    };
    let seek = |from: u64, whence| match lseek(file, from as i64, whence) {
        Ok(at) => Ok(Some((at as u64).min(size))),
        // There is no more data.
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(io::Error::from(e)),
    };
    let (mut found, mut end) = (Vec::new(), 0);
    while end < size
        && let Some(start) = seek(end, Whence::SeekData)?
        && let Some(hole) = seek(start, Whence::SeekHole)?
        && start < hole
    {
        let mut offset = start;
        while offset < hole {
            let size = chunk.min(hole - offset);
            found.push(Extent { offset, size });
            offset += size;
        }
        end = hole;
    }
    lseek(file, 0, Whence::SeekSet)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_are_left_out() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(extents(&file, 0, 0).unwrap(), []);
        file.set_len(1 << 24).unwrap();
        file.write_all_at(b"x", (1 << 24) - 1).unwrap();
        let found = extents(&file, 1 << 24, 1000).unwrap();
        let covered: u64 = found.iter().map(|e| e.size).sum();
        let last = found.last().unwrap();
        assert_eq!(last.offset + last.size, 1 << 24);
        assert!(found.iter().all(|e| (1..=1000).contains(&e.size)));
        assert!(
            found
                .windows(2)
                .all(|w| w[0].offset + w[0].size <= w[1].offset)
        );
        // File systems without holes say that all is data.
        assert!(covered <= 1 << 24);
        // Nothing behind the size that was asked for.
        assert!(
            extents(&file, 10, 0)
                .unwrap()
                .iter()
                .all(|e| e.offset + e.size <= 10)
        );
    }
}
