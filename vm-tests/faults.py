"""Nodes crash, are cut off, and lose their brokers: what was acknowledged is there afterwards."""


def flux(command):
    """As the owner of the instance."""
    return f"runuser -u flux -- sh -c 'cd /tmp && {command}'"


def up(count):
    """So many brokers are in the instance."""
    ask = "n=$(flux resource list -n -s up -o {nnodes}); echo $n nodes are up; flux overlay status; test $n = "
    head.wait_until_succeeds(flux(f"{ask}{count}"), timeout=120)


start_all()
for machine in machines:
    machine.wait_for_unit("flux")
up(3)

with subtest("a compute node crashes and comes back"):
    node2.crash()
    up(2)
    assert sorted(head.succeed(flux("flux run -N2 hostname"), timeout=120).split()) == ["head", "node1"]
    node2.start()
    node2.wait_for_unit("flux")
    up(3)
    head.succeed(flux("flux run -N3 true"), timeout=120)

with subtest("a node is cut off and comes back"):
    node1.block()
    up(2)
    node1.unblock()
    up(3)
    head.succeed(flux("flux run -N3 true"), timeout=120)

with subtest("a job goes on while the broker of its node is killed"):
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo line \\$i; sleep 1; done"
    job = head.succeed(flux(f'flux submit --requires=host:node1 sh -c "{script}"')).strip()
    head.succeed(flux(f"flux job wait-event -t 60 {job} start"), timeout=120)
    node1.succeed('kill -9 "$(systemctl show -P MainPID flux)"')
    head.succeed(flux(f"flux job wait-event -t 240 {job} clean"), timeout=300)
    lines = head.succeed(flux(f"flux job attach {job}"), timeout=120).splitlines()
    assert lines == [f"line {i}" for i in range(1, 21)], lines
    up(3)

with subtest("the leader crashes: no job that was acknowledged is lost"):
    held = head.succeed(flux("flux submit --cc=1-50 --urgency=hold true")).split()
    assert len(held) == 50, held
    head.crash()
    head.start()
    head.wait_for_unit("flux")
    known = head.wait_until_succeeds(flux("flux jobs -n -o {id}"), timeout=300).split()
    assert sorted(known) == sorted(held), (len(known), len(held))
    up(3)
    head.succeed(flux("flux run -N3 true"), timeout=240)
