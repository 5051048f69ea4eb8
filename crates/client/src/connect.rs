//! Opening a handle: options, the local connector's client side (upstream's handshake) and ssh relays.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::UnixStream;
use tokio::process::Command;
use wire::{Credentials, ROLE_NONE, USERID_UNKNOWN};

use crate::handle::{Habits, Handle};
use crate::link::{self, Link};
use crate::ssh::relay_command;
use crate::uri::{Remote, Uri, UriError, ancestor};

/// Where the system instance's broker listens.
const SYSTEM_SOCKET: &str = "/run/flux/local";

/// Why an instance could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No URI given, none in the environment, and no system instance.
    #[error("no Flux instance: FLUX_URI is not set (start one with `flux start`)")]
    NoUri,
    /// Not a URI.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// A variable of the environment has no sense.
    #[error("{name}={value}: {want}")]
    Environment {
        /// Name of the variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        want: &'static str,
    },
    /// The socket is not there.
    #[error("broker socket {0} was not found")]
    NotFound(PathBuf),
    /// Connecting failed.
    #[error("broker socket {path}: {source}")]
    Connect {
        /// Socket path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The broker turned this user away.
    #[error("broker refused the connection: {}", wire::strerror(i32::from(*.0)))]
    Refused(u8),
    /// The relay command could not start, or ended before there was a connection.
    #[error(
        "{command}: {source} (FLUX_SSH names another remote shell, FLUX_SSH_RCMD the flux command there)"
    )]
    Relay {
        /// The remote shell.
        command: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An instance on the way to an ancestor did not answer.
    #[error("{uri}: {source}")]
    Ancestor {
        /// The instance that was asked.
        uri: String,
        /// What it answered.
        source: wire::RpcError,
    },
}

/// How to connect again when the connection is lost.
///
/// Calls in flight fail with ECONNRESET, as do those made before there is a connection again. Then subscriptions and
/// registered services are restored; [`Handle::status`] tells. Events of the time between are missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// Wait this long before the second attempt; twice as long before each further one.
    pub first_delay: Duration,
    /// But never longer than this.
    pub max_delay: Duration,
    /// Give up after this many attempts.
    pub attempts: Option<u32>,
}

impl Default for Reconnect {
    /// From 16 ms to 2 s, without end.
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(16),
            max_delay: Duration::from_secs(2),
            attempts: None,
        }
    }
}

impl Reconnect {
    /// How long to wait before attempt `n` (from 0); `None` to give up.
    pub(crate) fn delay(&self, n: u32) -> Option<Duration> {
        if self.attempts.is_some_and(|most| n >= most) {
            return None;
        }
        if n == 0 {
            return Some(Duration::ZERO);
        }
        let factor = 2u32.saturating_pow(n - 1);
        Some(self.first_delay.saturating_mul(factor).min(self.max_delay))
    }
}

