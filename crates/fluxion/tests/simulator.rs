//! `fluxion-sim` as a program: traces in, tables out.

use std::path::Path;
use std::process::{Command, Output};

const TRACE: &str = "; Version: 2.2
1 0 -1 60 3 -1 -1 3 100 -1 1 -1 -1 -1 -1 -1 -1 -1
2 10 -1 50 4 -1 -1 4 50 -1 1 -1 -1 -1 -1 -1 -1 -1
3 20 -1 90 1 -1 -1 1 90 -1 1 -1 -1 -1 -1 -1 -1 -1
4 30 -1 20 1 -1 -1 1 70 -1 1 -1 -1 -1 -1 -1 -1 -1
";

fn run(folder: &Path, options: &[&str]) -> Output {
    std::fs::write(folder.join("trace.swf"), TRACE).expect("the folder is ours");
    Command::new(env!("CARGO_BIN_EXE_fluxion-sim"))
        .current_dir(folder)
        .args(options)
        .output()
        .expect("the program was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("we write UTF-8")
}

const SMALL: [&str; 4] = ["--nodes", "2", "--cores", "2"];

#[test]
fn policies_stand_side_by_side() {
    let folder = tempfile::tempdir().expect("there is room");
    let options = [
        "trace.swf",
        "--policy",
        "fcfs",
        "--policy",
        "easy,queue-depth=8",
    ];
    let files = ["--csv", "jobs.csv", "--svg", "plot.svg"];
    let done = run(folder.path(), &[&SMALL[..], &options, &files].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    // What they took is not the same each time.
    let table = text(&done.stdout);
    let steady: Vec<&str> = table.lines().take(18).collect();
    insta::assert_snapshot!(steady.join("\n"));
    let csv = std::fs::read_to_string(folder.path().join("jobs.csv")).expect("it was written");
    insta::assert_snapshot!(csv);
    let svg = std::fs::read_to_string(folder.path().join("plot.svg")).expect("it was written");
    assert_eq!(svg.matches("easy,queue-depth=8").count(), 1);
    assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
}

#[test]
fn a_made_trace_is_read_back_as_it_was() {
    let folder = tempfile::tempdir().expect("there is room");
    let summary = |options: &[&str]| {
        let done = run(folder.path(), &[&SMALL[..], options, &["--json"]].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
        let value: serde_json::Value = serde_json::from_slice(&done.stdout).expect("it is JSON");
        value["summary"].clone()
    };
    let made = summary(&[
        "--generate",
        "mixed",
        "--jobs",
        "50",
        "--write-swf",
        "made.swf",
    ]);
    assert_eq!(made["ran"], 50);
    assert_eq!(summary(&["made.swf"]), made);
}

#[test]
fn errors_name_the_place() {
    let folder = tempfile::tempdir().expect("there is room");
    std::fs::write(folder.path().join("bad.swf"), "; x\n1 2\n").expect("the folder is ours");
    std::fs::write(folder.path().join("bad.jsonl"), "{}\n").expect("the folder is ours");
    for (options, expected) in [
        (
            &["bad.swf"][..],
            "bad.swf: line 2: a job has 18 fields, found 2",
        ),
        (
            &["bad.jsonl"],
            "bad.jsonl: line 1: missing field `submit` at line 1 column 2",
        ),
        (
            &["none.swf"],
            "none.swf: No such file or directory (os error 2)",
        ),
        (
            &["trace.swf", "--policy", "best"],
            "--policy best: queue-policy: must be fcfs, easy, conservative or hybrid, found \"best\"",
        ),
        (
            &["trace.swf", "--policy", "easy,depth=3"],
            "--policy easy,depth=3: unknown parameter 'depth', must be queue-depth, max-queue-depth, \
             reservation-depth or max-reservation-depth",
        ),
        (
            &["trace.swf", "--nodes", "0"],
            "--nodes: a machine has at least one",
        ),
        (
            &["trace.swf", "--graph", "bad.swf", "--graph-format", "jgf"],
            "bad.swf: JSON: expected value at line 1 column 1",
        ),
        (
            &["trace.swf", "--match-policy", "nice"],
            "match policy 'nice': unknown",
        ),
    ] {
        let done = run(folder.path(), options);
        assert_eq!(
            text(&done.stderr),
            format!("fluxion-sim: {expected}\n"),
            "{options:?}"
        );
        assert_eq!(done.status.code(), Some(1));
    }
}
