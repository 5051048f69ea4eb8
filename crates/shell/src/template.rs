//! Mustache templates: `{{id}}`, `{{task.rank}}` and the like in paths, arguments, variables.
//!
//! A tag that has no value in its place is left as it stands, so that a later, more specific
//! rendering can still fill it.

use crate::info::JobInfo;
use serde_json::json;

/// The task a template is rendered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskTag {
    pub rank: u32,
    pub index: u32,
}

/// What tags may refer to.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub info: &'a JobInfo,
    pub tmpdir: Option<&'a str>,
    /// The node `node.*` tags stand for.
    pub shell_rank: u32,
    pub task: Option<TaskTag>,
}

impl Scope<'_> {
    /// Renders a template.
    pub fn render(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(start) = rest.find("{{") {
            let Some(len) = rest[start + 2..].find("}}") else {
                break;
            };
            let tag = &rest[start + 2..start + 2 + len];
            out.push_str(&rest[..start]);
            match self.value(tag) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[start..start + len + 4]),
            }
            rest = &rest[start + len + 4..];
        }
        out.push_str(rest);
        out
    }

    fn value(&self, tag: &str) -> Option<String> {
        let info = self.info;
        let id_tag = tag.strip_prefix("jobid").or_else(|| tag.strip_prefix("id"));
        if let Some(kind) = id_tag {
            return match kind {
                "" => Some(crate::environment::show_id(info)),
                kind => info.id.encode(kind.strip_prefix('.')?).ok(),
            };
        }
        if let Some(key) = tag.strip_prefix("node.") {
            let place = info.places.get(self.shell_rank as usize)?;
            return Some(match key.strip_prefix("resources.").unwrap_or(key) {
                "id" => self.shell_rank.to_string(),
                "name" => place.host.clone(),
                "broker_rank" => place.broker_rank.to_string(),
                "ntasks" => info.taskmap.ntasks_on(self.shell_rank).to_string(),
                "taskids" => info.taskmap.task_ids(self.shell_rank).to_string(),
                "cores" => place.cores.to_string(),
                "ncores" => place.cores.len().to_string(),
                "gpus" => place.gpus.to_string(),
                "resources" => json!({
                    "ncores": place.cores.len(),
                    "cores": place.cores.to_string(),
                    "gpus": place.gpus.to_string(),
                })
                .to_string(),
                _ => return None,
            });
        }
        match tag {
            "name" => Some(info.jobspec.job_name().to_owned()),
            "nnodes" => Some(info.size().to_string()),
            "ntasks" | "size" => Some(info.ntasks.to_string()),
            "tmpdir" => self.tmpdir.map(str::to_owned),
            "taskid" | "task.id" | "task.rank" => self.task.map(|t| t.rank.to_string()),
            "task.index" | "task.localid" => self.task.map(|t| t.index.to_string()),
            _ => None,
        }
    }
}

/// Whether a template gives different results on different nodes or for different tasks.
pub fn is_per_rank(info: &JobInfo, template: &str) -> bool {
    if info.size() == 1 {
        return false;
    }
    if template.contains("{{tmpdir}}") {
        return true;
    }
    let scope = |shell_rank, task| Scope {
        info,
        tmpdir: None,
        shell_rank,
        task,
    };
    let first = scope(0, None).render(template);
    let task = TaskTag { rank: 0, index: 0 };
    first != scope(1, None).render(template) || first != scope(0, Some(task)).render(template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::{info, resources};
    use formats::jobspec::JobspecBuilder;

    #[test]
    fn tags() {
        let job = JobspecBuilder::new(["/bin/app"]).slots(4, 1, 0, None, false);
        let info = info(job, &resources(&["0-1", "0-1"], None), 4);
        let scope = Scope {
            info: &info,
            tmpdir: Some("/tmp/x"),
            shell_rank: 1,
            task: Some(TaskTag { rank: 3, index: 1 }),
        };
        for (template, want) in [
            ("{{id.dec}}-{{jobid.f58plain}}", "1234-fNH"),
            ("{{name}}.{{ntasks}}.{{size}}.{{nnodes}}", "app.4.4.2"),
            ("{{taskid}}{{task.rank}}{{task.localid}}", "331"),
            (
                "{{node.id}}:{{node.name}}:{{node.taskids}}:{{node.cores}}",
                "1:n1:2-3:0-1",
            ),
            ("{{tmpdir}}/script", "/tmp/x/script"),
            (
                "{{node.resources}}",
                r#"{"ncores":2,"cores":"0-1","gpus":""}"#,
            ),
            (
                "{{nope}} {{id.x}} {{ a {b} }}",
                "{{nope}} {{id.x}} {{ a {b} }}",
            ),
            ("{{open", "{{open"),
        ] {
            assert_eq!(scope.render(template), want);
        }
        let without = Scope {
            task: None,
            ..scope
        };
        assert_eq!(without.render("a-{{task.id}}"), "a-{{task.id}}");
    }

    #[test]
    fn per_rank_templates() {
        let job = || JobspecBuilder::new(["a"]).slots(4, 1, 0, None, false);
        let two = info(job(), &resources(&["0-1", "0-1"], None), 3);
        for (template, want) in [
            ("o.{{id}}", false),
            ("o.{{taskid}}", true),
            ("o.{{node.id}}", true),
            ("{{tmpdir}}/o", true),
        ] {
            assert_eq!(is_per_rank(&two, template), want, "{template}");
        }
        let one = info(job(), &resources(&["0-3"], None), 3);
        assert!(!is_per_rank(&one, "o.{{taskid}}"));
    }
}
