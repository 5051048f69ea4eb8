//! Opening a handle: the local connector's client side (upstream's handshake) and ssh relays.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::mpsc::unbounded_channel;

use crate::handle::Handle;
use crate::stream::{read_messages, write_messages};
use crate::uri::{Uri, UriError};

/// Why an instance could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No URI given and none in the environment.
    #[error("no Flux instance: FLUX_URI is not set (start one with `flux start`)")]
    NoUri,
    /// Not a URI.
    #[error(transparent)]
    Uri(#[from] UriError),
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
    /// The relay command could not start.
    #[error("cannot run ssh: {0}")]
    Relay(std::io::Error),
}

impl Handle {
    /// Open `uri`, or what FLUX_URI names.
    pub async fn open(uri: Option<&str>) -> Result<Self, OpenError> {
        let text = match uri {
            Some(text) => text.to_owned(),
            None => std::env::var("FLUX_URI").map_err(|_| OpenError::NoUri)?,
        };
        match text.parse()? {
            Uri::Local(path) => open_local(&path).await,
            Uri::Ssh { host, port, path } => open_ssh(&host, port, &path).await,
        }
    }
}

async fn open_local(path: &Path) -> Result<Handle, OpenError> {
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
    Ok(serve_stream(reader, writer))
}

async fn open_ssh(host: &str, port: Option<u16>, path: &Path) -> Result<Handle, OpenError> {
    let ssh = std::env::var("FLUX_SSH").unwrap_or_else(|_| "ssh".to_owned());
    let flux = std::env::var("FLUX_SSH_RCMD").unwrap_or_else(|_| "flux".to_owned());
    let mut cmd = Command::new(ssh);
    if let Some(port) = port {
        cmd.arg("-p").arg(port.to_string());
    }
    cmd.arg(host).arg(flux).arg("relay").arg(path);
    cmd.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = cmd.spawn().map_err(OpenError::Relay)?;
    let (Some(mut stdout), Some(stdin)) = (child.stdout.take(), child.stdin.take()) else {
        return Err(OpenError::Relay(std::io::ErrorKind::BrokenPipe.into()));
    };
    // The relay passes the broker's welcome on.
    match stdout.read_u8().await.map_err(OpenError::Relay)? {
        0 => {}
        errno => return Err(OpenError::Refused(errno)),
    }
    // The relay ends when its stdin closes; this task only reaps it.
    tokio::spawn(async move { child.wait().await });
    Ok(serve_stream(stdout, stdin))
}

/// A handle over any pair of byte streams that carry framed messages.
pub fn serve_stream(
    mut reader: impl AsyncRead + Unpin + Send + 'static,
    mut writer: impl AsyncWrite + Unpin + Send + 'static,
) -> Handle {
    let (out, mut queue) = unbounded_channel();
    let (handle, deliver) = Handle::with_sink(move |msg| out.send(msg).is_ok());
    tokio::spawn(async move {
        // Any failure to read is the end of the connection: pending calls get ECONNRESET.
        let _ = read_messages(&mut reader, |msg| deliver.deliver(msg)).await;
        deliver.close();
    });
    tokio::spawn(async move { write_messages(&mut writer, &mut queue).await });
    handle
}
