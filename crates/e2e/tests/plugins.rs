//! Plugins of the job manager: in C, in Rust, as programs; what they are asked, what they can do, and those that are broken.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Outcome, Site, repository};

/// Compile a plugin in C with nothing but our headers.
fn compile(site: &Site, name: &str, source: &Path) -> PathBuf {
    let object = site.path().join(name);
    let include = repository("crates/plugin-sdk/include");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-I"])
        .args([include.as_path(), source, Path::new("-o"), &object])
        .status()
        .expect("there is a C compiler");
    assert!(built.success(), "{} compiles", source.display());
    object
}

/// A program in Python in the directory of the test.
fn python(site: &Site, name: &str, body: &str) -> PathBuf {
    let text = format!(
        "#!/usr/bin/env python3\nfrom ferroflux_plugin import Plugin, Refused\nplugin = Plugin()\n{body}\n"
    );
    program(site, name, &text)
}

fn program(site: &Site, name: &str, text: &str) -> PathBuf {
    let path = site.write(name, text);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("the file is ours");
    path
}

/// Run a script in an instance whose plugins find the module for Python, with this configuration.
fn script_with(site: &Site, config: &str, script: &str) -> Outcome {
    let module = repository("crates/plugin-sdk/python");
    let module = module.to_string_lossy();
    let config = site.write("config.toml", config);
    let config = format!("--config-path={}", config.display());
    let dir = site.path().to_string_lossy();
    let env = [
        ("PYTHONPATH", &*module),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("FLUX_JOBTAP_PATH", &*dir),
    ];
    let args = ["start", "-s1", &config, "sh", "-euc", script];
    site.run_with("flux", args, &env)
}

fn script(site: &Site, text: &str) -> Outcome {
    script_with(site, "", text)
}

