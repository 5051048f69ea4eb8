//! What a request goes through before it becomes a job: validators and frobnicators, built in and of others.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use e2e::{Outcome, Site};

/// Run a script in an instance with this configuration.
fn configured(site: &Site, size: u32, config: &str, script: &str) -> Outcome {
    let path = site.write("config.toml", config);
    let config = format!("--config-path={}", path.display());
    let size = format!("-s{size}");
    site.flux(["start", &size, &config, "sh", "-euc", script])
}

/// Put a program into the directory of the test.
fn program(site: &Site, name: &str, text: &str) -> PathBuf {
    let path = site.write(name, text);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))
        .expect("the owner of a file may change its mode");
    path
}

/// A validator that refuses jobs whose request has the word `forbidden`, and ends on `poison`.
const VALIDATOR: &str = r#"#!/bin/sh
echo "$$ $*" >>starts
while read -r line; do
    case $line in
    *forbidden*) echo '{"errnum": 22, "errstr": "that word is forbidden"}' ;;
    *poison*) echo "last words" >&2; exit 3 ;;
    *garble*) echo garbled ;;
    *) echo '{"errnum": 0}' ;;
    esac
done
"#;

#[test]
fn a_validator_of_others_judges_jobs_and_is_replaced_when_it_dies() {
    let site = Site::new();
    let path = program(&site, "judge", VALIDATOR);
    let script = "cd $TEST
        flux submit --quiet --cc=1-50 true
        flux submit forbidden 2>&1 || true
        flux submit poison 2>&1 || true
        flux submit garble 2>&1 || true
        flux run echo ran
        flux run --flags=novalidate echo forbidden
        flux jobs -no '{id}' -a | wc -l
        sed 's/^[0-9]* //' starts";
    let script = script.replace("$TEST", &site.path().to_string_lossy());
    let config = format!(
        "ingest.validator.plugins = ['jobspec', '{}']\ningest.validator.args = ['--strict']",
        path.display()
    );
    let out = configured(&site, 1, &config, &script).success();
    let name = format!("flux-submit: validator {}", path.display());
    let died = format!("{name}: unexpectedly exited (exit status: 3): last words");
    let lines = out.lines();
    let (garbled, rest): (Vec<&str>, Vec<&str>) =
        lines.into_iter().partition(|line| line.contains("garbled"));
    assert!(
        garbled[0].starts_with(&format!("{name}: gave no answer but \"garbled\"")),
        "{out}"
    );
    let want = [
        "flux-submit: that word is forbidden",
        &died,
        "ran",
        "forbidden",
        "52",
    ];
    assert_eq!(rest[..5], want, "{out}");
    // Started once, again after its death, and again after what could not be read.
    assert_eq!(rest[5..], ["--strict"; 3], "{out}");
}

