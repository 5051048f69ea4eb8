//! Options `cpu-affinity` and `gpu-affinity`: who gets which part of the node's share.

use crate::Fatal;
use formats::Idset;
use serde_json::Value;

/// How the tasks of a node share what the job has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    Off,
    /// All tasks use all of it.
    On,
    /// Each task has its part.
    PerTask,
    /// Explicit sets, used in turn.
    Map(Vec<Idset>),
}

/// How tasks are bound to cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuAffinity {
    pub sharing: Sharing,
    /// Say who is bound to what.
    pub verbose: bool,
    /// Bind nobody.
    pub dry_run: bool,
}

/// Reads `cpu-affinity`. What is not understood counts as the default and is remarked on.
pub(super) fn cpu(value: Option<&Value>, remarks: &mut Vec<String>) -> Result<CpuAffinity, Fatal> {
    let mut affinity = CpuAffinity {
        sharing: Sharing::On,
        verbose: false,
        dry_run: false,
    };
    let Some(mut rest) = text("cpu-affinity", value, remarks) else {
        return Ok(affinity);
    };
    loop {
        // What follows the modes may hold commas of its own.
        let (word, tail) = rest.split_once(',').unwrap_or((rest, ""));
        match word {
            "verbose" => affinity.verbose = true,
            "dry-run" => (affinity.verbose, affinity.dry_run) = (true, true),
            _ => break,
        }
        rest = tail;
    }
    if !rest.is_empty() {
        affinity.sharing = sharing("cpu-affinity", rest, remarks)?;
    }
    Ok(affinity)
}

/// Reads `gpu-affinity`.
pub(super) fn gpu(value: Option<&Value>, remarks: &mut Vec<String>) -> Result<Sharing, Fatal> {
    match text("gpu-affinity", value, remarks) {
        Some(text) => sharing("gpu-affinity", text, remarks),
        None => Ok(Sharing::On),
    }
}

fn text<'a>(option: &str, value: Option<&'a Value>, remarks: &mut Vec<String>) -> Option<&'a str> {
    let value = value?;
    if value.as_str().is_none() {
        remarks.push(invalid(option, value));
    }
    value.as_str()
}

fn invalid(option: &str, value: &impl std::fmt::Display) -> String {
    format!("{option}: invalid option: {value}; it counts as on")
}

fn sharing(option: &str, text: &str, remarks: &mut Vec<String>) -> Result<Sharing, Fatal> {
    if let Some(map) = text.strip_prefix("map:") {
        return map
            .split(';')
            .map(|set| {
                parse_set(set.trim())
                    .filter(|ids| !ids.is_empty())
                    .ok_or_else(|| Fatal::new(format!("{option}=map: {set:?} is no set of ids")))
            })
            .collect::<Result<_, _>>()
            .map(Sharing::Map);
    }
    Ok(match text {
        "on" => Sharing::On,
        "off" => Sharing::Off,
        "per-task" => Sharing::PerTask,
        other => {
            remarks.push(invalid(option, &other));
            Sharing::On
        }
    })
}

/// A set as a list (`0-3,8`) or a mask (`0xf0`, in words of 32 bits where there are commas).
fn parse_set(text: &str) -> Option<Idset> {
    if !text.starts_with("0x") {
        return text.parse().ok();
    }
    let mut set = Idset::new();
    for (i, word) in text.split(',').rev().enumerate() {
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let bits = u64::from_str_radix(digits, 16).ok()?;
        let base = u32::try_from(i).ok()?.checked_mul(32)?;
        set.extend((0..64).filter(|b| bits >> b & 1 == 1).map(|b| base + b));
    }
    Some(set)
}

/// Divides ids among `parts`, in order and as evenly as possible. When there are fewer ids than parts they are shared.
pub fn divide(ids: &Idset, parts: u32) -> Vec<Idset> {
    let n = ids.len() as u64;
    let part = |i: u64| {
        let first = i * n / u64::from(parts);
        let last = ((i + 1) * n / u64::from(parts)).max(first + 1);
        ids.iter()
            .skip(first as usize)
            .take((last - first) as usize)
            .collect()
    };
    (0..u64::from(parts)).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(text: &str) -> Idset {
        text.parse().unwrap()
    }

    #[test]
    fn cpu_affinity() {
        let read = |value: Value| {
            let mut remarks = Vec::new();
            let read = cpu(Some(&value), &mut remarks).unwrap();
            (read.sharing, read.verbose, read.dry_run, remarks.len())
        };
        assert_eq!(read(json!("off")), (Sharing::Off, false, false, 0));
        assert_eq!(read(json!("verbose")), (Sharing::On, true, false, 0));
        assert_eq!(
            read(json!("dry-run,per-task")),
            (Sharing::PerTask, true, true, 0)
        );
        let map = Sharing::Map(vec![set("0,2"), set("4-7")]);
        assert_eq!(
            read(json!("dry-run,verbose,map:0,2;0xf0")),
            (map, true, true, 0)
        );
        assert_eq!(read(json!("verbose,bogus")), (Sharing::On, true, false, 1));
        assert_eq!(read(json!(1)), (Sharing::On, false, false, 1));
        for bad in ["map:0x0;1", "map:", "map:0,x", "map:0xg"] {
            assert!(cpu(Some(&json!(bad)), &mut Vec::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn gpu_affinity() {
        let mut remarks = Vec::new();
        let read = gpu(Some(&json!("map:3;1-2")), &mut remarks).unwrap();
        assert_eq!(read, Sharing::Map(vec![set("3"), set("1-2")]));
        assert_eq!(gpu(None, &mut remarks).unwrap(), Sharing::On);
        assert!(remarks.is_empty());
        assert_eq!(
            gpu(Some(&json!("most")), &mut remarks).unwrap(),
            Sharing::On
        );
        assert_eq!(
            remarks,
            ["gpu-affinity: invalid option: most; it counts as on"]
        );
    }

    #[test]
    fn sets() {
        assert_eq!(parse_set("0x1,0x80000000"), Some(set("31-32")));
        assert_eq!(parse_set("0x100000000"), Some(set("32")));
        assert_eq!(parse_set("1-2,9"), Some(set("1-2,9")));
    }

    #[test]
    fn division() {
        let show = |ids: &str, parts| {
            divide(&set(ids), parts)
                .iter()
                .map(Idset::to_string)
                .collect::<Vec<_>>()
                .join(";")
        };
        assert_eq!(show("1-5", 2), "1-2;3-5");
        assert_eq!(show("0-1", 3), "0;0;1");
        assert_eq!(show("4,6", 1), "4,6");
    }
}