#[test]
fn the_example_in_c_asks_for_banks() {
    let site = Site::new();
    compile(&site, "banks.so", &repository("examples/plugins/banks.c"));
    let out = script(
        &site,
        "flux jobtap load banks.so 2>&1 || true
        flux jobtap load banks.so banks=physics,chemistry
        flux submit true 2>&1 || true
        flux submit --setattr=bank=phys true 2>&1 || true
        flux run --setattr=bank=chemistry echo ran",
    )
    .success();
    let path = site.path().join("banks.so");
    let want = [
        &format!(
            "flux-jobtap: {}: its entry point failed: needs the names of the banks: banks=NAME,NAME",
            path.display()
        ),
        "flux-submit: a job needs a bank: give it with --setattr=bank=NAME",
        "flux-submit: there is no bank phys",
        "ran",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn the_example_in_rust_makes_projects_important() {
    let site = Site::new();
    let object = site.example_plugin("importance");
    let text = format!(
        "flux queue stop --quiet
        other=$(flux submit true)
        physics=$(flux submit --setattr=project=physics true)
        flux jobtap load {} physics=50000
        flux jobtap query libimportance.so | grep -o '\"projects\":.*'
        flux jobs -no '{{priority}}' $other $physics | sort -n
        held=$(flux submit --urgency=hold --setattr=project=physics true)
        flux job wait-event $held priority | grep -o priority=.*
        flux cancel $held
        flux jobtap remove libimportance.so
        flux jobtap load {} physics=much 2>&1 | grep -o 'physics: .*'",
        object.display(),
        object.display()
    );
    let out = script(&site, &text).success();
    let want = [
        "\"projects\":{\"physics\":50000}}",
        "16",
        "50000",
        "priority=0",
        "physics: the importance of a project is a number",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn the_example_in_python_waits_for_files() {
    let site = Site::new();
    let text = format!(
        "flux submit --dependency=file:/x true 2>&1 || true
        flux jobtap load {} every=0.05
        flux submit --dependency=file:here true 2>&1 || true
        id=$(flux submit --dependency=file:$PWD/ready true)
        flux job wait-event $id dependency-add >/dev/null
        flux jobs -no '{{state}}' $id
        touch ready
        flux job wait-event $id clean >/dev/null
        flux job eventlog $id | grep -c dependency-remove
        rm ready",
        repository("examples/plugins/file.py").display()
    );
    let out = script(&site, &text).success();
    let want = [
        "flux-submit: dependency scheme \"file\" not supported",
        "flux-submit: dependency file:here: give the whole path, from /",
        "DEPEND",
        "1",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

/// Notes every topic it is asked about, and takes part in all of them.
const RECORDER: &str = r#"
seen = open("seen", "w")

@plugin.on("*")
def note(call):
    assert call.topic in ("conf.update", "plugin.query") or call["id"]
    print(call.topic, file=seen, flush=True)
    if call.topic == "job.create":
        plugin.ask("subscribe", id=call["id"])
    if call.topic == "job.new":
        return {"annotations": {"noted": 1}}
    if call.topic == "job.dependency.turn":
        plugin.ask("dependency_add", description="turn")
        plugin.ask("dependency_remove", description="turn")
    if call.topic == "job.state.run":
        plugin.ask("prolog_start", description="mine")
        plugin.ask("timer", seconds=0, topic=f"prolog.{call['id']}")
    if call.topic == "job.state.cleanup":
        assert plugin.ask("job_result") == 1, call
        assert plugin.ask("event_posted", name="start")
        plugin.ask("epilog_start", description="mine")
        plugin.ask("event_post", name="noted", context={"by": "us"})
        plugin.ask("epilog_finish", description="mine", status=0)

plugin._handlers.insert(0, ("prolog.*", lambda call: plugin.ask(
    "prolog_finish", id=int(call.topic.split(".")[1]), description="mine", status=0)))
plugin.run()
"#;

#[test]
fn every_topic_is_asked() {
    let site = Site::new();
    python(&site, "recorder.py", RECORDER);
    let out = script(
        &site,
        "flux jobtap load recorder.py
        flux jobtap query recorder.py >/dev/null
        flux queue stop --quiet
        id=$(flux submit --dependency=turn:1 true)
        flux job wait-event $id priority >/dev/null
        flux update $id duration=60
        flux queue start --quiet
        flux job wait-event $id clean >/dev/null
        flux job eventlog $id | awk '{print $2}' | tr '\n' ' '
        echo
        flux job purge --force --num-limit=0 >/dev/null
        echo '{\"x\": 1}' | flux config load
        uniq seen | tr '\n' ' '
        rm seen",
    )
    .success();
    let lines = out.lines();
    let events = "submit dependency-add dependency-remove validate depend priority \
         jobspec-update priority alloc prolog-start prolog-finish start finish epilog-start noted epilog-finish \
         release free clean";
    assert_eq!(lines[0].trim(), events, "{out}");
    let topics = [
        "conf.update",
        "plugin.query",
        "job.create",
        "job.validate",
        "job.dependency.turn",
        "job.new",
        "job.event.submit",
        "job.event.dependency-add",
        "job.event.dependency-remove",
        "job.event.validate",
        "job.state.depend",
        "job.event.depend",
        "job.state.priority",
        "job.event.priority",
        "job.state.sched",
        "job.update.attributes.system.duration",
        "job.update",
        "job.event.alloc",
        "job.state.run",
        "job.event.start",
        "job.event.finish",
        "job.state.cleanup",
        "job.state.inactive",
        "job.inactive-add",
        "job.destroy",
        "job.inactive-remove",
    ];
    let seen: Vec<&str> = lines[1].split(' ').collect();
    for topic in topics {
        assert!(seen.contains(&topic), "{topic}\n{out}");
    }
}

#[test]
fn plugins_are_listed_queried_and_removed() {
    let site = Site::new();
    for name in ["a.py", "b.py", "c.py"] {
        python(&site, name, "plugin.run()");
    }
    let out = script(
        &site,
        "flux jobtap list -a | grep -v '^[.]' || true
        flux jobtap list -a | grep -c '^[.]'
        flux jobtap load a.py; flux jobtap load b.py
        flux jobtap load a.py 2>&1 || true
        flux jobtap load --remove='[a]*' ./c.py
        flux jobtap list
        flux jobtap query c.py
        flux jobtap query a.py 2>&1 || true
        flux jobtap remove all; flux jobtap remove all
        flux jobtap list
        flux jobtap remove '*' 2>&1 || true
        flux jobtap load none.so 2>&1 || true
        flux jobtap remove .priority-default
        id=$(flux submit true)
        flux job wait-event $id depend >/dev/null
        flux jobs -no '{state}' $id
        flux jobtap load .priority-default
        flux job wait-event $id clean | awk '{print $2}'",
    )
    .success();
    let want = [
        "11",
        "flux-jobtap: a.py already loaded",
        "b.py",
        "c.py",
        "{\"name\":\"c.py\",\"path\":\"./c.py\"}",
        "flux-jobtap: a.py: plugin not found",
        "flux-jobtap: * not found",
        "flux-jobtap: none.so not found",
        "PRIORITY",
        "clean",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn a_priority_that_is_not_known_yet_is_waited_for() {
    let site = Site::new();
    let body = "
waiting = []

@plugin.on('job.state.priority')
def wait(call):
    waiting.append(call['id'])
    return {'priority': -1}

@plugin.on('service.ping')
def release(call):
    for job in waiting:
        plugin.ask('reprioritize', id=job, priority=42)
    return {'payload': {**call['payload'], 'userid': call['userid'], 'rolemask': call['rolemask'], 'route': ''}}

def start():
    plugin.ask('name', name='waiter')
    plugin.ask('service_register', method='ping', rolemask=0)

plugin.run(start)";
    python(&site, "waits.py", body);
    let out = script(
        &site,
        "flux jobtap load waits.py
        id=$(flux submit true)
        flux job wait-event $id depend >/dev/null
        flux jobs -no '{state}' $id
        flux ping --count=1 job-manager.waiter >/dev/null
        flux job wait-event $id clean >/dev/null
        flux job eventlog $id | grep -o 'priority=.*'",
    )
    .success();
    assert_eq!(out.lines(), ["PRIORITY", "priority=42"], "{out}");
}

#[test]
fn plugins_judge_updates() {
    let site = Site::new();
    let body = "
@plugin.on('job.update.attributes.system.job.name')
def rename(call):
    if call['value'] == 'bad':
        raise Refused('that is a bad name')
    return {'validated': 1, 'updates': {'attributes.system.renamed': call['cred']['userid'] >= 0}}

@plugin.on('job.update.attributes.system.color')
def color(call):
    pass

@plugin.on('job.validate')
def validate(call):
    if call['jobspec']['attributes']['system'].get('color') == 'red':
        raise Refused('nothing is red')

plugin.run()";
    python(&site, "names.py", body);
    let out = script(
        &site,
        "id=$(flux submit --urgency=hold true)
        flux update $id attributes.system.job.name=x 2>&1 || true
        flux jobtap load names.py
        flux update $id attributes.system.job.name=bad 2>&1 || true
        flux update $id attributes.system.color=red 2>&1 || true
        flux update $id attributes.system.color=blue
        flux update $id attributes.system.job.name=good
        flux job eventlog $id | grep jobspec-update | cut -d' ' -f3-
        flux cancel $id",
    )
    .success();
    let want = [
        "flux-update: update of attributes.system.job.name not supported",
        "flux-update: that is a bad name",
        "flux-update: nothing is red",
        "attributes.system.color=\"blue\"",
        "attributes.system.job.name=\"good\" attributes.system.renamed=true",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

const CONFIGURED: &str = "
@plugin.on('conf.update')
def configure(call):
    if call['conf'].get('mine', {}).get('limit', 0) > 5:
        raise Refused('mine.limit: at most 5')

@plugin.on('plugin.query')
def query(call):
    return {'conf': plugin.conf}

plugin.run()";

#[test]
fn the_configuration_names_plugins_and_they_judge_it() {
    let site = Site::new();
    python(&site, "mine.py", CONFIGURED);
    let config = "[mine]\nlimit = 3\n[[job-manager.plugins]]\nremove = \".history\"\n\
         load = \"mine.py\"\nconf.x = 1\n";
    let out = script_with(
        &site,
        config,
        "flux jobtap query mine.py | grep -o '\"conf\":.*'
        flux jobtap list -a | grep -c history || true
        echo '{\"mine\": {\"limit\": 9}}' | flux config load 2>&1 || true
        echo '{\"mine\": {\"limit\": 5}}' | flux config load",
    )
    .success();
    let lines = out.lines();
    assert_eq!(lines[..2], ["\"conf\":{\"x\":1}}", "0"], "{out}");
    assert!(lines[2].ends_with("mine.limit: at most 5"), "{out}");
    for (entry, why) in [
        (
            "load = 1",
            "[job-manager.plugins][0]: load: Expected string, got integer",
        ),
        (
            "load = \"none.so\"",
            "[job-manager.plugins][0]: load: none.so: No such plugin found",
        ),
        (
            "remove = \"none\"",
            "[job-manager.plugins][0]: remove none: Failed to find plugin to remove",
        ),
    ] {
        let config = format!("[[job-manager.plugins]]\n{entry}\n");
        let out = script_with(&site, &config, "true");
        assert!(out.code() != 0 && out.stderr.contains(why), "{out}");
    }
}

#[test]
fn broken_plugins_are_named_and_end_nothing() {
    let site = Site::new();
    let dir = site.path();
    compile(&site, "empty.so", &site.write("empty.c", "int unused;\n"));
    let missing = "int nowhere (void);\nint ferroflux_plugin_v1 (const void *h, void *p);\n\
         int ferroflux_plugin_v1 (const void *h, void *p) { return nowhere () + (h == p); }\n";
    compile(&site, "missing.so", &site.write("missing.c", missing));
    site.write("text.so", "no object");
    program(&site, "ends", "#!/bin/sh\nexit 3\n");
    program(&site, "babbles", "#!/bin/sh\necho hello\nread x\n");
    program(&site, "silent", "#!/bin/sh\nread x\nread y\n");
    python(
        &site,
        "killed.py",
        "import os\n@plugin.on('job.state.sched')\ndef die(call):\n    os.kill(os.getpid(), 9)\nplugin.run()",
    );
    python(
        &site,
        "wrong.py",
        "@plugin.on('job.state.[!p]*')\ndef wrong(call):\n    return {'priority': 'high', 'annotations': 5, 'R': 1}\nplugin.run()",
    );
    python(
        &site,
        "raises.py",
        "@plugin.on('job.validate')\ndef wrong(call):\n    return 1 / 0\nplugin.run()",
    );
    let out = script(
        &site,
        "for p in empty.so missing.so text.so ends babbles; do flux jobtap load $p 2>&1 || true; done
        flux jobtap load silent program-timeout=0.1 2>&1 || true
        flux jobtap load killed.py
        flux run echo one
        flux jobtap list
        flux dmesg | grep -o 'jobtap: killed.py: ended.*'
        flux jobtap load wrong.py
        id=$(flux submit true)
        flux job wait-event $id clean | awk '{print $2}'
        flux job eventlog $id | grep exception | grep -o 'type=[^ ]* severity=4' | sort -u | head -1
        flux jobtap remove wrong.py
        flux jobtap load raises.py
        flux run true 2>&1 || true
        flux jobtap remove raises.py
        flux run echo two",
    );
    let lines = out.lines();
    let said = |name: &str, why: &str| {
        let want = format!("flux-jobtap: {}/{name}: {why}", dir.display());
        assert!(
            lines.iter().any(|line| line.starts_with(&want)),
            "{want}\n{out}"
        );
    };
    said(
        "empty.so",
        "is no plugin: neither a shared object with an entry point",
    );
    said("missing.so", "cannot be opened: ");
    said("text.so", "is no plugin");
    said("ends", "its entry point failed: ");
    said(
        "babbles",
        "its entry point failed: said what is not a JSON object",
    );
    said(
        "silent",
        "its entry point failed: did not answer to init within 0.1 s",
    );
    let rest: Vec<&str> = lines[6..].to_vec();
    let want = [
        "one",
        "jobtap: killed.py: ended: signal: 9 (SIGKILL); removed",
        "clean",
        "type=\"job.state.cleanup\" severity=4",
        "flux-run: raises.py: ZeroDivisionError('division by zero')",
        "two",
    ];
    assert_eq!(rest, want, "{out}");
}

#[test]
fn plugins_are_told_of_the_jobs_there_are() {
    let site = Site::new();
    let body = "
@plugin.on('job.dependency.turn')
def depend(call):
    plugin.ask('dependency_add', description='turn')

@plugin.on('job.new')
def new(call):
    print(call['id'], call['state'], file=open('told', 'a'))

def start():
    plugin.ask('set_load_order', mode='-state')

plugin.run(start)";
    python(&site, "turns.py", body);
    let out = script(
        &site,
        "flux jobtap load turns.py
        waits=$(flux submit --dependency=turn:1 true)
        held=$(flux submit --urgency=hold true)
        flux job wait-event $held priority >/dev/null
        flux job wait-event $waits dependency-add >/dev/null
        rm told
        flux jobtap load --remove=turns.py turns.py
        awk '{print $2}' told
        flux job eventlog $waits | grep -c dependency-add
        flux module reload job-manager
        flux job wait-event -m type=dependency $waits exception | cut -d' ' -f3-
        flux jobs -no '{state}' $waits
        flux jobtap load turns.py
        rm told
        flux cancel --all 2>/dev/null",
    )
    .success();
    let want = [
        "8",
        "2",
        "1",
        "type=\"dependency\" severity=4 note=\"dependency scheme \\\"turn\\\" not supported (job may be stuck in DEPEND state)\"",
        "DEPEND",
    ];
    let lines = out.lines();
    assert_eq!(lines[..3], want[..3], "{out}");
    assert!(
        lines[3].starts_with("type=\"dependency\" severity=4"),
        "{out}"
    );
    assert_eq!(lines[4], want[4], "{out}");
}

#[test]
fn events_that_follow_from_events_come_to_an_end() {
    let site = Site::new();
    let body = "
@plugin.on('job.new')
def new(call):
    plugin.ask('subscribe')

@plugin.on('job.event.*')
def again(call):
    plugin.ask('event_post', name='again')

plugin.run()";
    python(&site, "endless.py", body);
    let out = script(
        &site,
        "flux jobtap load endless.py
        id=$(flux submit true)
        flux job wait-event $id submit >/dev/null
        flux jobtap remove endless.py
        flux job wait-event $id clean | awk '{print $2}'
        flux dmesg | grep -c 'events with events without end'",
    )
    .success();
    assert_eq!(out.lines().first().copied(), Some("clean"), "{out}");
}

#[test]
fn a_job_may_bring_its_resources_along() {
    let site = Site::new();
    let out = script(
        &site,
        "flux R encode -r0 -c0 -H node >R
        flux jobtap load alloc-bypass.so
        flux jobtap load submit-hold.so
        flux submit --setattr=alloc-bypass.R=1 true 2>&1 | grep -o 'alloc-bypass: invalid R'
        id=$(flux submit --setattr=alloc-bypass.R=\"$(cat R)\" true)
        flux job wait-event $id priority | grep -o priority=.*
        flux job urgency $id 16 2>/dev/null
        flux job wait-event $id clean >/dev/null
        flux job eventlog $id | grep -o 'alloc bypass.*'
        flux jobtap remove submit-hold.so
        flux run echo freely
        rm R",
    )
    .success();
    let want = [
        "alloc-bypass: invalid R",
        "priority=0",
        "alloc bypass=true",
        "freely",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

/// A plugin as one would have written it for upstream.
const FOR_UPSTREAM: &str = r#"
#include <flux/core.h>
#include <flux/jobtap.h>

static int priority_cb (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data)
{
    int urgency, *count = flux_plugin_aux_get (p, "count");
    (void)topic, (void)data;
    if (flux_plugin_arg_unpack (args, FLUX_PLUGIN_ARG_IN, "{s:i}", "urgency", &urgency) < 0)
        return flux_jobtap_error (p, args, "unpack: %s", flux_plugin_arg_strerror (args));
    (*count)++;
    if (urgency == 20)
        return flux_jobtap_priority_unavail (p, args);
    return flux_plugin_arg_pack (args, FLUX_PLUGIN_ARG_OUT, "{s:I s:{s:i}}", "priority", (json_int_t)urgency * 1000,
                                 "annotations", "seen", *count);
}

static int validate_cb (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data)
{
    const char *name = NULL;
    (void)topic, (void)data;
    flux_plugin_arg_unpack (args, FLUX_PLUGIN_ARG_IN, "{s:{s:{s:{s?{s?s}}}}}", "jobspec", "attributes", "system", "job",
                            "name", &name);
    if (name && strcmp (name, "bad") == 0)
        return flux_jobtap_reject_job (p, args, "%s is a bad name", name);
    return 0;
}

static int run_cb (flux_plugin_t *p, const char *topic, flux_plugin_arg_t *args, void *data)
{
    flux_jobid_t id = 0;
    flux_plugin_arg_t *job = flux_jobtap_job_lookup (p, FLUX_JOBTAP_CURRENT_JOB);
    (void)topic, (void)args, (void)data;
    if (!job || flux_plugin_arg_unpack (job, FLUX_PLUGIN_ARG_IN, "{s:I}", "id", &id) < 0)
        return -1;
    flux_plugin_arg_destroy (job);
    flux_jobtap_job_aux_set (p, id, "name", strdup ("kept"), free);
    return flux_jobtap_event_post_pack (p, id, "noted", "{s:s}", "aux", (char *)flux_jobtap_job_aux_get (p, id, "name"));
}

static void ping_cb (flux_t *h, flux_msg_handler_t *mh, const flux_msg_t *msg, void *arg)
{
    int seq;
    json_t *pad;
    (void)mh, (void)arg;
    if (flux_request_unpack (msg, NULL, "{s:i s:o}", "seq", &seq, "pad", &pad) < 0)
        flux_respond_error (h, msg, EPROTO, "no ping");
    else
        flux_respond_pack (h, msg, "{s:i s:O s:s s:i s:i}", "seq", seq, "pad", pad, "route", "", "userid", 0,
                           "rolemask", 1);
}

static const struct flux_plugin_handler table[] = {
    {"job.state.priority", priority_cb, NULL},
    {"job.validate", validate_cb, NULL},
    {"job.state.run", run_cb, NULL},
    {NULL, NULL, NULL},
};

int flux_plugin_init (flux_plugin_t *p)
{
    int limit = 0;
    if (flux_plugin_conf_unpack (p, "{s?i}", "limit", &limit) < 0
        || flux_plugin_aux_set (p, "count", calloc (1, sizeof (int)), free) < 0
        || flux_plugin_register (p, "ours", table) < 0)
        return -1;
    flux_log (flux_jobtap_get_flux (p), LOG_INFO, "the limit is %d", limit);
    return flux_jobtap_service_register (p, "ping", ping_cb, p);
}
"#;

#[test]
fn source_written_for_upstream_compiles_and_works() {
    let site = Site::new();
    let source = site.write("ours.c", FOR_UPSTREAM);
    let include = repository("crates/plugin-sdk/include");
    let has_jansson = Path::new("/usr/include/jansson.h").exists();
    if !has_jansson {
        return e2e::skipped("jansson's header is not installed");
    }
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(include.join("compat"))
        .arg("-I")
        .args([include.as_path(), &source, Path::new("-o")])
        .arg(site.path().join("ours.so"))
        .arg("-ljansson")
        .status()
        .expect("there is a C compiler");
    assert!(built.success());
    let out = script(
        &site,
        "flux jobtap load ours.so limit=7
        flux dmesg | grep -o 'ours.so: the limit.*'
        flux submit --job-name=bad true 2>&1 || true
        id=$(flux submit --urgency=9 true)
        flux job wait-event $id clean >/dev/null
        flux job eventlog $id | grep -o -e priority=.* -e 'noted .*'
        waits=$(flux submit --urgency=20 true)
        flux job wait-event $waits depend >/dev/null
        flux ping --count=1 job-manager.ours >/dev/null
        flux jobs -no '{state}' $waits
        flux jobtap remove ours.so
        flux job wait-event $waits clean >/dev/null",
    )
    .success();
    let want = [
        "ours.so: the limit is 7",
        "flux-submit: bad is a bad name",
        "priority=9000",
        "noted aux=\"kept\"",
        "PRIORITY",
    ];
    assert_eq!(out.lines(), want, "{out}");
}

#[test]
fn the_owner_adds_events_of_their_own() {
    let out = script(
        &Site::new(),
        "id=$(flux submit --urgency=hold true)
        flux post-job-event $id hello note=there size.cores=2
        flux post-job-event $id bare
        flux job eventlog $id | tail -n 2 | cut -d' ' -f2-
        flux post-job-event fzz hello 2>&1 || true
        flux post-job-event $id 'two words' 2>&1 || true
        flux jobtap remove .post-event
        flux post-job-event $id hello 2>&1 || true
        flux cancel $id",
    )
    .success();
    let lines = out.lines();
    assert_eq!(
        lines[..3],
        [
            "hello note=\"there\" size={\"cores\":2}",
            "bare",
            "flux-post-job-event: No such job fzz",
        ],
        "{out}"
    );
    assert!(lines[3].contains("an event has a name"), "{out}");
    assert!(lines[4].starts_with("flux-post-job-event: "), "{out}");
}
