//! The functions of [`Jobtap`]: each asks the manager by name.

use std::ffi::{c_char, c_int, c_void};

use serde_json::{Value, json};

use super::abi::{CURRENT, Jobtap, KIND};
use crate::abi::{ABI, Free, RawArgs, RawPlugin};
use crate::args::Args;
use crate::host::table::{args, asked, known, object, outcome, text};
use crate::host::{Extension, Failure};
use crate::host::{Kept, keep, lock};

/// The table, for [`Setup`](crate::host::Setup).
pub const EXTENSION: Extension = Extension {
    kind: KIND,
    table: (&raw const TABLE).cast(),
};

static TABLE: Jobtap = Jobtap {
    size: size_of::<Jobtap>(),
    abi: ABI,
    dependency_add,
    dependency_remove,
    job_lookup,
    job_result,
    event_posted,
    event_post,
    raise,
    set_flag,
    jobspec_update,
    subscribe,
    unsubscribe,
    prolog_start,
    prolog_finish,
    epilog_start,
    epilog_finish,
    reprioritize_all,
    reprioritize,
    priority_unavail,
    call,
    job_aux_set,
    job_aux_get,
    job_aux_delete,
    service_register,
    timer,
    set_load_order,
};

/// The job an id stands for, as the manager is told.
fn whose(id: u64) -> Value {
    match id {
        CURRENT => Value::Null,
        id => id.into(),
    }
}

/// Ask the manager and tell C how it went.
///
/// # Safety
/// `p` is a plugin's handle.
unsafe fn ask(p: *mut RawPlugin, method: &str, params: Result<Value, Failure>) -> c_int {
    // SAFETY: of the caller.
    unsafe {
        outcome(
            p,
            known(p).and_then(|p| asked(p, method, params?)).map(|_| 0),
        )
    }
}

/// Functions of C whose arguments become the parameters of a question.
macro_rules! questions {
    ($($name:ident($($arg:ident: $type:ty => $value:expr),*);)*) => {$(
        unsafe extern "C" fn $name(p: *mut RawPlugin $(, $arg: $type)*) -> c_int {
            // SAFETY: handles and texts are what the header says.
            unsafe {
                let params = || Ok(json!({ $((stringify!($arg)): $value),* }));
                ask(p, stringify!($name), params())
            }
        }
    )*};
}

questions! {
    dependency_add(id: u64 => whose(id), description: *const c_char => text(description)?);
    dependency_remove(id: u64 => whose(id), description: *const c_char => text(description)?);
    raise(id: u64 => whose(id), kind: *const c_char => text(kind)?, severity: c_int => severity,
        note: *const c_char => text(note)?);
    set_flag(id: u64 => whose(id), flag: *const c_char => text(flag)?);
    jobspec_update(id: u64 => whose(id), updates: *const c_char => object(updates)?);
    subscribe(id: u64 => whose(id));
    unsubscribe(id: u64 => whose(id));
    prolog_start(description: *const c_char => text(description)?);
    prolog_finish(id: u64 => whose(id), description: *const c_char => text(description)?, status: c_int => status);
    epilog_start(description: *const c_char => text(description)?);
    epilog_finish(id: u64 => whose(id), description: *const c_char => text(description)?, status: c_int => status);
    reprioritize_all();
    reprioritize(id: u64 => whose(id), priority: i64 => priority);
    service_register(method: *const c_char => text(method)?, rolemask: u32 => rolemask);
    timer(seconds: f64 => seconds, topic: *const c_char => text(topic)?);
    set_load_order(mode: *const c_char => text(mode)?);
}

unsafe extern "C" fn event_post(
    p: *mut RawPlugin,
    job: u64,
    name: *const c_char,
    context: *const c_char,
) -> c_int {
    // SAFETY: as above; the context may be missing.
    unsafe {
        let params = || {
            let context = match context.is_null() {
                true => Value::Null,
                false => Value::Object(object(context)?),
            };
            Ok(json!({ "id": whose(job), "name": text(name)?, "context": context }))
        };
        ask(p, "event_post", params())
    }
}

unsafe extern "C" fn event_posted(p: *mut RawPlugin, job: u64, name: *const c_char) -> c_int {
    // SAFETY: as above.
    unsafe {
        let posted = || {
            let params = json!({ "id": whose(job), "name": text(name)? });
            Ok((asked(known(p)?, "event_posted", params)? == true).into())
        };
        outcome(p, posted())
    }
}

