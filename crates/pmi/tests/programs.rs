//! Our client and server against each other and against MPICH's.

use pmi::{Action, Client, Server, server::Program};
use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

const MARK: &str = "PMI_TEST_PROGRAM";

fn available(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

/// What each process of the test program does: put, meet, and read what all others put.
fn exchange(mut pmi: Client) {
    let (rank, size) = (pmi.rank(), pmi.size());
    for round in 0..3 {
        pmi.put(&format!("k.{round}.{rank}"), &format!("v.{round}.{rank}"))
            .unwrap();
        pmi.barrier().unwrap();
        for other in 0..size {
            let value = pmi.get(&format!("k.{round}.{other}")).unwrap();
            assert_eq!(value, Some(format!("v.{round}.{other}")));
        }
    }
    assert_eq!(pmi.get("missing").unwrap(), None);
    pmi.finalize().unwrap();
}

/// Not a test of its own: the body of the processes the tests below start.
#[test]
fn program() {
    if env::var_os(MARK).is_some() {
        let pmi = Client::from_env().unwrap();
        println!("rank {} of {}", pmi.rank(), pmi.size());
        exchange(pmi);
    }
}

fn this_program() -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "program", "--nocapture"])
        .env(MARK, "1");
    command
}

#[test]
fn our_client_under_hydra() {
    if !available("mpiexec.hydra") {
        return;
    }
    let ours = this_program();
    let output = Command::new("mpiexec.hydra")
        .args(["-n", "4"])
        .arg(ours.get_program())
        .args(ours.get_args())
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for rank in 0..4 {
        assert!(text.contains(&format!("rank {rank} of 4")), "{text}");
    }
}

/// Starts `nodes` servers with `ppn` processes each and serves them until all have ended.
/// Returns each process's output, and whether anyone aborted.
fn serve(nodes: u32, ppn: u32, mut command: impl FnMut() -> Command) -> (Vec<String>, Option<i32>) {
    let size = nodes * ppn;
    let mut servers: Vec<Server> = (0..nodes)
        .map(|_| {
            let kvsname = "test".to_owned();
            let mut server = Server::new(Program {
                kvsname,
                appnum: 0,
                size,
                local_size: ppn,
            });
            server.preput(
                "PMI_process_mapping",
                &format!("(vector,(0,{nodes},{ppn}))"),
            );
            server
        })
        .collect();
    let (events, inbox) = mpsc::channel();
    let mut streams = Vec::new();
    let mut children = Vec::new();
    for rank in 0..size {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs: OwnedFd = theirs.into();
        let fd = theirs.as_raw_fd();
        let mut command = command();
        command
            .env("PMI_FD", fd.to_string())
            .env("PMI_RANK", rank.to_string());
        command
            .env("PMI_SIZE", size.to_string())
            .stdout(Stdio::piped());
        // SAFETY: fcntl is async-signal-safe and touches one descriptor of the child.
        unsafe {
            command.pre_exec(move || {
                let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                nix::fcntl::fcntl(
                    fd,
                    nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
                )?;
                Ok(())
            });
        }
        children.push(command.spawn().unwrap());
        let (reader, events) = (BufReader::new(ours.try_clone().unwrap()), events.clone());
        streams.push(ours);
        thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                events.send((rank, line)).ok();
            }
        });
    }
    drop(events);
    let mut aborted = None;
    let mut gathered = HashMap::new();
    for (rank, line) in inbox {
        let node = rank / ppn;
        let mut actions = servers[node as usize].request(rank, &line);
        while let Some(action) = actions.pop() {
            match action {
                Action::Reply { client, line } => {
                    streams[client as usize].write_all(line.as_bytes()).unwrap();
                }
                Action::Barrier { pending } => {
                    gathered.insert(node, pending);
                    if gathered.len() == nodes as usize {
                        let all: std::collections::BTreeMap<_, _> =
                            gathered.drain().flat_map(|(_, entries)| entries).collect();
                        for server in &mut servers {
                            actions.extend(server.barrier_complete(Some(all.clone())));
                        }
                    }
                }
                Action::Finalized { .. } => {}
                Action::Abort { code, .. } => aborted = Some(code),
                Action::Violation { client, line } => panic!("client {client} sent {line:?}"),
            }
        }
    }
    let outputs = children
        .into_iter()
        .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    (outputs, aborted)
}

#[test]
fn our_client_and_our_server() {
    for (nodes, ppn) in [(1, 1), (1, 3), (3, 2)] {
        let (outputs, aborted) = serve(nodes, ppn, this_program);
        assert_eq!(aborted, None);
        for (rank, output) in outputs.iter().enumerate() {
            assert!(
                output.contains(&format!("rank {rank} of {}", nodes * ppn)),
                "{output}"
            );
            assert!(output.contains("1 passed"), "{output}");
        }
    }
}

const MPI_PROGRAM: &str = r#"
#include <mpi.h>
#include <stdio.h>
int main (int argc, char **argv)
{
    int rank, size, sum;
    MPI_Init (&argc, &argv);
    MPI_Comm_rank (MPI_COMM_WORLD, &rank);
    MPI_Comm_size (MPI_COMM_WORLD, &size);
    MPI_Allreduce (&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf ("%d of %d: %d\n", rank, size, sum);
    MPI_Finalize ();
    return 0;
}
"#;

#[test]
fn mpich_under_our_server() {
    if !available("mpicc.mpich") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("hello.c"), dir.path().join("hello"));
    std::fs::write(&source, MPI_PROGRAM).unwrap();
    assert!(
        Command::new("mpicc.mpich")
            .arg(&source)
            .arg("-o")
            .arg(&program)
            .status()
            .unwrap()
            .success()
    );
    let (outputs, aborted) = serve(1, 3, || Command::new(&program));
    assert_eq!(outputs, ["0 of 3: 3\n", "1 of 3: 3\n", "2 of 3: 3\n"]);
    assert_eq!(aborted, None);
}
