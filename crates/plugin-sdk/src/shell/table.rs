//! The functions of [`Shell`]: each asks the shell by name.

use std::ffi::{CString, c_char, c_int};

use serde_json::{Value, json};

use super::abi::{KIND, Shell};
use crate::abi::{ABI, RawArgs, RawPlugin};
use crate::host::table::{args, asked, known, object, outcome, text};
use crate::host::{Extension, Failure, lock};

/// The table, for [`Setup`](crate::host::Setup).
pub const EXTENSION: Extension = Extension {
    kind: KIND,
    table: (&raw const TABLE).cast(),
};

static TABLE: Shell = Shell {
    size: size_of::<Shell>(),
    abi: ABI,
    getopt,
    setopt,
    getenv,
    environment,
    setenv,
    unsetenv,
    info,
    rank_info,
    jobspec_info,
    task_info,
    taskmap,
    hostlist,
    task_getenv,
    task_setenv,
    task_unsetenv,
    task_command,
    set_task_command,
    add_event_context,
    add_completion_ref,
    remove_completion_ref,
    killall,
    raise,
    die,
    set_verbose,
    service_register,
    event_subscribe,
    rpc,
    render,
    call,
};

/// Any JSON from a plugin; null stands for nothing.
///
/// # Safety
/// As [`text`].
unsafe fn value(json: *const c_char) -> Result<Value, Failure> {
    if json.is_null() {
        return Ok(Value::Null);
    }
    // SAFETY: of the caller.
    let json = unsafe { text(json)? };
    serde_json::from_str(json).map_err(|e| Failure::invalid(format!("not JSON: {e}")))
}

/// Functions of C whose arguments become the parameters of a question.
macro_rules! questions {
    ($($name:ident($($arg:ident: $type:ty => $value:expr),*);)*) => {$(
        unsafe extern "C" fn $name(p: *mut RawPlugin $(, $arg: $type)*) -> c_int {
            // SAFETY: handles and texts are what the header says.
            unsafe {
                let params = || Ok(json!({ $((stringify!($arg)): $value),* }));
                let asked = known(p).and_then(|p| asked(p, stringify!($name), params()?));
                outcome(p, asked.map(|_| 0))
            }
        }
    )*};
}

/// The same, for functions that give the answer as a text.
macro_rules! tellers {
    ($($name:ident($($arg:ident: $type:ty => $value:expr),*);)*) => {$(
        unsafe extern "C" fn $name(p: *mut RawPlugin $(, $arg: $type)*) -> *const c_char {
            // SAFETY: handles and texts are what the header says.
            unsafe {
                let params = || Ok(json!({ $((stringify!($arg)): $value),* }));
                let asked = known(p).and_then(|p| asked(p, stringify!($name), params()?));
                tell(p, asked)
            }
        }
    )*};
}

/// Keep an answer for C, which gets nothing for null. A text is given as it is, unless it is an option's.
///
/// # Safety
/// `p` is a plugin's handle.
unsafe fn tell(p: *mut RawPlugin, answer: Result<Value, Failure>) -> *const c_char {
    let kept = answer.and_then(|answer| {
        let text = match answer {
            Value::Null => return Err(Failure::new(libc::ENOENT, "there is no such thing")),
            Value::String(text) => text,
            other => other.to_string(),
        };
        // SAFETY: of the caller.
        let plugin = unsafe { known(p)? };
        let mut kept = lock(&plugin.answer);
        *kept = CString::new(text).map_err(|_| Failure::invalid("the text has a zero byte"))?;
        Ok(kept.as_ptr())
    });
    kept.unwrap_or_else(|e| {
        // SAFETY: of the caller.
        unsafe { outcome(p, Err(e)) };
        std::ptr::null()
    })
}

questions! {
    setopt(path: *const c_char => text(path)?, json: *const c_char => value(json)?);
    setenv(name: *const c_char => text(name)?, value: *const c_char => text(value)?, overwrite: c_int => overwrite != 0);
    unsetenv(name: *const c_char => text(name)?);
    task_setenv(name: *const c_char => text(name)?, value: *const c_char => text(value)?, overwrite: c_int => overwrite != 0);
    task_unsetenv(name: *const c_char => text(name)?);
    set_task_command(command: *const c_char => value(command)?);
    add_event_context(event: *const c_char => text(event)?, context: *const c_char => object(context)?);
    add_completion_ref(name: *const c_char => text(name)?);
    remove_completion_ref(name: *const c_char => text(name)?);
    killall(signum: c_int => signum);
    raise(kind: *const c_char => text(kind)?, severity: c_int => severity, note: *const c_char => text(note)?);
    die(code: c_int => code, note: *const c_char => text(note)?);
    set_verbose(level: c_int => level);
    service_register(method: *const c_char => text(method)?);
    event_subscribe(subtopic: *const c_char => text(subtopic)?);
    rpc(method: *const c_char => text(method)?, shell_rank: c_int => shell_rank,
        payload: *const c_char => object(payload)?, topic: *const c_char => text(topic)?);
}

tellers! {
    getenv(name: *const c_char => text(name)?);
    environment();
    info();
    rank_info(shell_rank: c_int => shell_rank);
    jobspec_info();
    task_info(index: c_int => index);
    taskmap();
    hostlist();
    task_getenv(name: *const c_char => text(name)?);
    task_command();
    render(template: *const c_char => text(template)?);
}

/// An option is JSON also where it is a text.
unsafe extern "C" fn getopt(p: *mut RawPlugin, path: *const c_char) -> *const c_char {
    // SAFETY: as above.
    unsafe {
        let found = || asked(known(p)?, "getopt", json!({ "path": text(path)? }));
        tell(
            p,
            found().map(|value| match value {
                Value::Null => Value::Null,
                value => Value::String(value.to_string()),
            }),
        )
    }
}

unsafe extern "C" fn call(p: *mut RawPlugin, topic: *const c_char, raw: *mut RawArgs) -> c_int {
    // SAFETY: as above.
    unsafe {
        let call = || {
            let (plugin, topic) = (known(p)?, text(topic)?);
            let args = args(raw).ok_or_else(|| Failure::invalid("arguments are missing"))?;
            let params = json!({ "topic": topic, "in": args.input, "out": args.output });
            if let Value::Object(out) = asked(plugin, "call", params)? {
                args.output = out;
            }
            Ok(0)
        };
        outcome(p, call())
    }
}
