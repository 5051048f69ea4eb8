//! Prologs, epilogs and housekeeping around jobs.

use e2e::{Outcome, Site};

fn configured(site: &Site, config: &str, script: &str) -> Outcome {
    let path = site.write("config.toml", config);
    let config = format!("--config-path={}", path.display());
    site.flux(["start", "-s2", &config, "sh", "-euc", script])
}

#[test]
fn they_surround_the_job() {
    let site = Site::new();
    let mark = |name: &str| format!("echo {name} >>{}/order", site.path().display());
    let config = format!(
        "[job-manager.prolog]\ncommand = [\"sh\", \"-c\", \"{}\"]\n\
         [job-manager.epilog]\ncommand = [\"sh\", \"-c\", \"{}\"]\n",
        mark("prolog"),
        mark("epilog $FLUX_JOB_RANKS"),
    );
    let script = format!(
        "flux run -N2 sh -c '[ $FLUX_TASK_RANK = 1 ] || {}'; flux job wait-event $(flux job last) clean >/dev/null; cat order",
        mark("job")
    );
    let out = configured(&site, &config, &script).success();
    assert_eq!(out.lines(), ["prolog", "job", "epilog 0-1"], "{out}");
}

const FAILS: &str = r#"
[job-manager.prolog]
per-rank = true
command = ["sh", "-c", "test $(flux getattr rank) -eq 0"]
[job-manager.epilog]
command = ["true"]
"#;

#[test]
fn a_prolog_that_fails_ends_the_job_and_drains_the_node() {
    let site = Site::new();
    let script = "flux run -N2 touch ran 2>/dev/null && echo ok
        id=$(flux job last)
        flux job wait-event $id clean >/dev/null
        flux resource drain -no '{ranks} {reason}' | sed s/$id/ID/
        flux job eventlog -f json $id | grep -o '\"name\":\"[a-z-]*\"' | tail -n 6
        ls ran 2>/dev/null || echo 'did not run'";
    let out = configured(&site, FAILS, script).success();
    let names = [
        "exception",
        "epilog-start",
        "prolog-finish",
        "epilog-finish",
        "free",
        "clean",
    ];
    let mut want = vec!["1 prolog failed for job ID".to_owned()];
    want.extend(names.map(|name| format!("\"name\":\"{name}\"")));
    want.push("did not run".to_owned());
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn a_cancelled_job_ends_its_prolog() {
    let site = Site::new();
    let config = "[job-manager.prolog]\nper-rank = true\ncommand = [\"sleep\", \"1000\"]\n";
    let script = "id=$(flux submit -N2 true)
        flux job wait-event $id prolog-start >/dev/null
        flux cancel $id
        flux job wait-event $id clean >/dev/null
        flux jobs -no '{result}' $id
        flux resource drain -no '{ranks}'";
    let out = configured(&site, config, script).success();
    assert_eq!(out.lines(), ["CANCELED"], "{out}");
}

#[test]
fn a_prolog_that_does_not_end_drains_its_nodes() {
    let site = Site::new();
    let config = "[job-manager.prolog]\nper-rank = true\ntimeout = \"100ms\"\nkill-timeout = 0.1\n\
        command = [\"sh\", \"-c\", \"trap '' TERM; exec sleep 1000\"]\n";
    let script = "id=$(flux submit true)
        flux job wait-event $id clean >/dev/null
        flux resource drain -no '{reason}' | sed s/$id/ID/
        flux jobs -no '{result}' $id";
    let out = configured(&site, config, script).success();
    let want = ["prolog timed out for job ID", "FAILED"];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn nodes_in_housekeeping_are_not_free() {
    let site = Site::new();
    let config = "[job-manager.housekeeping]\ncommand = [\"sleep\", \"1000\"]\n";
    let script = "flux run -N2 true
        flux job wait-event $(flux job last) clean >/dev/null
        flux housekeeping list -no '{ranks} {pending.nnodes}'
        flux resource list -s allocated -no '{nnodes}'
        next=$(flux submit true)
        flux job wait-event $next priority >/dev/null
        flux housekeeping kill --targets=0
        flux housekeeping kill --all
        flux job wait-event $next alloc >/dev/null
        flux job wait-event $next clean >/dev/null
        flux housekeeping kill --all";
    let out = configured(&site, config, script).success();
    assert_eq!(out.lines(), ["0-1 2", "2"], "{out}");
}

#[test]
fn a_prolog_runs_anew_when_the_job_manager_is_replaced() {
    let site = Site::new();
    let go = site.path().join("go");
    let config = format!(
        "[job-manager.prolog]\ncommand = [\"sh\", \"-c\", \"[ -e {} ] || exec sleep 1000\"]\n",
        go.display()
    );
    let script = "touch go
        flux run true
        rm go
        id=$(flux submit echo ran)
        flux job wait-event $id prolog-start >/dev/null
        touch go
        flux module reload -f job-manager
        flux job wait-event $id clean >/dev/null
        flux job attach $id
        flux job eventlog -f json $id | grep -o '\"name\":\"prolog-[a-z]*\"'";
    let out = configured(&site, &config, script).success();
    let want = [
        "ran",
        "\"name\":\"prolog-start\"",
        "\"name\":\"prolog-finish\"",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn what_is_to_be_ignored_is_not_logged() {
    let site = Site::new();
    let config = r#"
        [job-manager.prolog]
        command = ["sh", "-c", "echo noise: 1; echo signal: 2; echo noise: 3 >&2"]
        [job-manager.perilog]
        log-ignore = ["^noise"]
        "#;
    let script = "flux run true
        flux dmesg | grep -o 'prolog: .*: stdout: .*\\|prolog: .*: stderr: .*' | sed 's/.*std/std/'
        printf '[job-manager.perilog]\\nlog-ignore = [\"(\"]' | flux config load 2>&1 | grep -c log-ignore";
    let out = configured(&site, config, script).success();
    assert_eq!(out.lines(), ["stdout: signal: 2", "1"], "{out}");
}
