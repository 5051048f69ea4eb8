//! Initrc files: what a site and a user make of the shell before the job's tasks are started, flux-shell-initrc(5).
//!
//! There are two forms: programs in Lua ([`lua`]) and tables in TOML ([`table`]). Which files are read:
//!
//! 1. The file that shell option `initrc` or else attribute `conf.shell_initrc` names, or else `shell/initrc.lua` or
//!    `shell/initrc.toml` in the directory of configuration. It decides about all the rest.
//! 2. Where there is none, what such a file usually does: all plugins of the search path, all files of the rc path, the
//!    file of option `mpi`, and the file that option `userrc` names.
//!
//! The rc path is `lua.d` beside the initrc file, and then the job's FLUX_SHELL_RC_PATH. Nothing of Lua is made before the
//! first file in Lua is read.

mod files;
mod lua;
mod mpi;
mod table;

use crate::{
    Fatal,
    plugins::{self, Stack},
};
use formats::Jobspec;
use serde_json::{Map, Value};
use std::{
    cell::{OnceCell, RefCell},
    path::{Path, PathBuf},
    rc::Rc,
};

/// What the broker's attributes say.
#[derive(Debug, Default)]
pub struct Site {
    /// `conf.shell_initrc`.
    pub initrc: Option<String>,
    /// `conf.shell_pluginpath`.
    pub plugin_path: Option<String>,
}

impl Site {
    /// Where plugins are looked for.
    fn search_path(&self) -> String {
        let installed = || client::installation::shell_plugins();
        let path = self.plugin_path.clone();
        path.unwrap_or_else(|| installed().to_string_lossy().into_owned())
    }
}

/// The directory of the site's files.
fn home() -> PathBuf {
    client::installation::confdir().join("shell")
}

/// The site's initrc file, where none is named.
fn file_of_site() -> Option<PathBuf> {
    let files = ["initrc.lua", "initrc.toml"].map(|name| home().join(name));
    files.into_iter().find(|path| path.exists())
}

/// Reading of initrc files.
pub struct Reader {
    stack: Rc<Stack>,
    /// The directory of the initrc file.
    dir: PathBuf,
    /// Where plugins are looked for.
    search_path: RefCell<String>,
    lua: OnceCell<lua::Interpreter>,
}

/// Reads the job's initrc files onto the stack. The reader that is returned holds what their callbacks need.
pub fn read(stack: &Rc<Stack>, site: Site) -> Result<Rc<Reader>, Fatal> {
    let info = stack.job().info();
    let option = |name: &str| match info.jobspec.shell_option(name) {
        None => Ok(None),
        Some(Value::String(path)) => Ok(Some(PathBuf::from(path))),
        Some(other) => Err(crate::options::bad(name, other, "the name of a file")),
    };
    let search_path = RefCell::new(site.search_path());
    let named = option("initrc")?.or(site.initrc.map(PathBuf::from));
    let file = named.or_else(file_of_site);
    let user = option("userrc")?;
    let reader = Rc::new(Reader {
        stack: stack.clone(),
        dir: match file.as_deref().and_then(Path::parent) {
            Some(dir) => dir.to_owned(),
            None => home(),
        },
        search_path,
        lua: OnceCell::new(),
    });
    let read = match file {
        Some(file) => reader.run(&file),
        None => reader.usual(user.as_deref()),
    };
    if let Some(last_words) = stack.job().last_words() {
        return Err(last_words);
    }
    read.map_err(Fatal::new)?;
    Ok(reader)
}

/// Whether no initrc file or plugin is read for this job: nothing is named, and nothing is where it would be found.
pub fn is_plain(jobspec: &Jobspec, site: &Site) -> bool {
    let named = ["initrc", "userrc", "mpi"];
    let none = |dir: &Path, suffix: &str| {
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        files
            .map(|file| file.file_name())
            .all(|name| !name.to_string_lossy().ends_with(suffix))
    };
    site.initrc.is_none()
        && !named
            .iter()
            .any(|name| jobspec.shell_option(name).is_some())
        && !jobspec
            .environment()
            .any(|(name, _)| name == "FLUX_SHELL_RC_PATH")
        && file_of_site().is_none()
        && none(&home().join("lua.d"), "")
        && site
            .search_path()
            .split(':')
            .all(|dir| none(Path::new(dir), ".so"))
}

impl Reader {
    /// What is done where no initrc file says what to do.
    fn usual(self: &Rc<Self>, user: Option<&Path>) -> Result<(), String> {
        self.load_plugins("*.so", &Value::Null)?;
        self.source_rc("*")?;
        self.source_option("mpi")?;
        user.map_or(Ok(()), |path| self.run(path))
    }

    /// Reads one file.
    fn run(self: &Rc<Self>, path: &Path) -> Result<(), String> {
        let text = std::fs::read(path).map_err(|e| {
            let e = crate::log::os_error(&e);
            format!("initrc: {}: {e}", path.display())
        })?;
        match path.extension().is_some_and(|e| e == "toml") {
            true => table::apply(self, path, &text),
            false => self.interpreter()?.run(path, &text),
        }
    }

