//! `resource-query` as a program: commands in, answers out.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const R: &str = r#"{"version": 1, "execution": {"R_lite": [{"rank": "0-2", "children": {"core": "0-3"}}],
  "nodelist": ["n[0-2]"], "starttime": 0, "expiration": 0}}"#;

const TWO_NODES: &str = "
version: 9999
resources:
  - type: node
    count: 2
    with:
      - {type: slot, count: 1, label: default, with: [{type: core, count: 2}]}
attributes:
  system:
    duration: 60
tasks:
  - {command: [app], slot: default, count: {per_slot: 1}}
";

fn ask(folder: &Path, options: &[&str], commands: &str) -> Output {
    std::fs::write(folder.join("r.json"), R).expect("the folder is ours");
    std::fs::write(folder.join("two.yaml"), TWO_NODES).expect("the folder is ours");
    let mut child = Command::new(env!("CARGO_BIN_EXE_resource-query"))
        .current_dir(folder)
        .args(["-L", "r.json", "-f", "rv1exec", "-P", "lonodex", "-d"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built");
    let mut input = child.stdin.take().expect("it is piped");
    // A program that ends early closes its input.
    let _ = input.write_all(commands.as_bytes());
    drop(input);
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What stands between the rules, without them.
fn answers(output: &Output) -> Vec<String> {
    let all = text(&output.stdout);
    let parts = all.split("INFO: =============================\n");
    parts
        .map(|p| p.trim_end().to_owned())
        .filter(|p| !p.is_empty())
        .collect()
}

#[test]
fn jobs_get_what_is_free_then_what_will_be() {
    let folder = tempfile::tempdir().expect("there is room");
    let later = "match allocate_orelse_reserve two.yaml\n";
    let commands = format!(
        "match allocate two.yaml\nmatch allocate two.yaml\n{later}cancel 1\nmatch allocate two.yaml\nquit\n"
    );
    let output = ask(folder.path(), &["-F", "rlite"], &commands);
    let rlite = "[{\"rank\": \"0-1\", \"children\": {\"core\": \"0-3\"}}]";
    assert_eq!(
        answers(&output),
        [
            rlite,
            "INFO: JOBID=1\nINFO: RESOURCES=ALLOCATED\nINFO: SCHEDULED AT=Now",
            "INFO: No matching resources found\nINFO: JOBID=2",
            rlite,
            "INFO: JOBID=3\nINFO: RESOURCES=RESERVED\nINFO: SCHEDULED AT=60",
            rlite,
            "INFO: JOBID=4\nINFO: RESOURCES=ALLOCATED\nINFO: SCHEDULED AT=Now",
        ]
    );
}

#[test]
fn what_is_down_is_left_out_and_found() {
    let folder = tempfile::tempdir().expect("there is room");
    let commands = "set-status /cluster0/n0 down\nmatch allocate two.yaml\nfind status=down\nget-status /cluster0/n0\n";
    let output = ask(folder.path(), &["-F", "rv1_nosched"], commands);
    let found = answers(&output);
    assert!(found[0].contains("\"nodelist\": [\"n[1-2]\"]"), "{found:?}");
    assert!(found[2].contains("\"nodelist\": [\"n0\"]"), "{found:?}");
    assert_eq!(
        found.last().map(String::as_str),
        Some("/cluster0/n0 is down")
    );
}

#[test]
fn a_part_is_given_back() {
    let folder = tempfile::tempdir().expect("there is room");
    let part = R.replace("0-2", "0").replace("n[0]", "n0");
    std::fs::write(folder.path().join("part.json"), part).expect("the folder is ours");
    let commands = "match allocate two.yaml\npartial-cancel 1 rv1exec part.json\nfind sched-now=allocated\nquit\n";
    let output = ask(folder.path(), &["-F", "rlite"], commands);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        answers(&output)[2],
        "[{\"rank\": \"1\", \"children\": {\"core\": \"0-3\"}}]"
    );
}

#[test]
fn faults_are_told_and_change_nothing() {
    let folder = tempfile::tempdir().expect("there is room");
    let commands = "match allocate none.yaml\nmatch someday two.yaml\ncancel 9\nfind color=red\nmatch allocate two.yaml\nquit\n";
    let output = ask(folder.path(), &[], commands);
    assert_eq!(
        text(&output.stderr),
        "ERROR: can't open none.yaml\nERROR: unknown subcmd someday\ncancel: ERROR: nonexistent job 9\n\
         ERROR: invalid criteria, at 'color=red': unknown key\n"
    );
    assert!(text(&output.stdout).contains("JOBID=1\nINFO: RESOURCES=ALLOCATED"));
    let output = ask(folder.path(), &["-P", "best"], "quit\n");
    assert_eq!(output.status.code(), Some(2), "an option is given twice");
    let output = ask(folder.path(), &["-F", "nothing"], "quit\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "resource-query: unknown format for --match-format: nothing\n"
    );
}

#[test]
fn the_graph_is_written_at_the_end() {
    let folder = tempfile::tempdir().expect("there is room");
    for format in ["dot", "graphml"] {
        ask(folder.path(), &["-g", format, "-o", "graph"], "quit\n");
        let graph = std::fs::read_to_string(folder.path().join(format!("graph.{format}")))
            .expect("it was written");
        assert!(
            graph.contains("n2") && graph.contains("containment"),
            "{graph}"
        );
    }
}
