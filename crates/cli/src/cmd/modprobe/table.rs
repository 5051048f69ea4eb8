//! Modules and tasks, as TOML files describe them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use formats::idset::Idset;
use serde::Deserialize;
use serde_json::{Value, json};

/// Brokers a task is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ranks {
    All,
    Below(u32),
    Above(u32),
    Set(Idset),
}

impl Ranks {
    fn has(&self, rank: u32) -> bool {
        match self {
            Self::All => true,
            Self::Below(n) => rank < *n,
            Self::Above(n) => rank > *n,
            Self::Set(set) => set.contains(rank),
        }
    }
}

impl FromStr for Ranks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("ranks: expected \"all\", ids, \"<N\" or \">N\", found {text:?}");
        let number = |n: &str| n.parse().map_err(|_| bad());
        match text.split_at_checked(1) {
            _ if text == "all" => Ok(Self::All),
            Some(("<", n)) => number(n).map(Self::Below),
            Some((">", n)) => number(n).map(Self::Above),
            _ => text.parse().map(Self::Set).map_err(|_| bad()),
        }
    }
}

impl fmt::Display for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Below(n) => write!(f, "<{n}"),
            Self::Above(n) => write!(f, ">{n}"),
            Self::Set(set) => set.fmt(f),
        }
    }
}

/// What a task does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Load a module.
    Load { exec: bool },
    /// Unload it.
    Remove,
    /// Run a command line.
    Run(String),
    /// Add command lines to those run when the initial program has ended.
    Cleanup(Vec<String>),
}

/// What is wrong with an entry, in one line.
fn entry_error(e: toml::de::Error) -> String {
    match e.message().split_once("unknown field") {
        Some((_, rest)) => format!("invalid config key{rest}"),
        None => e.message().to_owned(),
    }
}

/// One entry of a file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Entry {
    name: String,
    module: Option<String>,
    args: Option<Vec<String>>,
    exec: Option<bool>,
    ranks: Option<String>,
    provides: Option<Vec<String>>,
    requires: Option<Vec<String>>,
    after: Option<Vec<String>>,
    before: Option<Vec<String>>,
    needs: Option<Vec<String>>,
    needs_config: Option<Vec<String>>,
    needs_attrs: Option<Vec<String>>,
    needs_env: Option<Vec<String>>,
    priority: Option<i64>,
    disabled: Option<bool>,
    run: Option<String>,
    cleanup: Option<Vec<String>>,
}

/// A module or another task.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) module: String,
    pub(super) args: Vec<String>,
    ranks: Ranks,
    pub(super) provides: Vec<String>,
    pub(super) requires: Vec<String>,
    pub(super) after: Vec<String>,
    pub(super) before: Vec<String>,
    pub(super) needs: Vec<String>,
    needs_config: Vec<String>,
    needs_attrs: Vec<String>,
    needs_env: Vec<String>,
    priority: i64,
    pub(super) disabled: bool,
    pub(super) action: Action,
}

/// What decides whether a task is for this broker.
pub(super) struct Facts<'a> {
    pub(super) rank: u32,
    pub(super) config: &'a Value,
    pub(super) attrs: &'a BTreeMap<String, String>,
    pub(super) env: &'a dyn Fn(&str) -> bool,
}

/// The value at a dotted path.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |v, name| v.get(name))
}

impl Task {
    fn new(entry: Entry) -> Result<Self, String> {
        let name = entry.name.clone();
        if name.is_empty() {
            return Err("an entry is missing required config key name".to_owned());
        }
        let mut task = Self {
            module: name.clone(),
            name,
            args: Vec::new(),
            ranks: Ranks::All,
            provides: Vec::new(),
            requires: Vec::new(),
            after: Vec::new(),
            before: Vec::new(),
            needs: Vec::new(),
            needs_config: Vec::new(),
            needs_attrs: Vec::new(),
            needs_env: Vec::new(),
            priority: 100,
            disabled: false,
            action: Action::Load { exec: false },
        };
        task.update(entry)?;
        Ok(task)
    }

    fn update(&mut self, entry: Entry) -> Result<(), String> {
        let name = &self.name;
        if let Some(ranks) = &entry.ranks {
            self.ranks = ranks.parse().map_err(|e| format!("{name}: {e}"))?;
        }
        let set = |to: &mut Vec<String>, from: Option<Vec<String>>| {
            if let Some(from) = from {
                *to = from;
            }
        };
        set(&mut self.args, entry.args);
        set(&mut self.provides, entry.provides);
        set(&mut self.requires, entry.requires);
        set(&mut self.after, entry.after);
        set(&mut self.before, entry.before);
        set(&mut self.needs, entry.needs);
        set(&mut self.needs_config, entry.needs_config);
        set(&mut self.needs_attrs, entry.needs_attrs);
        set(&mut self.needs_env, entry.needs_env);
        self.module = entry.module.unwrap_or(std::mem::take(&mut self.module));
        self.priority = entry.priority.unwrap_or(self.priority);
        self.disabled = entry.disabled.unwrap_or(self.disabled);
        match (entry.run, entry.cleanup, entry.exec) {
            (Some(line), None, None) => self.action = Action::Run(line),
            (None, Some(lines), None) => self.action = Action::Cleanup(lines),
            (None, None, Some(exec)) => self.action = Action::Load { exec },
            (None, None, None) => {}
            _ => return Err(format!("{name}: give one of run, cleanup and exec")),
        }
        Ok(())
    }

    /// Whether it loads a module.
    pub(super) fn is_module(&self) -> bool {
        matches!(self.action, Action::Load { .. } | Action::Remove)
    }

