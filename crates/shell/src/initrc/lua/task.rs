//! The table `task`, which is there in callbacks about a task.

use super::{Reader, computed, fault, function, json, overwrites};
use crate::plugins::Task;
use mlua::{Lua, Table, Value};
use std::rc::Rc;

const OUTSIDE: &str = "task is there in callbacks about a task only";

pub(super) fn table(lua: &Lua, reader: &Rc<Reader>) -> mlua::Result<Table> {
    let current = {
        let it = reader.clone();
        move || it.stack.job().with_task(|task| task.clone()).ok_or(OUTSIDE)
    };
    let change = {
        let it = reader.clone();
        move |change: &mut dyn FnMut(&mut Task)| {
            it.stack.job().with_task(change).ok_or(OUTSIDE.to_owned())
        }
    };
    let fixed = lua.create_table()?;
    let it = current.clone();
    let getenv = function(lua, move |_, name: String| {
        Ok(it()?.env.get(&name).cloned())
    })?;
    let it = change.clone();
    let setenv = function(
        lua,
        move |_, (name, value, over): (String, String, Value)| {
            it(&mut |task| {
                if overwrites(&over) || !task.env.contains_key(&name) {
                    task.env.insert(name.clone(), value.clone());
                }
            })?;
            Ok(true)
        },
    )?;
    let unsetenv = function(lua, move |_, name: String| {
        change(&mut |task| drop(task.env.remove(&name)))
    })?;
    for (name, function) in [
        ("getenv", getenv),
        ("setenv", setenv),
        ("unsetenv", unsetenv),
    ] {
        fixed.set(name, function)?;
    }
    let get = move |lua: &Lua, name: &str| {
        let task = current().map_err(|e| fault(lua, e))?;
        match name {
            "info" => json::to_lua(lua, &task.info()).map(Some),
            _ => Ok(None),
        }
    };
    let set = |name: &str, _: &Value| Err(format!("task.{name} cannot be set"));
    computed(lua, fixed, get, set)
}
