"""The Debian package on machines that have nothing of ours: installed by apt, started by its unit, used, renewed, removed."""


def run_as(user, command):
    return f"runuser -u {user} -- sh -c 'cd /tmp && {command}'"


def flux(command):
    """As the owner of the instance."""
    return run_as("flux", command)


def write(machine, path, text, owner="root", mode="644"):
    machine.succeed(f"install -o {owner} -m {mode} /dev/stdin {path} <<'END'\n{text}END\n")


start_all()

with subtest("apt installs the package, and nothing runs before it is told to"):
    for machine in machines:
        machine.succeed("DEBIAN_FRONTEND=noninteractive apt-get install -y /payload/ferroflux.deb")
        machine.succeed("dpkg --verify ferroflux", "systemd-analyze verify --man=no flux.service", "test -e /usr/share/man/man1/flux-run.1.gz")
        assert machine.execute("systemctl is-enabled flux")[1].strip() == "disabled"
        assert machine.execute("systemctl is-active flux")[1].strip() == "inactive"

with subtest("anybody has an instance of their own"):
    head.succeed("useradd --create-home alice")
    assert head.succeed(run_as("alice", "flux start flux run -n1 id -un"), timeout=120).split() == ["alice"]

with subtest("the unit makes the machines a system"):
    head.succeed("umask 077; flux keygen /tmp/curve.cert")
    certificate = head.succeed("cat /tmp/curve.cert")
    configuration = """[bootstrap]
curve_cert = "/etc/flux/system/curve.cert"
default_bind = "tcp://eth0:%p"
default_connect = "tcp://%h:%p"
default_port = 8050
hosts = [{ host = "head" }, { host = "node1" }]
"""
    for machine in machines:
        write(machine, "/etc/flux/system/curve.cert", certificate, owner="flux", mode="400")
        write(machine, "/etc/flux/system/conf.d/system.toml", configuration)
        machine.succeed("systemctl enable --now flux", timeout=300)
    head.wait_until_succeeds(flux('test "$(flux resource list -n -s free -o {nnodes})" = 2'), timeout=120)

with subtest("its owner, who is not root, runs jobs in it, and others do not get in"):
    assert sorted(head.succeed(flux("flux run -N2 hostname"), timeout=120).split()) == ["head", "node1"]
    assert node1.succeed(flux("flux run id -un"), timeout=120).split() == ["flux"]
    refused = head.fail(run_as("alice", "FLUX_URI=local:///run/flux/local flux run true"), timeout=120)
    assert "Operation not permitted" in refused, refused

with subtest("a machine that starts again is in the system, by its unit alone"):
    node1.reboot()
    head.wait_until_succeeds(flux('test "$(flux resource list -n -s free -o {nnodes})" = 2'), timeout=240)

with subtest("a job goes on while the package of its node is renewed and the broker restarted"):
    script = "until test -e /tmp/go; do sleep 0.2; done; echo went on"
    job = head.succeed(flux(f'flux submit --requires=host:node1 sh -c "{script}"')).strip()
    head.succeed(flux(f"flux job wait-event -t 60 {job} start"), timeout=120)
    before = node1.succeed("systemctl show -P MainPID flux")
    node1.succeed("DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall /payload/ferroflux.deb")
    assert node1.succeed("systemctl show -P MainPID flux") == before
    node1.succeed("systemctl restart flux", timeout=300)
    assert node1.succeed("systemctl show -P MainPID flux") != before
    node1.succeed("touch /tmp/go")
    assert head.succeed(flux(f"flux job attach {job}"), timeout=120).split() == ["went", "on"]

with subtest("removed, it leaves no unit, no process and no program behind"):
    head.succeed(flux("flux submit -N2 sleep inf"))
    for machine in machines:
        machine.succeed("DEBIAN_FRONTEND=noninteractive apt-get remove -y ferroflux", timeout=300)
        machine.fail("systemctl cat flux.service")
        machine.wait_until_fails("pgrep -u flux -l", timeout=60)
        machine.wait_until_succeeds("! systemctl list-units --all --no-legend 'flux*' | grep .", timeout=60)
        machine.fail("find /etc/systemd /lib/systemd /run/systemd -name 'flux.service' | grep .")
        machine.fail("ls /usr/bin/flux*")
        machine.succeed("test -e /etc/flux/system/conf.d/system.toml", "test -d /var/lib/flux")

with subtest("purged, it has forgotten its jobs, and what others wrote stays"):
    for machine in machines:
        machine.succeed("DEBIAN_FRONTEND=noninteractive apt-get purge -y ferroflux")
        machine.fail("test -e /var/lib/flux")
        machine.succeed("test -e /etc/flux/system/curve.cert")
