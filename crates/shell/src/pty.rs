//! Terminals for tasks: shell option `pty`.
//!
//! `pty`, `pty.ranks=IDSET`, `pty.capture=BOOL`, `pty.interactive=BOOL`. By default every task gets a terminal, and what
//! it writes goes where its standard output goes. An interactive terminal, that of task 0, is for `flux job attach`; it
//! is announced in `shell.init`, and its output is not captured unless asked for.

use crate::{
    Fatal,
    options::{bad, flag},
    startup::Shell,
    task::Source,
};
use formats::Idset;
use serde_json::{Value, json};
use terminus::{Output as Capture, Server, pty::Pty};
use tokio::io::duplex;

/// Bytes of a terminal's output that wait for the sink.
const WINDOW: usize = 64 << 10;

/// The option, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The tasks with a terminal; `None` is all.
    ranks: Option<Idset>,
    capture: bool,
    interactive: bool,
    /// Task 0 was not asked for, but is what an interactive terminal belongs to.
    added_0: bool,
}

impl Options {
    /// Reads the value of option `pty`.
    pub fn read(value: &Value) -> Result<Options, Fatal> {
        let none = serde_json::Map::new();
        let fields = match value {
            Value::Object(fields) => fields,
            _ => &none,
        };
        if let Some((key, value)) = fields
            .iter()
            .find(|(key, _)| !["ranks", "capture", "interactive"].contains(&key.as_str()))
        {
            let option = format!("pty.{key}");
            return Err(bad(&option, value, "ranks, capture or interactive"));
        }
        let interactive = flag(fields.get("interactive"));
        let mut added_0 = false;
        let ranks = match fields.get("ranks") {
            None if interactive => Some(Idset::from_range(0, 0)),
            None => None,
            Some(Value::String(all)) if all == "all" => None,
            Some(value) => {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                let ranks = text.parse::<Idset>();
                let mut ranks =
                    ranks.map_err(|_| bad("pty.ranks", value, "\"all\" or an idset"))?;
                if interactive && !ranks.contains(0) {
                    added_0 = true;
                    ranks.insert(0);
                }
                Some(ranks)
            }
        };
        let capture = fields.get("capture");
        Ok(Options {
            ranks,
            capture: capture.map_or(!interactive, |value| flag(Some(value))),
            interactive,
            added_0,
        })
    }

    /// What the user should know of how the option is understood.
    pub fn remark(&self) -> Option<&'static str> {
        self.added_0
            .then_some("pty: adding pty to rank 0 for interactive support")
    }
}

/// Says in the context of `shell.init` how the terminal of task 0 is reached.
pub fn leader_session(pty: &Options, context: &mut Value) {
    if pty.interactive {
        context["pty"] = json!("terminus.0");
        if pty.capture {
            context["capture"] = json!(1);
        }
    }
}

/// The terminals of this shell; sessions are numbered by task rank.
pub struct Terminals {
    pub server: Server,
}

impl Terminals {
    pub fn new(shell: &Shell) -> Terminals {
        let service = format!("{}.terminus", shell.service);
        Terminals {
            server: Server::new(shell.handle.clone(), service),
        }
    }

    /// The terminal of a task, if it gets one.
    pub fn open(
        &mut self,
        pty: Option<&Options>,
        rank: u32,
    ) -> Result<Option<Terminal<'_>>, Fatal> {
        let Some(pty) = pty.filter(|pty| pty.ranks.as_ref().is_none_or(|r| r.contains(rank)))
        else {
            return Ok(None);
        };
        // Only task 0's terminal can have clients: who else would read the others'?
        let (capture, output) = (pty.capture || rank != 0)
            .then(|| duplex(WINDOW))
            .map(|(to, from)| (Box::new(to) as Capture, Box::new(from) as Source))
            .unzip();
        let interactive = pty.interactive && rank == 0;
        let name = format!("task{rank}");
        let pty = self
            .server
            .open(rank, &name, interactive, capture)
            .map_err(|e| Fatal::new(format!("task {rank}: opening a terminal: {e}")))?;
        Ok(Some(Terminal { pty, output }))
    }
}

/// What a task gets in place of pipes.
pub struct Terminal<'a> {
    pub pty: &'a Pty,
    /// What is written to it, when it is captured.
    pub output: Option<Source>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let read = |value| Options::read(&value).unwrap();
        let set = |text: &str| Some(text.parse().unwrap());
        for (value, ranks, capture, interactive) in [
            (json!(1), None, true, false),
            (json!({"ranks": "all"}), None, true, false),
            (json!({"ranks": 3}), set("3"), true, false),
            (
                json!({"ranks": "1-2", "capture": 0}),
                set("1-2"),
                false,
                false,
            ),
            (json!({"interactive": 1}), set("0"), false, true),
            (
                json!({"interactive": 1, "ranks": "1-2"}),
                set("0-2"),
                false,
                true,
            ),
            (
                json!({"interactive": true, "capture": 1}),
                set("0"),
                true,
                true,
            ),
        ] {
            let added_0 = value["ranks"] == "1-2" && interactive;
            let want = Options {
                ranks,
                capture,
                interactive,
                added_0,
            };
            assert_eq!(read(value), want);
        }
    }

    #[test]
    fn faults() {
        for (value, want) in [
            (
                json!({"ranks": "x"}),
                r#"shell option pty.ranks="x" is invalid: must be "all" or an idset"#,
            ),
            (
                json!({"rank": 1}),
                "shell option pty.rank=1 is invalid: must be ranks, capture or interactive",
            ),
        ] {
            assert_eq!(Options::read(&value).unwrap_err().message, want);
        }
    }

    #[test]
    fn announcement() {
        let context = |value| {
            let mut context = json!({});
            leader_session(&Options::read(&value).unwrap(), &mut context);
            context
        };
        assert_eq!(context(json!(1)), json!({}));
        assert_eq!(
            context(json!({"interactive": 1})),
            json!({"pty": "terminus.0"})
        );
        assert_eq!(
            context(json!({"interactive": 1, "capture": 1})),
            json!({"pty": "terminus.0", "capture": 1})
        );
    }
}
