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
say flux run -N4 -n$tasks build/allreduce
job=$(flux job last)
say flux job eventlog "$job"
say flux jobs -a
