//! Which tasks are to be done, and in what order: a pure function of the table and what is known of the broker.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{Facts, Table, Task};

/// Tasks with those that have to be done before each.
pub(super) type Order = BTreeMap<String, BTreeSet<String>>;

/// The table as one broker sees it.
pub(super) struct Solver<'a> {
    pub(super) table: &'a Table,
    pub(super) facts: &'a Facts<'a>,
}

impl<'a> Solver<'a> {
    /// Who is meant by a name: the most preferred provider that can be used here, or else the most preferred one.
    pub(super) fn resolve(&self, service: &str) -> Result<&'a Task, String> {
        let providers = self.table.providers(service);
        let usable = |t: &&&Task| t.enabled(self.facts) && self.satisfied(t, &mut BTreeSet::new());
        let found = providers.iter().rev().find(usable).or(providers.last());
        found
            .copied()
            .ok_or_else(|| format!("no such task or module {service}"))
    }

    /// Whether everything a task needs can be had here.
    fn satisfied(&self, task: &Task, asked: &mut BTreeSet<String>) -> bool {
        asked.insert(task.name.clone())
            && task.needs.iter().all(|need| {
                self.table.providers(need).iter().any(|t| {
                    t.enabled(self.facts)
                        && !asked.contains(&t.name)
                        && self.satisfied(t, &mut asked.clone())
                })
            })
    }

    /// The asked tasks and what they require, without those not for this broker. With `force` also those.
    pub(super) fn wanted(&self, asked: &[String], force: bool) -> Result<BTreeSet<String>, String> {
        let (mut seen, mut wanted) = (BTreeSet::new(), BTreeSet::new());
        let mut left = asked.to_vec();
        while let Some(name) = left.pop() {
            let task = self.resolve(&name)?;
            if !seen.insert(task.name.clone()) {
                continue;
            }
            if force || task.enabled(self.facts) {
                wanted.insert(task.name.clone());
            }
            left.extend(task.requires.iter().cloned());
        }
        loop {
            let without = |name: &&String| {
                let Some(task) = self.table.find(name) else {
                    return true;
                };
                !task.needs.iter().all(|need| {
                    let had = |t: &&Task| wanted.contains(&t.name);
                    self.table.providers(need).iter().any(had)
                })
            };
            let Some(name) = wanted.iter().find(without).cloned() else {
                return Ok(wanted);
            };
            wanted.remove(&name);
        }
    }

    /// What comes before what among these tasks. Those that are `leaving` go in the opposite order among themselves:
    /// who came last goes first.
    pub(super) fn order(
        &self,
        tasks: &BTreeSet<String>,
        leaving: &BTreeSet<String>,
    ) -> Result<Order, String> {
        let mut order: Order = tasks.iter().map(|t| (t.clone(), BTreeSet::new())).collect();
        let mut before = |first: &str, then: &str| {
            let (first, then) = match leaving.contains(first) && leaving.contains(then) {
                true => (then, first),
                false => (first, then),
            };
            if first != then && tasks.contains(first) {
                order.entry(then.to_owned()).and_modify(|set| {
                    set.insert(first.to_owned());
                });
            }
        };
        let all = |t: &str, list: &dyn Fn(&Task) -> &Vec<String>| {
            self.table
                .find(t)
                .is_some_and(|t| list(t).iter().any(|x| x == "*"))
        };
        for name in tasks {
            let Some(task) = self.table.find(name) else {
                continue;
            };
            for other in &task.after {
                if other == "*" {
                    let rest = tasks.iter().filter(|t| !all(t, &|t| &t.after));
                    rest.for_each(|t| before(t, name));
                } else if let Some(found) = self.among(tasks, other) {
                    before(&found, name);
                }
            }
            for other in &task.before {
                if other == "*" {
                    let rest = tasks.iter().filter(|t| !all(t, &|t| &t.before));
                    rest.for_each(|t| before(name, t));
                } else if let Some(found) = self.among(tasks, other) {
                    before(name, &found);
                }
            }
        }
        match cycle(&order) {
            Some(names) => Err(format!("tasks wait for each other: {}", names.join(", "))),
            None => Ok(order),
        }
    }

    /// Who of these tasks is meant by a name.
    fn among(&self, tasks: &BTreeSet<String>, service: &str) -> Option<String> {
        let providers = self.table.providers(service);
        let found = providers.iter().rev().find(|t| tasks.contains(&t.name))?;
        Some(found.name.clone())
    }

    /// Of the loaded modules, these and what only they required.
    pub(super) fn removable(
        &self,
        loaded: &[String],
        asked: &[String],
    ) -> Result<BTreeSet<String>, String> {
        let known: BTreeSet<String> = loaded
            .iter()
            .filter(|name| self.table.find(name).is_some())
            .cloned()
            .collect();
        if asked.iter().any(|name| name == "all") {
            return Ok(known);
        }
        let requires = |name: &String| -> Vec<String> {
            let task = self.table.find(name).into_iter();
            let services = task.flat_map(|t| t.requires.iter());
            services.filter_map(|s| self.among(&known, s)).collect()
        };
        let users = |name: &String, gone: &BTreeSet<String>| -> Vec<String> {
            let uses = |t: &&String| !gone.contains(*t) && requires(t).contains(name);
            known.iter().filter(uses).cloned().collect()
        };
        let mut gone = BTreeSet::new();
        for name in asked {
            let found = self
                .among(&known, name)
                .or_else(|| loaded.contains(name).then(|| name.clone()));
            gone.insert(found.ok_or_else(|| format!("module {name} is not loaded"))?);
        }
        for name in &gone {
            let left = users(name, &gone);
            if !left.is_empty() {
                return Err(format!("{name} still in use by {}", left.join(", ")));
            }
        }
        let mut left: Vec<String> = gone.iter().cloned().collect();
        while let Some(name) = left.pop() {
            for required in requires(&name) {
                if !gone.contains(&required) && users(&required, &gone).is_empty() {
                    gone.insert(required.clone());
                    left.push(required);
                }
            }
        }
        Ok(gone)
    }
}