#[test]
fn a_frobnicator_of_others_changes_jobs_beside_the_built_in_ones() {
    let site = Site::new();
    let text = "#!/bin/sh
        while read -r line; do
            spec=$(echo \"$line\" | sed 's/^{\"jobspec\":\\(.*\\),\"userid\":.*/\\1/; s/ORIGINAL/CHANGED/')
            echo \"{\\\"errnum\\\": 0, \\\"data\\\": $spec}\"
        done";
    let path = program(&site, "change", text);
    let config = format!(
        "[ingest.frobnicator]
        plugins = ['{}', 'defaults']
        [policy.jobspec.defaults.system]
        duration = '7m'",
        path.display()
    );
    let script = "id=$(flux submit echo ORIGINAL)
        flux job info $id jobspec >jobspec
        grep -o CHANGED jobspec
        grep -o '\"duration\":[0-9]*' jobspec
        flux module stats job-ingest | tr -d ' \\n' | grep -o 'frobnicator.:{.running.:1,.requests.:1'";
    let out = configured(&site, 1, &config, script).success();
    let counts = "frobnicator\":{\"running\":1,\"requests\":1";
    assert_eq!(
        out.lines(),
        ["CHANGED", "\"duration\":420", counts],
        "{out}"
    );
}

#[test]
fn configurations_that_cannot_be_are_refused_and_change_nothing() {
    let site = Site::new();
    let script =
        "printf '[ingest.validator]\\nplugins = [\"/no/such\"]' | flux config load 2>&1 || true
        printf '[ingest.validator]\\nargs = [\"--what\"]' | flux config load 2>&1 || true
        flux module reload job-ingest badopt=xyz 2>&1 || true
        flux module load job-ingest
        flux run echo ran
        printf '[ingest.validator]\\nplugins = [\"require-instance\"]' | flux config load
        flux submit true 2>&1 || true
        flux submit --quiet flux start true";
    let out = configured(&site, 1, "", script).success();
    for want in [
        "ingest.validator.plugins: \"/no/such\": there is no such file",
        "ingest.validator.args: no plugin takes \"--what\"",
        "module argument \"badopt=xyz\": is not known",
        "Direct job submission disabled for all jobs in this instance",
    ] {
        let said = out.lines().iter().any(|line| line.contains(want));
        assert!(said, "{want}: {out}");
    }
    assert!(out.lines().contains(&"ran"), "{out}");
}

#[test]
fn infeasible_jobs_are_refused_at_once_if_that_is_asked_for() {
    let site = Site::new();
    let script = "flux submit -N3 true 2>&1 || true
        flux run echo ran
        flux module remove sched-simple
        flux submit --quiet -N3 true
        flux cancel --all --quiet
        flux module load sched-simple";
    let config = "ingest.validator.plugins = ['feasibility', 'jobspec']";
    let out = configured(&site, 2, config, script).success();
    let lines = out.lines();
    assert!(lines[0].contains("unsatisfiable request"), "{out}");
    assert_eq!(lines[1..], ["ran"], "{out}");
}

#[test]
fn batches_are_counted_if_that_is_asked_for() {
    let site = Site::new();
    let script = "flux module reload job-ingest batch-count=3
        flux submit --quiet --cc=1-3 true
        flux jobs -no '{id}' -a | wc -l";
    let out = configured(&site, 1, "", script).success();
    assert_eq!(out.lines(), ["3"], "{out}");
}

#[test]
fn queues_may_be_for_some_only() {
    let site = Site::new();
    let me = site.run("id", ["-un"]).success();
    let config = format!(
        "[queues.open]
        [queues.own]
        policy.access.allow-user = ['nobody-else', '{}']
        [queues.shut]
        policy.access.allow-group = ['no-such-group']
        [policy.jobspec.defaults.system]
        queue = 'open'",
        me.lines()[0]
    );
    let script = "flux queue start --quiet --all
        for queue in open own; do flux run -q $queue echo $queue; done
        flux submit -q shut true 2>&1 || true
        id=$(flux submit --urgency=hold true)
        flux update $id queue=own
        flux update $id queue=shut 2>&1 || true
        flux jobs -no '{queue}' $id
        flux cancel $id";
    let out = configured(&site, 1, &config, script).success();
    let lines = out.lines();
    assert_eq!(lines[..2], ["open", "own"], "{out}");
    for refused in &lines[2..4] {
        assert!(
            refused.contains("access to queue shut is restricted"),
            "{out}"
        );
    }
    assert_eq!(lines[4..], ["own"], "{out}");
}

#[test]
fn a_queue_may_be_made_of_hosts() {
    let site = Site::new();
    let config = "[resource]
        noverify = true
        [[resource.config]]
        hosts = 'n[0-2]'
        cores = '0-1'
        [queues.front]
        hosts = 'n[0-1]'
        [queues.back]
        hosts = 'n2'
        [queues.late]
        parent = 'back'";
    let script = "flux queue start --quiet --all
        for queue in front back late; do
            id=$(flux submit -q $queue -N1 true)
            flux job wait-event $id clean >/dev/null
            echo $queue $(flux jobs -no '{ranks}' $id)
        done
        flux resource list -no '{ranks} {properties}' | sort
        flux job info $id R | grep -c properties || true
        id=$(flux submit -q back -N2 true)
        flux job wait-event $id exception | grep -c unsatisfiable";
    let out = configured(&site, 3, config, script).success();
    let lines = out.lines();
    assert_eq!(lines[..3], ["front 0", "back 2", "late 2"], "{out}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("0-1 ") && line.contains("+front")),
        "{out}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("2 ") && line.contains("+back")),
        "{out}"
    );
    assert_eq!(lines[lines.len() - 2..], ["0", "1"], "{out}");
}

#[test]
fn a_queue_of_hosts_that_are_not_there_is_refused() {
    let site = Site::new();
    let config = "resource.noverify = true
        resource.config = [ { hosts = 'n0', cores = '0-1' } ]
        queues.front.hosts = 'no-such-host'";
    // One that ends by itself could do so before the module has looked.
    let out = configured(&site, 1, config, "exec sleep 300");
    assert_ne!(out.code(), 0, "{out}");
    let why = ["queues.front.hosts: there is no host 'no-such-host' among the resources"];
    out.expect_error(&why);
}

#[test]
fn stages_are_filters_too() {
    let site = Site::new();
    let validator = program(&site, "validator", VALIDATOR);
    let config = "policy.jobspec.defaults.system.duration = '1m'";
    let script = r#"
        flux submit --dry-run true >job
        flux submit --dry-run forbidden >forbidden
        flux submit --dry-run -n1000 true >large
        flux job-frobnicator --jobspec-only <job | grep -o '"duration":60'
        cat job large forbidden | flux job-validator --jobspec-only --plugins=jobspec,feasibility,$VALIDATOR >told || echo code $? >code
        cut -d' ' -f1 told; cat code
        flux job-validator --jobspec-only --plugins=require-instance <job | cut -c 1-12 || true
        flux job-validator --plugins=none <job 2>&1 | grep -c 'neither built in'
        echo '{}' | flux job-frobnicator | cut -c 1-12
    "#;
    let script = script.replace("$VALIDATOR", &validator.display().to_string());
    let outcome = configured(&site, 1, config, &script);
    let want = [
        "\"duration\":60",
        "{\"errnum\":0}",
        "{\"errnum\":22,\"errstr\":\"unsatisfiable",
        "{\"errnum\":22,\"errstr\":\"that",
        "code 1",
        "{\"errnum\":22",
        "1",
        "{\"errnum\":22",
    ];
    assert_eq!(outcome.lines(), want, "{outcome}");
}
