#!/bin/sh
# Makes sure that everything the build and the tests need is installed (Debian and its relatives).
# Root gets missing packages installed; others are told the command. Exits 0 when all is there.
set -eu
cd "$(dirname "$0")/.."

# package: what needs it
#   build-essential  linker; C compiler for the SQLite that sqlx brings along
#   pkg-config       finds the two libraries below
#   libzmq3-dev      overlay network: ZeroMQ with CURVE
#   libhwloc-dev     resource discovery
#   mpich, libmpich-dev  MPI programs of examples/ and tests: mpicc, mpiexec.hydra
#   python3          scripts of bench/
PACKAGES="build-essential pkg-config libzmq3-dev libhwloc-dev mpich libmpich-dev python3"
# What only some checks need; they say so where it is missing.
#   nix-bin, shellcheck, systemd  read the files of their kind
#   openmpi-bin, libopenmpi-dev, libpmix-dev  programs of Open MPI and PMIx, beside those of MPICH
#   the rest         starts virtual machines: vm-tests/README.md
WANTED="nix-bin shellcheck systemd openmpi-bin libopenmpi-dev libpmix-dev qemu-system-x86 qemu-utils mmdebstrap vde2 busybox-static e2fsprogs"

installed() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

if command -v dpkg-query >/dev/null; then
    missing=
    for package in $PACKAGES; do
        installed "$package" || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        install="apt-get install -y --no-install-recommends$missing"
        if [ "$(id -u)" -ne 0 ]; then
            echo "deps: packages are missing; run: sudo $install" >&2
            exit 1
        fi
        echo "deps: installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        # The list holds package names only, so splitting it into words is meant.
        # shellcheck disable=SC2086
        $install
    fi
    missing=
    for package in $WANTED; do
        installed "$package" || missing="$missing $package"
    done
    if [ -n "$missing" ] && [ "$(id -u)" -eq 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086
        { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } ||
            echo "deps: not installed:$missing; some checks will be skipped" >&2
    fi
else
    echo "deps: not Debian; make sure you have the equivalents of: $PACKAGES" >&2
fi

# rustup puts its programs here, and not every shell has been told yet.
if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    echo "deps: cargo is in ${CARGO_HOME:-$HOME/.cargo}/bin, which is not in PATH" >&2
    exit 1
fi

wanted=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
how="install rustup (https://rustup.rs): it then fetches Rust $wanted by itself"
if ! command -v cargo >/dev/null; then
    echo "deps: cargo is missing; $how" >&2
    exit 1
fi
# With rustup this installs the toolchain on first use; without it, it tells what there is.
version=$(cargo --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$wanted" "$version" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "deps: cargo $version is too old, this needs $wanted; $how" >&2
    exit 1
fi