    fn interpreter(self: &Rc<Self>) -> Result<&lua::Interpreter, String> {
        if self.lua.get().is_none() {
            let made = lua::Interpreter::new(self).map_err(|e| format!("initrc: Lua: {e}"))?;
            let _ = self.lua.set(made);
        }
        Ok(self.lua.get().expect("set above"))
    }

    /// From now on SIGTERM ends callbacks that do not return by themselves.
    pub fn heed_signals(&self) -> std::io::Result<()> {
        self.lua
            .get()
            .map_or(Ok(()), lua::Interpreter::heed_signals)
    }

    /// Reads all files that match; one that is named without a pattern must be there.
    fn source(self: &Rc<Self>, pattern: &str) -> Result<(), String> {
        let paths = files::matching(pattern).map_err(|e| format!("source {pattern}: {e}"))?;
        if paths.is_empty() && !files::is_pattern(pattern) {
            let e = wire::strerror(libc::ENOENT);
            return Err(format!("source {pattern}: {e}"));
        }
        paths.iter().try_for_each(|path| self.run(path))
    }

    fn source_if_exists(self: &Rc<Self>, path: &str) -> Result<(), String> {
        match Path::new(path).exists() {
            true => self.run(Path::new(path)),
            false => Ok(()),
        }
    }

    /// Directories of the rc path, in their order.
    fn rc_path(&self) -> Vec<PathBuf> {
        let more = self.stack.job().env().get("FLUX_SHELL_RC_PATH").cloned();
        let more = more.unwrap_or_default();
        let more = more.split(':').filter(|dir| !dir.is_empty());
        std::iter::once(self.dir.join("lua.d"))
            .chain(more.map(PathBuf::from))
            .collect()
    }

    /// Reads the files of the rc path that match, and what is built in under such a name.
    fn source_rc(self: &Rc<Self>, pattern: &str) -> Result<(), String> {
        if wire::Glob::new(pattern).matches("openmpi.lua") {
            mpi::open_mpi(&self.stack);
        }
        for dir in self.rc_path() {
            let pattern = dir.join(pattern);
            let paths = files::matching(&pattern.to_string_lossy());
            let paths = paths.map_err(|e| format!("{}: {e}", pattern.display()))?;
            for path in paths.iter().filter(|path| files::is_initrc(path)) {
                self.run(path)?;
            }
        }
        Ok(())
    }

    /// An option of the form `NAME[@VERSION]`.
    fn versioned_option(&self, option: &str) -> Option<(String, Option<String>)> {
        let info = self.stack.job().info();
        let value = info.jobspec.shell_option(option)?.as_str()?;
        Some(match value.split_once('@') {
            Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
            None => (value.to_owned(), None),
        })
    }

    /// Reads `OPTION/NAME.lua` and `OPTION/NAME@VERSION.lua` (or `.toml`) of the rc path for the option's value.
    fn source_option(self: &Rc<Self>, option: &str) -> Result<(), String> {
        let Some((name, version)) = self.versioned_option(option).filter(|(n, _)| n != "none")
        else {
            return Ok(());
        };
        if (option, name.as_str()) == ("mpi", "spectrum") {
            mpi::spectrum(&self.stack);
        }
        let versioned = version.map(|version| format!("{name}@{version}"));
        for dir in self.rc_path() {
            for name in std::iter::once(&name).chain(&versioned) {
                for suffix in ["lua", "toml"] {
                    let path = dir.join(option).join(format!("{name}.{suffix}"));
                    if path.exists() {
                        self.run(&path)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Loads plugins by the pattern of their files, relative to the search path.
    fn load_plugins(&self, pattern: &str, conf: &Value) -> Result<(), String> {
        let none = Map::new();
        let conf = match conf {
            Value::Null => &none,
            Value::Object(conf) => conf,
            other => {
                return Err(format!(
                    "plugin {pattern}: conf must be a table, not {other}"
                ));
            }
        };
        let search_path = self.search_path.borrow().clone();
        let dirs: Vec<&str> = match pattern.starts_with('/') {
            true => vec![""],
            false => search_path
                .split(':')
                .filter(|dir| !dir.is_empty())
                .collect(),
        };
        let mut found = Vec::new();
        for dir in dirs {
            let pattern = Path::new(dir).join(pattern);
            let paths = files::matching(&pattern.to_string_lossy());
            found.extend(paths.map_err(|e| format!("{}: {e}", pattern.display()))?);
        }
        if found.is_empty() && !files::is_pattern(pattern) {
            let e = wire::strerror(libc::ENOENT);
            return Err(format!("plugin {pattern}: {e} in {search_path}"));
        }
        let load = |path: &PathBuf| plugins::load(&self.stack, path, conf);
        found.iter().try_for_each(load)
    }
}

#[cfg(test)]
mod tests;
