//! Mistakes get an exit code and one line that says what was wrong.

use e2e::Site;

#[test]
fn no_such_command() {
    let site = Site::new();
    site.flux(["no-such-command"])
        .expect_code(1)
        .expect_error_line(&["no-such-command"]);
}

#[test]
fn unknown_options() {
    let site = Site::new();
    for command in ["start", "run", "submit", "jobs", "getattr", "kvs", "exec"] {
        let out = site.flux([command, "--no-such-option"]);
        assert_ne!(out.code(), 0, "{out}");
        out.expect_error_line(&["--no-such-option"]);
    }
}

#[test]
fn an_instance_that_is_not_there() {
    let site = Site::new();
    let uri = format!("local://{}/gone", site.path().display());
    let commands: [&[&str]; 5] = [
        &["getattr", "size"],
        &["jobs"],
        &["run", "true"],
        &["kvs", "get", "a"],
        &["resource", "list"],
    ];
    for args in commands {
        let out = site.run_with("flux", args, &[("FLUX_URI", &uri)]);
        out.expect_code(1).expect_error_line(&["gone"]);
    }
}

#[test]
fn a_uri_that_makes_no_sense() {
    let site = Site::new();
    let out = site.run_with("flux", ["getattr", "size"], &[("FLUX_URI", "nonsense")]);
    out.expect_code(1).expect_error_line(&["nonsense"]);
}

/// Run a command line in an instance of one; its exit code is that of the instance.
fn in_instance(command: &str) -> e2e::Outcome {
    Site::new().flux([
        "start",
        "sh",
        "-c",
        &format!("{command} 2>err; r=$?; cat err >&2; exit $r"),
    ])
}

#[test]
fn what_is_asked_for_is_not_there() {
    in_instance("flux getattr no-such-attr")
        .expect_code(1)
        .expect_error_line(&["no-such-attr"]);
    in_instance("flux kvs get no.such.key")
        .expect_code(1)
        .expect_error_line(&["no.such.key"]);
    in_instance("flux job attach f999")
        .expect_code(1)
        .expect_error_line(&["f999"]);
}

#[test]
fn a_request_that_can_never_be_met() {
    let out = in_instance("flux run -N4 true").expect_code(1);
    out.expect_error_line(&["unsatisfiable"]);
}

#[test]
fn a_malformed_jobspec() {
    in_instance("echo '{' | flux job submit")
        .expect_code(1)
        .expect_error_line(&["flux"]);
    let out = in_instance("echo '{\"version\":1}' | flux job submit").expect_code(1);
    out.expect_error_line(&["resources"]);
}

#[test]
fn a_job_without_command() {
    let out = in_instance("flux run");
    assert_ne!(out.code(), 0, "{out}");
    out.expect_error_line(&["command"]);
}

#[test]
fn a_script_without_interpreter() {
    let site = Site::new();
    let path = site.write("plain.txt", "echo hello\n");
    let command = format!("flux batch -n1 {}", path.display());
    let out = site.flux(["start", "sh", "-c", &command]).expect_code(1);
    out.expect_error_line(&["plain.txt", "#!"]);
}

#[test]
fn malformed_sizes() {
    for option in ["-N0", "-Nx", "-n0", "--cores-per-task=0", "-t", "-t 5y"] {
        let out = in_instance(&format!("flux run {option} true"));
        assert_ne!(out.code(), 0, "{option}\n{out}");
        assert_eq!(out.stderr.lines().count(), 1, "{option}\n{out}");
    }
}
