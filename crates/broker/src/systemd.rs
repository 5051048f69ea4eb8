//! What the broker tells systemd, if it is asked to (`broker.sd-notify`, sd_notify(3)).

use std::time::Duration;

use sd_notify::NotifyState;

use crate::attrs::Attrs;
use crate::state::State;

/// Tells systemd, or nobody.
pub(crate) struct Systemd {
    on: bool,
    /// Time a stop may take from each of its steps on.
    stop_timeout: Option<Duration>,
    stopping: bool,
}

impl Systemd {
    /// As the attributes say; `stop_timeout` is that of the unit.
    pub(crate) fn new(attrs: &Attrs, stop_timeout: Option<Duration>) -> Self {
        Self {
            on: attrs.get("broker.sd-notify").is_some_and(|v| v != "0"),
            stop_timeout,
            stopping: false,
        }
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if self.on {
            // Without a socket nobody listens; nothing depends on being heard.
            let _ = sd_notify::notify(state);
        }
    }

    /// A line for people.
    pub(crate) fn status(&self, text: &str) {
        self.tell(&[NotifyState::Status(text)]);
        self.extend();
    }

    /// The broker serves its socket.
    pub(crate) fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    fn extend(&self) {
        if let Some(time) = self.stop_timeout.filter(|_| self.stopping) {
            let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
            self.tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
        }
    }

    /// The broker is in this state now. Each state of a stop gets the whole of its time.
    pub(crate) fn entered(&mut self, state: State, rank: u32, size: u32) {
        self.stopping = state >= State::Cleanup;
        let role = if rank == 0 { "leader" } else { "member" };
        let text = match state {
            State::LoadBuiltins | State::Init => return,
            State::Join if rank == 0 => "Starting the Flux instance".to_owned(),
            State::Join => "Joining the Flux instance".to_owned(),
            State::ConfigSync => "Fetching the configuration of the parent".to_owned(),
            State::Quorum => "Waiting for enough brokers".to_owned(),
            State::Run => format!("Running as {role} of {size} node Flux instance"),
            State::Cleanup => "Ending jobs".to_owned(),
            State::Shutdown => "Waiting for the brokers below".to_owned(),
            State::Finalize | State::Goodbye | State::UnloadBuiltins => "Leaving".to_owned(),
            State::Exit => "Exiting".to_owned(),
        };
        self.status(&text);
    }
}