/// How to open a handle.
///
/// ```no_run
/// use client::{OpenOptions, Reconnect};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let handle = OpenOptions::from_env()?
///     .reconnect(Reconnect::default())
///     .open(Some("ssh://cluster/run/flux/local"))
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OpenOptions {
    first: Reconnect,
    again: Option<Reconnect>,
    habits: Habits,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Six attempts over half a second, no reconnection, one's own credentials, no trace.
    pub fn new() -> Self {
        Self {
            first: Reconnect {
                attempts: Some(6),
                ..Reconnect::default()
            },
            again: None,
            habits: Habits::default(),
        }
    }

    /// As [`OpenOptions::new`], changed by `FLUX_LOCAL_CONNECTOR_RETRY_COUNT`, `FLUX_HANDLE_USERID`,
    /// `FLUX_HANDLE_ROLEMASK` and `FLUX_HANDLE_TRACE`.
    pub fn from_env() -> Result<Self, OpenError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, OpenError> {
        let number = |name: &'static str, want: &'static str| match get(name) {
            Some(value) => match parse_number(&value) {
                Some(number) => Ok(Some(number)),
                None => Err(OpenError::Environment { name, value, want }),
            },
            None => Ok(None),
        };
        let mut options = Self::new();
        if let Some(n) = number("FLUX_LOCAL_CONNECTOR_RETRY_COUNT", "must be a number")? {
            options = options.retries(n);
        }
        let userid = number("FLUX_HANDLE_USERID", "must be a user id")?;
        let rolemask = number("FLUX_HANDLE_ROLEMASK", "must be a number")?;
        let claim = Credentials {
            userid: userid.unwrap_or(USERID_UNKNOWN),
            rolemask: rolemask.unwrap_or(ROLE_NONE),
        };
        Ok(options
            .claim(claim)
            .trace(get("FLUX_HANDLE_TRACE").is_some()))
    }

    /// Attempts after the first to connect to a socket that is not there yet.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.first.attempts = Some(retries.saturating_add(1));
        self
    }

    /// Connect again when the connection is lost.
    #[must_use]
    pub fn reconnect(mut self, policy: Reconnect) -> Self {
        self.again = Some(policy);
        self
    }

    /// Send messages as somebody else: brokers let the instance owner do that.
    #[must_use]
    pub fn claim(mut self, credentials: Credentials) -> Self {
        self.habits.claim = credentials;
        self
    }

    /// Show all messages on standard error.
    #[must_use]
    pub fn trace(mut self, on: bool) -> Self {
        self.habits.trace = on;
        self
    }

    /// Open `uri`, or without one what `FLUX_URI` names, or else the system instance.
    ///
    /// Instead of a URI it can be a reference to an ancestor of the current instance, as in flux_open(3): `/` is the
    /// root, `..` the parent, `../..` its parent, `.` the instance itself. Above the root is the root.
    pub async fn open(&self, uri: Option<&str>) -> Result<Handle, OpenError> {
        match uri {
            None => self.open_native(&current_uri()?).await,
            Some(text) => match ancestor(text) {
                None => self.open_native(text).await,
                Some(levels) => self.open_ancestor(levels?).await,
            },
        }
    }

    async fn open_native(&self, uri: &str) -> Result<Handle, OpenError> {
        let target: Uri = uri.parse()?;
        let connection = connect(&target, &self.first).await?;
        let link = Link {
            target: Some(target),
            again: self.again,
        };
        Ok(link::start(connection, link, self.habits))
    }

    async fn open_ancestor(&self, levels: Option<usize>) -> Result<Handle, OpenError> {
        let mut uri = current_uri()?;
        let mut handle = self.open_native(&uri).await?;
        let mut left = levels;
        while left != Some(0) {
            let failed = |source| OpenError::Ancestor {
                uri: uri.clone(),
                source,
            };
            if handle.getattr("instance-level").await.map_err(failed)? == "0" {
                break;
            }
            let parent = handle.getattr("parent-uri").await.map_err(failed)?;
            handle = self.open_native(&parent).await?;
            uri = parent;
            left = left.map(|n| n - 1);
        }
        Ok(handle)
    }
}

/// Decimal, or hexadecimal after 0x.
fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn current_uri() -> Result<String, OpenError> {
    match std::env::var("FLUX_URI") {
        Ok(uri) => Ok(uri),
        Err(_) if Path::new(SYSTEM_SOCKET).exists() => Ok(format!("local://{SYSTEM_SOCKET}")),
        Err(_) => Err(OpenError::NoUri),
    }
}

impl Handle {
    /// Open `uri`, or what the environment names, with the options the environment sets (see [`OpenOptions`]).
    pub async fn open(uri: Option<&str>) -> Result<Self, OpenError> {
        OpenOptions::from_env()?.open(uri).await
    }
}

/// Both directions of a connection, past the handshake.
pub(crate) struct Connection {
    pub(crate) reader: Box<dyn AsyncRead + Unpin + Send>,
    pub(crate) writer: Box<dyn AsyncWrite + Unpin + Send>,
}

