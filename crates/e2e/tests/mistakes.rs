//! Mistakes get an exit code and one line that says what was wrong.

use e2e::{Outcome, Site};

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

/// What became of a command that ran in an instance.
struct Inner {
    code: i32,
    stderr: String,
    outcome: Outcome,
}

/// Run a command line in an instance of one.
fn in_instance(site: &Site, command: &str) -> Inner {
    // The instance itself ends well, so that it has nothing to say on standard error.
    let outcome = site
        .script(
            1,
            &format!("r=0; {{ {command}; }} || r=$?; echo \"code $r\""),
        )
        .success();
    let code = outcome
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("code ")?.parse().ok());
    Inner {
        code: code.unwrap_or_else(|| panic!("no exit code\n{outcome}")),
        stderr: outcome.stderr.clone(),
        outcome,
    }
}

impl Inner {
    fn expect_mistake(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "exit code\n{}", self.outcome);
        self.outcome.expect_error_line(words);
    }
}

#[test]
fn what_is_asked_for_is_not_there() {
    let site = Site::new();
    in_instance(&site, "flux getattr no-such-attr").expect_mistake(1, &["no-such-attr"]);
    in_instance(&site, "flux kvs get no.such.key").expect_mistake(1, &["no.such.key"]);
    in_instance(&site, "flux job attach f999").expect_mistake(1, &["999"]);
}

#[test]
fn a_request_that_can_never_be_met() {
    let site = Site::new();
    in_instance(&site, "flux run -N4 true").expect_mistake(1, &["unsatisfiable"]);
}

#[test]
fn a_malformed_jobspec() {
    let site = Site::new();
    in_instance(&site, "echo '{' | flux job submit").expect_mistake(1, &["flux"]);
    let no_resources = "echo '{\"version\":1}' | flux job submit";
    in_instance(&site, no_resources).expect_mistake(1, &["resources"]);
}

#[test]
fn a_job_without_command() {
    let site = Site::new();
    in_instance(&site, "flux run").expect_mistake(1, &["command"]);
}

#[test]
fn a_script_without_interpreter() {
    let site = Site::new();
    let path = site.write("plain.txt", "echo hello\n");
    let command = format!("flux batch -n1 {}", path.display());
    in_instance(&site, &command).expect_mistake(1, &["plain.txt", "#!"]);
}

#[test]
fn malformed_sizes() {
    let site = Site::new();
    for option in ["-N0", "-Nx", "-n0", "--cores-per-task=0", "-t 5y"] {
        let inner = in_instance(&site, &format!("flux run {option} true"));
        assert_ne!(inner.code, 0, "{option}\n{}", inner.outcome);
        assert_eq!(
            inner.stderr.lines().count(),
            1,
            "{option}\n{}",
            inner.outcome
        );
    }
}

#[test]
fn nothing_to_clean_up() {
    let script = "
        flux admin cleanup-push '' && exit 9
        flux admin cleanup-push </dev/null && exit 9
        true
    ";
    Site::new()
        .script(1, script)
        .expect_code(0)
        .expect_error(&["cannot push an empty command line"])
        .expect_error(&["commands array is empty"]);
}
