//! The job-exec module, asked by a made-up job manager.

use client::Node;
use serde_json::{Value, json};
use testbed::{Instance, OWNER};

#[tokio::test]
async fn programs_of_others_do_not_run_as_the_owner() {
    let instance = Instance::new(1);
    instance.set_attr("conf.shell_path", "/nonexistent/flux-shell");
    instance.set_attr("security.owner", &OWNER.to_string());
    instance.serve("config.get", |_| Ok(json!({})));
    let module = instance.start(0, "job-exec", &[], jobs::exec::main);
    let handle = instance.client(0);
    let start = json!({
        "id": 4711,
        "userid": OWNER + 1,
        "jobspec": {},
        "R": {
            "version": 1,
            "execution": {
                "R_lite": [{"rank": "0", "children": {"core": "0"}}],
                "nodelist": ["a"],
                "starttime": 0,
                "expiration": 0,
            },
        },
    });
    let mut answers = handle.stream("job-exec.start", Node::Rank(0), &start);
    let mut said: Vec<Value> = Vec::new();
    while said.last().is_none_or(|last| last["type"] != "release") {
        said.push(answers.next().await.unwrap().unwrap().json().unwrap());
    }
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0]["type"], "exception");
    let note = said[0]["data"]["note"].as_str().unwrap();
    assert!(note.contains("IMP"), "{note}");
    module.stop().await.unwrap();
}
