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

/// A command that waits for the file `go`, and says so in `order`; its process id is in `pids`.
fn waits(site: &Site, name: &str) -> String {
    let text = "cd PLACE; echo $$ >>pids; echo NAME begins >>order; until test -e go; do :; done; echo NAME >>order";
    let text = text.replace("PLACE", &site.path().display().to_string());
    let text = text.replace("NAME", name);
    format!("[job-manager.{name}]\ncommand = [\"sh\", \"-c\", \"{text}\"]\n")
}

#[test]
fn nodes_stay_in_housekeeping_when_the_job_manager_is_replaced() {
    let site = Site::new();
    let config = waits(&site, "housekeeping");
    let script = "flux run -N2 true
        flux job wait-event $(flux job last) clean >/dev/null
        flux module reload -f job-manager
        flux housekeeping list -no '{ranks} {pending.nnodes}'
        next=$(flux submit -N2 sh -c 'echo job >>order')
        flux job wait-event $next priority >/dev/null
        flux resource list -s free -no '{nnodes}'
        touch go
        flux job wait-event $next clean >/dev/null
        grep -v begins order | head -n 3";
    let out = configured(&site, &config, script).success();
    let want = ["0-1 2", "0", "housekeeping", "housekeeping", "job"];
    assert_eq!(out.lines(), want, "{out}");
}

/// Runs `first` up to the death of its broker, and `second` in the next.
fn across_a_crash(site: &Site, config: &str, first: &str, second: &str) -> Outcome {
    let config = site.write("config.toml", config);
    let config = format!("--config-path={}", config.display());
    let [state, run] = site.lasting();
    let first = site.write(
        "first",
        &format!("{first}\nkill -9 $(flux getattr broker.pid)"),
    );
    // What the broker had started it leaves behind.
    let line = format!(
        "flux start {config} {state} {run} sh -eu {}; code=$?
        for pid in $(cat pids); do while kill $pid; do :; done; done 2>/dev/null
        exit $code",
        first.display()
    );
    site.run("sh", ["-c", &line]).expect_code(137);
    let words = ["start", &config, &state, &run, "sh", "-euc", second];
    site.flux(words).success()
}

#[test]
fn nodes_stay_in_housekeeping_when_the_broker_is_killed() {
    let site = Site::new();
    let config = waits(&site, "housekeeping");
    let first = "flux run -N1 true
        flux job wait-event $(flux job last) clean >/dev/null";
    let second = "flux housekeeping list -no '{ranks} {pending.nnodes}'
        next=$(flux submit -N1 sh -c 'echo job >>order')
        flux job wait-event $next priority >/dev/null
        flux resource list -s free -no '{nnodes}'
        touch go
        flux job wait-event $next clean >/dev/null
        grep -v begins order | head -n 1
        grep job order";
    let out = across_a_crash(&site, &config, first, second);
    assert_eq!(out.lines(), ["0 1", "0", "housekeeping", "job"], "{out}");
}

#[test]
fn a_prolog_and_an_epilog_run_anew_when_the_broker_is_killed() {
    for name in ["prolog", "epilog"] {
        let site = Site::new();
        let config = waits(&site, name);
        let first = format!(
            "id=$(flux submit echo ran)
            flux job wait-event $id {name}-start >/dev/null
            until test -s order; do :; done
            echo $id >id"
        );
        let second = format!(
            "touch go
            flux job wait-event $(cat id) clean >/dev/null
            flux job attach $(cat id)
            flux jobs -no '{{result}}' $(cat id)
            flux job eventlog -f json $(cat id) | grep -o '\"name\":\"{name}-[a-z]*\"'
            flux resource list -s allocated -no '{{nnodes}}'"
        );
        let out = across_a_crash(&site, &config, &first, &second);
        let events = ["start", "finish"].map(|end| format!("\"name\":\"{name}-{end}\""));
        let want = ["ran", "COMPLETED", &events[0], &events[1], "0"];
        assert_eq!(out.lines(), want, "{out}");
    }
}
