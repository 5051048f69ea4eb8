//! Processes that outlive the broker: their records in a directory, and finding them again.
//!
//! A process that was found again is not a child of this program. That it ends is told by a pidfd, how by the exit code it
//! leaves; one that leaves none was killed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use formats::subprocess::Command;
use formats::survivor::{PATIENCE, RECORD, Record, exit_file, is_name, state_and_start};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Wait status of a process that has ended without leaving its exit code.
const KILLED: i32 = libc::SIGKILL;

/// The records of one server.
#[derive(Debug)]
pub(crate) struct Survivors {
    dir: PathBuf,
    boot: String,
}

/// A process of an earlier broker.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) state: State,
}

/// What has become of it.
#[derive(Debug)]
pub(crate) enum State {
    Runs(OwnedFd),
    /// Its wait status.
    Ended(i32),
}

impl Survivors {
    /// Records in `dir`, which is there as long as it holds any.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            dir: dir.to_owned(),
            boot: boot.trim().to_owned(),
        })
    }

    /// The path of a process's record.
    pub(crate) fn path(&self, label: &str) -> PathBuf {
        self.dir.join(label)
    }

    /// Room for the record of a process that is to begin. Where there is none it must not be told of one: it would wait
    /// for it.
    pub(crate) fn reserve(
        &self,
        label: &str,
        patience: u64,
        cmdline: &[String],
    ) -> io::Result<Reserved> {
        match std::fs::DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let part = self.dir.join(format!(".{label}"));
        let mut file = std::fs::OpenOptions::new();
        file.write(true).create(true).truncate(true).mode(0o600);
        let mut reserved = Reserved {
            file: file.open(&part)?,
            part,
            path: self.path(label),
            room: 0,
            // No record is longer than with the largest numbers.
            record: Record {
                pid: i32::MAX,
                start: u64::MAX,
                boot: self.boot.clone(),
                patience,
                label: label.to_owned(),
                cmdline: cmdline.to_owned(),
            },
        };
        let text = serde_json::to_vec(&reserved.record)?;
        reserved.room = text.len();
        reserved.file.write_all_at(&text, 0)?;
        Ok(reserved)
    }

    /// Nobody needs to know of this process any more.
    pub(crate) fn remove(&self, label: &str) {
        let path = self.path(label);
        for path in [exit_file(&path), path] {
            // What is not there need not be removed; the rest goes with the directory.
            let _ = std::fs::remove_file(path);
        }
    }

    /// What earlier brokers have left, and what cannot be read of it.
    pub(crate) fn find(&self) -> io::Result<(Vec<Found>, Vec<String>)> {
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        let entries = match std::fs::read_dir(&self.dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok((found, unreadable)),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            // The others are exit codes, and records that were never finished.
            let Some(label) = name.to_str().filter(|name| is_name(name)) else {
                continue;
            };
            let path = self.path(label);
            let record = std::fs::read(&path)
                .and_then(|text| Ok(serde_json::from_slice::<Record>(&text)?))
                .and_then(|record| Ok((self.state(&path, &record)?, record)));
            match record {
                Ok((state, record)) => found.push(Found { record, state }),
                Err(e) => unreadable.push(format!("{}: {e}", path.display())),
            }
        }
        found.sort_unstable_by_key(|f| f.record.pid);
        Ok((found, unreadable))
    }

    fn state(&self, path: &Path, record: &Record) -> io::Result<State> {
        if record.boot != self.boot {
            return Ok(State::Ended(KILLED));
        }
        let fd = match open_pidfd(record.pid) {
            Ok(fd) => Some(fd),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => None,
            Err(e) => return Err(e),
        };
        // Looked at after it was opened, so that both are of the same process.
        let runs = look(record.pid)?
            .is_some_and(|(state, start)| start == record.start && !matches!(state, 'Z' | 'X'));
        Ok(match fd.filter(|_| runs) {
            Some(fd) => State::Runs(fd),
            None => State::Ended(status(path)),
        })
    }
}

/// Room for a record. It goes away if nothing is put there.
#[derive(Debug)]
pub(crate) struct Reserved {
    file: std::fs::File,
    part: PathBuf,
    path: PathBuf,
    room: usize,
    record: Record,
}

impl Reserved {
    /// Tell the process that is to begin where its record will be.
    pub(crate) fn tell(&self, cmd: &mut Command) {
        let path = self.path.to_string_lossy().into_owned();
        cmd.env.insert(RECORD.into(), path);
        let patience = self.record.patience.to_string();
        cmd.env.insert(PATIENCE.into(), patience);
    }

