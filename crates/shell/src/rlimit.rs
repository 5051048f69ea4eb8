//! Resource limits of the tasks (shell option `rlimit`): set on the shell and inherited, or by each task on itself where the
//! shell shares its process.

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

/// Soft limits to set.
#[derive(Debug, Clone, Default)]
pub struct Limits(Vec<(Resource, u64, u64)>);

impl Limits {
    /// The limits that differ from this process's own. -1 is unlimited, and no limit is raised above its hard limit. Beside
    /// them, what cannot be set as asked.
    pub fn read(option: &Value) -> (Limits, Vec<String>) {
        let (mut limits, mut complaints) = (Limits::default(), Vec::new());
        for (name, value) in option.as_object().into_iter().flatten() {
            let Some((which, want)) = resource(name).zip(value.as_i64()) else {
                complaints.push(format!("invalid shell option rlimit.{name}={value}"));
                continue;
            };
            let (soft, hard) = match getrlimit(which) {
                Ok(both) => both,
                Err(e) => {
                    complaints.push(format!("getrlimit {name}: {}", e.desc()));
                    continue;
                }
            };
            let mut new = if want < 0 { RLIM_INFINITY } else { want as u64 };
            if hard != RLIM_INFINITY && new > hard {
                complaints.push(format!(
                    "{name} exceeds current max, raising value to hard limit"
                ));
                new = hard;
            }
            if new != soft {
                limits.0.push((which, new, hard));
            }
        }
        (limits, complaints)
    }

    /// Nothing is to be set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets them on this process. Only system calls are made. Errors: the first limit that cannot be set; the rest is set.
    pub fn set(&self) -> nix::Result<()> {
        let set = self
            .0
            .iter()
            .map(|(which, soft, hard)| setrlimit(*which, *soft, *hard));
        set.fold(Ok(()), Result::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits() {
        let (soft, _) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        let now = if soft == RLIM_INFINITY {
            -1
        } else {
            soft as i64
        };
        let (limits, complaints) = Limits::read(&json!({ "core": now, "x": 1 }));
        assert!(limits.is_empty());
        assert_eq!(complaints, ["invalid shell option rlimit.x=1"]);
        // A limit that is set to what another process has it is not this one's.
        let other = if now == 4096 { 8192 } else { 4096 };
        assert!(!Limits::read(&json!({ "core": other })).0.is_empty());
    }
}
