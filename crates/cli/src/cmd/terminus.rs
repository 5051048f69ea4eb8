//! `flux terminus`: programs in terminals that can be left and entered again (see crate `terminus`).
//!
//! The server is this program once more, in a session of its own (`flux terminus serve`); `start` starts it when
//! nobody answers to the service's name, and it goes away with its last session.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command as Process, Stdio};

use clap::{Args as ClapArgs, Parser, Subcommand};
use client::{Handle, Node};
use formats::job::WaitStatus;
use serde::Deserialize;
use serde_json::{Value, json};
use terminus::Server;
use terminus::attach::{End, Manner, attach};
use terminus::server::SESSION;
use wire::RpcError;

use crate::args::Args;
use crate::cmd::exec::read_stdin;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome, rpc_text};

/// Run programs in terminals that can be left and entered again.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a session, and a server if there is none
    Start {
        #[command(flatten)]
        place: Place,
        /// Do not attach
        #[arg(short, long)]
        detach: bool,
        /// Keep the session until a client has attached (always so; accepted for scripts)
        #[arg(short, long)]
        wait: bool,
        /// Name of the session (default: the command)
        #[arg(short, long, value_name = "NAME", default_value = "")]
        name: String,
        /// Write standard input to the session and leave
        #[arg(short, long, hide = true)]
        pipe: bool,
        /// Command; your shell without it
        #[arg(trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Attach to a session. Control and backslash leaves it
    Attach {
        #[command(flatten)]
        place: Place,
        /// Write standard input to the session and leave
        #[arg(short, long)]
        pipe: bool,
        /// The session's number
        id: String,
    },
    /// List sessions
    List {
        #[command(flatten)]
        place: Place,
    },
    /// End a session
    Kill {
        #[command(flatten)]
        place: Place,
        /// The session's number
        id: String,
    },
    /// End all sessions and the server
    KillServer {
        #[command(flatten)]
        place: Place,
    },
    /// Be the server
    #[command(hide = true)]
    Serve { service: String },
}

/// Where the server is.
#[derive(ClapArgs)]
struct Place {
    /// Rank of the server (default: this broker's)
    #[arg(short, long, value_name = "RANK", allow_negative_numbers = true)]
    rank: Option<i64>,
    /// Name of its service (default: USERID-terminus)
    #[arg(short, long, value_name = "NAME")]
    service: Option<String>,
}

impl Place {
    fn node(&self) -> Node {
        let rank = self.rank.and_then(|rank| u32::try_from(rank).ok());
        rank.map_or(Node::Any, Node::Rank)
    }

    fn service(&self) -> String {
        let default = || format!("{}-terminus", nix::unistd::getuid());
        self.service.clone().unwrap_or_else(default)
    }

    async fn call(
        &self,
        handle: &Handle,
        method: &str,
        request: &Value,
    ) -> Result<Value, RpcError> {
        let topic = format!("{}.{method}", self.service());
        handle.call(&topic, self.node(), request).await
    }

    /// What a call's error means.
    fn failure(&self, what: &str, e: &RpcError) -> Failure {
        match e.errno {
            libc::ENOSYS => Failure::new(format!("{what}no server running at {}", self.service())),
            _ => Failure::new(format!("{what}{}", rpc_text(e))),
        }
    }
}

pub(crate) fn run(args: Args) -> Outcome {
    let options: Options = args.parse()?;
    block_on(async {
        match options.command {
            Command::Start {
                place,
                detach,
                name,
                pipe,
                command,
                wait: _,
            } => {
                let handle = enter().await?;
                let topic = start(&handle, &place, &name, &command).await?;
                match detach {
                    true => Ok(0),
                    false => stay(&handle, &place, &topic, pipe).await,
                }
            }
            Command::Attach { place, pipe, id } => {
                let topic = format!("{}.{}", place.service(), number(&id)?);
                stay(&enter().await?, &place, &topic, pipe).await
            }
            Command::List { place } => list(&place).await,
            Command::Kill { place, id } => {
                let request = json!({ "id": number(&id)?, "signal": libc::SIGKILL, "wait": 1 });
                let handle = Handle::open(None).await?;
                match place.call(&handle, "kill", &request).await {
                    Ok(_) => Ok(0),
                    Err(e) => Err(place.failure("kill: ", &e)),
                }
            }
            Command::KillServer { place } => {
                let handle = Handle::open(None).await?;
                let killed = place.call(&handle, "kill-server", &json!({})).await;
                killed.map_err(|e| place.failure("", &e)).map(|_| 0)
            }
            Command::Serve { service } => serve(&service).await,
        }
    })
}

/// A session's number.
fn number(id: &str) -> Result<u32, Failure> {
    id.parse()
        .map_err(|_| Failure::new(format!("session ID must be an integer, found '{id}'")))
}

/// A handle for who may attach: a session in a session would take its own keys.
async fn enter() -> Result<Handle, Failure> {
    if std::env::var_os(SESSION).is_some() {
        return Err(Failure::new("terminus sessions cannot be nested"));
    }
    Ok(Handle::open(None).await?)
}

