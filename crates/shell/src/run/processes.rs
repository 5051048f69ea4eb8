//! Processes beside the tasks, for `flux exec --jobid`: the subprocess server of the job (RFC 42).
//!
//! Its methods are SERVICE.rexec.exec and so on. What still runs when the tasks have ended is asked to end, and after
//! shell option `rexec-shutdown-timeout` made to.

use super::Running;
use tokio::time::{Instant, sleep_until};

impl Running {
    /// Ends what still runs; its clients hear how it ended.
    pub(super) async fn end_processes(&mut self) {
        for signum in [libc::SIGTERM, libc::SIGKILL] {
            self.processes.stop(signum);
            let limit = Instant::now() + self.shell.options.rexec_shutdown;
            loop {
                tokio::select! {
                    () = self.processes.drained() => return,
                    () = sleep_until(limit) => break,
                    message = self.shell.mail.recv() => match message {
                        Some(message) => self.late(message),
                        None => return,
                    },
                }
            }
        }
    }

    /// Requests that come when the tasks have ended: only those about processes are still served.
    fn late(&mut self, message: wire::Message) {
        let uid = nix::unistd::getuid().as_raw();
        if message.is_event() {
            return;
        }
        match message.method().strip_prefix("rexec.") {
            Some(method) if message.require_user(uid).is_ok() => {
                self.processes.request(method, &message);
            }
            _ if message.method() == "disconnect" => self.processes.disconnect(&message),
            _ => self.shell.handle.respond_enosys(&message),
        }
    }
}
