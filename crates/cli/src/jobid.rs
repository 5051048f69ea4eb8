//! Job ids as users write and read them.

use formats::JobId;

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
        .map_err(|e: formats::jobid::JobIdError| Failure::new(e.to_string()))
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
