//! A pseudo terminal (pty(7)): the end this program keeps, and the one a process gets as its terminal.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::protocol::WinSize;

/// What a terminal measures until somebody says otherwise.
const DEFAULT: WinSize = WinSize { rows: 25, cols: 80 };
/// Bytes read at once: more than the kernel keeps.
const CHUNK: usize = 4096;

nix::ioctl_write_ptr_bad!(set_winsize, libc::TIOCSWINSZ, libc::winsize);
nix::ioctl_read_bad!(get_winsize, libc::TIOCGWINSZ, libc::winsize);
nix::ioctl_write_int_bad!(signal_foreground, libc::TIOCSIG);

/// The end this program keeps.
pub struct Pty {
    leader: AsyncFd<PtyMaster>,
    path: String,
}

impl Pty {
    /// A new terminal of 25 by 80 characters. Must be called within a tokio runtime.
    pub fn open() -> io::Result<Pty> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let leader = posix_openpt(flags)?;
        grantpt(&leader)?;
        unlockpt(&leader)?;
        let path = ptsname_r(&leader)?;
        let pty = Pty {
            // SAFETY: the descriptor is the leader's own and stays open as long as it lives.
            leader: unsafe { AsyncFd::register(leader) }?,
            path,
        };
        pty.resize(DEFAULT)?;
        Ok(pty)
    }

    /// The other end, as three standard streams and the controlling terminal of a new session.
    ///
    /// The parent's copies of that end close with the command: until then the terminal has no end.
    pub fn give_to(&self, command: &mut Command) -> io::Result<()> {
        let follower = || -> io::Result<Stdio> {
            let file = nix::fcntl::open(
                self.path.as_str(),
                OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
                nix::sys::stat::Mode::empty(),
            )?;
            Ok(Stdio::from(file))
        };
        command.stdin(follower()?);
        command.stdout(follower()?);
        command.stderr(follower()?);
        // SAFETY: both calls are async-signal-safe. Standard input is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        Ok(())
    }

    /// Change the size, and let whoever runs in the foreground know. EINVAL without rows or columns.
    pub fn resize(&self, size: WinSize) -> io::Result<()> {
        if size.rows == 0 || size.cols == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let size = libc::winsize {
            ws_row: size.rows,
            ws_col: size.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the kernel reads one winsize. It signals the foreground itself if the size has changed.
        unsafe { set_winsize(self.leader.as_raw_fd(), &size) }?;
        Ok(())
    }

    /// Signal the foreground process group. ESRCH if there is none.
    pub fn signal(&self, signum: i32) -> io::Result<()> {
        // The kernel itself sends keyboard signals, also to processes of another user.
        // SAFETY: the argument is a number.
        if unsafe { signal_foreground(self.leader.as_raw_fd(), signum) }.is_ok() {
            return Ok(());
        }
        let group = nix::unistd::tcgetpgrp(&self.leader)?.as_raw();
        if group <= 0 {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: a number that is neither this process's own group nor all processes.
        match unsafe { libc::kill(-group, signum) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The next piece of output; empty when no process has the terminal open any more.
    pub async fn read(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; CHUNK];
        let read = self
            .leader
            .async_io(Interest::READABLE, |leader| {
                Ok(nix::unistd::read(leader, &mut buffer)?)
            })
            .await;
        match read {
            Ok(n) => buffer.truncate(n),
            // What Linux says when the other end has been closed.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => buffer.clear(),
            Err(e) => return Err(e),
        }
        Ok(buffer)
    }

    /// Write all of `data`, when the terminal has room for it.
    pub async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let n = self
                .leader
                .async_io(Interest::WRITABLE, |leader| {
                    Ok(nix::unistd::write(leader, data)?)
                })
                .await?;
            data = &data[n..];
        }
        Ok(())
    }
}

/// The size of the terminal on standard input; `None` if that is no terminal.
pub fn own_size() -> Option<WinSize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel fills one winsize.
    unsafe { get_winsize(0, &mut size) }.ok()?;
    Some(WinSize {
        // Some terminals do not know.
        rows: size.ws_row.max(1),
        cols: size.ws_col.max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn output(pty: &Pty) -> String {
        let mut all = Vec::new();
        loop {
            match pty.read().await.unwrap() {
                piece if piece.is_empty() => return String::from_utf8(all).unwrap(),
                piece => all.extend(piece),
            }
        }
    }

    fn spawn(pty: &Pty, script: &str) -> std::process::Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        pty.give_to(&mut command).unwrap();
        command.spawn().unwrap()
    }

    #[tokio::test]
    async fn a_process_has_a_terminal() {
        let pty = Pty::open().unwrap();
        pty.resize(WinSize {
            rows: 40,
            cols: 120,
        })
        .unwrap();
        let mut child = spawn(
            &pty,
            "test -t 0 && stty size </dev/tty; read a; echo got $a",
        );
        pty.write(b"ping\n").await.unwrap();
        let text = output(&pty).await;
        assert!(text.contains("40 120\r\n"), "{text:?}");
        assert!(text.contains("got ping\r\n"), "{text:?}");
        assert!(child.wait().unwrap().success());
    }

    #[tokio::test]
    async fn signals_reach_the_foreground() {
        use std::os::unix::process::ExitStatusExt as _;
        let pty = Pty::open().unwrap();
        let mut child = spawn(&pty, "echo ready; exec sleep 1000");
        let mut seen = Vec::new();
        while !seen.ends_with(b"ready\r\n") {
            seen.extend(pty.read().await.unwrap());
        }
        pty.signal(libc::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        assert_eq!(output(&pty).await, "");
    }

    #[tokio::test]
    async fn a_size_must_be_one() {
        let pty = Pty::open().unwrap();
        let e = pty.resize(WinSize { rows: 0, cols: 80 }).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
    }
}
