//! Replacement fields in options and commands: `{cc}`, `{seq}`, and for `bulksubmit` `{}`, `{0}`,
//! `{0.%}`, `{0./}`, `{0.//}`, `{0./%}`.
//!
//! Double braces belong to the templates of the job shell (`{{id}}`) and stay as they are.

/// What fields stand for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields<'a> {
    /// Inputs, by position.
    pub(crate) inputs: &'a [String],
    /// Other values, by name.
    pub(crate) named: Vec<(&'a str, String)>,
}

/// Why a field has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("replacement index {0} in '{1}' has no input")]
    Index(usize, String),
    #[error("replacement key '{0}' in '{1}' is not known")]
    Key(String, String),
    #[error("'{0}': unmatched brace")]
    Brace(String),
    #[error("'{1}': inputs have no method '.{0}'; there are .% ./ .// and ./%")]
    Method(String, String),
}

impl Fields<'_> {
    /// Fill in the fields of `text`.
    pub(crate) fn fill(&self, text: &str) -> Result<String, TemplateError> {
        let mut out = String::new();
        let mut rest = text;
        let mut next = 0;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                out.push_str(&rest[..2]);
                rest = &rest[2..];
                continue;
            }
            let brace = || TemplateError::Brace(text.to_owned());
            let body = rest.strip_prefix('{').ok_or_else(brace)?;
            let end = body.find('}').ok_or_else(brace)?;
            out.push_str(&self.field(&body[..end], text, &mut next)?);
            rest = &body[end + 1..];
        }
        Ok(out + rest)
    }

    fn field(&self, field: &str, text: &str, next: &mut usize) -> Result<String, TemplateError> {
        let (name, method) = match field.split_once('.') {
            Some((name, method)) => (name, Some(method)),
            None => (field, None),
        };
        let index = match name {
            "" => {
                *next += 1;
                Some(*next - 1)
            }
            name => name.parse().ok(),
        };
        let value = match index {
            Some(i) => {
                let missing = || TemplateError::Index(i, text.to_owned());
                self.inputs.get(i).ok_or_else(missing)?
            }
            None => {
                let missing = || TemplateError::Key(name.to_owned(), text.to_owned());
                let found = self.named.iter().find(|(key, _)| *key == name);
                &found.ok_or_else(missing)?.1
            }
        };
        match method {
            None => Ok(value.clone()),
            Some("%") => Ok(stem(value).to_owned()),
            Some("/") => Ok(base(value).to_owned()),
            Some("//") => Ok(value.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned()),
            Some("/%") => Ok(base(stem(value)).to_owned()),
            Some(other) => Err(TemplateError::Method(other.to_owned(), text.to_owned())),
        }
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The path without the extension of its last part; leading dots are no extension.
fn stem(path: &str) -> &str {
    let name = base(path);
    let visible = name.trim_start_matches('.');
    match visible.rfind('.') {
        Some(dot) => &path[..path.len() - visible.len() + dot],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let inputs = ["/a/b.c.txt".to_owned(), "x".to_owned()];
        let f = Fields {
            inputs: &inputs,
            named: vec![("cc", "3".to_owned())],
        };
        for (text, want) in [
            ("plain", "plain"),
            ("{}-{}", "/a/b.c.txt-x"),
            ("{1}{0./}", "xb.c.txt"),
            ("{0.%} {0.//} {0./%}", "/a/b.c /a b.c"),
            ("o.{cc}.{{id}}", "o.3.{{id}}"),
        ] {
            assert_eq!(f.fill(text).as_deref(), Ok(want));
        }
        assert_eq!(
            f.fill("{2}").unwrap_err().to_string(),
            "replacement index 2 in '{2}' has no input"
        );
        assert_eq!(
            f.fill("{x}").unwrap_err().to_string(),
            "replacement key 'x' in '{x}' is not known"
        );
        assert!(f.fill("{").is_err());
        assert!(f.fill("{0.up}").is_err());
        assert_eq!(stem(".bashrc"), ".bashrc");
    }
}
