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
