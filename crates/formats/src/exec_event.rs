//! The events of a job's execution eventlog, `guest.exec.eventlog`, RFC 50.
//!
//! They tell what the execution service did and are no input to the job's state. Names that start
//! with `shell.` are the job shell's own.

use crate::Idset;
use crate::event_enum::event_enum;
pub use crate::event_enum::{EventError, Other, Plain};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

event_enum! {
    /// An event of a job's execution.
    ExecEvent {
        /// The guest namespace is there.
        Init(Plain) = "init",
        Reattach(Plain) = "reattach",
        Starting(Plain) = "starting",
        /// From here on a restarted service can find the shells again.
        Recoverable(Plain) = "recoverable",
        Complete(Complete) = "complete",
        /// Output of a shell or of another process started for the job.
        Log(Plain) = "log",
        ShellExit(ShellExit) = "shell-exit",
        /// Nothing more is written to the namespace.
        Done(Plain) = "done",
    }
}

/// All shells have ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Complete {
    /// A status as `wait(2)` gives it.
    pub status: i32,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The shell on the job's first rank has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShellExit {
    /// Its broker rank.
    pub rank: u32,
    /// A status as `wait(2)` gives it.
    pub wait_status: i32,
    /// Broker ranks whose shells were still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_ranks: Option<Idset>,
    /// Keys the RFC does not name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    #[test]
    fn examples_keep_their_text() {
        for line in [
            r#"{"timestamp":1552593348.073132,"name":"init"}"#,
            r#"{"timestamp":1552597348.073132,"name":"reattach"}"#,
            r#"{"timestamp":1552593348.088563,"name":"starting"}"#,
            r#"{"timestamp":1552593348.089012,"name":"recoverable"}"#,
            r#"{"timestamp":1552593348.090857,"name":"complete","context":{"status":0}}"#,
            r#"{"timestamp":1552593348.089211,"name":"log","context":{"component":"flux-shell","stream":"stderr","rank":"3","data":"text"}}"#,
            r#"{"timestamp":1552593348.090112,"name":"shell-exit","context":{"rank":42,"wait_status":0,"active_ranks":"43-45"}}"#,
            r#"{"timestamp":1552593348.104072,"name":"done"}"#,
        ] {
            let event = Event::decode(line).unwrap();
            let typed = ExecEvent::try_from(&event).unwrap();
            assert!(!matches!(typed, ExecEvent::Other(_)), "{line}");
            assert_eq!(typed.to_event(event.timestamp).encode().trim_end(), line);
        }
        let shell = Event::new(1., "shell.init");
        assert!(matches!(
            ExecEvent::try_from(&shell),
            Ok(ExecEvent::Other(_))
        ));
    }
}
