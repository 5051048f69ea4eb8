//! How long each step of a broker's life may take, and how it ends when it fails: the attributes `broker.*` of
//! flux-broker-attributes(7) that say so.

use std::time::Duration;

use crate::attrs::Attrs;

/// An attribute that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Error parsing {name} attribute: expected {expected}, found {value:?}")]
pub(crate) struct PatienceError {
    name: &'static str,
    expected: String,
    value: String,
}

/// The limits. No duration means for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Brokers that have to be there before the instance runs.
    pub(crate) quorum: usize,
    /// Said instead of what `broker.quorum` means, for the log.
    pub(crate) assumed: bool,
    pub(crate) quorum_warn: Option<Duration>,
    pub(crate) shutdown_warn: Option<Duration>,
    pub(crate) shutdown: Option<Duration>,
    /// Once a signal has asked for the end.
    pub(crate) cleanup: Option<Duration>,
    pub(crate) unload: Option<Duration>,
    /// What systemd grants a stop.
    pub(crate) systemd_stop: Option<Duration>,
    /// Exit code that says: do not start me again.
    pub(crate) no_restart: Option<i32>,
    /// The instance is there to be mended: a start-up script may fail, and no other broker joins.
    pub(crate) recovery: bool,
}

fn duration(
    attrs: &mut Attrs,
    name: &'static str,
    default: &str,
) -> Result<Option<Duration>, PatienceError> {
    attrs.set_default(name, default);
    let value = attrs.get(name).unwrap_or(default);
    if value == "none" {
        return Ok(None);
    }
    let seconds = formats::fsd::parse(value).ok();
    let time = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    time.map(Some).ok_or_else(|| PatienceError {
        name,
        expected: "a duration, or none".to_owned(),
        value: value.to_owned(),
    })
}

/// The quorum, and whether it had to be guessed: earlier releases took a set of ranks.
fn quorum(attrs: &mut Attrs, size: u32) -> Result<(usize, bool), PatienceError> {
    let name = "broker.quorum";
    attrs.set_default(name, &size.to_string());
    let value = attrs.get(name).unwrap_or_default();
    let all = format!("0-{}", size.saturating_sub(1));
    match value.parse::<u32>() {
        Ok(0) => Ok((1, true)),
        Ok(n) if n <= size => Ok((n as usize, false)),
        Err(_) if value == all => Ok((size as usize, true)),
        _ => Err(PatienceError {
            name,
            expected: format!("a number of brokers from 1 to {size}"),
            value: value.to_owned(),
        }),
    }
}

impl Patience {
    /// As the attributes of a broker of an instance of `size` say; they get their defaults.
    pub(crate) fn read(attrs: &mut Attrs, size: u32) -> Result<Self, PatienceError> {
        let (quorum, assumed) = quorum(attrs, size)?;
        let code = attrs.get("broker.exit-norestart");
        Ok(Self {
            quorum,
            assumed,
            no_restart: code.and_then(|c| c.parse().ok()).filter(|c| *c > 0),
            recovery: attrs.get("broker.recovery-mode").is_some(),
            quorum_warn: duration(attrs, "broker.quorum-warn", "1m")?,
            shutdown_warn: duration(attrs, "broker.shutdown-warn", "1m")?,
            shutdown: duration(attrs, "broker.shutdown-timeout", "none")?,
            cleanup: duration(attrs, "broker.cleanup-timeout", "none")?,
            unload: duration(attrs, "broker.unload-builtins-timeout", "1m")?,
            systemd_stop: duration(attrs, "broker.sd-stop-timeout", "none")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Patience, PatienceError> {
        let mut attrs = Attrs::default();
        attrs.set(name, value);
        Patience::read(&mut attrs, 4)
    }

    #[test]
    fn defaults() {
        let mut attrs = Attrs::default();
        let patience = Patience::read(&mut attrs, 4).unwrap();
        assert_eq!((patience.quorum, patience.assumed), (4, false));
        assert_eq!(patience.shutdown, None);
        assert_eq!(patience.unload, Some(Duration::from_secs(60)));
        assert_eq!(attrs.get("broker.cleanup-timeout"), Some("none"));
        assert_eq!(attrs.get("broker.quorum"), Some("4"));
    }

    #[test]
    fn quorums() {
        let quorum = |value| read("broker.quorum", value).map(|p| (p.quorum, p.assumed));
        assert_eq!(quorum("3"), Ok((3, false)));
        assert_eq!(quorum("0"), Ok((1, true)));
        assert_eq!(quorum("0-3"), Ok((4, true)));
        for bad in ["5", "-1", "x", "", "9-10"] {
            let text = quorum(bad).unwrap_err().to_string();
            assert!(
                text.starts_with("Error parsing broker.quorum attribute"),
                "{text}"
            );
        }
    }

    #[test]
    fn durations() {
        assert_eq!(
            read("broker.shutdown-timeout", "1.5s").unwrap().shutdown,
            Some(Duration::from_millis(1500))
        );
        assert_eq!(
            read("broker.quorum-warn", "none").unwrap().quorum_warn,
            None
        );
        assert!(read("broker.quorum-warn", "x").is_err());
        assert_eq!(
            read("broker.exit-norestart", "99").unwrap().no_restart,
            Some(99)
        );
        assert_eq!(read("broker.exit-norestart", "x").unwrap().no_restart, None);
    }
}