/// Tasks none of which can ever start.
fn cycle(order: &Order) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    loop {
        let ready: Vec<&String> = order
            .iter()
            .filter(|(t, first)| !done.contains(*t) && first.iter().all(|f| done.contains(f)))
            .map(|(t, _)| t)
            .collect();
        if ready.is_empty() {
            let left = order.keys().filter(|t| !done.contains(*t));
            let left: Vec<String> = left.cloned().collect();
            return (!left.is_empty()).then_some(left);
        }
        done.extend(ready);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MODULES, RC1};
    use super::*;
    use serde_json::json;

    fn with<T>(rank: u32, extra: &str, f: impl FnOnce(&Solver<'_>) -> T) -> T {
        let mut table = Table::default();
        table.read(MODULES).unwrap();
        table.read(extra).unwrap();
        let attrs = BTreeMap::from([("a.b".to_owned(), "1".to_owned())]);
        let config = json!({"x": {"y": 1}});
        let facts = Facts {
            rank,
            config: &config,
            attrs: &attrs,
            env: &|name| name == "SET",
        };
        f(&Solver {
            table: &table,
            facts: &facts,
        })
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn set(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn the_default_start() {
        let mut table = Table::default();
        table.read(MODULES).unwrap();
        let (tasks, script) = table.read_script(RC1).unwrap();
        let names = [
            "restore",
            "cron-load",
            "startlog",
            "startlog-finish",
            "cleanup",
        ];
        assert_eq!(tasks, names);
        assert!(script.load.contains(&"sched".to_owned()));
        let (attrs, config) = (BTreeMap::new(), json!({}));
        let facts = Facts {
            rank: 1,
            config: &config,
            attrs: &attrs,
            env: &|_| false,
        };
        let solver = Solver {
            table: &table,
            facts: &facts,
        };
        let wanted = solver.wanted(&script.load, false).unwrap();
        assert_eq!(
            wanted,
            set(&[
                "content",
                "heartbeat",
                "kvs",
                "kvs-watch",
                "resource",
                "job-info",
                "job-ingest"
            ])
        );
    }

    #[test]
    fn requirements_and_order() {
        with(0, "", |s| {
            let wanted = s.wanted(&names(&["sched"]), false).unwrap();
            assert!(wanted.contains("sched-simple") && wanted.contains("content"));
            let order = s.order(&wanted, &set(&[])).unwrap();
            assert_eq!(order["sched-simple"], set(&["job-manager", "resource"]));
            assert_eq!(order["kvs"], set(&["content"]));
            let leaving = s.order(&wanted, &wanted).unwrap();
            assert_eq!(leaving["content"], set(&["kvs"]));
            assert!(s.wanted(&names(&["nope"]), false).is_err());
        });
    }

    #[test]
    fn conditions() {
        let extra = r#"
            modules = [
              {name = "a", needs-config = ["x.y"]}, {name = "b", needs-config = ["x.z"]},
              {name = "c", needs-attrs = ["a.b"]}, {name = "d", needs-attrs = ["!a.b"]},
              {name = "e", needs-env = ["SET"]}, {name = "f", ranks = ">0"}, {name = "g", ranks = "<1"},
              {name = "h", needs = ["b"]}, {name = "i", needs = ["h"]},
            ]"#;
        with(0, extra, |s| {
            let all = names(&["a", "b", "c", "d", "e", "f", "g", "h", "i"]);
            assert_eq!(s.wanted(&all, false).unwrap(), set(&["a", "c", "e", "g"]));
        });
    }

    #[test]
    fn alternatives() {
        let extra = r#"
            modules = [{name = "other", provides = ["sched"], priority = 10}]
            alternatives.sched = "other""#;
        with(0, extra, |s| {
            assert_eq!(s.resolve("sched").unwrap().name, "other")
        });
        with(0, "sched-simple.disabled = true", |s| {
            assert!(
                s.wanted(&names(&["sched"]), false)
                    .unwrap()
                    .is_disjoint(&set(&["sched-simple"]))
            );
            assert!(
                s.wanted(&names(&["sched-simple"]), true)
                    .unwrap()
                    .contains("sched-simple")
            );
        });
    }

    #[test]
    fn everything_else_first() {
        let extra =
            r#"modules = [{name = "last", after = ["*"]}, {name = "first", before = ["*"]}]"#;
        with(0, extra, |s| {
            let order = s.order(&set(&["last", "first", "kvs"]), &set(&[])).unwrap();
            assert_eq!(order["last"], set(&["first", "kvs"]));
            assert_eq!(order["kvs"], set(&["first"]));
        });
        let extra = r#"modules = [{name = "a", after = ["b"]}, {name = "b", after = ["a"]}]"#;
        with(0, extra, |s| {
            let e = s.order(&set(&["a", "b", "kvs"]), &set(&[])).unwrap_err();
            assert_eq!(e, "tasks wait for each other: a, b");
        });
    }

    #[test]
    fn tasks_between_modules_that_leave() {
        let extra =
            r#"tasks = [{name = "t", run = "true", after = ["kvs"], before = ["content"]}]"#;
        let mut table = Table::default();
        table.read(MODULES).unwrap();
        table.read_script(extra).unwrap();
        let (attrs, config) = (BTreeMap::new(), json!({}));
        let facts = Facts {
            rank: 0,
            config: &config,
            attrs: &attrs,
            env: &|_| false,
        };
        let solver = Solver {
            table: &table,
            facts: &facts,
        };
        let tasks = set(&["t", "kvs", "content"]);
        let order = solver.order(&tasks, &set(&["kvs", "content"])).unwrap();
        assert_eq!(order["t"], set(&["kvs"]));
        assert_eq!(order["content"], set(&["kvs", "t"]));
    }

    #[test]
    fn removal_takes_what_nobody_else_needs() {
        let loaded = names(&[
            "content",
            "heartbeat",
            "kvs",
            "kvs-watch",
            "cron",
            "foreign",
        ]);
        with(0, "", |s| {
            let removable = |asked: &[&str]| s.removable(&loaded, &names(asked));
            assert_eq!(
                removable(&["kvs-watch"]).unwrap(),
                set(&["kvs-watch", "kvs", "content"])
            );
            assert_eq!(
                removable(&["kvs"]).unwrap_err(),
                "kvs still in use by kvs-watch"
            );
            assert_eq!(
                removable(&["resource"]).unwrap_err(),
                "module resource is not loaded"
            );
            assert_eq!(removable(&["foreign"]).unwrap(), set(&["foreign"]));
            assert!(!removable(&["all"]).unwrap().contains("foreign"));
        });
    }
}
