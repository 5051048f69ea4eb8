//! `flux relay PATH`: what ssh runs on a broker's host to reach its socket.
//!
//! Bytes pass both ways unchanged, the broker's first byte (its answer to the connection) included.

use std::io::Read as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use clap::Parser;

use crate::args::Args;
use crate::error::{Context, Outcome};
use crate::output;

/// Pass messages between standard input and output and a broker.
#[derive(Parser)]
struct Options {
    /// The broker's socket
    path: String,
}

pub(crate) fn run(args: Args) -> Outcome {
    let Options { path } = args.parse()?;
    let path = path.strip_prefix("local://").unwrap_or(&path);
    let mut socket = UnixStream::connect(path).context(path)?;
    let mut upward = socket.try_clone()?;
    std::thread::spawn(move || {
        // Whichever side failed, the broker sees the end of this client and closes, which ends us.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut upward);
        let _ = upward.shutdown(Shutdown::Write);
    });
    let mut buffer = vec![0; 1 << 16];
    loop {
        match socket.read(&mut buffer).context(path)? {
            0 => return Ok(0),
            n => output::write_bytes(&buffer[..n]),
        }
    }
}
