//! Writing data to standard output. A reader that goes away (`flux jobs | head`) ends the command
//! quietly, as it would any other tool.

use std::io::{ErrorKind, Write};

/// Write text as it is.
pub(crate) fn write(text: &str) {
    write_bytes(text.as_bytes());
}

/// Write bytes as they are.
pub(crate) fn write_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if let Err(e) = out.write_all(bytes).and_then(|()| out.flush()) {
        if e.kind() != ErrorKind::BrokenPipe {
            eprintln!("flux: standard output: {e}");
        }
        std::process::exit(128 + libc::SIGPIPE);
    }
}

/// Write bytes of a stream named `stdout` or `stderr` to ours of that name.
pub(crate) fn write_to(stream: &str, bytes: &[u8]) {
    if stream == "stderr" {
        // Nothing can be said about a standard error that is closed.
        let _ = std::io::stderr().write_all(bytes);
    } else {
        write_bytes(bytes);
    }
}

/// The width of the terminal on standard output.
pub(crate) fn terminal_width() -> Option<usize> {
    // SAFETY: the ioctl fills in the structure it is given, and says whether it did.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(1, libc::TIOCGWINSZ, &mut size) == 0).then_some(size)
    };
    size.map(|s| usize::from(s.ws_col)).filter(|w| *w > 0)
}

/// `println!` for data.
macro_rules! outln {
    ($($arg:tt)*) => { $crate::output::write(&format!("{}\n", format_args!($($arg)*))) };
}
pub(crate) use outln;

/// JSON on one line with a blank after each comma and colon, as Python writes it.
pub(crate) fn spaced_json(value: &impl serde::Serialize) -> String {
    struct Spaced;
    impl serde_json::ser::Formatter for Spaced {
        fn begin_array_value<W: ?Sized + Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_key<W: ?Sized + Write>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> std::io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
            writer.write_all(b": ")
        }
    }
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    // Plain data goes to memory as UTF-8; neither step can fail.
    value
        .serialize(&mut serializer)
        .expect("plain data encodes as JSON");
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    #[test]
    fn spaced() {
        let value = serde_json::json!({"a": [1, 2.0, "x"], "b": {}});
        assert_eq!(
            super::spaced_json(&value),
            r#"{"a": [1, 2.0, "x"], "b": {}}"#
        );
    }
}