/// Connect to `target`, with as many attempts as `policy` allows if it is local.
pub(crate) async fn connect(target: &Uri, policy: &Reconnect) -> Result<Connection, OpenError> {
    match target {
        Uri::Ssh(remote) => relay(remote).await,
        Uri::Local(path) => {
            let mut n = 0;
            loop {
                n += 1;
                match (local(path).await, policy.delay(n)) {
                    (Err(OpenError::NotFound(_) | OpenError::Connect { .. }), Some(delay)) => {
                        tokio::time::sleep(delay).await;
                    }
                    (result, _) => return result,
                }
            }
        }
    }
}

async fn local(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => OpenError::NotFound(path.to_owned()),
        _ => OpenError::Connect {
            path: path.to_owned(),
            source,
        },
    };
    let mut io = UnixStream::connect(path).await.map_err(failed)?;
    // The broker's first byte says whether this user may come in: 0, or an errno.
    match io.read_u8().await.map_err(failed)? {
        0 => {}
        errno => return Err(OpenError::Refused(errno)),
    }
    let (reader, writer) = io.into_split();
    Ok(Connection {
        reader: Box::new(reader),
        writer: Box::new(writer),
    })
}

async fn relay(remote: &Remote) -> Result<Connection, OpenError> {
    let argv = relay_command(remote);
    let failed = |source| OpenError::Relay {
        command: argv[0].to_string_lossy().into_owned(),
        source,
    };
    let mut child = Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (Some(mut stdout), Some(stdin)) = (child.stdout.take(), child.stdin.take()) else {
        return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
    };
    // The relay passes the broker's welcome on.
    match stdout.read_u8().await.map_err(failed)? {
        0 => {}
        errno => return Err(OpenError::Refused(errno)),
    }
    // The relay ends when its stdin closes; this task only reaps it.
    tokio::spawn(async move { child.wait().await });
    Ok(Connection {
        reader: Box::new(stdout),
        writer: Box::new(stdin),
    })
}

/// A handle over any pair of byte streams that carry framed messages.
pub fn serve_stream(
    reader: impl AsyncRead + Unpin + Send + 'static,
    writer: impl AsyncWrite + Unpin + Send + 'static,
) -> Handle {
    let connection = Connection {
        reader: Box::new(reader),
        writer: Box::new(writer),
    };
    let link = Link {
        target: None,
        again: None,
    };
    link::start(connection, link, Habits::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let policy = Reconnect {
            attempts: Some(10),
            ..Reconnect::default()
        };
        let millis: Vec<_> = (0..11)
            .map(|n| policy.delay(n).map(|d| d.as_millis()))
            .collect();
        let want = [0, 16, 32, 64, 128, 256, 512, 1024, 2000, 2000].map(Some);
        assert_eq!(millis, [&want[..], &[None]].concat());
        assert_eq!(
            Reconnect::default().delay(100),
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn the_environment() {
        let with = |name: &'static str, value: &'static str| {
            OpenOptions::from_variables(move |n| (n == name).then(|| value.to_owned()))
        };
        let options = with("FLUX_LOCAL_CONNECTOR_RETRY_COUNT", "0").unwrap();
        assert_eq!(options.first.attempts, Some(1));
        let options = with("FLUX_HANDLE_ROLEMASK", "0x2").unwrap();
        assert_eq!(options.habits.claim.rolemask, 2);
        assert_eq!(options.habits.claim.userid, USERID_UNKNOWN);
        let options = with("FLUX_HANDLE_USERID", "42").unwrap();
        assert_eq!(options.habits.claim.userid, 42);
        assert!(with("FLUX_HANDLE_TRACE", "").unwrap().habits.trace);
        let error = with("FLUX_HANDLE_USERID", "root").unwrap_err();
        assert_eq!(
            error.to_string(),
            "FLUX_HANDLE_USERID=root: must be a user id"
        );
    }
}
