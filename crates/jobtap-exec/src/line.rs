//! Lines over a socket, read so that nothing after the line is taken out of it.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Both directions.
pub(crate) struct Lines(OwnedFd);

impl Lines {
    /// `fd` must be a socket: what is there is looked at before it is taken.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self> {
        let mut kind: libc::c_int = 0;
        let mut size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: one number is written, which has the size that is told.
        let found = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TYPE,
                (&raw mut kind).cast(),
                &raw mut size,
            )
        };
        match found {
            0 => Ok(Self(fd)),
            _ => Err(Error::last_os_error()),
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Receive up to the length of `buffer`, waiting until there is something.
    fn receive(&self, buffer: &mut [u8], flags: libc::c_int) -> Result<usize> {
        loop {
            // SAFETY: the buffer is as long as told.
            let got =
                unsafe { libc::recv(self.fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
            match usize::try_from(got) {
                Ok(got) => return Ok(got),
                Err(_) => match Error::last_os_error() {
                    e if e.kind() == std::io::ErrorKind::Interrupted => {}
                    // The other end does not block, and shares the socket's mode with nobody.
                    e if e.kind() == std::io::ErrorKind::WouldBlock => self.wait(libc::POLLIN),
                    e => return Err(e),
                },
            }
        }
    }

    fn wait(&self, events: i16) {
        let mut poll = libc::pollfd {
            fd: self.fd(),
            events,
            revents: 0,
        };
        // SAFETY: one descriptor. What it returns does not matter: the caller tries again.
        unsafe { libc::poll(&raw mut poll, 1, -1) };
    }

    /// The next line; none at the end.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            let seen = self.receive(&mut buffer, libc::MSG_PEEK).ok()?;
            if seen == 0 {
                return None;
            }
            let end = buffer[..seen].iter().position(|byte| *byte == b'\n');
            let take = end.map_or(seen, |end| end + 1);
            let got = self.receive(&mut buffer[..take], 0).ok()?;
            line.extend_from_slice(&buffer[..got]);
            if line.ends_with(b"\n") {
                return Some(line);
            }
        }
    }

    pub(crate) fn say(&self, text: &str) -> Result<()> {
        let line = [text.as_bytes(), b"\n"].concat();
        let mut rest = &line[..];
        while !rest.is_empty() {
            // SAFETY: the buffer is as long as told.
            let sent = unsafe {
                libc::send(
                    self.fd(),
                    rest.as_ptr().cast(),
                    rest.len(),
                    libc::MSG_NOSIGNAL,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => rest = &rest[sent..],
                Err(_) => match Error::last_os_error() {
                    e if e.kind() == std::io::ErrorKind::Interrupted => {}
                    e if e.kind() == std::io::ErrorKind::WouldBlock => self.wait(libc::POLLOUT),
                    e => return Err(e),
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_line_is_taken_and_no_more() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let lines = Lines::new(theirs.into()).unwrap();
        ours.write_all(b"one\ntwo\nthr").unwrap();
        assert_eq!(lines.next().as_deref(), Some(&b"one\n"[..]));
        assert_eq!(lines.next().as_deref(), Some(&b"two\n"[..]));
        drop(ours);
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn a_file_is_no_socket() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Lines::new(file.into()).is_err());
    }
}
