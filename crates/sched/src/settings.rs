//! What a scheduler is told when it is loaded.

use client::module::ModuleError;
use client::services::log::SEVERITIES;
use serde_json::{Value, json};

/// How many jobs the manager offers at a time (RFC 27).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Unlimited,
    Limited(u32),
}

impl Depth {
    /// `unlimited` or a number above 0.
    fn of(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(limit) => (limit > 0).then_some(Self::Limited(limit)),
            Err(_) => (text == "unlimited").then_some(Self::Unlimited),
        }
    }

    /// What `sched-ready` says.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Unlimited => json!({ "mode": "unlimited" }),
            Self::Limited(limit) => json!({ "mode": "limited", "limit": limit }),
        }
    }
}

impl std::fmt::Display for Depth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Limited(limit) => limit.fmt(f),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) depth: Depth,
    /// Whether jobs that have given back a part are taken over.
    pub(crate) partial_ok: bool,
    /// Whether what jobs hold and free is logged.
    pub(crate) verbose: bool,
}

impl Settings {
    /// From `queue-depth=N|unlimited` (also `mode=unlimited`, `mode=limited=N`), `log-level=LEVEL`, `test-hello-nopartial`.
    pub(crate) fn from_args(args: &[String]) -> Result<Self, ModuleError> {
        let mut settings = Self {
            depth: Depth::Unlimited,
            partial_ok: true,
            verbose: false,
        };
        for arg in args {
            let depth = |text: &str| {
                let wanted = "a number above 0 or unlimited";
                Depth::of(text)
                    .ok_or_else(|| ModuleError::invalid(format!("{arg:?}: expected {wanted}")))
            };
            match arg.split_once('=') {
                None if arg == "test-hello-nopartial" => settings.partial_ok = false,
                Some(("queue-depth", text)) => settings.depth = depth(text)?,
                Some(("mode", text)) => {
                    settings.depth = match text.strip_prefix("limited=") {
                        Some(limit) if limit != "unlimited" => depth(limit)?,
                        None if text == "unlimited" => Depth::Unlimited,
                        _ => {
                            let why = format!("{arg:?}: a mode is unlimited or limited=N");
                            return Err(ModuleError::invalid(why));
                        }
                    };
                }
                Some(("log-level", level)) => {
                    if !SEVERITIES.contains(&level) {
                        let why = format!("{arg:?}: expected one of {}", SEVERITIES.join(", "));
                        return Err(ModuleError::invalid(why));
                    }
                    settings.verbose = level == "debug";
                }
                _ => return Err(ModuleError::unknown_argument(arg)),
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let of = |arg: &str| Settings::from_args(&[arg.to_owned()]);
        let depth = |arg: &str| of(arg).map(|s| s.depth);
        for limited in ["mode=limited=3", "queue-depth=3"] {
            assert_eq!(depth(limited), Ok(Depth::Limited(3)), "{limited}");
        }
        for unlimited in ["mode=unlimited", "queue-depth=unlimited", "log-level=err"] {
            assert_eq!(depth(unlimited), Ok(Depth::Unlimited), "{unlimited}");
        }
        assert!(of("log-level=debug").unwrap().verbose && !of("log-level=info").unwrap().verbose);
        assert!(!of("test-hello-nopartial").unwrap().partial_ok);
        for bad in [
            "mode=limited=0",
            "mode=limited=-1",
            "mode=limited",
            "mode=limited=unlimited",
            "mode=single",
            "queue-depth=0",
            "queue-depth=",
            "log-level=loud",
            "x",
            "",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
