//! Job ids as users type and read them.

use std::sync::LazyLock;

use formats::JobId;
use formats::jobid::JobIdError;

/// Whether the terminal's character set lacks `ƒ`, or FLUX_F58_FORCE_ASCII asks for plain text.
static ASCII: LazyLock<bool> = LazyLock::new(|| {
    if std::env::var_os("FLUX_F58_FORCE_ASCII").is_some() {
        return true;
    }
    let set = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let locale = set("LC_ALL")
        .or_else(|| set("LC_CTYPE"))
        .or_else(|| set("LANG"));
    locale.is_some_and(|l| {
        let l = l.to_ascii_lowercase();
        !l.contains("utf-8") && !l.contains("utf8")
    })
});

/// The form shown to users: base 58 with `ƒ`, or `f` where that cannot be shown.
pub(crate) fn show(id: JobId) -> String {
    if *ASCII { id.f58_ascii() } else { id.f58() }
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
