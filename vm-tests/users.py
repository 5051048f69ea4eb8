"""Users who are not the owner of the system: what they see, what they cannot do, and what they can do by themselves."""


def run_as(user, command):
    return f"runuser -u {user} -- sh -c 'cd /tmp && {command}'"


def flux(command):
    """As the owner of the system."""
    return run_as("flux", command)


def alice(command):
    """As a guest of the system."""
    return run_as("alice", command)


def refused(machine, command, why):
    said = machine.fail(command, timeout=120)
    assert why in said, f"{command}: {said}"


start_all()
for machine in machines:
    machine.wait_for_unit("flux")
    machine.succeed("useradd --create-home alice", "useradd --create-home bob")
head.wait_until_succeeds(flux('test "$(flux resource list -n -s free -o {nnodes})" = 3'), timeout=120)
job = head.succeed(flux("flux submit -N1 --requires=host:head sleep inf")).strip()
head.succeed(flux(f"flux job wait-event -t 60 {job} start"), timeout=120)

with subtest("a system that is not open admits its owner alone, and not root either"):
    refused(head, alice("flux jobs -A"), "Operation not permitted")
    refused(node1, alice("flux getattr size"), "Operation not permitted")
    refused(head, "flux getattr size", "Operation not permitted")

with subtest("the leader's configuration opens it on all nodes, while it runs"):
    head.succeed("echo 'access.allow-guest-user = true' > /etc/flux/system/conf.d/guests.toml")
    head.succeed("systemctl reload flux", timeout=120)
    for machine in machines:
        assert machine.wait_until_succeeds(alice("flux getattr size"), timeout=60).strip() == "3"

with subtest("guests look at the system and its jobs, from any node"):
    for machine in machines:
        assert machine.succeed(alice("flux resource list -n -s up -o {nnodes}"), timeout=120).strip() == "3"
        assert job in machine.succeed(alice("flux jobs -A -n -o {id}"), timeout=120)

with subtest("they change nothing of the system"):
    owners = "Request requires owner credentials"
    for command in ["queue stop", "resource drain head", "setattr log-stderr-level 7", "config reload", "module remove heartbeat"]:
        refused(head, alice(f"flux {command}"), owners)
    refused(head, alice("flux dmesg"), owners)
    refused(node1, alice("flux exec -r 1 true"), "Operation not permitted")
    refused(node1, alice("flux exec -r 0 true"), "Operation not permitted")
    refused(head, alice("flux shutdown"), "Operation not permitted")

with subtest("they do not touch the jobs of others, nor read what these say"):
    refused(head, alice(f"flux job kill {job}"), "guests may only send signals to their own jobs")
    refused(head, alice(f"flux cancel {job}"), "ot permitted")
    refused(head, alice(f"flux job urgency {job} 1"), "ot permitted")
    refused(head, alice(f"flux job attach {job}"), "that is not your job")
    refused(head, alice(f"flux job info {job} jobspec"), "access is restricted")
    assert head.succeed(flux(f"flux jobs -n -o {{state}} {job}")).strip() == "RUN"

with subtest("they read and write no keys of the system or of its jobs"):
    name = head.succeed(flux(f"flux job namespace {job}")).strip()
    assert name in head.succeed(flux("flux kvs namespace list"))
    for where in ["", f"--namespace={name}"]:
        refused(head, alice(f"flux kvs dir {where}"), "ot permitted")
        refused(head, alice(f"flux kvs put {where} a=1"), "ot permitted")
    refused(head, alice("flux kvs namespace create mine"), "ot permitted")
    refused(head, alice("flux content load sha1-da39a3ee5e6b4b0d3255bfef95601890afd80709"), "ot permitted")

with subtest("nor files: state, certificate, what the broker runs with"):
    for machine in machines:
        machine.fail(run_as("alice", "ls /var/lib/flux"))
        machine.fail(run_as("alice", "cat /etc/flux/system/curve.cert"))
        machine.fail(run_as("alice", "touch /run/flux/x"))
        machine.fail(run_as("alice", "find /run/flux -writable -type f | grep ."))
    open_to_others = head.succeed("find /run/flux -type d -perm /022 -o -type f -perm /022")
    assert open_to_others == "", open_to_others

with subtest("without a signature nothing of a guest is taken, least of all as the owner's"):
    refused(head, alice("flux submit id"), "only the instance owner can use sign-type=none")
    refused(head, alice("flux run --urgency=31 id"), "only the instance owner")
    assert head.succeed(flux("flux jobs -A -a -n -o {username}")).split() == ["flux"]

with subtest("an instance of one's own is for oneself"):
    head.succeed("systemd-run --unit=of-alice --uid=alice flux start -Slocal-uri=local:///tmp/of-alice sleep inf")
    head.wait_until_succeeds(run_as("alice", "FLUX_URI=local:///tmp/of-alice flux run id -un | grep -x alice"), timeout=120)
    for other in ["bob", "flux"]:
        refused(head, run_as(other, "FLUX_URI=local:///tmp/of-alice flux getattr size"), "ermi")
    head.succeed("systemctl stop of-alice")

with subtest("closed again, it admits no guest"):
    head.succeed("rm /etc/flux/system/conf.d/guests.toml")
    head.succeed("systemctl reload flux", timeout=120)
    for machine in machines:
        machine.wait_until_fails(alice("flux getattr size"), timeout=60)

print("users: NOT RUN: jobs of guests, which need signatures and an IMP: there is neither")