/// Start a session; the topic its clients use.
async fn start(
    handle: &Handle,
    place: &Place,
    name: &str,
    command: &[String],
) -> Result<String, Failure> {
    if let Err(e) = place.call(handle, "list", &json!({})).await {
        if e.errno != libc::ENOSYS {
            return Err(e.into());
        }
        if place.rank.is_some() {
            let text = "no server there, and one can only be started here, without --rank";
            return Err(Failure::new(text));
        }
        start_server(&place.service()).context("failed to start a server")?;
    }
    let request = json!({ "name": name, "cmd": command, "wait": 1 });
    let answer = place.call(handle, "new", &request).await;
    let answer = answer.context("failed to start a session")?;
    let topic = answer["pty_service"].as_str();
    topic
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("the server did not say how the session is reached"))
}

/// Start this program as a server, and wait until it is ready. What it says until then is the user's to read.
fn start_server(service: &str) -> Result<(), Failure> {
    let mut server = Process::new(std::env::current_exe()?);
    server.args(["terminus", "serve", service]);
    server.stdin(Stdio::null()).stdout(Stdio::piped());
    // SAFETY: setsid is async-signal-safe.
    unsafe {
        server.pre_exec(|| match libc::setsid() {
            0.. => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut server = server.spawn()?;
    let mut said = String::new();
    if let Some(mut ready) = server.stdout.take() {
        ready.read_to_string(&mut said)?;
    }
    match said.as_str() {
        "ready\n" => Ok(()),
        _ => {
            server.wait()?;
            Err(Failure::new("the server has ended"))
        }
    }
}

async fn serve(service: &str) -> Outcome {
    let handle = Handle::open(None).await?;
    handle.locate().await?;
    let mut requests = handle
        .register(service)
        .await
        .context(format!("registering service {service}"))?;
    let mut server = Server::new(handle.clone(), service);
    tell_ready()?;
    let mut served = false;
    while !(server.is_ended() || served && server.is_empty()) {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => {
                    let method = request.method().to_owned();
                    server.request(&method, &request);
                }
                None => break,
            },
            happening = server.next() => server.happened(happening),
        }
        served |= !server.is_empty();
    }
    drop(requests);
    // Messages keep their order: when this is answered, the last words to clients have been sent.
    let _ = handle.getattr("rank").await;
    Ok(0)
}

/// Let go of who has started this server, after a word that all is well.
fn tell_ready() -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    stdout.write_all(b"ready\n")?;
    stdout.flush()?;
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for stream in 0..3 {
        // SAFETY: both are descriptors of this program, and stay open.
        if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    Ok(())
}

async fn stay(handle: &Handle, place: &Place, topic: &str, pipe: bool) -> Outcome {
    let manner = Manner {
        pipe,
        clear: !pipe,
        say_detached: !pipe,
    };
    match attach(handle, place.node(), topic, manner, read_stdin).await? {
        End::Exited(status) => Ok(WaitStatus(status).exit_code() as u8),
        End::Refused(e) if e.errno == libc::ENOSYS => {
            Err(Failure::new(format!("no session or server at {topic}")))
        }
        End::Refused(e) => Err(e.into()),
        End::Lost(why) => Err(Failure::new(why)),
    }
}

#[derive(Deserialize)]
struct Listing {
    sessions: Vec<Session>,
    server: ServerInfo,
}

#[derive(Deserialize)]
struct Session {
    id: u32,
    name: String,
    clients: u32,
    exited: i32,
    ctime: f64,
}

#[derive(Deserialize)]
struct ServerInfo {
    service: String,
    rank: i64,
    ctime: f64,
}

/// A time as the C library's `%c` shows it, in UTC.
fn shown(time: f64) -> String {
    jiff::Timestamp::from_second(time as i64).map_or_else(
        |_| "Unknown".into(),
        |t| t.strftime("%a %b %e %H:%M:%S %Y").to_string(),
    )
}

async fn list(place: &Place) -> Outcome {
    let handle = Handle::open(None).await?;
    let answer = place.call(&handle, "list", &json!({})).await;
    let answer = answer.map_err(|e| place.failure("", &e))?;
    let Listing { sessions, server } =
        serde_json::from_value(answer).map_err(|e| Failure::new(format!("list: {e}")))?;
    let ServerInfo {
        service,
        rank,
        ctime,
    } = server;
    println!(
        "server at {service} running on rank {rank} since {}",
        shown(ctime)
    );
    match sessions.len() {
        0 => println!("no sessions"),
        1 => println!("1 current session:"),
        n => println!("{n} current sessions:"),
    }
    for s in sessions {
        let exited = if s.exited != 0 { " (exited)" } else { "" };
        let (id, name, clients) = (s.id, s.name, s.clients);
        println!(
            "{id}: [{name}]{exited} {clients} clients (created {})",
            shown(s.ctime)
        );
    }
    Ok(0)
}
