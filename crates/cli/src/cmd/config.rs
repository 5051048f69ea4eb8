//! `flux config`: the instance's configuration, and paths this program was built for.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use client::{Handle, Node, installation};
use formats::fsd;
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::environment::block_on;
use crate::error::{Context as _, Failure, Outcome};
use crate::output::outln;

/// Look at and change the configuration.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Print the configuration, or the value of a key
    Get(Get),
    /// Change the value of a key
    Set(Set),
    /// Remove a key
    Unset { name: String },
    /// Replace the configuration by a file, a directory or standard input
    Load { path: Option<PathBuf> },
    /// Read the configuration files again
    Reload {
        /// Do nothing on other ranks than 0
        #[arg(long)]
        follower_noop: bool,
    },
    /// Print a value this program was built with
    Builtin(Builtin),
}

#[derive(Parser)]
struct Get {
    /// Print this if the key is not set
    #[arg(short, long, value_name = "VAL")]
    default: Option<String>,
    /// Say nothing if the key is not set
    #[arg(short, long)]
    quiet: bool,
    /// What the value has to be
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "any")]
    kind: String,
    /// Read this file or directory instead of asking the broker
    #[arg(short, long, value_name = "PATH")]
    config_path: Option<PathBuf>,
    name: Option<String>,
}

#[derive(Parser)]
struct Set {
    /// Type of the value; that of the old one if not given
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    kind: Option<String>,
    name: String,
    #[arg(allow_hyphen_values = true)]
    value: String,
}

#[derive(Parser)]
struct Builtin {
    /// As if installed
    #[arg(long)]
    installed: bool,
    /// As in the source tree
    #[arg(long)]
    intree: bool,
    name: String,
}

/// What a value may be asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Object,
    Array,
    String,
    Integer,
    Real,
    Boolean,
    Fsd,
    FsdInteger,
    FsdReal,
}

impl Kind {
    fn parse(text: &str) -> Result<Self, Failure> {
        Ok(match text.to_lowercase().as_str() {
            "any" => Self::Any,
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "real" => Self::Real,
            "boolean" => Self::Boolean,
            "fsd" => Self::Fsd,
            "fsd-integer" => Self::FsdInteger,
            "fsd-real" => Self::FsdReal,
            _ => return Err(Failure::new(format!("Unknown type: {text}"))),
        })
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Any,
            Value::Bool(_) => Self::Boolean,
            Value::Number(n) if n.is_f64() => Self::Real,
            Value::Number(_) => Self::Integer,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }

    /// The value as it is printed, if it is of this kind.
    fn show(self, value: &Value) -> Option<String> {
        let seconds = || value.as_str().and_then(|s| fsd::parse(s).ok());
        match self {
            Self::Fsd => seconds().map(|_| plain(value)),
            Self::FsdInteger => seconds().map(|s| (s as i64).to_string()),
            Self::FsdReal => seconds().map(|s| format!("{s:.6}")),
            kind if kind == Self::Any || kind == Self::of(value) => Some(plain(value)),
            _ => None,
        }
    }

    /// A value of this kind from the command line.
    fn make(self, text: &str) -> Result<Value, Failure> {
        let error = |what: &str| Failure::new(format!("Error parsing {what}: {text:?}"));
        let json = || serde_json::from_str::<Value>(text).ok();
        match self {
            Self::Boolean => {
                Ok((!matches!(text.as_bytes().first(), None | Some(b'0' | b'f' | b'F'))).into())
            }
            Self::Integer => integer(text)
                .map(Value::from)
                .ok_or_else(|| error("integer value")),
            Self::Real => text
                .parse::<f64>()
                .map(Value::from)
                .map_err(|_| error("real value")),
            Self::Object => json()
                .filter(Value::is_object)
                .ok_or_else(|| error("json object")),
            Self::Array => json()
                .filter(Value::is_array)
                .ok_or_else(|| error("json array")),
            Self::Fsd if fsd::parse(text).is_err() => Err(error("Flux Standard Duration")),
            Self::String | Self::Fsd | Self::Any if !text.starts_with('"') => Ok(text.into()),
            Self::String | Self::Fsd | Self::Any => json()
                .filter(Value::is_string)
                .ok_or_else(|| error("string")),
            Self::FsdInteger | Self::FsdReal => {
                Err(Failure::new("Invalid type for the set subcommand"))
            }
        }
    }
}

/// An integer as C writes it: decimal, 0x hexadecimal or 0 octal.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let value = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => i64::from_str_radix(digits, 8),
        None => digits.parse(),
    };
    value.ok().map(|n| sign * n)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |v, name| v.get(name))
}

/// Set the value at a dotted path, making tables on the way.
fn set_at(config: &mut Value, path: &str, new: Value) -> Result<(), Failure> {
    let mut place = config;
    for name in path.split('.') {
        if !place.is_object() {
            return Err(Failure::new(format!("{path}: a part of it is not a table")));
        }
        // An object takes any index.
        place = place
            .as_object_mut()
            .map(|o| o.entry(name).or_insert_with(|| json!({})))
            .ok_or_else(|| Failure::new(path))?;
    }
    *place = new;
    Ok(())
}

fn remove_at(config: &mut Value, path: &str) {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = match parent {
        "" => Some(config),
        _ => parent
            .split('.')
            .try_fold(config, |v, name| v.get_mut(name)),
    };
    if let Some(table) = parent.and_then(Value::as_object_mut) {
        table.shift_remove(name);
    }
}

