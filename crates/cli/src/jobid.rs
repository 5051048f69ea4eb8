//! Job ids as users write and read them.

use formats::JobId;
use formats::jobid::JobIdError;

use crate::error::Failure;

/// A job id for output: base 58, with the prefix the locale can show.
pub(crate) fn shown(id: JobId) -> String {
    id.f58_in(|name| std::env::var(name).ok())
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
