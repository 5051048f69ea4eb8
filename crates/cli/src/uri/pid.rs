//! `pid:PID`: the instance a process belongs to; for a broker, the one it runs.

use crate::error::Failure;

/// FLUX_URI in the environment of a process, or of a broker's child.
pub(super) fn of_process(pid: &str) -> Result<String, Failure> {
    let pid: u32 = pid
        .parse()
        .map_err(|_| Failure::new(format!("'{pid}' is not a process id")))?;
    let fail = |e: std::io::Error| Failure::new(format!("pid {pid}: {e}"));
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).map_err(fail)?;
    let mut from = vec![pid];
    if comm.trim() == "flux-broker" {
        from = children(pid).map_err(fail)?;
        if from.is_empty() {
            let text = format!("pid {pid} is a flux-broker without a child process");
            return Err(Failure::new(text));
        }
    }
    let read = |pid: u32| -> Option<String> {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = environ
            .split(|b| *b == 0)
            .find_map(|v| v.strip_prefix(b"FLUX_URI="))?;
        String::from_utf8(value.to_vec()).ok()
    };
    from.into_iter()
        .find_map(read)
        .ok_or_else(|| Failure::new(format!("pid {pid} has no FLUX_URI")))
}

/// Children of all threads of a process.
fn children(pid: u32) -> std::io::Result<Vec<u32>> {
    let mut out = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        out.extend(
            text.split_whitespace()
                .filter_map(|p| p.parse::<u32>().ok()),
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn reads_the_environment_of_a_process() {
        // What it prints shows that it has its own environment by now.
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo ready; read end"])
            .env("FLUX_URI", "local:///tmp/x=y")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut ready)
            .unwrap();
        let found = of_process(&child.id().to_string());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.unwrap(), "local:///tmp/x=y");
        assert!(of_process("0").is_err() && of_process("x").is_err());
    }
}
