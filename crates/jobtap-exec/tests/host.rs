//! A plugin as built for upstream, run by the program, from the host's side. What stands in for upstream's library is
//! `library.c`.

mod c;

use std::path::{Path, PathBuf};
use std::process::Command;

use c::{linked_object, shared_object};
use plugin_sdk::Args;
use plugin_sdk::host::{Failure, Kind, LoadError, Program, Services, Start, kind_of};
use serde_json::{Map, Value, json};

/// Notes what it is asked, and answers as a job manager with one job, 7.
#[derive(Default)]
struct Host {
    asked: Vec<String>,
}

impl Services for Host {
    fn ask(&mut self, _: u64, method: &str, params: Value) -> Result<Value, Failure> {
        self.asked.push(format!("{method} {params}"));
        match method {
            "dependency_add" if self.asked.iter().filter(|a| a.contains("turn")).count() > 1 => {
                Err(Failure::new(libc::EEXIST, "it is there"))
            }
            "event_posted" => Ok(true.into()),
            "job_id" => Ok(7.into()),
            "call" => Ok(json!({ "return": 1, "out": { "said": "yes" } })),
            _ => Ok(Value::Null),
        }
    }

    fn log(&mut self, _: u64, _: i32, _: &str) {}
}

fn plugin(dir: &Path) -> PathBuf {
    linked_object(dir, "plugin.c", "plugin.so", &[])
}

fn start(path: &Path, conf: Value, host: &mut Host) -> Result<Program, LoadError> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flux-jobtap-exec"));
    command.arg(path);
    let conf: Map<String, Value> = serde_json::from_value(conf).expect("an object");
    let start = Start {
        path,
        command,
        serial: 1,
        conf,
    };
    Program::start(start, host)
}

fn args(input: Value) -> Args {
    Args::new(serde_json::from_value(input).expect("an object"))
}

#[test]
fn a_plugin_finds_what_it_was_built_for() {
    let (dir, mut host) = (tempfile::tempdir().unwrap(), Host::default());
    let path = plugin(dir.path());
    assert_eq!(kind_of(&path), Ok(Kind::Upstream));
    let program = start(&path, json!({}), &mut host).unwrap();
    assert_eq!(program.name(), "standing");
    assert!(program.handles("job.state.run") && !program.handles("job.validate"));

    host.asked.clear();
    assert_eq!(
        program.call("job.new", &mut args(json!({"id": 7})), &mut host),
        Some(0)
    );
    assert_eq!(
        host.asked,
        [r#"dependency_add {"id":-1,"description":"turn"}"#]
    );
    let mut again = args(json!({"id": 7}));
    assert_eq!(program.call("job.new", &mut again, &mut host), Some(-1));
    assert_eq!(again.error(), Some("turn for the 2nd time"));

    host.asked.clear();
    let mut run = args(json!({"id": 7}));
    assert_eq!(
        program.call("job.state.run", &mut run, &mut host),
        Some(0),
        "{:?}",
        host.asked
    );
    assert_eq!(run.output["said"], "yes");
    assert_eq!(run.output["priority"], -1);
    let want = [
        r#"event_post {"id":7,"name":"noted","context":{"n":1}}"#,
        r#"event_post {"id":7,"name":"plain"}"#,
        r#"raise {"id":7,"kind":"note","severity":3,"note":"1 of 2"}"#,
    ];
    assert_eq!(host.asked[..3], want);

    assert!(program.call("job.destroy", &mut args(json!({"id": 7})), &mut host) == Some(0));
    assert_eq!(
        program.call("is.released", &mut args(json!({})), &mut host),
        Some(0)
    );
}

#[test]
fn requests_are_answered_by_their_tickets() {
    let (dir, mut host) = (tempfile::tempdir().unwrap(), Host::default());
    let program = start(&plugin(dir.path()), json!({}), &mut host).unwrap();
    for (ticket, payload, answer) in [
        (
            1,
            json!({"a": 1}),
            r#"respond {"ticket":1,"payload":{"b":2}}"#,
        ),
        (
            2,
            json!({"a": 2}),
            r#"respond {"ticket":2,"errnum":71,"errmsg":"not that"}"#,
        ),
    ] {
        let given = json!({"ticket": ticket, "payload": payload, "userid": 1, "rolemask": 1});
        let mut request = args(given);
        assert_eq!(
            program.call("service.say", &mut request, &mut host),
            Some(0)
        );
        assert_eq!(request.output["later"], true);
        assert_eq!(host.asked.last().map(String::as_str), Some(answer));
    }
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let (dir, mut host) = (tempfile::tempdir().unwrap(), Host::default());
    let path = plugin(dir.path());
    let refused = start(&path, json!({"fail": 1}), &mut host).unwrap_err();
    assert_eq!(refused, LoadError::Refused("init said no".to_owned()));
    let alone = shared_object(dir.path(), "library.c", "alone.so", &["-Dflux_open=closed"]);
    let missing = start(&alone, json!({}), &mut host).unwrap_err();
    let want = "libflux-core has no flux_open()";
    assert_eq!(missing, LoadError::Refused(want.to_owned()));
}
