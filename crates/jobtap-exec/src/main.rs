//! `flux-jobtap-exec PLUGIN`: runs a jobtap plugin that was built for upstream, as the job manager's program.
//!
//! To the job manager it is a plugin like any other program: one JSON object a line on standard input and output
//! (docs/plugins.md). What the plugin finds in this process is in `offer.c`; its timers and messages run in upstream's
//! reactor, which also watches standard input. Nothing but whole lines is ever read, so that what has not been dealt with
//! stays in the socket, where the reactor sees it.

mod line;
mod offer;

use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;

use serde_json::{Value, json};

use line::Lines;

/// Why the job manager refused something.
struct Refusal {
    errno: i32,
}

/// The job manager, as this program talks to it.
struct Manager {
    lines: Lines,
}

impl Manager {
    /// Ask, and serve what is asked meanwhile.
    fn ask(&self, method: &str, params: &Value) -> Result<Value, Refusal> {
        self.say(&json!({ "ask": method, "params": params }));
        loop {
            let mut said = self.hear();
            if said.get("call").is_some() {
                self.serve(&said);
                continue;
            }
            if let Some(error) = said.get("error") {
                let errno = error.get("errno").and_then(Value::as_i64);
                let errno = errno.and_then(|n| i32::try_from(n).ok());
                return Err(Refusal {
                    errno: errno.unwrap_or(libc::EINVAL),
                });
            }
            return Ok(said["answer"].take());
        }
    }

    fn say(&self, what: &Value) {
        if self.lines.say(&what.to_string()).is_err() {
            self.end();
        }
    }

    /// The next thing the job manager says; without it there is nothing left to do.
    fn hear(&self) -> Value {
        let line = self.lines.next();
        let said = line.and_then(|line| serde_json::from_slice(&line).ok());
        said.unwrap_or_else(|| self.end())
    }

    fn end(&self) -> ! {
        offer::unload();
        std::process::exit(0)
    }

    /// Answer one call.
    fn serve(&self, said: &Value) {
        let topic = said["call"].as_str().unwrap_or_default();
        let args = &said["args"];
        if let Some(method) = topic.strip_prefix("service.") {
            let is_taken = offer::serve(method, args);
            let out = match is_taken {
                true => json!({ "later": true }),
                false => json!({ "errmsg": "the request could not be handed over" }),
            };
            let code = if is_taken { 0 } else { -1 };
            return self.say(&json!({ "return": code, "out": out }));
        }
        let given = said.get("out").cloned().unwrap_or_else(|| json!({}));
        let (code, out) = offer::call(topic, args, &given);
        if let ("job.destroy", Some(id)) = (topic, args["id"].as_u64()) {
            offer::forget(id);
        }
        self.say(&json!({ "return": code, "out": out }));
    }
}

/// Take standard input away from the plugin, and let what it prints go where errors go.
fn socket() -> std::io::Result<OwnedFd> {
    // SAFETY: descriptors 0 to 2 are open, or the calls fail.
    unsafe {
        let fd = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 || null < 0 || libc::dup2(null, 0) < 0 || libc::dup2(2, 1) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        libc::close(null);
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn main() -> ExitCode {
    let usage = || {
        eprintln!(
            "flux-jobtap-exec: run by the job manager: flux-jobtap-exec PLUGIN, connected to a socket"
        );
        ExitCode::from(2)
    };
    let Some(path) = std::env::args_os().nth(1) else {
        return usage();
    };
    let Ok(path) = CString::new(path.into_encoded_bytes()) else {
        return usage();
    };
    let lines = match socket().and_then(Lines::new) {
        Ok(lines) => lines,
        Err(e) => {
            eprintln!("flux-jobtap-exec: standard input: {e}");
            return usage();
        }
    };
    let fd = lines.fd();
    let manager = offer::set_manager(Manager { lines });
    let init = manager.hear();
    match offer::load(&path, &init["args"]["conf"]) {
        Ok(()) => manager.say(&json!({ "return": 0 })),
        Err(why) => {
            manager.say(&json!({ "return": -1, "out": { "errmsg": why } }));
            return ExitCode::FAILURE;
        }
    }
    offer::run(fd);
    ExitCode::SUCCESS
}
