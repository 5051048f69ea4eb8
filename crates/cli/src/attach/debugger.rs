//! Parallel debuggers: MPIR's process acquisition interface, version 1.
//!
//! A debugger that has started this process, or attached to it, finds the variables here by their names. It sets
//! [`MPIR_being_debugged`], learns about the job's processes from [`MPIR_proctable`] when [`MPIR_Breakpoint`] is called, and
//! may name a program that is to run on each of the job's nodes.

#![allow(
    non_upper_case_globals,
    non_snake_case,
    reason = "the names are those of the interface"
)]

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, c_char, c_int};
use std::ptr::null_mut;

use client::{Handle, Node, RpcStream};
use formats::job::WaitStatus;
use formats::proctable::{self, Process};
use formats::subprocess::{ExecResponse, FLAG_STDERR, FLAG_STDOUT};
use formats::{Event, JobId};
use serde_json::{Value, json};

use crate::error::{Failure, rpc_text};

/// A process, as debuggers read it.
#[repr(C)]
struct Description {
    host_name: *mut c_char,
    executable_name: *mut c_char,
    pid: c_int,
}

const SPAWNED: c_int = 1;

#[unsafe(no_mangle)]
static mut MPIR_being_debugged: c_int = 0;
#[unsafe(no_mangle)]
static mut MPIR_debug_state: c_int = 0;
#[unsafe(no_mangle)]
static mut MPIR_debug_abort_string: *mut c_char = null_mut();
#[unsafe(no_mangle)]
static mut MPIR_proctable: *mut Description = null_mut();
#[unsafe(no_mangle)]
static mut MPIR_proctable_size: c_int = 0;
/// This process is none of the job's.
#[unsafe(no_mangle)]
static mut MPIR_i_am_starter: c_int = 1;
#[unsafe(no_mangle)]
static mut MPIR_acquired_pre_main: c_int = 1;
#[unsafe(no_mangle)]
static mut MPIR_force_to_main: c_int = 1;
/// Processes that no debugger attaches to are let go on.
#[unsafe(no_mangle)]
static mut MPIR_partial_attach_ok: c_int = 1;
#[unsafe(no_mangle)]
static mut MPIR_executable_path: [u8; 256] = [0; 256];
/// Each ends with a null byte, and one more ends the list.
#[unsafe(no_mangle)]
static mut MPIR_server_arguments: [u8; 1024] = [0; 1024];

/// Debuggers stop here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn MPIR_Breakpoint() {
    // Nobody here reads what only debuggers do: without this it would not be in the program.
    std::hint::black_box((
        &raw const MPIR_debug_abort_string,
        &raw const MPIR_i_am_starter,
        &raw const MPIR_acquired_pre_main,
        &raw const MPIR_force_to_main,
        &raw const MPIR_partial_attach_ok,
    ));
}

/// Whether a debugger is interested.
pub(crate) fn is_there() -> bool {
    // SAFETY: a number that a debugger writes while this process is stopped.
    unsafe { (&raw const MPIR_being_debugged).read_volatile() != 0 }
}

/// Behaves as if a debugger were interested.
pub(crate) fn emulate() {
    // SAFETY: as above.
    unsafe { (&raw mut MPIR_being_debugged).write_volatile(1) };
}

/// A text that stays as long as the process.
fn c_text(text: &str) -> *mut c_char {
    CString::new(text).unwrap_or_default().into_raw()
}

/// Puts the table where debuggers read it, by task rank.
fn publish(mut processes: Vec<Process>) {
    processes.sort_by_key(|process| process.task);
    let describe = |process: &Process| Description {
        host_name: c_text(&process.host),
        executable_name: c_text(&process.executable),
        pid: process.pid as c_int,
    };
    let table: Box<[Description]> = processes.iter().map(describe).collect();
    let size = table.len() as c_int;
    // SAFETY: nothing else in this process uses these.
    unsafe {
        (&raw mut MPIR_proctable).write_volatile(Box::leak(table).as_mut_ptr());
        (&raw mut MPIR_proctable_size).write_volatile(size);
        (&raw mut MPIR_debug_state).write_volatile(SPAWNED);
    }
}

/// Texts one after the other, each with a null byte, until an empty one.
fn texts(bytes: &[u8]) -> Vec<String> {
    let texts = bytes
        .split(|byte| *byte == 0)
        .take_while(|text| !text.is_empty());
    texts
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect()
}

/// The program a debugger wants on each node, with its arguments.
fn tool() -> Option<Vec<String>> {
    // SAFETY: a debugger writes these while this process is stopped.
    let (path, arguments) = unsafe {
        (
            (&raw const MPIR_executable_path).read_volatile(),
            (&raw const MPIR_server_arguments).read_volatile(),
        )
    };
    let mut command = texts(&path);
    command.truncate(1);
    let is_wanted = !command.is_empty();
    command.extend(texts(&arguments));
    is_wanted.then_some(command)
}

