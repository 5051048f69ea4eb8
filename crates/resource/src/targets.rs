//! Execution targets as users name them: by rank or by host.

use formats::{Hostlist, Idset, ResourceSet};

/// Why targets cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("invalid targets: {0} is neither an idset nor a hostlist")]
    Syntax(String),
    #[error("invalid targets: host {0} is not in this instance")]
    UnknownHost(String),
    #[error("idset is empty")]
    Empty,
    #[error("idset is out of range: the last rank is {last}")]
    Range { last: u32 },
}

/// The ranks `text` names: an idset, or hosts of `set`.
pub fn parse(text: &str, set: &ResourceSet) -> Result<Idset, TargetError> {
    if let Ok(ids) = text.parse::<Idset>() {
        return Ok(ids);
    }
    let hosts: Hostlist = text
        .parse()
        .map_err(|_| TargetError::Syntax(format!("{text:?}")))?;
    let mut ids = Idset::new();
    for host in hosts.iter() {
        let before = ids.len();
        ids.extend(
            set.targets()
                .iter()
                .filter(|t| t.host == *host)
                .map(|t| t.rank),
        );
        if ids.len() == before {
            return Err(TargetError::UnknownHost(host));
        }
    }
    Ok(ids)
}

/// As [`parse`], for requests that act on brokers: some target, all within the instance.
pub fn parse_in(text: &str, set: &ResourceSet, size: u32) -> Result<Idset, TargetError> {
    let ids = parse(text, set)?;
    match ids.last() {
        None => Err(TargetError::Empty),
        Some(last) if last >= size => Err(TargetError::Range { last: size - 1 }),
        Some(_) => Ok(ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_hosts() {
        let mut set = ResourceSet::new();
        for (rank, host) in [(0, "a1"), (1, "a2"), (2, "b")] {
            set.add(rank, host, &Idset::from(0), &Idset::new());
        }
        assert_eq!(parse_in("1-2", &set, 3).unwrap().to_string(), "1-2");
        assert_eq!(parse_in("b,a[1-2]", &set, 3).unwrap().to_string(), "0-2");
        assert_eq!(parse_in("3", &set, 3), Err(TargetError::Range { last: 2 }));
        assert_eq!(parse_in("", &set, 3), Err(TargetError::Empty));
        assert_eq!(
            parse_in("zz", &set, 3),
            Err(TargetError::UnknownHost("zz".into()))
        );
    }
}
