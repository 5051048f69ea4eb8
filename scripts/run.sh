#!/bin/sh
# Shows an instance at work: four brokers on this machine, two MPI programs in them, and what the
# instance remembers of the jobs. Exits 0 only if every job succeeded and nothing is left behind.
# The programs must be built: `make run` does both.
set -eu
cd "$(dirname "$0")/.."

bin=$(scripts/bin-dir.sh "${PROFILE:-fast}")
for program in flux flux-broker flux-shell; do
    if [ ! -x "$bin/$program" ]; then
        echo "run: $bin/$program is not built; use: make run" >&2
        exit 1
    fi
done
PATH=$bin:$PATH
export PATH

# Debian has several MPIs; its plain mpicc may be another one's.
mpicc=$(command -v mpicc.mpich || echo mpicc)
mkdir -p examples/build
for name in ring allreduce; do
    if [ -z "$(find examples/build -name "$name" -newer "examples/$name.c")" ]; then
        "$mpicc" -std=c11 -O2 -Wall -Wextra -o "examples/build/$name" "examples/$name.c"
    fi
done

# Everything the instance makes goes below a directory of this run, whose name is in the environment
# of all its processes: that is how we find what it might leave behind.
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/flux-run.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

status=0
flux start -s4 examples/main-job.sh || status=$?

left=
for environ in $(grep -lsxzF "TMPDIR=$TMPDIR" /proc/[0-9]*/environ); do
    pid=${environ#/proc/}
    pid=${pid%/environ}
    # The commands of this script are among them; the instance's programs are not ours.
    case $(cat "/proc/$pid/comm" 2>/dev/null) in
    flux*) left="$left $pid" ;;
    esac
done
if [ -n "$left" ]; then
    echo "run: processes are left behind:$left" >&2
    status=1
fi
if [ -n "$(ls -A "$TMPDIR")" ]; then
    echo "run: files are left behind: $(cd "$TMPDIR" && echo *)" >&2
    status=1
fi
[ "$status" -eq 0 ] && echo "run: all jobs succeeded and the instance is gone without a trace"
exit "$status"
