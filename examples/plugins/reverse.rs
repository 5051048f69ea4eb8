//! A plugin of the job shell: the task map scheme `reverse`, and a variable that tells each task its place in it.
//!
//! ```text
//! cargo build -p plugin-sdk --example reverse
//! echo 'plugin.load "/path/to/libreverse.so"' >reverse.lua
//! flux run -N4 -n4 -o userrc=reverse.lua --taskmap=reverse --label-io printenv REVERSED
//! ```

use plugin_sdk::{Error, Plugin, declare_plugin};
use serde_json::{Value, json};

/// The blocks `[node, nnodes, ppn, repeat]` of an RFC 34 map, from the last node to the first.
fn reversed(map: &str) -> Option<Value> {
    let map: Value = serde_json::from_str(map).ok()?;
    let mut nodes = Vec::new();
    for block in map.get("map")?.as_array()? {
        let number = |at: usize| block.get(at).and_then(Value::as_u64);
        for _ in 0..number(3)? {
            nodes
                .extend((number(0)?..number(0)? + number(1)?).map(|node| (node, block[2].clone())));
        }
    }
    let blocks = nodes
        .into_iter()
        .rev()
        .map(|(node, ppn)| json!([node, 1, ppn, 1]));
    Some(json!({"version": 1, "map": blocks.collect::<Value>()}))
}

fn init(plugin: &Plugin) -> Result<(), Error> {
    plugin.on("taskmap.reverse", |_, call| {
        let blocks = call.input.get("taskmap").and_then(Value::as_str);
        let map = blocks
            .and_then(reversed)
            .ok_or("the map is not understood")?;
        call.output
            .insert("taskmap".to_owned(), map.to_string().into());
        Ok(())
    })?;
    plugin.on("task.init", |plugin, _| {
        let shell = plugin.shell();
        let (job, task) = (shell.info()?, shell.task_info(None)?);
        let number = |of: &Value, key: &str| of.get(key).and_then(Value::as_i64).unwrap_or(0);
        let place = number(&job, "ntasks") - 1 - number(&task, "rank");
        shell.task_setenv("REVERSED", &place.to_string(), true)
    })
}

declare_plugin!(init);