/// A job whose processes are gone cannot be debugged.
pub(super) async fn check(handle: &Handle, id: JobId, name: &str) -> Result<(), Failure> {
    let request = json!({ "id": id, "keys": ["eventlog"], "flags": 0 });
    let answer: Value = handle.call("job-info.lookup", Node::Any, &request).await?;
    let log = answer.get("eventlog").and_then(Value::as_str).unwrap_or("");
    let ended = |line: &str| Event::decode(line).is_ok_and(|event| event.name == "finish");
    match log.lines().any(ended) {
        true => Err(Failure::new(format!(
            "{name} has finished: it cannot be debugged"
        ))),
        false => Ok(()),
    }
}

/// Gives the debugger the job's processes, and lets those go on that wait for it. That is done beside the caller's work.
pub(super) fn introduce(handle: Handle, id: JobId, service: String, leader: u32, stopped: bool) {
    tokio::spawn(async move {
        if let Err(e) = present(&handle, id, &service, leader, stopped).await {
            eprintln!("flux-job: MPIR: {}", e.message);
        }
    });
}

async fn present(
    handle: &Handle,
    id: JobId,
    service: &str,
    leader: u32,
    stopped: bool,
) -> Result<(), Failure> {
    let topic = format!("{service}.proctable");
    let table: Value = handle.call(&topic, Node::Rank(leader), &json!({})).await?;
    let processes = proctable::decode(&table).map_err(|e| Failure::new(e.to_string()))?;
    let brokers: BTreeSet<u32> = processes.iter().map(|process| process.broker).collect();
    publish(processes);
    if let Some(command) = tool() {
        for broker in brokers {
            tokio::spawn(watch_tool(
                start_tool(handle, service, broker, &command)?,
                broker,
                command[0].clone(),
            ));
        }
    }
    MPIR_Breakpoint();
    if stopped {
        let request = json!({ "id": id, "signum": libc::SIGCONT });
        handle.rpc("job-manager.kill", Node::Any, &request).await?;
    }
    Ok(())
}

fn start_tool(
    handle: &Handle,
    service: &str,
    broker: u32,
    command: &[String],
) -> Result<RpcStream, Failure> {
    let mut env: HashMap<String, String> = std::env::vars().collect();
    env.remove("FLUX_PROXY_REMOTE");
    let cmd = json!({
        "cmdline": command,
        "env": env,
        "cwd": std::env::current_dir()?.to_string_lossy(),
        "opts": {},
        "channels": [],
    });
    let request = json!({ "cmd": cmd, "flags": FLAG_STDOUT | FLAG_STDERR });
    let topic = format!("{service}.rexec.exec");
    Ok(handle.stream(&topic, Node::Rank(broker), &request))
}

/// Tells what the program on a node writes, and how it ends.
async fn watch_tool(mut stream: RpcStream, broker: u32, path: String) {
    let name = path.rsplit('/').next().unwrap_or(&path);
    let say = |text: &str| eprintln!("flux-job: MPIR: rank {broker}: {name}: {text}");
    while let Some(answer) = stream.next().await {
        match answer.map(|message| message.json::<ExecResponse>()) {
            Ok(Ok(ExecResponse::Output { io, .. })) => {
                let text = String::from_utf8_lossy(&io.data);
                text.lines()
                    .for_each(|line| say(&format!("{}: {line}", io.stream)));
            }
            Ok(Ok(ExecResponse::Finished { status })) => {
                let status = WaitStatus(status);
                match (status.signal(), status.exit_code()) {
                    (Some(signal), _) => say(&formats::signals::describe(signal)),
                    (None, 0) => {}
                    (None, code) => say(&format!("Exit {code}")),
                }
            }
            Ok(_) => {}
            Err(e) if e.errno == libc::ENODATA => {}
            Err(e) => say(&rpc_text(&e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn arguments_are_read_up_to_the_empty_one() {
        assert_eq!(texts(b"a\0bc\0\0left over\0"), ["a", "bc"]);
        assert!(texts(b"\0\0").is_empty());
    }

    #[test]
    fn debuggers_read_the_table_by_task() {
        let process = |task: u32, pid| Process {
            task,
            pid,
            host: "n0".into(),
            executable: "app".into(),
            broker: 0,
        };
        publish(vec![process(1, 20), process(0, 10)]);
        // SAFETY: the test is the only one that uses them.
        unsafe {
            assert_eq!((MPIR_proctable_size, MPIR_debug_state), (2, SPAWNED));
            assert_eq!((*MPIR_proctable).pid, 10);
            let host = CStr::from_ptr((*MPIR_proctable.add(1)).host_name);
            assert_eq!(host.to_str(), Ok("n0"));
        }
        assert_eq!(tool(), None);
    }
}
