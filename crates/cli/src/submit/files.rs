//! `--add-file`: files carried in the jobspec (RFC 37).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::args::with_line_ends;
use crate::error::Failure;

/// What the option asks for.
#[derive(Debug, PartialEq)]
struct Spec<'a> {
    name: &'a str,
    mode: Option<u32>,
    /// A path, or text if it has line ends.
    data: &'a str,
}

fn parse(text: &str) -> Result<Spec<'_>, String> {
    let Some((name, data)) = text.split_once('=').filter(|(_, data)| !data.is_empty()) else {
        if text.contains('\n') {
            return Err("file name missing".into());
        }
        let name = text.rsplit('/').next().unwrap_or(text);
        return Ok(Spec {
            name,
            mode: None,
            data: text,
        });
    };
    let perms = name.split_once(':').and_then(|(name, perms)| {
        let mode = u32::from_str_radix(perms, 8).ok()?;
        Some((name, Some(mode)))
    });
    let (name, mode) = perms.unwrap_or((name, None));
    Ok(Spec { name, mode, data })
}

/// Name and entry of the file that `option` names.
pub(super) fn entry(option: &str) -> Result<(String, Value), Failure> {
    let text = with_line_ends(option);
    let fail = |why: String| Failure::new(format!("--add-file={option}: {why}"));
    let spec = parse(&text).map_err(fail)?;
    let name = spec.name.to_owned();
    if spec.data.contains('\n') {
        let mode = libc::S_IFREG | spec.mode.unwrap_or(0o600);
        return Ok((
            name,
            json!({ "mode": mode, "data": spec.data, "encoding": "utf-8" }),
        ));
    }
    let path = Path::new(spec.data);
    let io = |e: std::io::Error| fail(format!("{}: {e}", spec.data));
    let meta = path.symlink_metadata().map_err(io)?;
    let own_mode = meta.permissions().mode();
    if meta.is_symlink() {
        let target = std::fs::read_link(path).map_err(io)?;
        let target = target.to_string_lossy();
        let entry = json!({ "mode": own_mode, "data": target, "encoding": "utf-8" });
        return Ok((name, entry));
    }
    if !meta.is_file() {
        let text = format!("{}: neither a file nor a symbolic link", spec.data);
        return Err(fail(text));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let size = bytes.len();
    let (data, encoding) = match String::from_utf8(bytes) {
        Ok(text) => (text, "utf-8"),
        Err(e) => (STANDARD.encode(e.as_bytes()), "base64"),
    };
    let mode = spec.mode.map_or(own_mode, |mode| libc::S_IFREG | mode);
    Ok((
        name,
        json!({ "mode": mode, "size": size, "data": data, "encoding": encoding }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let spec = |name, mode, data| Ok(Spec { name, mode, data });
        assert_eq!(parse("/a/b.txt"), spec("b.txt", None, "/a/b.txt"));
        assert_eq!(parse("n=/a"), spec("n", None, "/a"));
        assert_eq!(parse("n:755=/a"), spec("n", Some(0o755), "/a"));
        assert_eq!(parse("n:x=/a"), spec("n:x", None, "/a"));
        assert_eq!(parse("n=a\nb"), spec("n", None, "a\nb"));
        assert!(parse("a\nb").is_err());
    }
}
