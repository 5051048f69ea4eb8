//! Scripts at points of a broker's life: rc1 before it joins the instance, cleanup after the initial program, rc3
//! before it leaves (flux-broker(1), flux-broker-attributes(7)).
//!
//! By default nothing is run: what the default scripts would do (load the modules of the table, end jobs, unload) is
//! done in this process, which is much faster. `broker.rc1_path` and `broker.rc3_path` are command lines for the
//! user's shell instead; an empty one stands for nothing at all. What they print goes to the broker's log, line by
//! line. Restoring (`content.restore`) and dumping (`content.dump`) the key-value store is work for the default scripts
//! proper, which are run then, and so are the changes of a table `modules` in the configuration.

use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;

use crate::attrs::Attrs;
use crate::child::{Aborted, Ended};
use crate::log::entry;
use crate::program::prepare;
use crate::router::RouterHandle;

const RC1: &str = "broker.rc1_path";
const RC3: &str = "broker.rc3_path";

/// What the attribute says if nobody sets it.
const DEFAULTS: [(&str, &str); 2] = [(RC1, "flux modprobe rc1"), (RC3, "flux modprobe rc3")];

/// Variables that change what the default scripts do.
const CUSTOM: [&str; 5] = [
    "FLUX_RC_EXTRA",
    "FLUX_MODPROBE_DISABLE",
    "FLUX_MODPROBE_PATH",
    "FLUX_MODPROBE_PATH_APPEND",
    "FLUX_SCHED_MODULE",
];

/// One script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Script {
    /// What the default does, in this process.
    Builtin,
    /// Nothing.
    None,
    /// A command line.
    Command(String),
}

impl Script {
    fn from_value(value: &str, default: &str, custom: bool) -> Self {
        match value {
            "" => Self::None,
            v if v == default && !custom => Self::Builtin,
            v => Self::Command(v.to_owned()),
        }
    }
}

/// The scripts of a broker.
#[derive(Debug, Clone)]
pub(crate) struct Scripts {
    pub(crate) rc1: Script,
    pub(crate) rc3: Script,
}

impl Scripts {
    /// As attributes, environment and configuration say.
    pub(crate) fn new(attrs: &mut Attrs, config: &Value) -> Self {
        let custom = CUSTOM.iter().any(|name| std::env::var_os(name).is_some())
            || config.get("modules").is_some();
        let restores = attrs.get("content.restore").is_some();
        let [rc1, rc3] = DEFAULTS.map(|(name, default)| {
            attrs.set_default(name, default);
            let custom = custom || restores && name == RC1;
            Script::from_value(attrs.get(name).unwrap_or(default), default, custom)
        });
        // What a script has loaded is unloaded here whatever it was.
        let rc3 = match (&rc1, rc3) {
            (Script::Command(_), Script::Builtin) if !custom => Script::None,
            (_, rc3) => rc3,
        };
        Self { rc1, rc3 }
    }

    /// What is run at the end, now that it comes: a dump may have been asked for since the start.
    pub(crate) fn rc3(&self, attrs: &Attrs) -> Script {
        let line = attrs.get(RC3).filter(|line| !line.is_empty());
        let dumps = attrs.get("rank") == Some("0") && attrs.get("content.dump").is_some();
        match line.filter(|_| dumps) {
            Some(line) => Script::Command(line.to_owned()),
            None => self.rc3.clone(),
        }
    }
}

/// Environment of scripts and initial program: variables to set, or to remove.
pub(crate) type Environment = Vec<(String, Option<String>)>;

/// Run command lines one after the other; the first exit code that is not 0, or 0. None is started after an abort.
pub(crate) async fn run(
    name: &'static str,
    lines: Vec<String>,
    env: Environment,
    router: RouterHandle,
    mut aborted: Aborted,
) -> i32 {
    let mut first = 0;
    for (index, line) in lines.iter().enumerate() {
        let label = format!("{name}.{index}");
        let code = run_one(&label, line, &env, &router, &mut aborted).await;
        if first == 0 {
            first = code;
        }
        if aborted.is_over() {
            break;
        }
    }
    first
}

async fn run_one(
    label: &str,
    line: &str,
    env: &Environment,
    router: &RouterHandle,
    aborted: &mut Aborted,
) -> i32 {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let mut cmd = Command::new(shell);
    cmd.arg("-c").arg(line);
    prepare(&mut cmd, env);
    cmd.process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let status = match cmd.spawn() {
        Err(e) => Err(e),
        Ok(mut child) => {
            let (out, err) = (child.stdout.take(), child.stderr.take());
            let (status, (), ()) = tokio::join!(
                aborted.wait(&mut child, signal_group),
                log_lines(out, libc::LOG_INFO, label, router),
                log_lines(err, libc::LOG_ERR, label, router),
            );
            status
        }
    };
    let ended = Ended::of(status, aborted.is_over());
    let (level, text) = ended.entry(label, line, start.elapsed());
    router.log(entry(router.rank(), level, "broker", &text));
    ended.code
}

fn signal_group(leader: u32, signum: i32) {
    // SAFETY: plain system call; the leader has not been reaped, so the group is still its own.
    unsafe { libc::killpg(leader as i32, signum) };
}

async fn log_lines(
    pipe: Option<impl AsyncRead + Unpin>,
    level: i32,
    label: &str,
    router: &RouterHandle,
) {
    let Some(pipe) = pipe else { return };
    let mut lines = BufReader::new(pipe).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let text = format!("{label}: {}", String::from_utf8_lossy(&line));
        router.log(entry(router.rank(), level, "broker", &text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_attributes_mean() {
        let script = |value, custom| Script::from_value(value, "default", custom);
        assert_eq!(script("", false), Script::None);
        assert_eq!(script("default", false), Script::Builtin);
        assert_eq!(script("default", true), Script::Command("default".into()));
        assert_eq!(script("x y", false), Script::Command("x y".into()));
    }

    #[test]
    fn the_last_script_is_run_where_a_dump_is_wanted() {
        let scripts = Scripts {
            rc1: Script::Builtin,
            rc3: Script::Builtin,
        };
        let rc3 = |rank, path, dump: Option<&str>| {
            let mut attrs = Attrs::default();
            attrs.fix("rank", rank);
            attrs.set_default(RC3, path);
            if let Some(dump) = dump {
                attrs.set_default("content.dump", dump);
            }
            scripts.rc3(&attrs)
        };
        assert_eq!(rc3("0", "x", None), Script::Builtin);
        assert_eq!(rc3("0", "x", Some("auto")), Script::Command("x".into()));
        assert_eq!(rc3("0", "", Some("auto")), Script::Builtin);
        assert_eq!(rc3("1", "x", Some("auto")), Script::Builtin);
    }
}
