//! The table `shell`.

use super::{Reader, computed, function, into_value, json, overwrites};
use crate::{Fatal, initrc::mpi::prepend_path, log::Level};
use mlua::{Function, Lua, Table, Value, Variadic};
use std::rc::Rc;

/// Fields that scripts cannot put anything in place of.
const FIXED: [&str; 7] = [
    "info",
    "rankinfo",
    "get_rankinfo",
    "getenv",
    "setenv",
    "unsetenv",
    "options",
];

pub(super) fn table(lua: &Lua, reader: &Rc<Reader>) -> mlua::Result<Table> {
    let fixed = lua.create_table()?;
    environment(lua, reader, &fixed)?;
    log(lua, reader, &fixed)?;
    files(lua, reader, &fixed)?;
    fixed.set("options", options(lua, reader)?)?;
    let it = reader.clone();
    let rank_info = function(lua, move |lua, rank: Option<i64>| {
        let wanted = rank.filter(|rank| *rank != -1);
        let rank = wanted.map(u32::try_from).transpose();
        let info = rank.ok().and_then(|rank| it.stack.job().rank_info(rank));
        let missing = || format!("there is no shell rank {}", wanted.unwrap_or(-1));
        json::to_lua(lua, &info.ok_or_else(missing)?).map_err(|e| e.to_string())
    })?;
    fixed.set("get_rankinfo", rank_info)?;
    let (seen, told) = (reader.clone(), reader.clone());
    let get = move |lua: &Lua, name: &str| {
        let job = seen.stack.job();
        match name {
            "info" => json::to_lua(lua, &job.shell_info()).map(Some),
            "rankinfo" => job
                .rank_info(None)
                .map(|i| json::to_lua(lua, &i))
                .transpose(),
            "verbose" => into_value(lua, job.logger.verbose() > 0),
            "rcpath" => into_value(lua, seen.dir.to_string_lossy().into_owned()),
            _ => Ok(None),
        }
    };
    let set = move |name: &str, value: &Value| match name {
        "verbose" => {
            let level = match value {
                Value::Boolean(on) => i64::from(*on),
                value => value
                    .as_i64()
                    .ok_or("shell.verbose must be a number or a boolean")?,
            };
            told.stack.job().logger.set_verbose(level);
            Ok(true)
        }
        _ if FIXED.contains(&name) => Err(format!("shell.{name} cannot be set")),
        _ => Ok(false),
    };
    computed(lua, fixed, get, set)
}

/// `shell.options`: reading and writing options of the job.
fn options(lua: &Lua, reader: &Rc<Reader>) -> mlua::Result<Table> {
    let (seen, told) = (reader.clone(), reader.clone());
    let get = move |lua: &Lua, name: &str| {
        let info = seen.stack.job().info();
        let option = info.jobspec.shell_option(name);
        option.map(|value| json::to_lua(lua, value)).transpose()
    };
    let set = move |name: &str, value: &Value| {
        let value = json::from_lua(value).map_err(|e| format!("shell.options.{name}: {e}"))?;
        told.stack.job().set_option(name, value);
        Ok(true)
    };
    computed(lua, lua.create_table()?, get, set)
}

fn environment(lua: &Lua, reader: &Rc<Reader>, fixed: &Table) -> mlua::Result<()> {
    let it = reader.clone();
    let getenv = function(lua, move |lua, name: Option<String>| {
        let env = it.stack.job().env();
        let found = match name {
            Some(name) => env.get(&name).map(|v| into_value(lua, v.as_str())),
            None => {
                let all = env.iter().map(|(k, v)| (k.as_str(), v.as_str()));
                Some(lua.create_table_from(all).map(|t| Some(Value::Table(t))))
            }
        };
        found.transpose().map_err(|e| e.to_string())
    })?;
    let it = reader.clone();
    let setenv = function(
        lua,
        move |_, (name, value, over): (String, String, Value)| {
            it.stack.job().change_env(|env| {
                if overwrites(&over) || !env.contains_key(&name) {
                    env.insert(name, value);
                }
            });
            Ok(true)
        },
    )?;
    let it = reader.clone();
    let unsetenv = function(lua, move |_, name: String| {
        it.stack.job().change_env(|env| env.remove(&name));
        Ok(true)
    })?;
    let it = reader.clone();
    let prepend = function(lua, move |_, (name, path): (String, String)| {
        prepend_path(it.stack.job(), &name, &path);
        Ok(())
    })?;
    let it = reader.clone();
    let strip = function(lua, move |lua, patterns: Variadic<String>| {
        strip(lua, &it, &patterns).map_err(|e| super::explain(&e))
    })?;
    for (name, function) in [
        ("getenv", getenv),
        ("setenv", setenv),
        ("unsetenv", unsetenv),
        ("prepend_path", prepend),
        ("env_strip", strip),
    ] {
        fixed.set(name, function)?;
    }
    Ok(())
}

/// Removes the variables whose names match any of the patterns, which are Lua's.
fn strip(lua: &Lua, reader: &Reader, patterns: &[String]) -> mlua::Result<()> {
    let find: Function = lua.globals().get::<Table>("string")?.get("find")?;
    let names: Vec<String> = reader.stack.job().env().keys().cloned().collect();
    for name in names {
        for pattern in patterns {
            if find
                .call::<Option<i64>>((name.as_str(), pattern.as_str()))?
                .is_some()
            {
                reader.stack.job().change_env(|env| env.remove(&name));
            }
        }
    }
    Ok(())
}

fn log(lua: &Lua, reader: &Rc<Reader>, fixed: &Table) -> mlua::Result<()> {
    for (name, level) in [
        ("log", Level::Notice),
        ("debug", Level::Debug),
        ("log_error", Level::Error),
    ] {
        let it = reader.clone();
        let say = function(lua, move |_, text: String| {
            it.stack.job().say(level, text);
            Ok(())
        })?;
        fixed.set(name, say)?;
    }
    let it = reader.clone();
    let die = function(lua, move |_, text: String| -> Result<(), String> {
        it.stack.job().die(Fatal::new(text.clone()));
        Err(text)
    })?;
    fixed.set("die", die)
}

fn files(lua: &Lua, reader: &Rc<Reader>, fixed: &Table) -> mlua::Result<()> {
    let it = reader.clone();
    let rc = function(lua, move |_, pattern: String| it.source_rc(&pattern))?;
    let it = reader.clone();
    let option = function(lua, move |_, name: String| it.source_option(&name))?;
    let it = reader.clone();
    let versioned = function(lua, move |_, name: Option<String>| {
        let option = name.and_then(|name| it.versioned_option(&name));
        Ok(option.map_or((None, None), |(name, version)| (Some(name), version)))
    })?;
    fixed.set("source_rcpath", rc)?;
    fixed.set("source_rcpath_option", option)?;
    fixed.set("getopt_with_version", versioned)
}
