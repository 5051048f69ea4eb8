//! `flux proxy TARGET [COMMAND…]`: run a command, or a shell, that talks to another instance.
//!
//! On this host the instance's own socket is used. For another host a socket is made here, and each
//! client that connects gets a relay of its own through ssh.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use clap::Parser;
use client::services::state_machine;
use client::{Handle, Node};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context, Failure, Outcome};
use crate::uri;

/// Run a command in another instance.
#[derive(Parser)]
struct Options {
    /// Do not wait until the instance runs
    #[arg(short, long)]
    force: bool,
    /// Leave the command running when the connection is lost
    #[arg(short, long)]
    nohup: bool,
    /// Job id, path of job ids, or URI
    target: String,
    /// The command; a shell without it
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(async {
        let target = &options.target;
        let found = uri::resolve(target).await;
        let found = found.context(format!("Unable to resolve {target} to a URI"))?;
        // Who asks for the way by ssh gets it also on this host.
        let by_ssh = target.starts_with("ssh://") || target.ends_with("?remote");
        let found = if by_ssh {
            found
        } else {
            uri::local_or_remote(&found)
        };
        match found.parse().map_err(|e| Failure::new(format!("{e}")))? {
            client::uri::Uri::Local(_) => local(&options, &found).await,
            client::uri::Uri::Ssh(target) => remote(&options, Remote(target)).await,
        }
    })
}

/// The command with FLUX_URI set to `uri`.
fn child(options: &Options, uri: &str, remote: Option<&str>) -> Result<Child, Failure> {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut cmd = Command::new(&shell);
    if !options.command.is_empty() {
        cmd.arg("-c").arg(options.command.join(" "));
    }
    cmd.env("FLUX_URI", uri).env_remove("FLUX_KVS_NAMESPACE");
    match remote {
        Some(host) => cmd.env("FLUX_PROXY_REMOTE", host),
        None => cmd.env_remove("FLUX_PROXY_REMOTE"),
    };
    cmd.spawn()
        .map_err(|e| crate::exec_path::spawn_failure(&shell.to_string_lossy(), &e))
}

fn code(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let signal = status.signal().map(|s| 128 + s);
    status.code().or(signal).unwrap_or(1) as u8
}

/// Signals of the keyboard go to the command; this process only waits for it.
fn ignore_keyboard() {
    for signum in [libc::SIGINT, libc::SIGQUIT, libc::SIGTTOU] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(signum, libc::SIG_IGN) };
    }
}

/// The terminal as it was before the command, which may leave it in any state.
struct Terminal(Option<Termios>);

impl Terminal {
    fn remember() -> Self {
        Self(tcgetattr(std::io::stdin()).ok())
    }

    fn restore(&self) {
        let Some(settings) = &self.0 else { return };
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, settings);
        // Cursor keys and keypad as usual, and the cursor visible.
        crate::output::write("\x1b[?1l\x1b>\x1b[?25h\n");
    }
}

/// Brokers of another version may not do what this version's commands expect.
async fn check_version(handle: &Handle, target: &str) -> Result<(), Failure> {
    let (own, broker) = (env!("CARGO_PKG_VERSION"), handle.getattr("version").await?);
    match own == broker {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "{target}: the broker is version {broker} and this {own}; --force connects nevertheless"
        ))),
    }
}

/// The connection is gone: tell the user and the command, then wait for it.
async fn lost(options: &Options, terminal: &Terminal, mut child: Child) -> Outcome {
    eprintln!("flux-proxy: Lost connection to Flux");
    if let Some(pid) = child.id().filter(|_| !options.nohup) {
        eprintln!("flux-proxy: Sending SIGHUP to child processes");
        for signum in [libc::SIGHUP, libc::SIGCONT] {
            // SAFETY: plain system call; the child has not been reaped.
            unsafe { libc::kill(pid as i32, signum) };
        }
    }
    let status = child.wait().await?;
    terminal.restore();
    Ok(code(status))
}

async fn local(options: &Options, uri: &str) -> Outcome {
    let handle = Handle::open(Some(uri)).await.context(&options.target)?;
    if !options.force {
        check_version(&handle, &options.target).await?;
        handle
            .ask(Node::Any, &state_machine::Wait {})
            .await
            .context(&options.target)?;
    }
    // A fresh handle has its inbox; it ends with the connection.
    let mut inbox = handle.inbox().expect("inbox was not taken yet");
    let terminal = Terminal::remember();
    let mut child = child(options, uri, None)?;
    ignore_keyboard();
    loop {
        tokio::select! {
            status = child.wait() => return Ok(code(status?)),
            msg = inbox.recv() => if msg.is_none() {
                return lost(options, &terminal, child).await;
            },
        }
    }
}

/// A broker's socket on another host.
#[derive(Clone)]
struct Remote(client::uri::Remote);

impl Remote {
    /// A relay, as the client library starts them.
    fn relay(&self) -> std::io::Result<Child> {
        let argv = client::relay_command(&self.0);
        let mut cmd = Command::new(&argv[0]);
        cmd.args(&argv[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        // Keyboard signals are not for it.
        cmd.process_group(0).spawn()
    }

    /// Join a client to a relay of its own.
    async fn serve(self, client: UnixStream) -> std::io::Result<()> {
        let mut relay = self.relay()?;
        let (Some(mut to), Some(mut from)) = (relay.stdin.take(), relay.stdout.take()) else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        let (mut read, mut write) = client.into_split();
        tokio::select! {
            result = copy(&mut read, &mut to) => result?,
            result = copy(&mut from, &mut write) => result?,
        };
        write.shutdown().await
    }
}

/// A directory for the socket, removed at the end.
struct SocketDir(PathBuf);

impl SocketDir {
    fn new() -> Result<Self, Failure> {
        let base = std::env::temp_dir();
        let path = nix::unistd::mkdtemp(&base.join("flux-proxy-XXXXXX"))
            .map_err(std::io::Error::from)
            .context(base.display())?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        Ok(Self(path))
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        // Left behind at worst: a socket nobody listens on.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn remote(options: &Options, remote: Remote) -> Outcome {
    // One relay stays for the whole time: it shows that the instance is there, and when it goes.
    let mut probe = remote.relay().context("cannot run ssh")?;
    let gone = || Failure::new(format!("{}: cannot connect", options.target));
    let mut answers = probe.stdout.take().ok_or_else(gone)?;
    match answers.read_u8().await {
        Ok(0) => {}
        Ok(errno) => {
            let why = crate::error::strerror(i32::from(errno));
            return Err(Failure::new(format!("{}: {why}", options.target)));
        }
        Err(_) => return Err(gone()),
    }
    let dir = SocketDir::new()?;
    let socket = dir.0.join("local");
    let listener = UnixListener::bind(&socket).context(socket.display())?;
    let uri = format!("local://{}", socket.display());
    let terminal = Terminal::remember();
    let mut child = child(options, &uri, Some(&remote.0.host))?;
    ignore_keyboard();
    let mut rest = [0; 1024];
    loop {
        tokio::select! {
            status = child.wait() => return Ok(code(status?)),
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                let remote = remote.clone();
                // A failed relay closes its client, which reports the lost connection.
                tokio::spawn(async move { drop(remote.serve(client).await) });
            }
            read = answers.read(&mut rest) => if !matches!(read, Ok(1..)) {
                return lost(options, &terminal, child).await;
            },
        }
    }
}
