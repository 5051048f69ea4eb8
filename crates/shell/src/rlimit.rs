//! Resource limits of the tasks (shell option `rlimit`), set on the shell and inherited.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use serde_json::Value;

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "cpu" => Resource::RLIMIT_CPU,
        "fsize" => Resource::RLIMIT_FSIZE,
        "data" => Resource::RLIMIT_DATA,
        "stack" => Resource::RLIMIT_STACK,
        "core" => Resource::RLIMIT_CORE,
        "nofile" | "ofile" => Resource::RLIMIT_NOFILE,
        "as" => Resource::RLIMIT_AS,
        "rss" => Resource::RLIMIT_RSS,
        "nproc" => Resource::RLIMIT_NPROC,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        _ => return None,
    })
}

/// Sets the soft limits; -1 is unlimited, and no limit is raised above its hard limit. Returns
/// what could not be set as asked.
pub fn apply(option: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, value) in option.as_object().into_iter().flatten() {
        let Some((which, want)) = resource(name).zip(value.as_i64()) else {
            complaints.push(format!("invalid shell option rlimit.{name}={value}"));
            continue;
        };
        let mut set = || -> nix::Result<()> {
            let (soft, hard) = getrlimit(which)?;
            let mut new = if want < 0 { RLIM_INFINITY } else { want as u64 };
            if hard != RLIM_INFINITY && new > hard {
                complaints.push(format!(
                    "{name} exceeds current max, raising value to hard limit"
                ));
                new = hard;
            }
            if new == soft {
                Ok(())
            } else {
                setrlimit(which, new, hard)
            }
        };
        if let Err(e) = set() {
            complaints.push(format!("setrlimit {name}: {}", e.desc()));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        assert!(
            apply(&json!({"core": if soft == RLIM_INFINITY { -1 } else { soft as i64 }}))
                .is_empty()
        );
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (soft, hard));
        assert_eq!(apply(&json!({"x": 1})), ["invalid shell option rlimit.x=1"]);
    }
}
