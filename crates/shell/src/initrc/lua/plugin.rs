//! The table `plugin`, and `coprocess`.

use super::{Interpreter, Reader, computed, function, into_value, json};
use crate::plugins::Plugin;
use mlua::{Function, Lua, Table, Value};
use serde_json::{Map, Value as Json};
use std::rc::Rc;

pub(super) fn table(interpreter: &Interpreter, reader: &Rc<Reader>) -> mlua::Result<Table> {
    let lua = &interpreter.lua;
    let fixed = lua.create_table()?;
    let it = reader.clone();
    let load = function(lua, move |_, spec: Value| {
        let (file, conf) = match &spec {
            Value::Table(fields) => {
                let field = |name| fields.raw_get::<Value>(name).map_err(|e| e.to_string());
                let conf = json::from_lua(&field("conf")?).map_err(|e| format!("conf: {e}"))?;
                (field("file")?, conf)
            }
            other => (other.clone(), Json::Null),
        };
        let want = "plugin.load takes the name of a file, or a table with file and conf";
        let file = file.as_string().ok_or(want)?;
        it.load_plugins(&file.to_string_lossy(), &conf)
    })?;
    let (it, own) = (reader.clone(), interpreter.clone());
    let register = function(lua, move |lua, spec: Table| {
        let plugin = lua_plugin(&own, lua, &spec);
        let (name, plugin) = plugin.map_err(|e| format!("plugin.register: {e}"))?;
        it.stack.push(name, plugin);
        Ok(())
    })?;
    fixed.set("load", load)?;
    fixed.set("register", register)?;
    let (seen, told) = (reader.clone(), reader.clone());
    let get = move |lua: &Lua, name: &str| match name {
        "searchpath" => into_value(lua, seen.search_path.borrow().as_str()),
        _ => Ok(None),
    };
    let set = move |name: &str, value: &Value| match (name, value.as_string()) {
        ("searchpath", Some(path)) => {
            *told.search_path.borrow_mut() = path.to_string_lossy();
            Ok(true)
        }
        ("searchpath", None) => Err("plugin.searchpath must be a string".to_owned()),
        _ => Err(format!("plugin.{name} cannot be set")),
    };
    computed(lua, fixed, get, set)
}

/// The plugin that a script describes. Without a name it is called as the script.
fn lua_plugin(
    interpreter: &Interpreter,
    lua: &Lua,
    spec: &Table,
) -> Result<(String, Plugin), String> {
    let get = |table: &Table, key: &str| table.get::<Value>(key).map_err(|e| e.to_string());
    let name = match get(spec, "name")? {
        Value::Nil => lua
            .inspect_stack(1, |at| at.source().short_src.map(|s| s.into_owned()))
            .flatten()
            .unwrap_or_default(),
        Value::String(name) => name.to_string_lossy(),
        other => return Err(format!("name is a {}", other.type_name())),
    };
    let Value::Table(handlers) = get(spec, "handlers")? else {
        return Err(format!("{name} has no table of handlers"));
    };
    let mut plugin = Plugin::default();
    for handler in handlers.sequence_values::<Table>() {
        let handler = handler.map_err(|_| "handlers must be tables".to_owned())?;
        let (Value::String(topic), Value::Function(callback)) =
            (get(&handler, "topic")?, get(&handler, "fn")?)
        else {
            return Err("a handler needs a topic, which is a string, and fn, a function".into());
        };
        let (interpreter, callback): (Interpreter, Function) = (interpreter.clone(), callback);
        plugin = plugin.on(&topic.to_string_lossy(), move |_, topic, _| {
            interpreter.call(&callback, topic)
        });
    }
    if plugin.is_empty() {
        return Err(format!("the handlers of {name} are no array"));
    }
    Ok((name, plugin))
}

/// `coprocess.define`: a process beside the tasks that users can switch on with an option of its name.
pub(super) fn coprocess(lua: &Lua, reader: &Rc<Reader>) -> mlua::Result<Table> {
    let it = reader.clone();
    let define = function(lua, move |_, spec: Table| {
        let spec = json::from_lua(&Value::Table(spec)).map_err(|e| format!("coprocess: {e}"))?;
        let mut spec = spec.as_object().cloned().unwrap_or_default();
        let Some(Json::String(name)) = spec.remove("name") else {
            return Err("coprocess.define: a name is missing".into());
        };
        let job = it.stack.job();
        let info = job.info();
        let Some(option) = info.jobspec.shell_option(&name) else {
            return Ok(());
        };
        spec.extend(option.as_object().cloned().unwrap_or_default());
        let all = info
            .jobspec
            .shell_option("coprocess")
            .and_then(Json::as_object);
        let mut all: Map<String, Json> = all.cloned().unwrap_or_default();
        all.insert(name, Json::Object(spec));
        job.set_option("coprocess", Json::Object(all));
        Ok(())
    })?;
    let table = lua.create_table()?;
    table.set("define", define)?;
    Ok(table)
}
