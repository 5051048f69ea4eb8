//! A priority plugin in Rust: jobs of important projects go first.
//!
//! ```text
//! flux jobtap load libimportance.so physics=50000 teaching=20000
//! flux submit --setattr=project=physics …
//! ```
//!
//! A job's priority is the number its project has in the configuration; without one it is what its urgency says. Held jobs
//! stay held.

use plugin_sdk::{Call, Error, Plugin, declare_plugin};

declare_plugin!(init);

fn init(plugin: &Plugin) -> Result<(), Error> {
    if let Some((project, _)) = plugin.conf().iter().find(|(_, v)| !v.is_u64()) {
        return Err(format!("{project}: the importance of a project is a number").into());
    }
    for topic in ["job.state.priority", "job.priority.get"] {
        plugin.on(topic, prioritize)?;
    }
    plugin.on("plugin.query", |plugin, call| {
        call.output
            .insert("projects".to_owned(), plugin.conf().into());
        Ok(())
    })
}

fn prioritize(plugin: &Plugin, call: &mut Call) -> Result<(), Error> {
    let is_held = call
        .input
        .get("urgency")
        .is_some_and(|urgency| *urgency == 0);
    let project = call.jobspec("attributes.system.project");
    let project = project
        .and_then(|project| project.as_str())
        .unwrap_or_default();
    let importance = plugin.conf().get(project).and_then(|value| value.as_i64());
    if let (Some(importance), false) = (importance, is_held) {
        call.set_priority(importance);
    }
    Ok(())
}
