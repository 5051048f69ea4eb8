//! Initrc files in Lua: the interpreter, and how its errors are told.
//!
//! Scripts see the tables `shell` ([`shell`]), `plugin` and `coprocess` ([`plugin`]), `task` ([`task`]), and the functions
//! `source` and `source_if_exists`.

mod json;
mod plugin;
mod shell;
mod task;

use super::Reader;
use mlua::{Error, Function, HookTriggers, IntoLua, Lua, Table, Value, Variadic, VmState};
use std::{
    io,
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Instructions between two looks at whether SIGTERM has come.
const STRIDE: u32 = 10_000;

/// A Lua state with the tables of this module.
#[derive(Clone)]
pub(super) struct Interpreter {
    lua: Lua,
    /// SIGTERM has come since the last callback began.
    ending: Arc<AtomicBool>,
}

impl Interpreter {
    pub(super) fn new(reader: &Rc<Reader>) -> mlua::Result<Interpreter> {
        let lua = Lua::new();
        let ending = Arc::new(AtomicBool::new(false));
        let seen = ending.clone();
        let every = HookTriggers::new().every_nth_instruction(STRIDE);
        lua.set_global_hook(every, move |lua, _| interrupt(lua, &seen))?;
        let interpreter = Interpreter { lua, ending };
        let lua = &interpreter.lua;
        let globals = lua.globals();
        globals.set("shell", shell::table(lua, reader)?)?;
        globals.set("plugin", plugin::table(&interpreter, reader)?)?;
        globals.set("coprocess", plugin::coprocess(lua, reader)?)?;
        globals.set("task", task::table(lua, reader)?)?;
        let it = reader.clone();
        globals.set("source", function(lua, move |_, p: String| it.source(&p))?)?;
        let it = reader.clone();
        let if_exists = function(lua, move |_, p: String| it.source_if_exists(&p))?;
        globals.set("source_if_exists", if_exists)?;
        Ok(interpreter)
    }

    /// Runs a script. An error tells its place in the file.
    pub(super) fn run(&self, path: &Path, text: &[u8]) -> Result<(), String> {
        let chunk = self.lua.load(text).set_name(format!("@{}", path.display()));
        chunk.exec().map_err(|e| format!("initrc: {}", explain(&e)))
    }

    /// Calls a function of a script: what it returns, if it returns anything, must not be false.
    fn call(&self, function: &Function, topic: &str) -> Result<(), String> {
        self.ending.store(false, Relaxed);
        match function.call::<Variadic<Value>>(topic) {
            Err(e) => Err(explain(&e)),
            Ok(values) => match values.first() {
                Some(Value::Nil | Value::Boolean(false)) => {
                    Err("the callback returned false".into())
                }
                _ => Ok(()),
            },
        }
    }

    /// From now on SIGTERM interrupts what is running. Before, it ends the process.
    pub(super) fn heed_signals(&self) -> io::Result<()> {
        let ending = self.ending.clone();
        let heed = move || ending.store(true, Relaxed);
        // SAFETY: storing to an atomic is all that is done in the signal's handler.
        unsafe { signal_hook_registry::register(libc::SIGTERM, heed) }.map(drop)
    }
}

/// Ends a script when SIGTERM has come. After that every single instruction is an error, so that no `pcall` goes on.
fn interrupt(lua: &Lua, ending: &Arc<AtomicBool>) -> mlua::Result<VmState> {
    if !ending.load(Relaxed) {
        return Ok(VmState::Continue);
    }
    let all = HookTriggers::new().every_nth_instruction(1);
    lua.set_global_hook(all, |_, _| Err(interrupted()))?;
    Err(interrupted())
}

fn interrupted() -> Error {
    Error::runtime("interrupted by SIGTERM")
}

/// An error without the traceback: file, line, and what is wrong.
fn explain(e: &Error) -> String {
    match e {
        Error::CallbackError { cause, .. } => explain(cause),
        Error::SyntaxError { message, .. } | Error::RuntimeError(message) => {
            let end = message.find("\nstack traceback:").unwrap_or(message.len());
            message[..end].to_owned()
        }
        other => other.to_string(),
    }
}

/// An error at the line of the script that has called us.
fn fault(lua: &Lua, what: impl std::fmt::Display) -> Error {
    let place = lua.inspect_stack(1, |caller| {
        let source = caller.source().short_src.map(|s| s.into_owned());
        source.zip(caller.current_line())
    });
    match place.flatten() {
        Some((file, line)) => Error::runtime(format!("{file}:{line}: {what}")),
        None => Error::runtime(what.to_string()),
    }
}

/// A function for scripts whose errors get the place of the call.
fn function<A, R>(
    lua: &Lua,
    body: impl Fn(&Lua, A) -> Result<R, String> + 'static,
) -> mlua::Result<Function>
where
    A: mlua::FromLuaMulti,
    R: mlua::IntoLuaMulti,
{
    lua.create_function(move |lua, args| body(lua, args).map_err(|e| fault(lua, e)))
}

/// A table whose fields are computed when they are read: `get` knows some, the rest are those of `fixed` and what scripts
/// have put there themselves. `set` decides what may be put there.
fn computed(
    lua: &Lua,
    fixed: Table,
    get: impl Fn(&Lua, &str) -> mlua::Result<Option<Value>> + 'static,
    set: impl Fn(&str, &Value) -> Result<bool, String> + 'static,
) -> mlua::Result<Table> {
    let (table, meta) = (lua.create_table()?, lua.create_table()?);
    let index = lua.create_function(move |lua, (_, key): (Table, Value)| {
        let name = key.as_string().map(|s| s.to_string_lossy());
        match name.map(|name| get(lua, &name)).transpose()?.flatten() {
            Some(value) => Ok(value),
            None => fixed.raw_get(key),
        }
    })?;
    let newindex = function(lua, move |_, (table, key, value): (Table, Value, Value)| {
        let name = key.as_string().map(|s| s.to_string_lossy());
        match name.map_or(Ok(false), |name| set(&name, &value))? {
            true => Ok(()),
            false => table.raw_set(key, value).map_err(|e| e.to_string()),
        }
    })?;
    meta.set("__index", index)?;
    meta.set("__newindex", newindex)?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}

fn into_value(lua: &Lua, value: impl IntoLua) -> mlua::Result<Option<Value>> {
    value.into_lua(lua).map(Some)
}

/// Whether the third argument of `setenv` lets it replace a variable that is there.
fn overwrites(argument: &Value) -> bool {
    !matches!(argument, Value::Boolean(false) | Value::Integer(0))
}
