//! How the tree is to be: attributes `tbon.*` and the configuration table `[tbon]`
//! (flux-broker-attributes(7), flux-config-tbon(5)).
//!
//! The command line goes before the configuration, the configuration before what is built in.

use std::time::Duration;

use formats::fsd;
use overlay::topology::{Shape, TopologyError};
use overlay::{Limits, SocketOptions};
use serde_json::Value;

use crate::attrs::Attrs;

/// What is wrong with a setting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TbonError {
    /// The configuration has another type.
    #[error("Config file error [tbon]: {key}: Expected {want}, found {found}")]
    Type {
        key: &'static str,
        want: &'static str,
        found: Value,
    },
    /// Not a duration.
    #[error("Error parsing tbon.{key}: {source}")]
    Duration {
        key: &'static str,
        source: fsd::FsdError,
    },
    /// Not a number.
    #[error("tbon.{key} value must be an integer, found {found:?}")]
    Integer { key: &'static str, found: String },
    /// Out of range, or in conflict.
    #[error("tbon.{0}")]
    Rule(String),
    /// No such tree.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

/// The settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tbon {
    pub(crate) shape: Shape,
    pub(crate) limits: Limits,
    pub(crate) sockets: SocketOptions,
    /// TCP even where all brokers share a host.
    pub(crate) prefer_tcp: bool,
}

/// Reads settings and records them as attributes.
struct Reader<'a> {
    attrs: &'a mut Attrs,
    table: &'a Value,
}

fn text<'a>(table: &'a Value, key: &'static str) -> Result<Option<&'a str>, TbonError> {
    match &table[key] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        other => Err(TbonError::Type {
            key,
            want: "string",
            found: other.clone(),
        }),
    }
}

fn parse(key: &'static str, text: &str) -> Result<Duration, TbonError> {
    let seconds = fsd::parse(text).map_err(|source| TbonError::Duration { key, source })?;
    // Beyond what a clock counts is for ever.
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

impl Reader<'_> {
    fn duration(&mut self, key: &'static str, default: Duration) -> Result<Duration, TbonError> {
        let name = format!("tbon.{key}");
        let configured = text(self.table, key)?;
        let value = match self.attrs.get(&name).or(configured) {
            Some(text) => parse(key, text)?,
            None => default,
        };
        self.attrs.fix(&name, fsd::format(value.as_secs_f64()));
        Ok(value)
    }

    fn integer(&mut self, key: &'static str, default: i32) -> Result<i32, TbonError> {
        let name = format!("tbon.{key}");
        let configured = match &self.table[key] {
            Value::Null => None,
            value => Some(value.as_i64().ok_or_else(|| TbonError::Type {
                key,
                want: "integer",
                found: value.clone(),
            })?),
        };
        let number = |text: &str| {
            text.parse::<i32>().map_err(|_| TbonError::Integer {
                key,
                found: text.to_owned(),
            })
        };
        let value = match (self.attrs.get(&name), configured) {
            (Some(text), _) => number(text)?,
            (None, Some(n)) => number(&n.to_string())?,
            (None, None) => default,
        };
        self.attrs.fix(&name, value.to_string());
        Ok(value)
    }
}

fn check_torpid(limits: &Limits) -> Result<(), TbonError> {
    let rule = |text: &str| Err(TbonError::Rule(text.to_owned()));
    if limits.torpid_min.is_zero() {
        return rule("torpid_min must be nonzero");
    }
    if !limits.torpid_max.is_zero() && limits.torpid_min >= limits.torpid_max {
        return rule("torpid_min must be less than tbon.torpid_max");
    }
    Ok(())
}

impl Tbon {
    /// Read all settings of a broker that starts.
    pub(crate) fn read(attrs: &mut Attrs, config: &Value, rank: u32) -> Result<Self, TbonError> {
        let table = &config["tbon"];
        let default = match &config["bootstrap"] {
            Value::Null => "kary:32",
            _ => "custom",
        };
        let configured = text(table, "topo")?.unwrap_or(default).to_owned();
        let fanout = attrs.get("tbon.fanout").map(|k| format!("kary:{k}"));
        let topo = attrs.get("tbon.topo").map(str::to_owned);
        let shape: Shape = topo.or(fanout).unwrap_or(configured).parse()?;
        attrs.fix("tbon.topo", shape.to_string());
        let hint = text(table, "interface-hint")?.map(str::to_owned);
        let hint = hint.or_else(|| std::env::var("FLUX_IPADDR_INTERFACE").ok());
        let hostname = || std::env::var_os("FLUX_IPADDR_HOSTNAME").map(|_| "hostname".to_owned());
        let hint = hint.or_else(hostname);
        attrs.set_default(
            "tbon.interface-hint",
            hint.as_deref().unwrap_or("default-route"),
        );
        let mut reader = Reader { attrs, table };
        let prefer_tcp = reader.integer("prefertcp", 0)? != 0;
        let limits = Limits {
            torpid_min: reader.duration("torpid_min", Limits::default().torpid_min)?,
            torpid_max: reader.duration("torpid_max", Limits::default().torpid_max)?,
            ..Limits::default()
        };
        check_torpid(&limits)?;
        let built_in = SocketOptions::default();
        let sockets = SocketOptions {
            tcp_user_timeout: reader.duration("tcp_user_timeout", built_in.tcp_user_timeout)?,
            connect_timeout: reader.duration("connect_timeout", built_in.connect_timeout)?,
            child_rcvhwm: reader.integer("child_rcvhwm", 0)?,
            ipv6: false,
        };
        reader.integer("zmqdebug", 0)?;
        if rank > 0 {
            // It is a setting of the leader alone.
            reader.attrs.set("tbon.zmq_io_threads", "1");
        }
        let threads = reader.integer("zmq_io_threads", 1)?;
        if sockets.child_rcvhwm < 0 || sockets.child_rcvhwm == 1 {
            return Err(TbonError::Rule(
                "child_rcvhwm must be 0 (unlimited) or >= 2".into(),
            ));
        }
        if threads < 1 {
            return Err(TbonError::Rule("zmq_io_threads must be >= 1".into()));
        }
        Ok(Self {
            shape,
            limits,
            sockets,
            prefer_tcp,
        })
    }

