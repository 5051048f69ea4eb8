//! The process's side of PMI-1: blocking, over the connection the environment names.
//!
//! A process started by no process manager is a program of one: [`Client::from_env`] then
//! answers for itself, so that callers need not tell the cases apart.

use crate::wire::{Line, LineBuilder};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::{
    collections::HashMap,
    env,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// Why PMI did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PmiError {
    #[error("PMI: environment variable {name} is {value:?}, which is not a number")]
    Environment { name: &'static str, value: String },
    #[error("PMI: environment variable {0} is missing although PMI_FD is set")]
    MissingVariable(&'static str),
    #[error("PMI: rank {rank} is not below size {size}")]
    Rank { rank: u32, size: u32 },
    #[error("PMI: file descriptor {fd} of PMI_FD is not usable: {source}")]
    Descriptor { fd: RawFd, source: io::Error },
    #[error("PMI: talking to the process manager during {during}: {source}")]
    Io {
        during: &'static str,
        source: io::Error,
    },
    #[error("PMI: the process manager closed the connection during {during}")]
    Closed { during: &'static str },
    #[error("PMI: {during} failed with code {code}")]
    Refused { during: &'static str, code: i32 },
    #[error("PMI: unexpected response to {during}: {line:?}")]
    Response { during: &'static str, line: String },
    #[error("PMI: {what} of {len} bytes exceeds the limit of {max}")]
    TooLong {
        what: &'static str,
        len: usize,
        max: usize,
    },
    #[error("PMI: {0}")]
    Library(String),
    #[error("PMI: {what} {text:?} holds a newline or blank")]
    Text { what: &'static str, text: String },
}

/// A connection that reads and writes.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    kvsname: String,
    key_max: usize,
    value_max: usize,
}

enum Mode {
    Connected(Connection),
    Singleton(HashMap<String, String>),
}

/// A process of a parallel program.
pub struct Client {
    rank: u32,
    size: u32,
    mode: Mode,
}

fn variable(name: &'static str) -> Result<Option<u32>, PmiError> {
    match env::var_os(name) {
        None => Ok(None),
        Some(value) => {
            let text = value.to_string_lossy().into_owned();
            let error = |_| PmiError::Environment {
                name,
                value: text.clone(),
            };
            text.parse().map(Some).map_err(error)
        }
    }
}

impl Client {
    /// Connects as the environment says (`PMI_FD`, `PMI_RANK`, `PMI_SIZE`), or makes a singleton.
    /// The descriptor is taken over: call this once in a process.
    pub fn from_env() -> Result<Client, PmiError> {
        let Some(fd) = variable("PMI_FD")? else {
            return Ok(Client::singleton());
        };
        let rank = variable("PMI_RANK")?.ok_or(PmiError::MissingVariable("PMI_RANK"))?;
        let size = variable("PMI_SIZE")?.ok_or(PmiError::MissingVariable("PMI_SIZE"))?;
        let fd = fd as RawFd;
        let bad = |e: nix::Error| PmiError::Descriptor {
            fd,
            source: e.into(),
        };
        // SAFETY: the descriptor is only probed here, and closed descriptors make fcntl fail.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        fcntl(borrowed, FcntlArg::F_GETFD).map_err(bad)?;
        // Children of this process are no part of the program.
        fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(bad)?;
        // SAFETY: fcntl has shown that it is open, and the process manager passed it to be used
        // by the PMI client alone.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        Client::connect(rank, size, File::from(owned))
    }

    /// A program of one process, with a key-value store of its own.
    pub fn singleton() -> Client {
        Client {
            rank: 0,
            size: 1,
            mode: Mode::Singleton(HashMap::new()),
        }
    }

    /// Connects over a given stream.
    pub fn connect(
        rank: u32,
        size: u32,
        stream: impl Read + Write + Send + 'static,
    ) -> Result<Client, PmiError> {
        if rank >= size {
            return Err(PmiError::Rank { rank, size });
        }
        let mut connection = Connection {
            stream: BufReader::new(Box::new(stream)),
            kvsname: String::new(),
            key_max: 0,
            value_max: 0,
        };
        let init = LineBuilder::new("init")
            .field("pmi_version", 1)
            .field("pmi_subversion", 1);
        connection.call("init", init, "response_to_init")?;
        let maxes = connection.call("get_maxes", LineBuilder::new("get_maxes"), "maxes")?;
        let limit = |key| {
            Line::new(&maxes)
                .number(key)
                .ok_or_else(|| PmiError::Response {
                    during: "get_maxes",
                    line: maxes.clone(),
                })
        };
        connection.key_max = limit("keylen_max")?;
        connection.value_max = limit("vallen_max")?;
        let during = "get_my_kvsname";
        let line = connection.call(during, LineBuilder::new(during), "my_kvsname")?;
        let name = Line::new(&line).word("kvsname").map(str::to_owned);
        connection.kvsname = name.ok_or(PmiError::Response { during, line })?;
        Ok(Client {
            rank,
            size,
            mode: Mode::Connected(connection),
        })
    }

    pub fn rank(&self) -> u32 {
        self.rank
    }

    pub fn size(&self) -> u32 {
        self.size
    }

    pub fn is_singleton(&self) -> bool {
        matches!(self.mode, Mode::Singleton(_))
    }

    /// The name of the program's key-value space. Under Flux it is the job id in F58.
    pub fn kvsname(&self) -> Option<&str> {
        match &self.mode {
            Mode::Connected(connection) => Some(&connection.kvsname),
            Mode::Singleton(_) => None,
        }
    }

    /// Puts an entry that others read after the next barrier. Keep blanks out of values where
    /// possible: MPICH's server cuts a value at the first one.
    pub fn put(&mut self, key: &str, value: &str) -> Result<(), PmiError> {
        if key.is_empty() || key.contains([' ', '\n', '=']) {
            return Err(PmiError::Text {
                what: "key",
                text: key.to_owned(),
            });
        }
        if value.contains('\n') {
            return Err(PmiError::Text {
                what: "value",
                text: value.to_owned(),
            });
        }
        match &mut self.mode {
            Mode::Singleton(map) => {
                map.insert(key.to_owned(), value.to_owned());
                Ok(())
            }
            Mode::Connected(c) => {
                // The limits count the terminator of a C string.
                for (what, len, max) in [
                    ("key", key.len(), c.key_max),
                    ("value", value.len(), c.value_max),
                ] {
                    if len >= max {
                        return Err(PmiError::TooLong {
                            what,
                            len,
                            max: max.saturating_sub(1),
                        });
                    }
                }
                let request = LineBuilder::new("put").field("kvsname", &c.kvsname);
                c.call(
                    "put",
                    request.field("key", key).field("value", value),
                    "put_result",
                )?;
                Ok(())
            }
        }
    }

    /// Reads an entry; `None` when there is none.
    pub fn get(&mut self, key: &str) -> Result<Option<String>, PmiError> {
        match &mut self.mode {
            Mode::Singleton(map) => Ok(map.get(key).cloned()),
            Mode::Connected(c) => {
                let request = LineBuilder::new("get").field("kvsname", &c.kvsname);
                match c.call("get", request.field("key", key), "get_result") {
                    Ok(line) => {
                        let value = Line::new(&line).rest("value").map(str::to_owned);
                        value.map(Some).ok_or(PmiError::Response {
                            during: "get",
                            line,
                        })
                    }
                    // Servers disagree about the code for a key that is not there.
                    Err(PmiError::Refused { .. }) => Ok(None),
                    Err(e) => Err(e),
                }
            }
        }
    }

    /// How many processes the program could have.
    pub fn universe_size(&mut self) -> Result<u32, PmiError> {
        let size = self.size;
        self.number("get_universe_size", "universe_size", "size", size)
    }

    /// The number of the program among those that were started together.
    pub fn appnum(&mut self) -> Result<u32, PmiError> {
        self.number("get_appnum", "appnum", "appnum", 0)
    }

    fn number(
        &mut self,
        during: &'static str,
        expect: &str,
        key: &str,
        singleton: u32,
    ) -> Result<u32, PmiError> {
        let Mode::Connected(c) = &mut self.mode else {
            return Ok(singleton);
        };
        let line = c.call(during, LineBuilder::new(during), expect)?;
        let number = Line::new(&line).number(key);
        number.ok_or(PmiError::Response { during, line })
    }

    /// Waits until all processes of the program have come here.
    pub fn barrier(&mut self) -> Result<(), PmiError> {
        self.simple("barrier_in", "barrier_out")
    }

    /// Says goodbye. The process goes on without PMI.
    pub fn finalize(mut self) -> Result<(), PmiError> {
        self.simple("finalize", "finalize_ack")
    }

    fn simple(&mut self, command: &'static str, expect: &str) -> Result<(), PmiError> {
        match &mut self.mode {
            Mode::Singleton(_) => Ok(()),
            Mode::Connected(c) => c
                .call(command, LineBuilder::new(command), expect)
                .map(|_| ()),
        }
    }

    /// Asks the process manager to end the whole program; the caller should then exit.
    pub fn abort(&mut self, code: i32, message: &str) -> Result<(), PmiError> {
        let Mode::Connected(c) = &mut self.mode else {
            return Ok(());
        };
        let message = message.replace('\n', " ");
        let request = LineBuilder::new("abort").field("exitcode", code);
        c.send("abort", request.field("error_msg", message))
    }
}

impl Connection {
    fn send(&mut self, during: &'static str, request: LineBuilder) -> Result<(), PmiError> {
        let stream = self.stream.get_mut();
        let sent = stream
            .write_all(request.build().as_bytes())
            .and_then(|()| stream.flush());
        sent.map_err(|source| PmiError::Io { during, source })
    }

    /// Sends a request and returns the response, which must be `expect` and a success.
    fn call(
        &mut self,
        during: &'static str,
        request: LineBuilder,
        expect: &str,
    ) -> Result<String, PmiError> {
        self.send(during, request)?;
        let mut text = String::new();
        match self.stream.read_line(&mut text) {
            Ok(0) => return Err(PmiError::Closed { during }),
            Ok(_) => {}
            Err(source) => return Err(PmiError::Io { during, source }),
        }
        let line = Line::new(&text);
        if line.command() != Some(expect) {
            return Err(PmiError::Response {
                during,
                line: line.as_str().to_owned(),
            });
        }
        // Some servers leave `rc` out when all is well.
        match line.number::<i32>("rc").unwrap_or(0) {
            0 => Ok(line.as_str().to_owned()),
            code => Err(PmiError::Refused { during, code }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_singleton_answers_for_itself() {
        let mut pmi = Client::singleton();
        assert_eq!((pmi.rank(), pmi.size(), pmi.kvsname()), (0, 1, None));
        assert_eq!(
            (pmi.universe_size().unwrap(), pmi.appnum().unwrap()),
            (1, 0)
        );
        pmi.put("a", "b c").unwrap();
        pmi.barrier().unwrap();
        assert_eq!(pmi.get("a").unwrap().as_deref(), Some("b c"));
        assert_eq!(pmi.get("x").unwrap(), None);
        assert!(matches!(pmi.put("a b", ""), Err(PmiError::Text { .. })));
        pmi.finalize().unwrap();
    }
}