/// Files are read by the broker's rules: one TOML file, or all of a directory merged.
fn read(path: &std::path::Path) -> Result<Value, Failure> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).context(path.display())?;
        files = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        files.retain(|p| p.extension().is_some_and(|e| e == "toml"));
        files.sort();
    }
    let mut config = Map::new();
    for file in files {
        let text = std::fs::read_to_string(&file).context(file.display())?;
        let table = match file.extension().is_some_and(|e| e == "json") {
            true => serde_json::from_str(&text).map_err(|e| e.to_string()),
            false => toml::from_str(&text).map_err(|e| e.message().to_owned()),
        };
        merge(
            &mut config,
            table.map_err(Failure::new).context(file.display())?,
        );
    }
    Ok(config.into())
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn stdin() -> Result<Value, Failure> {
    let text = std::io::read_to_string(std::io::stdin())?;
    let json = serde_json::from_str::<Map<String, Value>>(&text);
    let table = json.or_else(|_| {
        let e = |e: toml::de::Error| Failure::new(format!("standard input: {}", e.message()));
        toml::from_str(&text).map_err(e)
    });
    Ok(table?.into())
}

async fn current(handle: &Handle) -> Result<Value, Failure> {
    let config = handle.call("config.get", Node::Any, &json!({})).await;
    config.context("Error fetching config object")
}

async fn replace(handle: &Handle, config: &Value) -> Outcome {
    let loaded = handle.rpc("config.load", Node::Any, config).await;
    loaded.context("Error updating config object")?;
    Ok(0)
}

pub(crate) fn run(args: Args) -> Outcome {
    match args.parse::<Options>()?.command {
        What::Builtin(o) => {
            let value = installation::value(&o.name);
            let value = value.ok_or_else(|| Failure::new(format!("{} is invalid", o.name)))?;
            outln!("{value}");
            Ok(0)
        }
        What::Get(o) => block_on(get(o)),
        What::Set(o) => block_on(set(o)),
        What::Unset { name } => block_on(async {
            let handle = Handle::open(None).await?;
            let mut config = current(&handle).await?;
            remove_at(&mut config, &name);
            replace(&handle, &config).await
        }),
        What::Load { path } => block_on(async {
            let config = match &path {
                Some(path) => read(path)?,
                None => stdin()?,
            };
            let handle = Handle::open(None).await?;
            let loaded = handle.rpc("config.load", Node::Any, &config).await;
            loaded.context("load")?;
            Ok(0)
        }),
        What::Reload { follower_noop } => block_on(async {
            let handle = Handle::open(None).await?;
            if follower_noop && handle.locate().await?.0 > 0 {
                return Ok(0);
            }
            let reloaded = handle.rpc("config.reload", Node::Any, &json!({})).await;
            reloaded.context("reload")?;
            Ok(0)
        }),
    }
}

async fn get(options: Get) -> Outcome {
    let kind = Kind::parse(&options.kind)?;
    let config = match &options.config_path {
        Some(path) => {
            let known = ["system", "security", "imp"];
            let named = path.to_str().filter(|p| known.contains(p));
            let own = named.map(|name| installation::confdir().join(name).join("conf.d"));
            read(own.as_ref().unwrap_or(path))?
        }
        None => current(&Handle::open(None).await?).await?,
    };
    let what = options.name.as_deref().unwrap_or("value");
    let value = match &options.name {
        None => Some(&config),
        Some(path) => at(&config, path),
    };
    match (value, options.default) {
        (Some(value), _) => {
            let text = kind
                .show(value)
                .ok_or_else(|| Failure::new(format!("{what} does not have the requested type")))?;
            outln!("{text}");
            Ok(0)
        }
        (None, Some(default)) => {
            outln!("{default}");
            Ok(0)
        }
        (None, None) if options.quiet => Ok(1),
        (None, None) => Err(Failure::new(format!("{what} is not set"))),
    }
}

async fn set(options: Set) -> Outcome {
    let asked = options.kind.as_deref().map(Kind::parse).transpose()?;
    let handle = Handle::open(None).await?;
    let mut config = current(&handle).await?;
    let kind = match (asked, at(&config, &options.name)) {
        (Some(kind), _) => kind,
        (None, Some(old)) => Kind::of(old),
        (None, None) => return Err(Failure::new("Type is unknown, please specify --type")),
    };
    set_at(&mut config, &options.name, kind.make(&options.value)?)?;
    replace(&handle, &config).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let show = |kind: &str, value: Value| Kind::parse(kind).unwrap().show(&value);
        assert_eq!(show("any", json!({"a": [1]})).unwrap(), r#"{"a":[1]}"#);
        assert_eq!(show("fsd-integer", json!("1.5m")).unwrap(), "90");
        assert_eq!(show("fsd-real", json!("1ms")).unwrap(), "0.001000");
        assert_eq!(show("integer", json!("1")), None);
        assert_eq!(show("Boolean", json!(true)).unwrap(), "true");
        assert!(Kind::parse("x").is_err());
        let make = |kind: &str, text: &str| Kind::parse(kind).unwrap().make(text).ok();
        assert_eq!(make("integer", "0x10"), Some(json!(16)));
        assert_eq!(make("integer", "-017"), Some(json!(-15)));
        assert_eq!(make("boolean", "false"), Some(json!(false)));
        assert_eq!(make("string", "\"a b\""), Some(json!("a b")));
        assert_eq!(make("fsd", "x"), None);
        assert_eq!(make("array", "{}"), None);
    }

    #[test]
    fn paths() {
        let mut config = json!({"a": {"b": 1}});
        set_at(&mut config, "a.c.d", json!(2)).unwrap();
        assert_eq!(at(&config, "a.c.d"), Some(&json!(2)));
        assert!(set_at(&mut config, "a.b.x", json!(2)).is_err());
        remove_at(&mut config, "a.b");
        remove_at(&mut config, "no.such");
        assert_eq!(config, json!({"a": {"c": {"d": 2}}}));
    }
}