unsafe extern "C" fn job_lookup(p: *mut RawPlugin, job: u64) -> *mut RawArgs {
    // SAFETY: as above.
    unsafe {
        let found = known(p).and_then(|p| asked(p, "job_lookup", json!({ "id": whose(job) })));
        match found {
            Ok(Value::Object(job)) => Box::into_raw(Box::new(Args::new(job))).cast(),
            Ok(_) => std::ptr::null_mut(),
            Err(failure) => {
                outcome(p, Err(failure));
                std::ptr::null_mut()
            }
        }
    }
}

unsafe extern "C" fn job_result(p: *mut RawPlugin, job: u64, result: *mut c_int) -> c_int {
    // SAFETY: as above; `result` is null or writable.
    unsafe {
        let find = || {
            let found = asked(known(p)?, "job_result", json!({ "id": whose(job) }))?;
            if let (Some(result), Some(found)) = (result.as_mut(), found.as_i64()) {
                *result = found as c_int;
            }
            Ok(0)
        };
        outcome(p, find())
    }
}

unsafe extern "C" fn priority_unavail(_: *mut RawPlugin, raw: *mut RawArgs) -> c_int {
    // SAFETY: as above.
    let Some(args) = (unsafe { args(raw) }) else {
        return -1;
    };
    args.output.insert("priority".to_owned(), json!(-1));
    0
}

unsafe extern "C" fn call(
    p: *mut RawPlugin,
    job: u64,
    topic: *const c_char,
    raw: *mut RawArgs,
) -> c_int {
    // SAFETY: as above. The arguments are copied, since the manager may call this plugin with them.
    unsafe {
        let call = || {
            let args = args(raw).ok_or_else(|| Failure::invalid("arguments are missing"))?;
            let params = json!({ "id": whose(job), "topic": text(topic)?, "in": args.input, "out": args.output });
            let said = asked(known(p)?, "call", params)?;
            if let Some(Value::Object(out)) = said.get("out") {
                args.output = out.clone();
            }
            let code = said.get("return").and_then(Value::as_i64).unwrap_or(0);
            Ok(code as c_int)
        };
        outcome(p, call())
    }
}

/// The id of a job there is.
///
/// # Safety
/// `p` is a plugin's handle.
unsafe fn there(p: *mut RawPlugin, job: u64) -> Result<u64, Failure> {
    // SAFETY: of the caller.
    let found = asked(unsafe { known(p)? }, "job_id", json!({ "id": whose(job) }))?;
    found.as_u64().ok_or_else(|| Failure::invalid("no job"))
}

unsafe extern "C" fn job_aux_set(
    p: *mut RawPlugin,
    job: u64,
    key: *const c_char,
    value: *mut c_void,
    free: Option<Free>,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        let set = || {
            let (plugin, key, job) = (known(p)?, text(key)?, there(p, job)?);
            let old = keep(
                lock(&plugin.aux_of).entry(job).or_default(),
                key,
                value,
                free,
            );
            drop(old);
            Ok(0)
        };
        outcome(p, set())
    }
}

unsafe extern "C" fn job_aux_get(p: *mut RawPlugin, job: u64, key: *const c_char) -> *mut c_void {
    // SAFETY: as above.
    unsafe {
        let mut found = std::ptr::null_mut();
        let mut find = || {
            let (plugin, key, job) = (known(p)?, text(key)?, there(p, job)?);
            let aux = lock(&plugin.aux_of);
            let kept = aux.get(&job).and_then(|of| of.get(key));
            found = kept
                .map(Kept::value)
                .ok_or_else(|| Failure::new(libc::ENOENT, format!("nothing is kept as {key}")))?;
            Ok(0)
        };
        outcome(p, find());
        found
    }
}

unsafe extern "C" fn job_aux_delete(p: *mut RawPlugin, job: u64, value: *const c_void) -> c_int {
    // SAFETY: as above.
    unsafe {
        let delete = || {
            let (plugin, job) = (known(p)?, there(p, job)?);
            let old: Vec<_> = {
                let mut aux = lock(&plugin.aux_of);
                let of = aux.entry(job).or_default();
                let is_it = |_: &String, kept: &mut Kept| kept.value().cast_const() == value;
                of.extract_if(is_it).collect()
            };
            drop(old);
            Ok(0)
        };
        outcome(p, delete())
    }
}