    /// Whether it is for this broker.
    pub(super) fn enabled(&self, facts: &Facts<'_>) -> bool {
        let all = |names: &[String], set: &dyn Fn(&str) -> bool| {
            names.iter().all(|name| match name.strip_prefix('!') {
                Some(name) => !set(name),
                None => set(name),
            })
        };
        !self.disabled
            && self.ranks.has(facts.rank)
            && all(&self.needs_config, &|path| at(facts.config, path).is_some())
            && all(&self.needs_attrs, &|name| facts.attrs.contains_key(name))
            && all(&self.needs_env, facts.env)
    }

    /// As `flux modprobe show` prints it.
    pub(super) fn to_json(&self) -> Value {
        let mut out = json!({
            "name": self.name,
            "ranks": self.ranks.to_string(),
            "provides": self.provides,
            "requires": self.requires,
            "needs": self.needs,
            "before": self.before,
            "after": self.after,
            "needs_attrs": self.needs_attrs,
            "needs_config": self.needs_config,
            "needs_env": self.needs_env,
            "disabled": self.disabled,
            "priority": self.priority,
        });
        match &self.action {
            Action::Run(line) => out["run"] = line.as_str().into(),
            Action::Cleanup(lines) => out["cleanup"] = json!(lines),
            action => {
                out["module"] = self.module.as_str().into();
                out["args"] = json!(self.args);
                out["exec"] = (*action == Action::Load { exec: true }).into();
            }
        }
        out
    }
}

/// All tasks that are known, in the order they were made.
#[derive(Default)]
pub(super) struct Table(Vec<Task>);

/// Part of a script: what to load and remove, and tasks of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Script {
    pub(super) load: Vec<String>,
    pub(super) remove: Vec<String>,
    /// Further arguments of modules.
    pub(super) options: BTreeMap<String, Vec<String>>,
    pub(super) alternatives: BTreeMap<String, String>,
    tasks: Vec<Entry>,
}

impl Table {
    /// Add a file of modules.
    pub(super) fn read(&mut self, text: &str) -> Result<(), String> {
        let mut file: toml::Table = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        if let Some(modules) = file.remove("modules") {
            for entry in Vec::<Entry>::deserialize(modules).map_err(entry_error)? {
                self.add(Task::new(entry)?);
            }
        }
        let alternatives = file.remove("alternatives");
        for (name, changes) in file {
            let entry =
                Entry::deserialize(changes).map_err(|e| format!("{name}: {}", entry_error(e)))?;
            self.find_mut(&name)?.update(entry)?;
        }
        if let Some(table) = alternatives {
            let chosen =
                BTreeMap::<String, String>::deserialize(table).map_err(|e| e.to_string())?;
            for (service, name) in chosen {
                self.choose(&service, &name)?;
            }
        }
        Ok(())
    }

    /// Add a script's tasks; returns their names and the script.
    pub(super) fn read_script(&mut self, text: &str) -> Result<(Vec<String>, Script), String> {
        let mut script: Script = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        let mut names = Vec::new();
        for entry in std::mem::take(&mut script.tasks) {
            let task = Task::new(entry)?;
            if task.is_module() {
                return Err(format!("{}: a task needs run or cleanup", task.name));
            }
            names.push(task.name.clone());
            self.add(task);
        }
        for (service, name) in &script.alternatives {
            self.choose(service, name)?;
        }
        for (name, args) in &script.options {
            self.find_mut(name)?.args.extend(args.iter().cloned());
        }
        Ok((names, script))
    }

    pub(super) fn add(&mut self, task: Task) {
        self.0.retain(|t| t.name != task.name);
        self.0.push(task);
    }

    fn find_mut(&mut self, name: &str) -> Result<&mut Task, String> {
        let unknown = || format!("no such module or task {name}");
        // A service stands for who provides it.
        let named = self.find(name).or(self.providers(name).last().copied());
        let own = named.ok_or_else(unknown)?.name.clone();
        let found = self.0.iter_mut().find(|t| t.name == own);
        found.ok_or_else(unknown)
    }

    /// The task of this very name.
    pub(super) fn find(&self, name: &str) -> Option<&Task> {
        self.0.iter().find(|t| t.name == name)
    }

    /// Who provides `service`, from the least to the most preferred.
    pub(super) fn providers(&self, service: &str) -> Vec<&Task> {
        let provides = |t: &&Task| t.name == service || t.provides.iter().any(|s| s == service);
        let mut found: Vec<&Task> = self.0.iter().filter(provides).collect();
        found.sort_by_key(|t| t.priority);
        found
    }

    /// Prefer `name` among those that provide `service`.
    pub(super) fn choose(&mut self, service: &str, name: &str) -> Result<(), String> {
        let providers = self.providers(service);
        if providers.is_empty() {
            return Err(format!("no such service {service}"));
        }
        if !providers.iter().any(|t| t.name == name) {
            return Err(format!("no module {name} provides {service}"));
        }
        let highest = providers.iter().map(|t| t.priority).max().unwrap_or(0);
        if providers.len() > 1 {
            self.find_mut(name)?.priority = highest + 1;
        }
        Ok(())
    }

    /// Make all that provide `service` disabled.
    pub(super) fn disable(&mut self, service: &str) -> Result<(), String> {
        let names: Vec<String> = self
            .providers(service)
            .iter()
            .map(|t| t.name.clone())
            .collect();
        if names.is_empty() {
            return Err(format!("no such module or task '{service}'"));
        }
        for name in names {
            self.find_mut(&name)?.disabled = true;
        }
        Ok(())
    }

    /// Unload these instead of loading them.
    pub(super) fn set_remove(&mut self, names: &[String]) -> Result<(), String> {
        names.iter().try_for_each(|name| {
            self.find_mut(name)?.action = Action::Remove;
            Ok(())
        })
    }
}
