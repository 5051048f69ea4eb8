//! How an archive is compressed: by the suffix of its name when written, by its first bytes when read.

use std::io::{self, Read, Write};

/// A compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    Lz4,
}

use Compression::{Bzip2, Gzip, Lz4, None as Plain, Xz, Zstd};

const SUFFIXES: &[(&str, Compression)] = &[
    (".tar", Plain),
    (".tgz", Gzip),
    (".tar.gz", Gzip),
    (".tbz2", Bzip2),
    (".tar.bz2", Bzip2),
    (".txz", Xz),
    (".tar.xz", Xz),
    (".tzst", Zstd),
    (".tar.zst", Zstd),
    (".tar.lz4", Lz4),
];

const MAGIC: &[(&[u8], Compression)] = &[
    (&[0x1f, 0x8b], Gzip),
    (b"BZh", Bzip2),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Xz),
    (&[0x28, 0xb5, 0x2f, 0xfd], Zstd),
    (&[0x04, 0x22, 0x4d, 0x18], Lz4),
];

/// What a dump is read for is gone soon, so that time counts more than size.
const GZIP_LEVEL: u32 = 3;

impl Compression {
    /// What the name of a file asks for.
    pub(crate) fn of_name(name: &str) -> Result<Compression, String> {
        let fits = |(suffix, _): &&(&str, Compression)| name.ends_with(suffix);
        let found = SUFFIXES.iter().find(fits).map(|(_, c)| *c);
        found.ok_or_else(|| {
            let known: Vec<&str> = SUFFIXES.iter().map(|(suffix, _)| *suffix).collect();
            format!(
                "{name}: unknown type of archive; the name should end in one of {}",
                known.join(" ")
            )
        })
    }

    fn of_content(head: &[u8]) -> Compression {
        let fits = |(magic, _): &&(&[u8], Compression)| head.starts_with(magic);
        MAGIC.iter().find(fits).map_or(Plain, |(_, c)| *c)
    }

    /// Compresses what is written.
    pub(crate) fn writer<W: Write>(self, out: W) -> io::Result<Encoder<W>> {
        Ok(match self {
            Plain => Encoder::Plain(out),
            Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Encoder::Gzip(flate2::write::GzEncoder::new(out, level))
            }
            Bzip2 => {
                let level = bzip2::Compression::default();
                Encoder::Bzip2(bzip2::write::BzEncoder::new(out, level))
            }
            Xz => {
                let options = lzma_rust2::XzOptions::with_preset(3);
                Encoder::Xz(Box::new(lzma_rust2::XzWriter::new(out, options)?))
            }
            Zstd => Encoder::Zstd(zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)?),
            Lz4 => Encoder::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(out))),
        })
    }
}

/// Decompresses what is read, whatever it is.
pub(crate) fn reader<R: Read + 'static>(mut from: R) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::new();
    from.by_ref().take(6).read_to_end(&mut head)?;
    let compression = Compression::of_content(&head);
    let from = io::Cursor::new(head).chain(from);
    Ok(match compression {
        Plain => Box::new(from),
        Gzip => Box::new(flate2::read::MultiGzDecoder::new(from)),
        Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(from)),
        Xz => Box::new(lzma_rust2::XzReader::new(from, true)),
        Zstd => Box::new(zstd::Decoder::new(from)?),
        Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(from)),
    })
}

/// A writer that compresses.
pub(crate) enum Encoder<W: Write> {
    Plain(W),
    Gzip(flate2::write::GzEncoder<W>),
    Bzip2(bzip2::write::BzEncoder<W>),
    Xz(Box<lzma_rust2::XzWriter<W>>),
    Zstd(zstd::Encoder<'static, W>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<W>>),
}

impl<W: Write> Encoder<W> {
    fn inner(&mut self) -> &mut dyn Write {
        match self {
            Encoder::Plain(w) => w,
            Encoder::Gzip(w) => w,
            Encoder::Bzip2(w) => w,
            Encoder::Xz(w) => w,
            Encoder::Zstd(w) => w,
            Encoder::Lz4(w) => w,
        }
    }

    /// Write what is left.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Encoder::Plain(w) => Ok(w),
            Encoder::Gzip(w) => w.finish(),
            Encoder::Bzip2(w) => w.finish(),
            Encoder::Xz(w) => w.finish(),
            Encoder::Zstd(w) => w.finish(),
            Encoder::Lz4(w) => w.finish().map_err(io::Error::other),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.inner().write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(Compression::of_name("a.tgz"), Ok(Gzip));
        assert_eq!(Compression::of_name("/x/a.tar.zst"), Ok(Zstd));
        assert_eq!(Compression::of_name("a.tar"), Ok(Plain));
        for refused in ["a", "a.zip", "a.cpio", "tar.gzip"] {
            let why = Compression::of_name(refused).unwrap_err();
            assert!(why.starts_with(refused), "{why}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (suffix, compression) in SUFFIXES {
            let mut encoder = compression.writer(Vec::new()).unwrap();
            encoder
                .write_all(b"some text, some text, some text")
                .unwrap();
            let bytes = encoder.finish().unwrap();
            assert_eq!(Compression::of_content(&bytes), *compression, "{suffix}");
            let mut text = String::new();
            let mut decoder = reader(io::Cursor::new(bytes)).unwrap();
            decoder.read_to_string(&mut text).unwrap();
            assert_eq!(text, "some text, some text, some text", "{suffix}");
        }
    }
}
