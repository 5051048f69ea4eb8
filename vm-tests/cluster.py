"""A leader and two compute nodes boot by their units alone, and run jobs together."""


def flux(command):
    """As the owner of the instance."""
    return f"runuser -u flux -- sh -c 'cd /tmp && {command}'"


start_all()
with subtest("the units start"):
    for machine in machines:
        machine.wait_for_unit("flux")

with subtest("the leader sees all nodes"):
    head.wait_until_succeeds(flux('test "$(flux resource list -n -s free -o {nnodes})" = 3'), timeout=120)

with subtest("a job on all nodes gives three names"):
    names = head.succeed(flux("flux run -N3 hostname"), timeout=120)
    assert sorted(names.split()) == ["head", "node1", "node2"], names

with subtest("jobs can be run from any node"):
    assert node2.succeed(flux("flux run -N1 --requires=host:node1 hostname"), timeout=120).strip() == "node1"

with subtest("what has run is remembered"):
    jobs = head.succeed(flux("flux jobs -a -n -o {result}"))
    assert jobs.split() == ["COMPLETED"] * 2, jobs

with subtest("an MPI program talks over the network"):
    # Its output counts, not its end: MPICH 4.0 over UCX sometimes never leaves MPI_Finalize (docs/testing.md).
    said = head.succeed(flux("flux run -t 60s -N3 -n3 flux-test-ring || true"), timeout=180)
    assert "ring: 3 hops, sum of ranks 3" in said, said
