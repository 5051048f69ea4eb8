//! A plugin that panics where it is told to.

use plugin_sdk::{Call, Error, Plugin, declare_plugin};

declare_plugin!(init);

fn init(plugin: &Plugin) -> Result<(), Error> {
    if plugin.conf().contains_key("at-once") {
        panic!("at once");
    }
    plugin.on("say", |plugin, call| {
        let asked = plugin.ask("echo", call.input.clone().into())?;
        call.output.insert("echoed".to_owned(), asked);
        Ok(())
    })?;
    plugin.on("refuse", |plugin, _| {
        plugin.ask("none", serde_json::json!({})).map(drop)
    })?;
    plugin.on("panic", |_: &Plugin, _: &mut Call| panic!("later"))
}
