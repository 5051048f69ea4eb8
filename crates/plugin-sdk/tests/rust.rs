//! A plugin in Rust, by the wrapper for its author.

mod common;

use std::path::PathBuf;

use common::{Host, load_with};
use plugin_sdk::Args;
use plugin_sdk::host::LoadError;
use serde_json::json;

/// Examples are built with the tests, beside their directory.
fn object() -> PathBuf {
    let exe = std::env::current_exe().expect("a running test has a path");
    let dir = exe.parent().and_then(|deps| deps.parent());
    dir.expect("tests are in DIR/deps")
        .join("examples/libpanics.so")
}

#[test]
fn what_handlers_return_is_told_and_panics_end_at_the_boundary() {
    let mut host = Host::default();
    let plugin = load_with(&object(), json!({}), &mut host).unwrap();
    let mut args = Args::new(serde_json::from_value(json!({"a": 1})).unwrap());
    assert_eq!(plugin.call("say", &mut args, &mut host), Some(0));
    assert_eq!(args.output["echoed"]["params"], json!({"a": 1}));
    for (topic, why) in [
        ("refuse", "no method none"),
        ("panic", "the plugin panicked"),
    ] {
        let mut args = Args::default();
        assert_eq!(plugin.call(topic, &mut args, &mut host), Some(-1));
        assert_eq!(args.error(), Some(why));
    }
    let at_once = load_with(&object(), json!({"at-once": 1}), &mut host).unwrap_err();
    assert_eq!(
        at_once,
        LoadError::Refused("the plugin panicked".to_owned())
    );
}