    /// Make the record of the process, which has just begun.
    pub(crate) fn fill(mut self, pid: i32) -> io::Result<()> {
        let (_, start) = look(pid)?.ok_or(ErrorKind::NotFound)?;
        (self.record.pid, self.record.start) = (pid, start);
        let mut text = serde_json::to_vec(&self.record)?;
        text.resize(self.room, b' ');
        self.file.write_all_at(&text, 0)?;
        // Renamed in the end: a record is there as a whole or not at all.
        std::fs::rename(&self.part, &self.path)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // It is not there any more if it has become the record.
        let _ = std::fs::remove_file(&self.part);
    }
}

impl Drop for Survivors {
    fn drop(&mut self) {
        // It stays if anything is in it.
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// Wait status of a process that has ended, by what it has left beside its record.
pub(crate) fn status(record: &Path) -> i32 {
    let text = std::fs::read_to_string(exit_file(record)).unwrap_or_default();
    text.trim()
        .parse::<u8>()
        .map_or(KILLED, |code| i32::from(code) << 8)
}

/// State and start time of a process, if it is there.
fn look(pid: i32) -> io::Result<Option<(char, u64)>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(state_and_start(&stat)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(e),
    }
}

fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and returns a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK) };
    match i32::try_from(fd) {
        // SAFETY: it is new, and nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A pidfd that can be waited for.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it stays open and the same for as long as it is registered.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    fd.map_err(|e| e.into_parts().1)
}

/// Wait until the process of a pidfd has ended.
pub(crate) async fn ended(fd: &AsyncFd<OwnedFd>) {
    // It is readable when the process has ended, and fails only with the runtime.
    let _ = fd.readable().await;
}

/// Signal the process group of a process that has not ended.
pub(crate) fn signal(fd: &OwnedFd, pid: i32, signum: i32) {
    // SAFETY: both calls take numbers and a null pointer only. The process was there when the first was made.
    unsafe {
        let probe = libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            0,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        );
        if probe == 0 {
            libc::kill(-pid, signum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn cmdline(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[tokio::test]
    async fn processes_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("rexec");
        let survivors = Survivors::open(&dir).unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(Stdio::piped())
            .spawn()
            .expect("cat is there");
        let pid = child.id() as i32;
        let reserve = || survivors.reserve("one", 60, &cmdline(&["cat"])).unwrap();
        drop(reserve());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        reserve().fill(pid).unwrap();
        let again = Survivors::open(&dir).unwrap();
        let (found, unreadable) = again.find().unwrap();
        assert_eq!(unreadable, [""; 0]);
        let [found] = <[Found; 1]>::try_from(found).unwrap();
        assert_eq!((found.record.pid, found.record.patience), (pid, 60));
        let State::Runs(fd) = found.state else {
            panic!("it runs: {:?}", found.state);
        };
        let fd = watch(fd).unwrap();
        drop(child.stdin.take());
        ended(&fd).await;
        // Not waited for, it is a zombie, and has left nothing.
        let state = || match survivors.find().unwrap().0.remove(0).state {
            State::Ended(status) => status,
            State::Runs(_) => panic!("it has ended"),
        };
        assert_eq!(state(), libc::SIGKILL);
        child.wait().unwrap();
        std::fs::write(exit_file(&survivors.path("one")), "3").unwrap();
        assert_eq!(state(), 3 << 8);
        survivors.remove("one");
        assert!(survivors.find().unwrap().0.is_empty());
        drop(survivors);
        assert!(!dir.exists());
    }

    #[test]
    fn others_with_the_same_id_are_not_taken_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let survivors = Survivors::open(dir.path()).unwrap();
        let pid = std::process::id() as i32;
        let reserved = survivors.reserve("me", 1, &cmdline(&["me"]));
        reserved.unwrap().fill(pid).unwrap();
        let text = std::fs::read_to_string(survivors.path("me")).unwrap();
        let record: Record = serde_json::from_str(&text).unwrap();
        let altered = [
            Record {
                start: record.start + 1,
                ..record.clone()
            },
            Record {
                boot: "another".into(),
                ..record.clone()
            },
            Record {
                pid: i32::MAX,
                ..record.clone()
            },
        ];
        for record in altered {
            let text = serde_json::to_string(&record).unwrap();
            std::fs::write(survivors.path("me"), text).unwrap();
            let (found, _) = survivors.find().unwrap();
            assert!(matches!(found[0].state, State::Ended(_)), "{record:?}");
        }
        std::fs::write(survivors.path("junk"), "{").unwrap();
        std::fs::write(survivors.path("junk").with_extension("exit"), "x").unwrap();
        let (found, unreadable) = survivors.find().unwrap();
        assert_eq!((found.len(), unreadable.len()), (1, 1));
        assert!(unreadable[0].contains("junk"), "{unreadable:?}");
    }
}
