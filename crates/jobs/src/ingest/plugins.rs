//! The plugins that a stage of the pipeline names: built in, programs, and upstream's in Python.

use std::ffi::OsString;
use std::path::Path;

use client::installation;

use super::config::Stage;
use super::worker::Program;

/// What a stage can be made of.
pub(super) struct Kind {
    /// As the configuration calls the stage.
    pub(super) name: &'static str,
    /// The `flux` command that runs plugins in Python.
    pub(super) command: &'static str,
    pub(super) built_in: &'static [&'static str],
    /// Built in, and there when nothing is said.
    pub(super) default: &'static [&'static str],
}

/// One step of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    BuiltIn(&'static str),
    External(Program),
}

impl Kind {
    /// The steps of a stage. `args` are those that no built-in plugin has taken.
    pub(super) fn parts(
        &self,
        stage: &Stage,
        args: &[String],
        buffer_size: usize,
    ) -> Result<Vec<Part>, String> {
        let Some(names) = &stage.plugins else {
            let parts = self.default.iter().map(|name| Part::BuiltIn(name));
            return self.checked(parts.collect(), args);
        };
        let mut parts = Vec::new();
        // Neighbours in Python are one process.
        let mut scripts: Vec<&str> = Vec::new();
        for name in names {
            let built_in = self.built_in.iter().find(|known| *known == name);
            let part = match built_in {
                Some(name) => Part::BuiltIn(name),
                None if is_program(name) => {
                    let argv = std::iter::once(name).chain(args).map(OsString::from);
                    Part::External(Program {
                        name: format!("{} {name}", self.name),
                        argv: argv.collect(),
                        buffer_size,
                    })
                }
                None => {
                    self.check_script(name)?;
                    scripts.push(name);
                    continue;
                }
            };
            parts.extend(self.python(&mut scripts, args, buffer_size));
            parts.push(part);
        }
        parts.extend(self.python(&mut scripts, args, buffer_size));
        self.checked(parts, args)
    }

    /// Arguments are for plugins that are there.
    fn checked(&self, parts: Vec<Part>, args: &[String]) -> Result<Vec<Part>, String> {
        let has_external = parts.iter().any(|part| matches!(part, Part::External(_)));
        match args.first() {
            Some(arg) if !has_external => Err(format!(
                "ingest.{}.args: no plugin takes {arg:?}",
                self.name
            )),
            _ => Ok(parts),
        }
    }

    fn check_script(&self, name: &str) -> Result<(), String> {
        let why = if name.is_empty() || name.contains(',') {
            "a plugin is a name or a path".to_owned()
        } else if name.contains('/') && !Path::new(name).exists() {
            "there is no such file".to_owned()
        } else if installation::find_command(self.command).is_none() {
            let known = self.built_in.join(", ");
            let command = self.command;
            format!(
                "is neither built in ({known}) nor the path of a program, and plugins in Python need flux-{command}.py \
                 in FLUX_EXEC_PATH"
            )
        } else {
            return Ok(());
        };
        Err(format!("ingest.{}.plugins: {name:?}: {why}", self.name))
    }

    /// The process for plugins in Python.
    fn python(&self, names: &mut Vec<&str>, args: &[String], buffer_size: usize) -> Option<Part> {
        if names.is_empty() {
            return None;
        }
        let list = std::mem::take(names).join(",");
        let mut argv: Vec<OsString> = vec![installation::bindir().join("flux").into()];
        argv.extend([self.command.into(), format!("--plugins={list}").into()]);
        argv.extend(args.iter().map(OsString::from));
        Some(Part::External(Program {
            name: format!("{} {list}", self.name),
            argv,
            buffer_size,
        }))
    }
}

/// Whether a name is that of a program of its own.
fn is_program(name: &str) -> bool {
    let path = Path::new(name);
    let is_script = path.extension().is_some_and(|ext| ext == "py");
    name.contains('/') && installation::is_program(path) && !is_script
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        name: "validator",
        command: "no-such-command",
        built_in: &["a", "b"],
        default: &["a"],
    };

    fn parts(names: Option<&[&str]>, args: &[&str]) -> Result<Vec<Part>, String> {
        let own = |list: &[&str]| {
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let stage = Stage {
            plugins: names.map(own),
            ..Stage::default()
        };
        KIND.parts(&stage, &own(args), 1)
    }

    #[test]
    fn built_in_plugins_and_programs() {
        assert_eq!(parts(None, &[]), Ok(vec![Part::BuiltIn("a")]));
        assert_eq!(parts(Some(&[]), &[]), Ok(vec![]));
        let program = Program {
            name: "validator /bin/sh".to_owned(),
            argv: vec!["/bin/sh".into(), "-x".into()],
            buffer_size: 1,
        };
        let want = vec![Part::BuiltIn("b"), Part::External(program)];
        assert_eq!(parts(Some(&["b", "/bin/sh"]), &["-x"]), Ok(want));
    }

    #[test]
    fn neighbours_in_python_share_a_process() {
        let mut names = vec!["x", "./y.py"];
        let part = KIND.python(&mut names, &["-z".to_owned()], 1);
        let Some(Part::External(program)) = part else {
            panic!("{part:?}");
        };
        assert_eq!(
            program.argv[1..],
            ["no-such-command", "--plugins=x,./y.py", "-z"]
        );
        assert_eq!(KIND.python(&mut names, &[], 1), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (names, args, want) in [
            (
                None,
                ["-x"].as_slice(),
                "ingest.validator.args: no plugin takes \"-x\"",
            ),
            (
                Some(["c"].as_slice()),
                &[],
                "ingest.validator.plugins: \"c\": is neither built in (a, b) nor",
            ),
            (
                Some(&["/no/such"]),
                &[],
                "ingest.validator.plugins: \"/no/such\": there is no such file",
            ),
            (
                Some(&[""]),
                &[],
                "ingest.validator.plugins: \"\": a plugin is a name or a path",
            ),
        ] {
            let why = parts(names, args).unwrap_err();
            assert!(why.starts_with(want), "{why}");
        }
    }
}