    /// Take over what may change while the broker runs from a new configuration.
    pub(crate) fn reload(
        limits: &Limits,
        attrs: &mut Attrs,
        config: &Value,
    ) -> Result<Limits, TbonError> {
        let table = &config["tbon"];
        let mut new = *limits;
        if let Some(text) = text(table, "torpid_min")? {
            new.torpid_min = parse("torpid_min", text)?;
        }
        if let Some(text) = text(table, "torpid_max")? {
            new.torpid_max = parse("torpid_max", text)?;
        }
        check_torpid(&new)?;
        for (key, value) in [
            ("torpid_min", new.torpid_min),
            ("torpid_max", new.torpid_max),
        ] {
            attrs.fix(&format!("tbon.{key}"), fsd::format(value.as_secs_f64()));
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(attrs: &[(&str, &str)], table: Value) -> Result<(Tbon, Attrs), String> {
        let mut all = Attrs::default();
        for (name, value) in attrs {
            all.set(name, *value);
        }
        let config = json!({ "tbon": table });
        let tbon = Tbon::read(&mut all, &config, 0).map_err(|e| e.to_string())?;
        Ok((tbon, all))
    }

    #[test]
    fn precedence() {
        let (tbon, attrs) = read(&[], json!({})).unwrap();
        assert_eq!(tbon.shape, Shape::Kary(32));
        let get = |attrs: &Attrs, name: &str| attrs.get(name).unwrap().to_owned();
        assert_eq!(get(&attrs, "tbon.torpid_max"), "30s");
        assert_eq!(get(&attrs, "tbon.connect_timeout"), "30s");
        let table =
            json!({"topo": "kary:8", "torpid_max": "1m", "zmqdebug": 1, "connect_timeout": "0"});
        let (tbon, attrs) = read(&[("tbon.topo", "mincrit")], table).unwrap();
        assert_eq!(tbon.shape, Shape::Mincrit(None));
        assert_eq!(tbon.limits.torpid_max, Duration::from_secs(60));
        assert_eq!(get(&attrs, "tbon.zmqdebug"), "1");
        assert_eq!(get(&attrs, "tbon.connect_timeout"), "0s");
        let (tbon, _) = read(&[("tbon.fanout", "3")], json!({})).unwrap();
        assert_eq!(tbon.shape, Shape::Kary(3));
        let mut attrs = Attrs::default();
        let config = json!({ "bootstrap": {} });
        assert_eq!(
            Tbon::read(&mut attrs, &config, 0).unwrap().shape,
            Shape::Custom
        );
    }

    #[test]
    fn mistakes() {
        for (attr, table, want) in [
            (
                ("", ""),
                json!({"torpid_max": 5}),
                "Config file error [tbon]: torpid_max: Expected string, found 5",
            ),
            (
                ("", ""),
                json!({"zmqdebug": "x"}),
                "Config file error [tbon]: zmqdebug: Expected integer, found \"x\"",
            ),
            (
                ("tbon.zmqdebug", "zzz"),
                json!({}),
                "tbon.zmqdebug value must be an integer, found \"zzz\"",
            ),
            (
                ("tbon.torpid_min", "0"),
                json!({}),
                "tbon.torpid_min must be nonzero",
            ),
            (
                ("tbon.torpid_max", "2s"),
                json!({}),
                "tbon.torpid_min must be less than tbon.torpid_max",
            ),
            (
                ("tbon.child_rcvhwm", "1"),
                json!({}),
                "tbon.child_rcvhwm must be 0 (unlimited) or >= 2",
            ),
            (
                ("tbon.zmq_io_threads", "-1"),
                json!({}),
                "tbon.zmq_io_threads must be >= 1",
            ),
        ] {
            assert_eq!(read(&[attr], table).map(drop).unwrap_err(), want);
        }
        assert!(read(&[("tbon.topo", "notascheme:4")], json!({})).is_err());
        assert!(read(&[("tbon.connect_timeout", "x")], json!({})).is_err());
    }

    #[test]
    fn reload_takes_what_is_there() {
        let (tbon, mut attrs) = read(&[], json!({})).unwrap();
        let config = json!({"tbon": {"torpid_min": "30s", "torpid_max": "60s"}});
        let limits = Tbon::reload(&tbon.limits, &mut attrs, &config).unwrap();
        assert_eq!(attrs.get("tbon.torpid_max"), Some("1m"));
        let config = json!({"tbon": {"torpid_max": "1s"}});
        assert!(Tbon::reload(&limits, &mut attrs, &config).is_err());
        assert_eq!(attrs.get("tbon.torpid_max"), Some("1m"));
    }
}
