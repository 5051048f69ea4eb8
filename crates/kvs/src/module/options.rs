//! The module's arguments.

use client::module::ModuleError;
use content::BlobRef;

/// What the module was loaded with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// `initial-rootref=REF`: start from this root instead of the last one stored.
    pub(super) initial_rootref: Option<BlobRef>,
    /// `transaction-merge=0`: every commit makes a root of its own.
    pub(super) merge: bool,
}

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Options, ModuleError> {
        let mut options = Options {
            initial_rootref: None,
            merge: true,
        };
        for arg in args {
            match arg.split_once('=') {
                Some((name @ "initial-rootref", text)) => {
                    let root = text.parse().map_err(|e| ModuleError::new(name, e))?;
                    options.initial_rootref = Some(root);
                }
                Some((name @ "transaction-merge", text)) => {
                    let number: u32 = text.parse().map_err(|e| ModuleError::new(name, e))?;
                    options.merge = number != 0;
                }
                _ => return Err(ModuleError::unknown_argument(arg)),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use content::HashAlg;

    #[test]
    fn arguments() {
        let parse = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            Options::parse(&args).map_err(|e| e.to_string())
        };
        let root = HashAlg::Sha1.hash(b"root");
        let given = parse(&[&format!("initial-rootref={root}"), "transaction-merge=0"]);
        assert_eq!(
            given,
            Ok(Options {
                initial_rootref: Some(root),
                merge: false,
            })
        );
        assert!(parse(&[]).unwrap().merge && parse(&["transaction-merge=1"]).unwrap().merge);
        let errors = [
            "bogus",
            "bogus=1",
            "transaction-merge=x",
            "initial-rootref=zz",
        ];
        insta::assert_snapshot!(errors.map(|a| parse(&[a]).unwrap_err()).join("\n"), @r#"
        unknown module argument "bogus"
        unknown module argument "bogus=1"
        transaction-merge: invalid digit found in string
        initial-rootref: blobref `zz` has no `-` between algorithm and digest
        "#);
    }
}
