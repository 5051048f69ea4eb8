#!/bin/sh
# What `make run` runs as the initial program of an instance of four brokers.
set -eu
cd "$(dirname "$0")"

# Two tasks per node where nodes have two cores.
tasks=8
[ "$(nproc)" -ge 2 ] || tasks=4

say() { printf '\n$ %s\n' "$*"; "$@"; }

say flux resource list
say flux run -N4 -n$tasks build/ring

# The second one is submitted, then followed, so that its id is known.
printf '\n$ flux submit -N4 -n%s build/allreduce\n' "$tasks"
job=$(flux submit -N4 -n$tasks build/allreduce)
echo "$job"
say flux job attach "$job"
flux job wait-event "$job" clean >/dev/null
say flux job eventlog -H "$job"
say flux jobs -a
