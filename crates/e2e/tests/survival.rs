//! Jobs when brokers are killed under them: their shells go on, and the next brokers find them.

use e2e::{Outcome, Site};

/// Four brokers of one host with an instance that is kept, each started again when it ends, as systemd does.
///
/// `full` waits until all are there, `kill_broker RANK` kills one, `talk` is a job that numbers its lines until there is a
/// file `go`, and `check JOB TASKS` whether each of its tasks has all of them in its output, in order.
const TOOLS: &str = r#"
export FLUX_URI=local://$PWD/run/0/local-0
keep() {
    while test ! -e down; do
        flux broker -c kept.toml -Shostname=fake$1 -Srundir=$PWD/run/$1 -Sstatedir=$PWD/state/$1 \
            -Sbroker.rc2_none=1 2>>errors.$1 || :
    done
}
full() { until flux overlay status --timeout=5 --summary --wait=full >/dev/null 2>&1; do :; done; }
pid() { flux exec -r $1 flux getattr broker.pid; }
kill_broker() {
    old=$(pid $1); kill -9 $old
    while kill -0 $old 2>/dev/null; do :; done
    full
}
talk='i=0; until test -e go; do i=$((i+1)); echo $FLUX_TASK_RANK $i; sleep 0.02; done; echo $FLUX_TASK_RANK $i last; exit 3'
running() { flux job wait-event -p exec $1 shell.start >/dev/null; }
check() {
    code=0; flux job attach $1 >out 2>err || code=$?
    awk -v tasks=$2 -v code=$code '
        $3 == "last" { if ($2 != n[$1]) wrong++; ended++; next }
        { if ($2 != ++n[$1]) wrong++ }
        END { print ended == tasks && !wrong ? "whole, ended with " code : "lost: " wrong " " ended }' out
}
mkdir -p run/0 run/1 run/2 run/3 state/0 state/1 state/2 state/3
for rank in 0 1 2 3; do keep $rank & done
full
"#;

fn kept(site: &Site, config: &str, script: &str) -> Outcome {
    let dir = site.path().display();
    let cert = format!("{dir}/cert");
    site.flux(["keygen", "--name=test", &cert]).success();
    let r = site.flux("R encode -r0-3 -c0-7 -H fake[0-3]".split(' '));
    site.write("R", &r.success().stdout);
    site.write(
        "kept.toml",
        &format!(
            "[bootstrap]
            curve_cert = \"{cert}\"
            default_bind = \"ipc://{dir}/tbon-%h\"
            default_connect = \"ipc://{dir}/tbon-%h\"
            hosts = [{{ host = \"fake[0-3]\" }}]
            [resource]
            path = \"{dir}/R\"
            noverify = true
            {config}"
        ),
    );
    let script = format!("{TOOLS}\n{script}");
    let out = site.run("sh", ["-eu", "-c", &script]);
    for rank in 0..4 {
        let errors = std::fs::read_to_string(site.path().join(format!("errors.{rank}")));
        eprintln!("--- rank {rank}\n{}", errors.unwrap_or_default());
    }
    out
}

#[test]
fn jobs_outlive_their_brokers_and_lose_nothing() {
    let site = Site::new();
    let out = kept(
        &site,
        "",
        r#"
        wide=$(flux submit -N4 -n8 sh -c "$talk")
        ids=$(flux submit --cc=1-8 -n1 sh -c "$talk")
        for id in $wide $ids; do running $id; done
        kill_broker 0
        for rank in 1 2 3; do kill_broker $rank; done
        kill_broker 0
        flux run -N4 -n4 echo others run | sort -u
        touch go
        check $wide 8
        for id in $ids; do check $id 1; done | sort | uniq -c | sed 's/^ *//'
        flux jobs -ano '{status}' | sort | uniq -c | sed 's/^ *//'
        flux resource list -s free -no '{ncores}'
        touch down; kill $(pid 0); wait
        ls -d run/*/rexec-* 2>/dev/null || echo no records
        "#,
    );
    out.success().expect_stdout(
        "others run\nwhole, ended with 3\n8 whole, ended with 3\n1 COMPLETED\n9 FAILED\n32\n\
        no records\n",
    );
}

#[test]
fn shared_shells_outlive_their_brokers_too() {
    let site = Site::new();
    let out = kept(
        &site,
        "[exec]
        shared-shells = \"always\"",
        r#"
        # Each rank has its process before the jobs come.
        has_process() { flux run --requires=rank:$1 sh -c 'grep -q shared /proc/$PPID/cmdline' 2>/dev/null; }
        for rank in 0 1 2 3; do until has_process $rank; do :; done; done
        ids=$(for rank in 0 1 2 3; do flux submit --requires=rank:$rank sh -c "grep -c shared /proc/\$PPID/cmdline >>shared; $talk"; done)
        for id in $ids; do running $id; done
        for rank in 1 2 3 0; do kill_broker $rank; done
        flux run -N4 -n4 echo others run | sort -u
        touch go
        for id in $ids; do check $id 1; done | sort | uniq -c | sed 's/^ *//'
        sort shared | uniq -c | sed 's/^ *//'
        flux resource list -s free -no '{ncores}'
        touch down; kill $(pid 0); wait
        # A process without shells ends when its broker has.
        while ls -d run/*/rexec-* >/dev/null 2>&1; do :; done; echo no records
        "#,
    );
    out.success()
        .expect_stdout("others run\n4 whole, ended with 3\n4 1\n32\nno records\n");
}
