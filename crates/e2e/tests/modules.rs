//! Start-up scripts, modules, configuration and cron of whole instances.

use e2e::Site;

#[test]
fn an_empty_script_loads_nothing() {
    let site = Site::new();
    let list = "flux module list | tail -n +2 | cut -d' ' -f1";
    let start = ["start", "-Sbroker.rc1_path=", "-Sbroker.rc3_path=", list];
    site.flux(start).success().expect_stdout("rexec\n");
}

#[test]
fn scripts_run_on_every_rank_parents_first() {
    let site = Site::new();
    // `kvs` of rank 1 needs that of rank 0.
    let rc1 = "-Sbroker.rc1_path=flux modprobe load kvs";
    let rc3 = "-Sbroker.rc3_path=flux modprobe rc3";
    let script = "flux kvs put a=1; flux exec -r 1 flux kvs get a";
    site.flux(["start", "-s2", rc1, rc3, script])
        .success()
        .expect_stdout("1\n");
}

#[test]
fn the_default_scripts_can_be_run_as_programs() {
    let site = Site::new();
    let rc1 = "-Sbroker.rc1_path=FLUX_RC_EXTRA= flux modprobe rc1";
    let rc3 = "-Sbroker.rc3_path=flux modprobe rc3; true";
    let script = "flux run -n1 hostname >/dev/null && flux dmesg | grep -c 'rc1.0: .*rc=0'";
    site.flux(["start", rc1, rc3, script])
        .success()
        .expect_stdout("1\n");
}

#[test]
fn failing_scripts_fail_the_instance() {
    let site = Site::new();
    site.flux(["start", "-Sbroker.rc1_path=exit 3", "true"])
        .expect_code(3);
    site.flux(["start", "-Sbroker.rc3_path=exit 4", "true"])
        .expect_code(4);
    site.flux(["start", "-Sno.such.attribute=1", "true"])
        .expect_code(1);
}

#[test]
fn modules_come_and_go() {
    let site = Site::new();
    let script = "
        flux module load --name=beat heartbeat period=1h &&
        flux module stats -p period beat &&
        flux module reload --name=beat heartbeat &&
        flux module stats -p period beat &&
        flux module debug --setbit 0x10 beat &&
        flux module remove beat && flux module remove -f beat
        flux module load heartbeat || echo $?
        flux module load --name=other heartbeat nonsense || echo $?";
    site.script(1, script)
        .expect_stdout("3600.000000\n2.000000\n0x10\n1\n1\n");
}

#[test]
fn a_configuration_is_taken_by_all_modules_or_by_none() {
    let site = Site::new();
    let script = "
        flux config set --type=fsd heartbeat.period 1m && flux module stats -p period heartbeat
        flux config set --type=fsd heartbeat.period 0s || echo $?
        flux config get heartbeat.period
        flux exec -r 1 flux config get heartbeat.period
        flux exec -r 1 flux config set heartbeat.period 5s 2>&1 | grep -c 'rank 0'";
    site.script(2, script)
        .expect_stdout("60.000000\n1\n1m\n1m\n1\n");
}

#[test]
fn cron_runs_commands_on_events() {
    let site = Site::new();
    let script = "
        flux cron sync --disable >/dev/null
        flux cron event --count=2 -o rank=1 my.event 'flux kvs put ran=$(flux getattr rank)'
        flux event pub my.event
        until [ $(flux cron dump -k stats.success 1) = 1 ]; do :; done; flux kvs get ran
        flux cron dump -k repeat 1; flux cron delete 1 >/dev/null; flux cron list | wc -l";
    let out = site.script(2, script);
    out.expect_stdout("flux-cron: cron-1 created\n1\n2\n1\n");
}
