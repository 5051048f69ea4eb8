//! Reaching a broker on another host: `ssh HOST flux relay PATH`, as upstream's ssh connector runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::uri::Remote;

/// The environment that says how to run ssh and what to run with it.
#[derive(Debug, Clone, Default)]
struct Environment {
    /// `FLUX_SSH`: the remote shell program.
    ssh: Option<OsString>,
    /// `FLUX_SSH_RCMD`: the flux command on the other host.
    rcmd: Option<OsString>,
    /// `LD_LIBRARY_PATH`, which ssh does not pass on.
    libraries: Option<OsString>,
    /// Directory of the flux command on this host.
    bin: Option<PathBuf>,
}

impl Environment {
    fn current() -> Self {
        let bin = std::env::var_os("PATH").and_then(|path| {
            std::env::split_paths(&path).find(|dir| is_program(&dir.join("flux")))
        });
        Self {
            ssh: std::env::var_os("FLUX_SSH"),
            rcmd: std::env::var_os("FLUX_SSH_RCMD"),
            libraries: std::env::var_os("LD_LIBRARY_PATH"),
            bin,
        }
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The command that relays its standard input and output to the broker at `remote`: program and arguments.
///
/// Unless `FLUX_SSH_RCMD` names it, the flux command is looked for beside the socket, where it is on this host, and
/// in the system's directories.
pub fn relay_command(remote: &Remote) -> Vec<OsString> {
    argv(remote, Environment::current())
}

fn argv(remote: &Remote, env: Environment) -> Vec<OsString> {
    let mut out = vec![env.ssh.unwrap_or_else(|| "ssh".into())];
    if let Some(port) = remote.port {
        out.extend(["-p".into(), port.to_string().into()]);
    }
    out.push(remote.host.clone().into());
    if env.libraries.is_some() || env.rcmd.is_none() {
        out.push("env".into());
    }
    if env.rcmd.is_none() {
        let mut path = OsString::from("PATH=");
        if let Some(dir) = remote.path.parent() {
            path.push(dir.join("bin"));
            path.push(":");
        }
        if let Some(bin) = env.bin {
            path.push(bin);
            path.push(":");
        }
        path.push("/bin:/usr/bin");
        out.push(path);
    }
    if let Some(libraries) = env.libraries {
        let mut var = OsString::from("LD_LIBRARY_PATH=");
        var.push(libraries);
        out.push(var);
    }
    out.push(env.rcmd.unwrap_or_else(|| "flux".into()));
    out.extend(["relay".into(), remote.path.clone().into()]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(uri: &str, env: Environment) -> String {
        let crate::uri::Uri::Ssh(remote) = uri.parse().unwrap() else {
            unreachable!("an ssh URI")
        };
        let argv = argv(&remote, env);
        argv.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn commands() {
        let plain = Environment::default();
        let here = Environment {
            bin: Some("/opt/flux/bin".into()),
            ..Environment::default()
        };
        let all = Environment {
            ssh: Some("/usr/bin/rsh".into()),
            rcmd: Some("/x/flux".into()),
            libraries: Some("/lib64".into()),
            ..here.clone()
        };
        let named = Environment {
            rcmd: Some("/x/flux".into()),
            ..Environment::default()
        };
        for (uri, env, want) in [
            (
                "ssh://h/run/f/local",
                plain,
                "ssh h env PATH=/run/f/bin:/bin:/usr/bin flux relay /run/f/local",
            ),
            (
                "ssh://u@h:22/l",
                here,
                "ssh -p 22 u@h env PATH=/bin:/opt/flux/bin:/bin:/usr/bin flux relay /l",
            ),
            (
                "ssh://h/l",
                all,
                "/usr/bin/rsh h env LD_LIBRARY_PATH=/lib64 /x/flux relay /l",
            ),
            ("ssh://h/l", named, "ssh h /x/flux relay /l"),
        ] {
            assert_eq!(words(uri, env), want);
        }
    }
}
