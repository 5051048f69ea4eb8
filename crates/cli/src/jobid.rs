//! Job ids as users write and read them.

use formats::JobId;
use formats::jobid::JobIdError;

use crate::error::Failure;

/// Whether `ƒ` can be shown: the locale says UTF-8, or nothing.
fn utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    if variable("FLUX_F58_FORCE_ASCII").is_some() {
        return false;
    }
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    match names
        .into_iter()
        .find_map(|n| variable(n).filter(|v| !v.is_empty()))
    {
        None => true,
        Some(locale) => {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        }
    }
}

/// A job id for output: base 58, with the prefix the locale can show.
pub(crate) fn shown(id: JobId) -> String {
    match utf8(|name| std::env::var(name).ok()) {
        true => id.f58(),
        false => id.f58_ascii(),
    }
}

/// A job id in any of its forms.
pub(crate) fn parse(text: &str) -> Result<JobId, Failure> {
    text.parse()
        .map_err(|e: JobIdError| Failure::new(e.to_string()))
}

/// A job id from the command line, with the text that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobIdArg {
    pub(crate) id: JobId,
    text: String,
}

impl std::str::FromStr for JobIdArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = text.parse().map_err(|e: JobIdError| e.why)?;
        Ok(Self {
            id,
            text: text.to_owned(),
        })
    }
}

impl std::fmt::Display for JobIdArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locales() {
        let with = |set: &[(&str, &str)]| {
            utf8(|name| {
                let found = set.iter().find(|(n, _)| *n == name)?;
                Some(found.1.to_owned())
            })
        };
        assert!(with(&[]));
        assert!(with(&[("LANG", "en_US.UTF-8")]));
        assert!(with(&[("LC_ALL", ""), ("LANG", "C.utf8")]));
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
        assert!(!with(&[
            ("FLUX_F58_FORCE_ASCII", "1"),
            ("LANG", "en_US.UTF-8")
        ]));
    }
}
